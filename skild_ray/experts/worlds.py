"""The worlds that have a scripted expert, by name: what play is there, and how a task is demonstrated."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skild_ray.config import Experiment, load_experiment, override_experiment
from skild_ray.errors import ConfigError


def _world(name: str, environment: str, play: Mapping[str, Any], demonstrations: Mapping[str, Any]) -> Experiment:
    return Experiment.model_validate(
        {
            "name": name,
            "environment": {"id": environment},
            "data": {
                "task_agnostic": [{"generate": {"expert": name, **play}}],
                "demonstrations": [{"generate": {"expert": name, **demonstrations}}],
            },
        }
    )


# Each as an experiment with one source of either kind. The argument `task` of the environment chooses the task.
WORLDS: dict[str, Experiment] = {
    "maze": _world(
        "maze",
        "skild_ray/Maze-v0",
        play={"episodes": 3000, "env_kwargs": {"task": "random"}, "action_noise": 0.5},
        demonstrations={"episodes": 5},
    ),
    "kitchen": _world(
        "kitchen",
        "skild_ray/Kitchen-v0",
        play={"episodes": 600, "env_kwargs": {"task": "play", "max_episode_steps": 400}, "action_noise": 0.1},
        demonstrations={"episodes": 20, "action_noise": 0.05},
    ),
    "office": _world(
        "office",
        "skild_ray/Office-v0",
        play={"episodes": 2000, "env_kwargs": {"task": "random"}, "action_noise": 0.2},
        demonstrations={"episodes": 50, "action_noise": 0.1},
    ),
}

# Environments of others whose observations a world's environment understands.
RELATED = {"FrankaKitchen-v1": "kitchen"}


def load_world_or_experiment(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a world, or else that of a file, with `a.b=value` overrides.

    Raises:
        ConfigError: if it is neither, or see `load_experiment`.
    """
    if name in WORLDS:
        return override_experiment(WORLDS[name], overrides)
    if Path(name).suffix not in (".yaml", ".yml") and not os.path.isfile(os.path.expanduser(name)):
        raise ConfigError(f"{name!r} is neither a world ({', '.join(WORLDS)}) nor an experiment file")
    return load_experiment(name, overrides)


def world_of(environment_id: str) -> Experiment | None:
    """The world whose environment this is, or whose environment understands its observations."""
    if environment_id in RELATED:
        return WORLDS[RELATED[environment_id]]
    return next((world for world in WORLDS.values() if world.environment.id == environment_id), None)
