"""The trajectories of an experiment, made where they are missing, and the data sets of a world."""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from skild_ray.config import Environment, Experiment, Generate, Source
from skild_ray.config.data import ActionScale
from skild_ray.data.formats import Dataset, Stored, load_dataset
from skild_ray.data.minari_store import dataset_exists
from skild_ray.data.trajectories import Trajectories
from skild_ray.envs import make_env
from skild_ray.envs.conventions import offered
from skild_ray.envs.scaled_actions import ActionMap
from skild_ray.errors import ConfigError, DataError, about
from skild_ray.generation.generate import dataset_id, generate
from skild_ray.progress import TaskProgress
from skild_ray.stages import DataKind


def load_sources(
    sources: Mapping[str, Source],
    experiment: Experiment,
    kind: DataKind,
    workers: int | None = None,
    before_generating: Callable[[], None] = lambda: None,
    given: Mapping[str, Trajectories] = {},
) -> list[Trajectories]:
    """Load the sources in order, generating what does not exist yet.

    Args:
        sources: of `experiment.data`, by name.
        experiment: gives environment and seed.
        kind: which of the two kinds of `experiment.data` the sources are, for progress and messages.
        workers: see `generate`.
        before_generating: called before a data set is made, which may take long.
        given: trajectories in memory, in place of the sources of these names.

    Raises:
        SkildError: see `generate`, `load_dataset` and `with_action_bounds`; the message names the key of the source.
    """
    experiment = with_action_bounds(experiment, given)
    env = make_env(experiment.environment.id, experiment.environment.arguments)
    try:
        loaded = []
        for name, source in sources.items():
            key = f"data.{kind}.{name}"
            try:
                dataset: Dataset
                if name in given:
                    dataset = given[name]
                elif source.generate is None:
                    dataset = Stored.of(source)
                else:
                    dataset = _generated(source, experiment, key, workers, before_generating)
                loaded.append(load_dataset(dataset, env, source.max_episodes, source.select))
            except DataError as error:
                raise DataError(f"{key}: {error}") from error
        return loaded
    finally:
        env.close()


def with_action_bounds(experiment: Experiment, given: Mapping[str, Trajectories] = {}) -> Experiment:
    """The experiment with the bounds of its actions in numbers, measured if it says so.

    `minmax` takes the smallest and the largest actions of all sources; a dimension that never moves keeps its value in
    the middle of an interval of 2.

    Args:
        experiment: says by `environment.actions` how they are scaled.
        given: see `load_sources`.

    Raises:
        SkildError: the environment has no finite bounds, a source cannot be read, or one that is generated has none.
    """
    if experiment.environment.actions.scale != "minmax":
        return experiment.model_copy(update={"environment": with_own_bounds(experiment.environment)})
    datasets: dict[str, Dataset] = {}
    for kind in get_args(DataKind):
        for name, source in getattr(experiment.data, kind).items():
            if name not in given and source.generate is not None:
                raise ConfigError(
                    f"data.{kind}.{name}: its actions are generated in [-1, 1], and environment.actions: {{scale: "
                    "minmax} measures raw ones; give bounds"
                )
            datasets[f"data.{kind}.{name}"] = given[name] if name in given else Stored.of(source)
    return experiment.model_copy(update={"environment": with_measured_bounds(experiment.environment, datasets)})


def with_measured_bounds(environment: Environment, datasets: Mapping[str, Dataset]) -> Environment:
    """An environment with `scale: minmax` with the bounds of these data sets, which messages call by these names."""
    parts = []
    for name, dataset in datasets.items():
        with about(name):
            actions = load_dataset(dataset).actions
            parts.append(np.stack([actions.min(axis=0), actions.max(axis=0)]).astype(np.float64))
    if len({part.shape for part in parts}) > 1:
        raise DataError(f"actions differ in dimensions: {', '.join(f'{part.shape[1]}' for part in parts)}")
    low, high = np.min(parts, axis=0)[0], np.max(parts, axis=0)[1]
    still = low == high
    return _with_bounds(environment, low - still, high + still)


def with_own_bounds(environment: Environment) -> Environment:
    """An environment with `scale: bounds` and no numbers with those of its own actions; any other as it is."""
    if environment.actions.scale != "bounds" or environment.actions.low is not None:
        return environment
    with contextlib.closing(make_env(environment.id, environment.arguments)) as env:
        action_map: ActionMap = offered(env, "action_map")
        return _with_bounds(environment, action_map.low, action_map.high)


def _with_bounds(environment: Environment, low: NDArray, high: NDArray) -> Environment:
    actions = ActionScale(scale="bounds", low=low.tolist(), high=high.tolist())
    return environment.model_copy(update={"actions": actions})


def named_sources(experiment: Experiment, kind: DataKind) -> list[Source]:
    """The experiment's data of a kind, with the data set of every scripted source by name, made already or not."""
    sources: Mapping[str, Source] = getattr(experiment.data, kind)
    return [
        source
        if source.generate is None
        else source.model_copy(
            update={
                "dataset": dataset_id(source.generate, experiment.environment, experiment.seed),
                "generate": None,
            }
        )
        for source in sources.values()
    ]


def stored_sources(experiment: Experiment, kind: DataKind) -> list[Source]:
    """`named_sources`, made where they are missing.

    Raises:
        SkildError: see `generate`.
    """
    for name, source in getattr(experiment.data, kind).items():
        if source.generate is not None:
            _generated(source, experiment, f"data.{kind}.{name}", experiment.resources.data_workers)
    return named_sources(experiment, kind)


def generate_named(
    world: Experiment,
    task: str | Sequence[str] | None,
    *,
    name: str | None = None,
    episodes: int | None = None,
    action_noise: float | None = None,
) -> str:
    """Let the expert of a world make a data set.

    Args:
        world: see `World.experiment`.
        task: what to demonstrate, the argument `task` of the world's environment; None for task-agnostic play.
        name: Minari id; default: `<world>/<task>-v0`, `<world>/play-v0` for play.
        episodes: to keep; default: the world's own number.
        action_noise: see `Generate`; default: the world's own.

    Returns:
        The Minari id, of a new data set or of one that is there with the same content.

    Raises:
        SkildError: see `generate`.
    """
    (source,) = (world.data.task_agnostic if task is None else world.data.demonstrations).values()
    assert source.generate is not None
    changes: dict[str, Any] = {"episodes": episodes, "action_noise": action_noise}
    if task is not None:
        changes["env_kwargs"] = {**source.generate.env_kwargs, "task": task}
    wanted = source.generate.model_copy(update={key: value for key, value in changes.items() if value is not None})
    words = "play" if task is None else task if isinstance(task, str) else " ".join(task)
    name = name or f"{world.name}/{re.sub(r'[^a-z0-9]+', '-', words.lower()).strip('-')}-v0"
    workers = world.resources.data_workers
    return _generate(wanted, world, workers, name, title=name)


def _generated(
    source: Source,
    experiment: Experiment,
    key: str,
    workers: int | None,
    before_generating: Callable[[], None] = lambda: None,
) -> str:
    assert source.generate is not None
    name = dataset_id(source.generate, experiment.environment, experiment.seed)
    if not dataset_exists(name):
        before_generating()
    return _generate(source.generate, experiment, workers, name, title=key)


def _generate(wanted: Generate, of: Experiment, workers: int | None, name: str, title: str) -> str:
    request = wanted, of.environment, of.seed, workers
    if dataset_exists(name):  # with the same content, as `generate` makes sure
        return generate(*request, name=name)
    with TaskProgress(f"generate {title}", wanted.episodes, "episodes") as bar:
        return generate(*request, lambda done, _: bar.update(done), name)
