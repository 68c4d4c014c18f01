"""The low-level environment, and the trajectories that are learned from."""

import os
import re
from collections.abc import Mapping
from operator import lt
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from skild_ray.config.section import Section
from skild_ray.errors import ConfigError

OBSERVATION_KEYS = "observation_keys"
"""Among the keyword arguments of an environment: those of its observations that are chosen."""
ACTION_BOUNDS = "action_bounds"
"""Among them: what -1 and 1 stand for, `low` and `high` in raw units; empty for its own bounds."""


class ActionScale(Section):
    """How actions in raw units become the ones in [-1, 1] that are learned; see `skild_ray.envs.scaled_actions`."""

    scale: Literal["none", "bounds", "minmax"] = Field(
        "none",
        description="none: they are in [-1, 1]; bounds: from 'low' to 'high', by default the environment's own bounds; "
        "minmax: from the smallest to the largest in all data sets of the experiment",
    )
    low: list[float] | None = Field(None, min_length=1, description="raw action that -1 stands for, in each dimension")
    high: list[float] | None = Field(None, min_length=1, description="raw action that 1 stands for")

    @model_validator(mode="after")
    def _bounds(self) -> "ActionScale":
        if (self.low is None) != (self.high is None):
            raise ValueError("give both 'low' and 'high'")
        if self.low is not None and self.high is not None:
            if self.scale != "bounds":
                raise ValueError("'low' and 'high' are for 'scale: bounds'")
            if len(self.low) != len(self.high) or not all(map(lt, self.low, self.high)):
                raise ValueError("'low' must be below 'high' in each dimension")
        return self


class Environment(Section):
    """The low-level environment: anything that Gymnasium can make."""

    id: str = Field(description="Gymnasium id, or 'module:attribute' of a callable that returns an environment")
    kwargs: dict[str, Any] = Field(default={}, description="keyword arguments of the environment")
    observations: list[str] | None = Field(
        None,
        min_length=1,
        description="keys of its dictionary of observations, put side by side in this order; also of the data sets",
    )
    actions: ActionScale = ActionScale()

    @property
    def arguments(self) -> dict[str, Any]:
        """What `skild_ray.envs.make_env` makes it with: `kwargs`, and what becomes of observations and actions.

        Raises:
            ConfigError: the bounds of its actions have yet to be measured, see `with_action_bounds`.
        """
        more: dict[str, Any] = {} if self.observations is None else {OBSERVATION_KEYS: self.observations}
        if self.actions.scale == "minmax":
            raise ConfigError("environment.actions: minmax is measured when an experiment's data sets are read")
        if self.actions.scale == "bounds":
            more[ACTION_BOUNDS] = self.actions.model_dump(include={"low", "high"}, exclude_none=True)
        return self.kwargs | more


class Generate(Section):
    """Trajectories that a scripted expert makes on the spot by acting in the environment."""

    expert: str = Field(description="a name from skild_ray.worlds, or 'module:attribute' of an expert class")
    episodes: int = Field(gt=0, description="episodes to keep")
    env_kwargs: dict[str, Any] = Field(default={}, description="merged over environment.kwargs while generating")
    expert_kwargs: dict[str, Any] = Field(default={}, description="keyword arguments of the expert")
    action_noise: float = Field(0.0, ge=0, description="std of the noise on executed actions, not on those to clone")
    seed: int | None = Field(
        None, ge=0, description="of the episodes; default: the experiment's, so each seed of it has its own data"
    )


class Source(Section):
    """One source of trajectories: a stored data set or a scripted expert, exactly one of them."""

    dataset: str | None = Field(
        None,
        description="Minari id, path of a data set in one of the formats of skild_ray.data.registry, 'format:path', or "
        "'module:attribute:path' with another package's reader",
    )
    generate: Generate | None = None
    observations: list[str] | None = Field(
        None, min_length=1, description="keys of the data set's observations, if they are not those of the environment"
    )
    filter: str | None = Field(None, description="part of the data set, such as robomimic's 'train'")
    weight: float = Field(1.0, gt=0, description="share of the sampled windows, relative to the other sources")
    select: list[str] | None = Field(
        None, min_length=1, description="use only the episodes that solve exactly these sub-tasks in this order"
    )
    max_episodes: int | None = Field(None, gt=0, description="use the first so many of these episodes only")
    negatives: bool = Field(
        True, description="whether D's negatives include these task-agnostic states; false: they repeat demonstrations"
    )

    @field_validator("dataset")
    @classmethod
    def _at_home(cls, dataset: str | None) -> str | None:
        return dataset and os.path.expanduser(dataset)

    @model_validator(mode="after")
    def _exactly_one(self) -> "Source":
        if self.dataset is None and self.generate is None:
            raise ValueError("a new source needs 'dataset' or 'generate'")
        if self.dataset is not None and self.generate is not None:
            raise ValueError("give exactly one of 'dataset' and 'generate'; if one is inherited, set it to null")
        if self.generate is not None and (self.observations or self.filter):
            raise ValueError(
                "'observations' and 'filter' choose from a stored data set; an expert makes what is wanted"
            )
        return self


class Data(Section):
    """Where the two kinds of trajectories come from: sources by name, in the order in which they are used.

    A source of null is left out, so that a file can drop one that it inherits. The entries of a list have the names
    "0", "1", ...
    """

    task_agnostic: dict[str, Source]
    demonstrations: dict[str, Source]
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the episodes held out, at least one")

    @field_validator("task_agnostic", "demonstrations", mode="before")
    @classmethod
    def _by_name(cls, sources: Any) -> Any:
        if isinstance(sources, list):
            sources = {str(index): source for index, source in enumerate(sources)}
        if not isinstance(sources, Mapping):
            return sources
        named = {name: source for name, source in sources.items() if source is not None}
        if not named:
            raise ValueError("give at least one source")
        for name in named:
            if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", name)):
                raise ValueError(
                    f"{name!r} is not a valid source name: use letters, digits, _ and -, in quotes if it is a number"
                )
        return named

    @field_validator("task_agnostic")
    @classmethod
    def _some_negatives(cls, sources: dict[str, Source]) -> dict[str, Source]:
        if not any(source.negatives for source in sources.values()):
            raise ValueError("one source at least must have 'negatives: true', for the discriminator to learn from")
        return sources
