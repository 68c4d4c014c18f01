"""What an environment has to be beyond a `gymnasium.Env`, and what it may offer, itself or in a wrapper around it."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from skild_ray.errors import ConfigError, SkildError, one_line

SOLVED = "subtasks_solved"


def offered(env: gym.Env, name: str) -> Any:
    """An optional attribute of the environment or of a wrapper around it, None where neither has it."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None


def return_range_of(env: gym.Env) -> tuple[float, float] | None:
    """Smallest and largest return of an episode, None where the environment does not tell them.

    Without them there is no interval for the mean return of episodes that all have the same one.
    """
    bounds = offered(env, "return_range")
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def subtasks_of(env: gym.Env) -> tuple[str, ...]:
    """Names of the sub-tasks of the current episode, in the order in which they count; empty where it names none."""
    return tuple(offered(env, "subtasks") or ())


def require_vectors(env: gym.Env, id: str) -> None:
    """Raise ConfigError unless observations are vectors, and actions vectors in [-1, 1]."""
    for name, space, remedy in (
        ("observations", env.observation_space, "gymnasium.wrappers.FlattenObservation makes one of many spaces"),
        ("actions", env.action_space, "only continuous actions are learned"),
    ):
        if not (isinstance(space, spaces.Box) and len(space.shape) == 1):
            raise ConfigError(f"environment {id!r}: {name} are {space}, not a vector; {remedy}")
    assert isinstance(env.action_space, spaces.Box)
    if not (np.all(env.action_space.low == -1) and np.all(env.action_space.high == 1)):
        raise ConfigError(
            f"environment {id!r}: actions are {env.action_space}, not in [-1, 1]; "
            "gymnasium.wrappers.RescaleAction(env, -1.0, 1.0) makes them so"
        )


def try_out(env: gym.Env, id: str) -> None:
    """One reset and one step: an environment that never works is told before anything is started.

    Raises:
        SkildError: the environment raises, an observation does not fit its space, or sub-tasks are named but not
            counted.
    """
    try:
        observation = env.reset(seed=0)[0]
        _require_fit(observation, env)
        observation, _, _, _, info = env.step(np.zeros(env.action_space.shape or (), np.float32))
        _require_fit(observation, env)
    except Exception as error:  # whatever a user's environment raises
        raise SkildError(f"environment {id!r} fails: {type(error).__name__}: {one_line(error)}") from error
    if subtasks_of(env) and SOLVED not in info:
        raise SkildError(
            f"environment {id!r} names sub-tasks, but info[{SOLVED!r}], how many of them are solved so far, is missing "
            "in its steps"
        )


def _require_fit(observation: Any, env: gym.Env) -> None:
    shape = np.shape(observation)
    if shape != env.observation_space.shape:
        raise ValueError(f"an observation has shape {shape}, its space says {env.observation_space.shape}")
