"""What a world is: an environment with a scripted demonstrator, what it plays, and how it demonstrates a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from skild_ray.config import Data, Environment, Experiment, Generate, Source


@dataclass(frozen=True)
class World:
    """An environment with a scripted demonstrator.

    Attributes:
        name: for the command line, and the namespace of its data sets.
        environment: its Gymnasium id. The environment's argument `task` chooses what a demonstration solves.
        entry_point: `module:class` of the environment.
        experts: name of a demonstrator -> `module:class`.
        play: how task-agnostic data are made.
        demonstrations: how a task is demonstrated.
        kwargs: arguments of the environment that make this world of it.
        understands: ids of other environments whose observations this one's can be read from.
    """

    name: str
    environment: str
    entry_point: str
    experts: Mapping[str, str]
    play: Generate
    demonstrations: Generate
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    understands: tuple[str, ...] = ()

    @property
    def experiment(self) -> Experiment:
        """An experiment in this world, on the data that its demonstrator makes."""
        data = Data(
            task_agnostic={"play": Source(generate=self.play)},
            demonstrations={"scripted": Source(generate=self.demonstrations)},
        )
        return Experiment(name=self.name, environment=Environment(id=self.environment), data=data)


def register(*worlds: World) -> dict[str, World]:
    """Register the environments with Gymnasium; the worlds by name.

    The environments check themselves what Gymnasium's wrappers would, and truncate at their own argument.
    """
    for world in worlds:
        gym.register(
            world.environment,
            world.entry_point,
            disable_env_checker=True,
            order_enforce=False,
            kwargs=dict(world.kwargs),
        )
    return {world.name: world for world in worlds}
