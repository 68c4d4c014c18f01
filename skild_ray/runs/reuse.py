"""Which settings decide what a stage makes, what to say where it is reused, and what must not be lost with it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError
from skild_ray.runs.artifacts import Artifact, open_artifact, stage_names, versions
from skild_ray.stages import DEMONSTRATIONS, OFFLINE

# What may change between two starts without retraining, although the result would be another.
OFFLINE_KEYS = ("resources.train_workers", "resources.use_gpu")
DOWNSTREAM_KEYS = (
    *("rollout.num_env_runners", "rollout.num_envs_per_env_runner", "rollout.decisions_per_fragment"),
    *("resources.num_learners", "resources.use_gpu"),
)
SYNCHRONOUS_KEYS = ("progress.checkpoint_env_steps",)


def settings_of(experiment: Experiment, stage: str) -> dict[str, Any]:
    """The sections that decide what a stage makes, as plain values."""
    if stage not in OFFLINE:
        return {
            "seed": experiment.seed,
            "environment": experiment.environment.model_dump(),
            "algorithm": experiment.algorithm.model_dump(),
        }
    kinds = OFFLINE[stage].data
    data = experiment.data.model_dump(include={"validation_fraction", *kinds})
    for kind in kinds:  # the order of the sources decides, their names do not
        data[kind] = list(data[kind].values())
    if DEMONSTRATIONS not in kinds:  # only what tells them from others has negatives
        for source in data[kinds[0]]:
            del source["negatives"]
    return {
        "seed": experiment.seed,
        "environment": {"actions": experiment.environment.actions.model_dump()},  # part of what the artifact says
        "skill": experiment.skill.model_dump(),
        "data": data,
        stage: getattr(experiment, stage).model_dump(exclude={"checkpoint_interval_s"}),
    }


def changed_settings(made_with: Experiment, wanted: Experiment, stage: str) -> dict[str, tuple[Any, Any]]:
    """Each key of `settings_of` whose value differs, with both values."""
    before, now = flat(settings_of(made_with, stage)), flat(settings_of(wanted, stage))
    return {key: (before.get(key), now.get(key)) for key in before | now if before.get(key) != now.get(key)}


def differences(stage: str, made_with: Experiment, wanted: Experiment, artifact: Artifact | None = None) -> str:
    """Settings, and the version of torch, that the fingerprint leaves out and that differ; empty where none does."""
    keys: tuple[str, ...] = OFFLINE_KEYS
    if stage not in OFFLINE:
        keys = DOWNSTREAM_KEYS + (SYNCHRONOUS_KEYS if wanted.algorithm.synchronous else ())
    before, now = (flat(experiment.model_dump()) for experiment in (made_with, wanted))
    different = [f"{key} {before[key]}, not {now[key]}" for key in keys if before[key] != now[key]]
    if artifact:
        recorded, ours = artifact.record["versions"].get("torch"), versions()["torch"]
        different += [f"torch {recorded}, not {ours}"] if recorded != ours else []
    return " and ".join(different)


def require_replaceable(artifact: Artifact, made_with: Experiment, wanted: Experiment) -> None:
    """Raise ArtifactError if to make a finished stage again, as `wanted`, would lose what was finished.

    That is a stage that was made from it, or the stage itself if it is a policy; one whose own inputs are gone cannot
    be used any more and does not count.
    """
    run_dir, stage = artifact.path.parent, artifact.stage
    usable = {name: inputs for name in stage_names(run_dir) if (inputs := _inputs(run_dir, name)) is not None}
    lost = [name for name, inputs in usable.items() if stage in inputs or (name == stage and stage not in OFFLINE)]
    if not lost:
        return
    changed = changed_settings(made_with, wanted, stage)
    how = "from other data or inputs, or by another version of the code"
    if changed:
        key = min(changed, key=lambda key: key.endswith(".total_env_steps"))  # the budget, where all else is equal
        how = f"with {key} {changed[key][0]}, not {changed[key][1]}"
    what = "is finished" if lost == [stage] else f"{run_dir / lost[-1]} was made from it"
    raise ArtifactError(
        f"{artifact.path} was made {how}, and {what}; give this one another name (--set name=...), or replace it "
        "with --force"
    )


def _inputs(run_dir: Path, stage: str) -> Mapping[str, str] | None:
    """Hashes of what a stage was made from, by stage; None unless it is finished and all of that is still there."""
    try:
        inputs: Mapping[str, str] = open_artifact(run_dir, stage).record["inputs"]
        there = all(open_artifact(run_dir, name).model_hash == known for name, known in inputs.items())
    except ArtifactError:
        return None
    return inputs if there else None


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their keys, as in `a.b`."""

    def items() -> Iterator[tuple[str, Any]]:
        for key, value in settings.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{prefix}{key}.").items()
            else:
                yield f"{prefix}{key}", value

    return dict(items())
