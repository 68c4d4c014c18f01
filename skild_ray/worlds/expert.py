"""What a scripted demonstrator is."""

from typing import Any, Protocol, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Env = TypeVar("Env", bound=gym.Env)


def unwrapped(env: gym.Env, kind: type[Env], expert: str) -> Env:
    """The environment inside all wrappers, for the expert of this name.

    Raises:
        TypeError: if it is not of this kind.
    """
    found = env.unwrapped
    if not isinstance(found, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(f"the expert {expert!r} acts in {article} {kind.__name__}, not in a {type(found).__name__}")
    return found


class Expert(Protocol):
    """Solves an environment's task from its observations and public attributes; it acts through `env.step` only.

    The same generator state and the same observations give the same actions. An attribute `version` of the class, 1
    where there is none, is to be raised with every change of what it does: data sets that it made are made anew then.

    A class method `prepare(**kwargs)`, where there is one, is called once where a generation is started, and what it
    returns are the keyword arguments with which the workers construct the expert: for files, which only that machine
    may have.
    """

    def __init__(self, env: gym.Env, rng: np.random.Generator, **kwargs: Any): ...

    def reset(self, observation: NDArray[np.float32]) -> None:
        """Prepare for the episode that `env.reset` just began."""

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action for this observation, without any exploration noise."""
