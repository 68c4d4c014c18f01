"""The trajectories of an experiment, made where they are missing."""

from collections.abc import Sequence
from typing import Literal

from skild_ray.config import Experiment, Source
from skild_ray.data.formats import load_dataset
from skild_ray.data.generate import dataset_id, generate
from skild_ray.data.minari_store import dataset_exists
from skild_ray.data.trajectories import Trajectories
from skild_ray.envs import make_env
from skild_ray.errors import DataError
from skild_ray.progress import TaskProgress

Kind = Literal["task_agnostic", "demonstrations"]


def load_sources(
    sources: Sequence[Source], experiment: Experiment, kind: Kind, workers: int | None = None
) -> list[Trajectories]:
    """Load the sources in order, generating what does not exist yet.

    Args:
        sources: of `experiment.data`.
        experiment: gives environment and seed.
        kind: which of the two lists of `experiment.data` the sources are, for progress and messages.
        workers: see `generate`.

    Raises:
        SkildError: see `generate` and `load_dataset`; the message names the key of the source.
    """
    env = make_env(experiment.environment.id, experiment.environment.kwargs)
    try:
        loaded = []
        for index, source in enumerate(sources):
            key = f"data.{kind}[{index}]"
            try:
                name = source.dataset or _generated(source, experiment, key, workers)
                loaded.append(load_dataset(name, env, source.max_episodes))
            except DataError as error:
                raise DataError(f"{key}: {error}") from error
        return loaded
    finally:
        env.close()


def as_datasets(
    sources: Sequence[Source], experiment: Experiment, kind: Kind, workers: int | None = None
) -> list[Source]:
    """The same sources, with the data set of every scripted one by name; arguments as for `load_sources`."""
    return [
        source
        if source.generate is None
        else source.model_copy(
            update={"dataset": _generated(source, experiment, f"data.{kind}[{index}]", workers), "generate": None}
        )
        for index, source in enumerate(sources)
    ]


def _generated(source: Source, experiment: Experiment, key: str, workers: int | None) -> str:
    assert source.generate is not None
    name = dataset_id(source.generate, experiment.environment, experiment.seed)
    if dataset_exists(name):
        return name
    with TaskProgress(f"generate {key}", source.generate.episodes, "episodes") as bar:
        return generate(
            source.generate, experiment.environment, experiment.seed, workers, lambda done, _: bar.update(done)
        )
