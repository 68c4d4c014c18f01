"""The benchmark file: which methods learn in which worlds with which seeds, and the cells that follow from it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, field_validator, model_validator

from skild_ray.algorithms.registry import last_stage
from skild_ray.config import (
    Experiment,
    Section,
    explain,
    load_experiment,
    overridden,
    read_mapping,
    with_values,
)
from skild_ray.errors import ConfigError
from skild_ray.runs.reuse import flat, settings_of
from skild_ray.stages import DEMONSTRATIONS

TUNING_SEEDS = range(10)
"""Training seeds on which hyper-parameters are chosen, so that no result is reported on them."""
TUNING_EVALUATION_SEED = 1_000
"""Seed of the evaluation episodes on which hyper-parameters are chosen: the default of an experiment."""
CELL_FILE = "cell.json"
OWN_KEYS = ("name", "seed", "runs")
"""What no cell has in common with another."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


def _fresh(seeds: list[int]) -> list[int]:
    if used := [seed for seed in seeds if seed in TUNING_SEEDS]:
        raise ValueError(f"{used[0]} is one of the seeds {TUNING_SEEDS[0]} to {TUNING_SEEDS[-1]}, which are for tuning")
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is there twice")
    return seeds


Seeds = Annotated[list[int], Field(min_length=1), AfterValidator(_fresh)]


class BenchmarkWorld(Section):
    """A world of a benchmark."""

    env_steps: int = Field(gt=0, description="budget of every method that learns in the environment")


class BenchmarkMethod(Section):
    """A method of a benchmark: an experiment file for each world, with other values at some keys."""

    experiment: str | None = Field(
        None, description="experiment file, {world} for the world's name; default: the benchmark's"
    )
    set: dict[str, Any] = Field({}, description="other values than the file's, by key: algorithm.n_step: 4")
    worlds: dict[str, dict[str, Any]] = Field({}, description="other values than that in single worlds")
    seeds: Seeds | None = Field(None, description="default: the benchmark's")
    tapes: int | None = Field(
        None, gt=0, description="learn nothing, but replay that many recorded demonstrations blindly"
    )


class Benchmark(Section):
    """Everything that fixes a benchmark."""

    name: Name = Field(description="name of its folder, beside the runs, and of the files of its results")
    runs: str = Field("runs", validate_default=True, description="folder of all runs")
    experiment: str = Field(description="experiment file of a world, {world} for its name, relative to this file")
    worlds: dict[Name, BenchmarkWorld] = Field(min_length=1)
    methods: dict[Name, BenchmarkMethod] = Field(
        min_length=1, description="the first is the one that others are compared with"
    )
    seeds: Seeds = Field(description="training seeds")
    episodes: int = Field(100, gt=0, description="episodes of a final evaluation")
    evaluation_seed: int = Field(2_000, ge=0, description="seed of these episodes")
    set: dict[str, Any] = Field({}, description="other values for all methods and worlds, by key")
    concurrent: int | None = Field(None, gt=0, description="cells at a time; default: as many as the cluster holds")
    _experiments: dict[tuple[str, str], Experiment] = PrivateAttr(default_factory=dict)

    @field_validator("runs")
    @classmethod
    def _folder(cls, runs: str) -> str:
        if "://" in runs:
            raise ValueError("a benchmark needs a folder that all nodes see, not a URI")
        return os.path.abspath(os.path.expanduser(runs))  # cells are trained by processes in other places

    @field_validator("evaluation_seed")
    @classmethod
    def _fresh_episodes(cls, seed: int) -> int:
        if seed == TUNING_EVALUATION_SEED:
            raise ValueError(f"{seed} is the seed of the episodes for tuning")
        return seed

    @model_validator(mode="after")
    def _consistent(self) -> "Benchmark":
        for key in OWN_KEYS:
            own = (values for method in self.methods.values() for values in (method.set, *method.worlds.values()))
            if any(key in values for values in (self.set, *own)):
                raise ValueError(f"set: every cell has its own {key}")
        for name, method in self.methods.items():
            if unknown := [world for world in method.worlds if world not in self.worlds]:
                raise ValueError(f"methods.{name}.worlds: no world {unknown[0]!r}; there are {', '.join(self.worlds)}")
        return self

    @property
    def folder(self) -> Path:
        """`runs/<name>`: everything of this benchmark."""
        return Path(self.runs) / self.name

    def beside(self, path: Path) -> "Benchmark":
        """The same with its experiment files named from where its own file is."""

        def found(file: str | None) -> str | None:
            return file and os.path.normpath(path.parent / os.path.expanduser(file))

        methods = {
            name: method.model_copy(update={"experiment": found(method.experiment)})
            for name, method in self.methods.items()
        }
        return self.model_copy(update={"experiment": found(self.experiment), "methods": methods})

    def experiment_of(self, world: str, method: str) -> Experiment:
        """What a method runs in a world, for all seeds alike.

        The file's values come first, then the method's, its own for this world, and the benchmark's.

        Raises:
            ConfigError: there is no such file, or a value is wrong; one line that names the cell.
        """
        if (world, method) not in self._experiments:
            try:
                self._experiments[world, method] = self._load(world, self.methods[method])
            except ConfigError as error:
                raise ConfigError(f"{world}/{method}: {error}") from None
        return self._experiments[world, method]

    def _load(self, world: str, method: BenchmarkMethod) -> Experiment:
        values = flat(method.set) | flat(method.worlds.get(world, {})) | flat(self.set)
        # Another algorithm begins with its own defaults, so its type comes before its settings.
        ordered = sorted(values, key=lambda key: key != "algorithm.type")
        file = (method.experiment or self.experiment).replace("{world}", world)
        experiment = with_values(load_experiment(file), {key: values[key] for key in ordered})
        algorithm, budget = experiment.algorithm, self.worlds[world].env_steps
        if algorithm.total_env_steps:
            algorithm = algorithm.model_copy(update={"total_env_steps": budget})
        episodes = {"episodes": self.episodes, "seed": self.evaluation_seed, "without_rl": False, "videos": 0}
        evaluation = experiment.evaluation.model_copy(update=episodes)
        return experiment.model_copy(update={"algorithm": algorithm, "evaluation": evaluation})

    def cells(self, only: Mapping[str, Sequence[str]] | None = None) -> "list[Cell]":
        """The cells: seed by seed, so that an unfinished benchmark has a seed of every method and world first.

        Args:
            only: the wanted values of 'world', 'method' and 'seed', as text; default: all.

        Raises:
            ConfigError: there is no such value.
        """
        seeds = {name: method.seeds or self.seeds for name, method in self.methods.items()}
        every = list(dict.fromkeys(seed for own in seeds.values() for seed in own))
        known = {"world": list(self.worlds), "method": list(self.methods), "seed": list(map(str, every))}
        wanted = known | {key: list(values) for key, values in (only or {}).items()}
        for key, values in wanted.items():
            if key not in known:
                raise ConfigError(f"--only {key}=...: choose cells by {', '.join(known)}")
            if wrong := [value for value in values if value not in known[key]]:
                raise ConfigError(f"--only {key}={wrong[0]}: no such {key}; there are {', '.join(known[key])}")
        return [
            Cell(self, world, method, seed)
            for seed, world, method in product(every, self.worlds, self.methods)
            if seed in seeds[method]
            and (world in wanted["world"] and method in wanted["method"] and str(seed) in wanted["seed"])
        ]


@dataclass(frozen=True)
class Cell:
    """One method in one world with one seed: a run, whose folder also holds its result."""

    benchmark: Benchmark = field(repr=False, compare=False)
    world: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.world}/{self.method}/{self.seed}"

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.benchmark.folder / "cells" / self.world / self.method / str(self.seed)

    @property
    def file(self) -> Path:
        """The result, of a finished cell."""
        return self.folder / CELL_FILE

    @property
    def tapes(self) -> int | None:
        """How many demonstrations are replayed in place of learning."""
        return self.benchmark.methods[self.method].tapes

    @cached_property
    def experiment(self) -> Experiment:
        """What is run; see `Benchmark.experiment_of`."""
        own = {"name": self.folder.name, "runs": os.fspath(self.folder.parent), "seed": self.seed}
        return self.benchmark.experiment_of(self.world, self.method).model_copy(update=own)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything of the experiment that decides the result, by key, as JSON has it."""
        experiment = self.experiment
        stages: tuple[str, ...] = ()
        kinds: set[str] = {DEMONSTRATIONS}
        if self.tapes is None:
            last = last_stage(experiment)
            stages, kinds = (*last.inputs, last.name), {*experiment.algorithm.replayed}
        made = {stage: settings_of(experiment, stage) for stage in stages} | {
            "seed": experiment.seed,
            "environment": experiment.environment.model_dump(),
            "data": experiment.data.model_dump(include=kinds),
            "evaluation": {"episodes": experiment.evaluation.episodes, "seed": experiment.evaluation.seed},
            "tapes": self.tapes,
        }
        plain: dict[str, Any] = json.loads(json.dumps(flat(made)))
        return plain


def read_only(texts: Sequence[str]) -> dict[str, list[str]]:
    """Which cells are wanted, from texts such as `world=maze,method=BC`; of values of one key each is wanted.

    Raises:
        ConfigError: a text has another form.
    """
    found: dict[str, list[str]] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"--only {part}: expected world=NAME, method=NAME or seed=NUMBER")
        found.setdefault(key, []).append(value)
    return found


def load_benchmark(path: str | Path, overrides: Sequence[str] = ()) -> Benchmark:
    """Read and validate a benchmark file; the experiments of its cells are read when a cell is asked for its own.

    Args:
        path: YAML file.
        overrides: `key=value` strings; a key of the benchmark (`concurrent`) goes there, others to all experiments.

    Raises:
        ConfigError: one line that names file and key, with the nearest valid key where one is unknown.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise ConfigError(f"{path}: no such benchmark file")
    merged = read_mapping(path)
    plain = overridden(merged, overrides, Benchmark)
    try:
        benchmark = Benchmark.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Benchmark)}") from None
    return benchmark.beside(path)
