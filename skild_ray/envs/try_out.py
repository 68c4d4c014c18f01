"""A short trial of an environment: one that nothing can be learned from is found before anything is started."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from skild_ray.envs.conventions import LIMIT_KEY, SOLVED, episode_limit, not_finite, offered
from skild_ray.errors import SkildError, described

STEPS = 20
UNLIMITED_STEPS = 1_000
"""In which an episode of random actions has to end if the environment announces no limit."""


class _Unusable(Exception):
    """What of an environment's answer is wrong."""


def try_out(env: gym.Env, id: str) -> None:
    """Play two episodes of uniformly random actions, each for STEPS env steps at most, and look at every answer.

    If no limit on the steps of an episode is known (`episode_limit`), the first one has to end within UNLIMITED_STEPS.

    Raises:
        SkildError: the environment raises; what `reset` or `step` returns is not what Gymnasium's API says or not
            finite; sub-tasks are named but not counted; or an episode does not end.
    """
    limited = episode_limit(env) is not None
    rng, shape = np.random.default_rng(0), env.action_space.shape or ()
    try:
        for seed in range(2):
            _require_start(env.reset(seed=seed, options=None), env)
            must_end = not limited and seed == 0
            for step in range(1, (UNLIMITED_STEPS if must_end else STEPS) + 1):
                action = rng.uniform(-1.0, 1.0, shape).astype(np.float32)
                if _ended(env.step(action), env, f"in step {step} of an episode with random actions (seed {seed})"):
                    break
            else:
                if must_end:
                    raise _Unusable(
                        "it announces no limit on the steps of an episode, and one with random actions has not ended "
                        f"after {UNLIMITED_STEPS:,} steps; set {LIMIT_KEY}"
                    )
    except _Unusable as wrong:
        raise SkildError(f"environment {id!r}: {wrong}") from None
    except Exception as error:  # whatever a user's environment raises
        raise SkildError(f"environment {id!r} fails: {described(error)}") from error


def _require_start(answer: Any, env: gym.Env) -> None:
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise _Unusable(
            f"reset() must return (observation, info), and returns {_kind(answer)}; old Gym's API is another"
        )
    observation, info = answer
    _require_observation(observation, env, "after reset()")
    _require_info(info, "of reset()")
    names = offered(env, "subtasks")
    if names is not None and not (
        isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(name, str) for name in names)
    ):
        raise _Unusable(f"its 'subtasks' must be a list or tuple of names, and are {names!r}")


def _ended(answer: Any, env: gym.Env, when: str) -> bool:
    """Whether the episode is over."""
    if not (isinstance(answer, tuple) and len(answer) == 5):
        count = f"{len(answer)} values" if isinstance(answer, tuple) else _kind(answer)
        raise _Unusable(
            f"step() must return (observation, reward, terminated, truncated, info), and returns {count}; old Gym's "
            "API is another"
        )
    observation, reward, terminated, truncated, info = answer
    if not _is_number(reward):
        raise _Unusable(f"its reward is {_kind(reward)}, not a number")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not (_is_number(flag) and flag in (0, 1)):
            raise _Unusable(f"its {name!r} is {_kind(flag)}, not true or false")
    _require_observation(observation, env, when, reward)
    _require_info(info, "of step()")
    names = offered(env, "subtasks") or ()
    if names and SOLVED not in info:
        raise _Unusable(
            f"it names sub-tasks, but info[{SOLVED!r}], how many of them are solved so far, is missing in its steps"
        )
    solved = info.get(SOLVED, 0)
    if not isinstance(solved, int | np.integer) or (names and not 0 <= solved <= len(names)):
        wanted = f"a whole number from 0 to {len(names)}" if names else "a whole number"
        raise _Unusable(f"info[{SOLVED!r}] must be {wanted}, and is {solved!r} {when}")
    return bool(terminated or truncated)


def _require_observation(observation: Any, env: gym.Env, when: str, reward: Any = 0.0) -> None:
    try:
        values = np.asarray(observation)
    except ValueError:  # a list of unequal lists
        values = np.asarray(None)
    if values.dtype.kind not in "biuf":
        raise _Unusable(f"an observation is {_kind(observation)}, not {env.observation_space.shape} numbers")
    if values.shape != env.observation_space.shape:
        raise _Unusable(f"an observation has shape {values.shape}, its space says {env.observation_space.shape}")
    with np.errstate(over="ignore"):
        wrong = not_finite(values.astype(np.float32), reward)
    if wrong:
        raise _Unusable(f"{wrong} {when}")


def _require_info(info: Any, of: str) -> None:
    if not isinstance(info, dict):
        raise _Unusable(f"the info {of} is {_kind(info)}, not a dictionary")


def _is_number(value: Any) -> bool:
    return np.shape(value) == () and np.asarray(value).dtype.kind in "biuf"


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}" + ("" if value.dtype.kind in "biuf" else f" and type {value.dtype}")
    return f"{value!r}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"
