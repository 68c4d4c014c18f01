"""OGBench as it is installed: its environments by name, without its warnings, and the random numbers that it draws."""

import warnings
from collections.abc import Mapping
from functools import cache
from types import TracebackType
from typing import Any

import gymnasium as gym
import numpy as np

try:
    import dm_control.mjcf
    import ogbench  # registers its environments
except ImportError as error:
    raise ImportError("OGBench is missing: pip install 'skild_ray[ogbench]'") from error

# Its environments make a Box of float64 bounds at every reset.
warnings.filterwarnings("ignore", message=".*precision lowered by casting")

__all__ = ["GlobalRandom", "dm_control", "environment_names", "is_manipulation", "make", "ogbench"]

SINGLE_TASK = "-singletask-v0"


@cache
def environment_names() -> tuple[str, ...]:
    """Its environments with observations of numbers, as OGBench names them: scene, cube-double, antmaze-large, ..."""
    names = (id.removesuffix(SINGLE_TASK) for id in gym.registry if id.endswith(SINGLE_TASK))
    return tuple(name for name in names if not name.startswith("visual-"))


def is_manipulation(name: str) -> bool:
    """Whether an arm acts in the environment, rather than a body in a maze."""
    return str(gym.spec(f"{name}{SINGLE_TASK}").entry_point).startswith("ogbench.manipspace")


def make(id: str, kwargs: Mapping[str, Any]) -> tuple[Any, int]:
    """An environment of OGBench without any wrapper, and the step limit that it is registered with."""
    spec = gym.spec(id)
    assert spec.max_episode_steps is not None
    return gym.make(spec, disable_env_checker=True, **kwargs).unwrapped, spec.max_episode_steps


class GlobalRandom:
    """NumPy's global generator, which parts of OGBench draw from, with a state of its own within `with`.

    What is drawn depends on the seed and on earlier blocks of this object only, and nothing outside notices it.

    Args:
        seed: of the first block; without one the system gives it.
    """

    def __init__(self, seed: int | None = None):
        self._own = np.random.RandomState(seed).get_state()

    def __enter__(self) -> None:
        self._others = np.random.get_state()  # noqa: NPY002
        np.random.set_state(self._own)  # noqa: NPY002

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._own = np.random.get_state()  # noqa: NPY002
        np.random.set_state(self._others)  # noqa: NPY002
