"""What an environment has to be beyond a `gymnasium.Env`, and what it may offer, itself or in a wrapper around it."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from skild_ray.errors import ConfigError

SOLVED = "subtasks_solved"
ACTION_TOLERANCE = 1e-3
"""What rounding may add to actions in [-1, 1]."""
ENDLESS = 10_000
"""Env steps after which an episode is taken never to end, unless the environment announces longer ones."""
LIMIT_KEY = "environment.kwargs.max_episode_steps"
"""Cuts the episodes of any environment; see `skild_ray.envs.make_env`."""


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


def episode_limit(env: gym.Env) -> int | None:
    """Steps after which an episode is cut, as far as the environment says so: None does not mean that there are none.

    It says so by Gymnasium's wrapper `TimeLimit`, as registered environments do, or by an attribute
    `max_episode_steps`.
    """
    said = [offered(env, name) for name in ("_max_episode_steps", "max_episode_steps")]
    return min((int(limit) for limit in said if isinstance(limit, int | np.integer)), default=None)


def name_of(env: gym.Env) -> str:
    """Its id at Gymnasium, or else module and class."""
    inner = env.unwrapped
    return inner.spec.id if inner.spec else f"{type(inner).__module__}:{type(inner).__qualname__}"


def not_finite(observation: NDArray, reward: Any = 0.0) -> str | None:
    """What of an outcome is not a finite number, for people; None where all is."""
    if not np.isfinite(reward):
        return f"reward {reward}"
    wrong = np.flatnonzero(~np.isfinite(observation))
    return f"observation {np.ravel(observation)[wrong[0]]} in column {wrong[0]}" if len(wrong) else None


def _remedy(observations: spaces.Space) -> str:
    if isinstance(observations, spaces.Dict):
        return f"choose some with environment.observations: [{', '.join(observations.spaces)}]"
    return "gymnasium.wrappers.FlattenObservation makes one of many spaces"


def require_vectors(env: gym.Env, id: str) -> None:
    """Raise ConfigError unless observations are vectors, and actions vectors in [-1, 1]."""
    for name, space, remedy in (
        ("observations", env.observation_space, _remedy(env.observation_space)),
        ("actions", env.action_space, "only continuous actions are learned"),
    ):
        if not (isinstance(space, spaces.Box) and len(space.shape) == 1):
            raise ConfigError(f"environment {id!r}: {name} are {space}, not a vector; {remedy}")
    assert isinstance(env.action_space, spaces.Box)
    if not (np.all(env.action_space.low == -1) and np.all(env.action_space.high == 1)):
        raise ConfigError(
            f"environment {id!r}: actions are {env.action_space}, not in [-1, 1]; "
            "environment.actions: {scale: bounds} makes them so, or gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)"
        )
