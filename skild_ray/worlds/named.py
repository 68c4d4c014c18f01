"""Worlds and demonstrators by name."""

import os
from collections.abc import Sequence
from pathlib import Path

from skild_ray.config import Experiment, load_experiment, override_experiment
from skild_ray.errors import ConfigError
from skild_ray.plugins import import_by_name
from skild_ray.worlds import EXPERTS, WORLDS, World
from skild_ray.worlds.expert import Expert


def load_expert(name: str) -> type[Expert]:
    """The expert's class.

    Args:
        name: a key of EXPERTS, or `module:attribute` of a class with the methods of `Expert`.

    Raises:
        ConfigError: if there is no such expert.
    """
    module_name, colon, attribute = EXPERTS.get(name, name).partition(":")
    if not colon:
        raise ConfigError(f"unknown expert {name!r}: it is one of {', '.join(EXPERTS)}, or 'module:attribute'")
    expert = getattr(import_by_name(module_name, f"expert {name!r}"), attribute, None)
    if not (isinstance(expert, type) and hasattr(expert, "reset") and hasattr(expert, "act")):
        raise ConfigError(f"expert {name!r}: {module_name!r} has no class {attribute!r} with methods reset and act")
    return expert


def load_world_or_experiment(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a world, or else that of a file, with `a.b=value` overrides.

    Raises:
        ConfigError: if it is neither, or see `load_experiment`.
    """
    if name in WORLDS:
        return override_experiment(WORLDS[name].experiment, overrides)
    if Path(name).suffix not in (".yaml", ".yml") and not os.path.isfile(os.path.expanduser(name)):
        raise ConfigError(f"{name!r} is neither a world ({', '.join(WORLDS)}) nor an experiment file")
    return load_experiment(name, overrides)


def world_of(environment_id: str) -> World | None:
    """The world whose environment this is, or whose environment understands its observations."""
    return next((world for world in WORLDS.values() if environment_id in (world.environment, *world.understands)), None)
