"""Environments by name."""

import copy
import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from skild_ray.config.data import ACTION_BOUNDS, OBSERVATION_KEYS
from skild_ray.envs.chosen_observations import ChosenObservations
from skild_ray.envs.conventions import require_vectors
from skild_ray.envs.scaled_actions import ScaledActions
from skild_ray.errors import ConfigError, one_line
from skild_ray.plugins import ENVIRONMENTS, import_by_name, register_environments


def make_env(id: str, kwargs: Mapping[str, Any]) -> gym.Env:
    """Make an environment.

    Args:
        id: a Gymnasium id, which an installed package may register (see `register_environments`; `module:id` imports
            the module first), or `module:attribute` of a callable that returns an environment.
        kwargs: its keyword arguments; `max_episode_steps` goes to the environment if it has such an argument, else to
            Gymnasium's `TimeLimit`, `observation_keys` to `ChosenObservations` and `action_bounds` to `ScaledActions`.
            `Environment.arguments` has all of them.

    Raises:
        ConfigError: if there is no such environment, it refuses the arguments, its observations are no vectors or its
            actions no vectors in [-1, 1].
    """
    arguments = dict(kwargs)
    keys, bounds = (arguments.pop(name, None) for name in (OBSERVATION_KEYS, ACTION_BOUNDS))
    try:
        env = _maker(id)(**arguments)
    except ConfigError:
        raise
    except Exception as error:  # whatever a user's environment raises is a matter of its id and arguments
        raise ConfigError(f"environment {id!r}: {one_line(error)}") from error
    if not isinstance(env, gym.Env):
        raise ConfigError(f"environment {id!r} is a {type(env).__name__}, not a gymnasium.Env")
    if keys is not None:
        env = ChosenObservations(env, keys)
    if bounds is not None:
        env = ScaledActions(env, **bounds)
    require_vectors(env, id)
    return env


def _maker(id: str) -> Callable[..., Any]:
    module_name, colon, name = id.partition(":")
    if colon:
        module = import_by_name(module_name, f"environment {id!r}")
        maker = getattr(module, name, None)
        if callable(maker):
            return partial(_make_called, maker)
        if name not in gym.registry:
            raise ConfigError(
                f"environment {id!r}: module {module_name!r} has no callable {name!r}, and registers none of that id"
            )
        return partial(_make_registered, name)
    if id.startswith("skild_ray/"):
        importlib.import_module("skild_ray.worlds")  # registers them
    register_environments(id)
    if id not in gym.registry:
        beside = f"{id.partition('/')[0]}/"
        known = [other for other in gym.registry if other.startswith(("skild_ray/", beside))]
        nearest = difflib.get_close_matches(id, known, n=1)
        remedy = (
            f"the nearest is {nearest[0]!r}"
            if nearest
            else f"install the package whose entry point '{ENVIRONMENTS}' does that, or name a module: 'module:id', or "
            "'module:attribute' of a callable"
        )
        raise ConfigError(f"environment {id!r} is not registered; {remedy}")
    return partial(_make_registered, id)


def _make_called(maker: Callable[..., Any], **kwargs: Any) -> Any:
    limit = None if _takes_limit(maker) else kwargs.pop("max_episode_steps", None)
    env = maker(**kwargs)
    return env if limit is None else gym.wrappers.TimeLimit(env, limit)


def _make_registered(id: str, **kwargs: Any) -> gym.Env:
    # `gym.make` keeps `max_episode_steps` for itself; what stands in the spec reaches the environment.
    spec = copy.deepcopy(gym.spec(id))
    # Wrappers that only check how the environment is used: they cost time in every step and change nothing.
    spec.disable_env_checker, spec.order_enforce = True, False
    if spec.max_episode_steps is None and "max_episode_steps" in kwargs and spec.entry_point is not None:
        maker = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        if _takes_limit(maker):
            spec.kwargs["max_episode_steps"] = kwargs.pop("max_episode_steps")
    return gym.make(spec, **kwargs)


def _takes_limit(maker: Callable[..., Any]) -> bool:
    return "max_episode_steps" in inspect.signature(maker).parameters
