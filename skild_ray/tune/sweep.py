"""The sweep file: which keys of an experiment vary, how they are searched, and by which number trials are ranked."""

import difflib
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator
from ray import tune
from ray.tune.search.sample import Domain

from skild_ray.algorithms.registry import last_stage
from skild_ray.algorithms.train import EPISODE_METRICS
from skild_ray.config import (
    AlgorithmSettings,
    Experiment,
    Section,
    explain,
    load_experiment,
    overridden,
    read_mapping,
    with_values,
)
from skild_ray.errors import ConfigError
from skild_ray.stages import OFFLINE

EVALUATION_METRICS = ("evaluation.success_rate", "evaluation.return_mean", "evaluation.subtasks_mean")
OFFLINE_METRICS = {f"{stage}.best_validation_loss": stage for stage in OFFLINE}
METRICS = (*EPISODE_METRICS, *EVALUATION_METRICS, *OFFLINE_METRICS)

Values = dict[str, Any]
"""One configuration: a value for each key of the space, and the seed."""


class Dimension(Section):
    """The values of one key: a range or a list, exactly one of them."""

    uniform: tuple[float, float] | None = Field(None, description="from, to")
    loguniform: tuple[float, float] | None = Field(None, description="from, to; uniform in the logarithm")
    integer: tuple[int, int] | None = Field(None, description="from, to, both included")
    choice: list[Any] | None = Field(None, min_length=1, description="one of these, drawn")
    grid: list[Any] | None = Field(None, min_length=1, description="every one of these, crossed with other grids")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Dimension":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        if self.range:
            low, high = self.range
            if low >= high or (self.loguniform and low <= 0):
                number = "positive number" if self.loguniform else "number"
                raise ValueError(f"{given[0]} goes from a {number} to a larger one")
        return self

    @property
    def range(self) -> tuple[float, float] | None:
        return self.uniform or self.loguniform or self.integer

    @property
    def extremes(self) -> list[Any]:
        """Values that all have to be valid for every value to be valid: those listed, or the ends and one between."""
        if self.range:
            low, high = self.range
            return [low, high] if self.integer else [low, high, low + 0.618 * (high - low)]
        return self.choice or self.grid or []

    @property
    def domain(self) -> Domain:
        """What Ray Tune draws from."""
        if self.uniform:
            return tune.uniform(*self.uniform)
        if self.loguniform:
            return tune.loguniform(*self.loguniform)
        if self.integer:
            return tune.randint(self.integer[0], self.integer[1] + 1)
        return tune.choice(self.choice or self.grid or [])


class Asha(Section):
    """Asynchronous successive halving: at each milestone only the best go on."""

    grace_env_steps: int = Field(gt=0, description="environment steps before the first trials are stopped")
    reduction_factor: float = Field(3, gt=1, description="one in so many goes on; milestones lie so far apart")


class Median(Section):
    """Stops trials whose best is below the median of the others' means at the same time."""

    grace_env_steps: int = Field(gt=0, description="environment steps before a trial may be stopped")
    min_trials: int = Field(3, gt=0, description="trials to compare with, at least")


class Pbt(Section):
    """Population-based training: bad trials go on from a good one's checkpoint, with its settings perturbed."""

    interval_env_steps: int = Field(gt=0, description="environment steps between perturbations of a trial")
    quantile: float = Field(0.25, gt=0, le=0.5, description="share of the trials that is bad, and that is good")
    resample: float = Field(0.25, ge=0, le=1, description="probability to draw anew instead of going 20 % up or down")


class Scheduler(Section):
    """What becomes of trials that do badly; at most one of these."""

    asha: Asha | None = None
    median: Median | None = None
    pbt: Pbt | None = None

    @model_validator(mode="after")
    def _at_most_one(self) -> "Scheduler":
        if sum(part is not None for part in (self.asha, self.median, self.pbt)) > 1:
            raise ValueError("give one of asha, median and pbt")
        return self


class Sweep(Section):
    """Everything that fixes a sweep."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="name of the sweep's folder, beside the runs",
    )
    experiment: str = Field(description="experiment file, relative to this one")
    set: dict[str, Any] = Field({}, description="other values than the experiment's, by key: algorithm.n_step: 4")
    space: dict[str, Dimension] = Field(min_length=1, description="what varies, by key")
    metric: str = Field("success", description="; ".join(METRICS))
    mode: Literal["max", "min"] = "max"
    search: Literal["random", "grid", "optuna"] = Field("random", description="grid: every key has a 'grid'")
    samples: int = Field(1, gt=0, description="draws from the space; each is crossed with the grids and the seeds")
    search_seed: int = Field(0, ge=0, description="seed of the draws")
    seeds: list[int] | None = Field(
        None,
        min_length=1,
        description="seeds each configuration is trained with and ranked by the mean of, below all others if one of "
        "them fails; default: one",
    )
    scheduler: Scheduler = Scheduler()
    concurrent: int | None = Field(None, gt=0, description="trials at a time; default: as many as the cluster holds")

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in METRICS:
            nearest = difflib.get_close_matches(metric, METRICS, n=1, cutoff=0.0)
            raise ValueError(f"no such metric; the nearest is '{nearest[0]}'")
        return metric

    @model_validator(mode="after")
    def _consistent(self) -> "Sweep":
        grids = [key for key, dimension in self.space.items() if dimension.grid is not None]
        others = [key for key in self.space if key not in grids]
        pbt = self.scheduler.pbt
        if self.search == "grid" and others:
            raise ValueError(f"search is grid, but '{others[0]}' has none")
        if not others and self.samples > 1:
            raise ValueError("samples: nothing is drawn, every key has a grid; use seeds to repeat it")
        if self.search == "optuna" and grids:
            raise ValueError(f"'{grids[0]}' has a grid, optuna needs a choice")
        if (self.search == "optuna" or pbt) and len(self.seeds or [0]) > 1:
            raise ValueError("seeds: optuna and pbt take one")
        if pbt and self.search != "random":
            raise ValueError(f"search is {self.search}, but with pbt only the first settings are drawn, at random")
        if self.metric not in EPISODE_METRICS and self.scheduler != Scheduler():
            raise ValueError(f"scheduler: '{self.metric}' is known at a trial's end only")
        for key in self.space:
            if key in ("name", "runs", "seed"):
                raise ValueError(f"space.{key}: not a setting to search; seeds has its own key")
        return self

    @property
    def offline_stage(self) -> str | None:
        """The offline stage that the metric belongs to, if it does: trials train no further than this."""
        return OFFLINE_METRICS.get(self.metric)

    @property
    def offline_stages(self) -> Sequence[str]:
        """The offline stages that trials need."""
        if self.offline_stage:
            return (*OFFLINE[self.offline_stage].inputs, self.offline_stage)
        return last_stage(self.base).inputs

    @functools.cached_property
    def base(self) -> Experiment:
        """The experiment with what `set` changes, and `runs` by its absolute path: trials run in other places."""
        base = load_experiment(self.experiment)
        try:
            base = with_values(base, self.set)
        except ConfigError as error:
            raise ConfigError(f"set: {error}") from None
        if "://" in base.runs:
            raise ConfigError("runs: a sweep needs a folder that all nodes see, not a URI")
        return with_values(base, {"runs": str(Path(base.runs).resolve()), "seed": (self.seeds or [base.seed])[0]})

    @property
    def folder(self) -> Path:
        """`runs/<name>`: everything of this sweep."""
        return Path(self.base.runs) / self.name

    def configurations(self) -> list[Values]:
        """Every configuration of a random or grid search: drawn values x grids x seeds, the same at every call."""
        rng = np.random.RandomState(self.search_seed)  # what Tune's domains draw with
        grids = {key: dimension.grid for key, dimension in self.space.items() if dimension.grid is not None}
        drawn = [
            {
                key: _plain(dimension.domain.sample(random_state=rng))
                for key, dimension in self.space.items()
                if key not in grids
            }
            for _ in range(self.samples)
        ]
        fixed = [dict(zip(grids, values, strict=True)) for values in product(*grids.values())]
        seeds = self.seeds or [self.base.seed]
        return [{"seed": seed, **sample, **grid} for sample, grid, seed in product(drawn, fixed, seeds)]

    def check(self) -> None:
        """Raise ConfigError unless every value that can be drawn makes a valid experiment, and one that is trained."""
        if not (self.offline_stage or self.base.algorithm.total_env_steps):
            offline = last_stage(self.base).inputs[-1]
            raise ConfigError(
                f"metric: algorithm.type {self.base.algorithm.type} learns nothing in the environment, so there are no "
                f"reports to judge trials by; choose {offline}.best_validation_loss"
            )
        for key, dimension in self.space.items():
            for value in dimension.extremes:
                self._try({key: value}, f"space.{key}")
        for key in self.space if self.scheduler.pbt else ():
            section, _, name = key.partition(".")
            settings = self.base.algorithm if section == "algorithm" else AlgorithmSettings()
            if why := settings.fixed(name):
                raise ConfigError(f"space.{key}: {why}, so pbt cannot perturb it")
        if self.search != "optuna":
            for values in self.configurations():
                self._try(values, "space")

    def _try(self, values: Mapping[str, Any], where: str) -> None:
        try:
            with_values(self.base, values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read and validate a sweep file, with every value that its space holds.

    Args:
        path: YAML file.
        overrides: `key=value` strings; a key of the sweep (`samples`) goes there, others to the experiment.

    Raises:
        ConfigError: one line that names file and key, with the nearest valid key where one is unknown.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise ConfigError(f"{path}: no such sweep file")
    merged = read_mapping(path)
    if "experiment" in merged:
        merged["experiment"] = os.path.normpath(path.parent / os.path.expanduser(str(merged["experiment"])))
    plain = overridden(merged, overrides, Sweep)
    try:
        sweep = Sweep.model_validate(plain)
        sweep.check()
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Sweep)}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return sweep


def clamped(values: Values, space: Mapping[str, Dimension]) -> Values:
    """Values that a perturbation may have moved out of their ranges, moved back."""

    def moved() -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            bounds = space[key].range if key in space else None
            inside = value if bounds is None else min(max(value, bounds[0]), bounds[1])
            yield key, round(inside) if bounds and space[key].integer else inside

    return {key: _plain(value) for key, value in moved()}


def _plain(value: Any) -> Any:
    """A drawn value as JSON would have it: NumPy's scalars are none of an experiment's types."""
    return json.loads(json.dumps(value, default=lambda number: number.item()))
