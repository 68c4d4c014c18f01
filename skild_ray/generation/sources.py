"""The trajectories of an experiment, made where they are missing, and the data sets of a world."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from skild_ray.config import Experiment, Generate, Source
from skild_ray.data.formats import Dataset, Stored, load_dataset
from skild_ray.data.minari_store import dataset_exists
from skild_ray.data.trajectories import Trajectories
from skild_ray.envs import make_env
from skild_ray.errors import DataError
from skild_ray.generation.generate import dataset_id, generate
from skild_ray.progress import TaskProgress

Kind = Literal["task_agnostic", "demonstrations"]


def load_sources(
    sources: Mapping[str, Source],
    experiment: Experiment,
    kind: Kind,
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
        SkildError: see `generate` and `load_dataset`; the message names the key of the source.
    """
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


def named_demonstrations(experiment: Experiment) -> list[Source]:
    """The experiment's demonstrations with the data set of every scripted source by name, made already or not."""
    return [
        source
        if source.generate is None
        else source.model_copy(
            update={
                "dataset": dataset_id(source.generate, experiment.environment, experiment.seed),
                "generate": None,
            }
        )
        for source in experiment.data.demonstrations.values()
    ]


def stored_demonstrations(experiment: Experiment) -> list[Source]:
    """`named_demonstrations`, made where they are missing.

    Raises:
        SkildError: see `generate`.
    """
    for name, source in experiment.data.demonstrations.items():
        if source.generate is not None:
            _generated(source, experiment, f"data.demonstrations.{name}", experiment.resources.data_workers)
    return named_demonstrations(experiment)


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
