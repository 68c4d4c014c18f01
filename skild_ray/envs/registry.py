"""Environments by name."""

import copy
import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from skild_ray.errors import ConfigError, one_line

# Wrappers that only check how the environment is used: they cost time in every step and change nothing.
_PASSIVE = (gym.wrappers.PassiveEnvChecker, gym.wrappers.OrderEnforcing)


def make_env(id: str, kwargs: Mapping[str, Any]) -> gym.Env:
    """Make an environment.

    Args:
        id: a Gymnasium id (`module:id` imports the module first), or `module:attribute` of a callable that returns an
            environment.
        kwargs: its keyword arguments; `max_episode_steps` goes to the environment if it has such an argument, else to
            Gymnasium's `TimeLimit`.

    Raises:
        ConfigError: if there is no such environment or it refuses the arguments.
    """
    try:
        env = _maker(id)(**kwargs)
    except ConfigError:
        raise
    except Exception as error:  # whatever a user's environment raises is a matter of its id and arguments
        raise ConfigError(f"environment {id!r}: {one_line(error)}") from error
    if not isinstance(env, gym.Env):
        raise ConfigError(f"environment {id!r} is a {type(env).__name__}, not a gymnasium.Env")
    while isinstance(env, _PASSIVE):
        env = env.env
    return env


def _maker(id: str) -> Any:
    module_name, colon, name = id.partition(":")
    if colon:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ConfigError(f"environment {id!r}: cannot import {module_name!r}: {one_line(error)}") from error
        maker = getattr(module, name, None)
        if callable(maker):
            return maker
        if name not in gym.registry:
            raise ConfigError(f"environment {id!r}: module {module_name!r} has no callable {name!r}")
    elif id not in gym.registry:
        ours = [known for known in gym.registry if known.startswith("skild_ray/")]
        nearest = difflib.get_close_matches(id, ours, n=1, cutoff=0.0)[0]
        raise ConfigError(f"environment {id!r} is not registered; the nearest is {nearest!r}")
    return lambda **kwargs: _make_registered(name if colon else id, kwargs)


def _make_registered(id: str, kwargs: dict[str, Any]) -> gym.Env:
    # `gym.make` keeps `max_episode_steps` for itself; what stands in the spec reaches the environment.
    spec = copy.deepcopy(gym.spec(id))
    if spec.max_episode_steps is None and "max_episode_steps" in kwargs and spec.entry_point is not None:
        maker = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        if "max_episode_steps" in inspect.signature(maker).parameters:
            spec.kwargs["max_episode_steps"] = kwargs.pop("max_episode_steps")
    return gym.make(spec, **kwargs)
