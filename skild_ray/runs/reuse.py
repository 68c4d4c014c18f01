"""What a finished stage was made with: what to say where it is reused, and what must not be lost by making it again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from skild_ray.runs.artifacts import Artifact, open_artifact, versions
from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError
from skild_ray.offline.loop import STAGE_DATA
from skild_ray.offline.problem import DataKind

AGENTS = ("demo_rl", "imitation", "sac")
"""The stages from which nothing else is made."""

# What may change between two starts without retraining, although the result would be another.
OFFLINE_KEYS = ("resources.train_workers", "resources.use_gpu")
DOWNSTREAM_KEYS = (
    *("rollout.num_env_runners", "rollout.num_envs_per_env_runner", "rollout.decisions_per_fragment"),
    *("resources.num_learners", "resources.use_gpu"),
)
SYNCHRONOUS_KEYS = ("progress.checkpoint_env_steps",)


def differences(stage: str, made_with: Experiment, wanted: Experiment, artifact: Artifact | None = None) -> str:
    """Settings, and the version of torch, that the fingerprint leaves out and that differ; empty where none does."""
    keys: tuple[str, ...] = OFFLINE_KEYS
    if stage not in STAGE_DATA:
        keys = DOWNSTREAM_KEYS + (SYNCHRONOUS_KEYS if wanted.downstream.synchronous else ())
    before, now = (_flat(experiment.model_dump()) for experiment in (made_with, wanted))
    different = [f"{key} {before[key]}, not {now[key]}" for key in keys if before[key] != now[key]]
    if artifact:
        recorded, ours = artifact.record["versions"].get("torch"), versions()["torch"]
        different += [f"torch {recorded}, not {ours}"] if recorded != ours else []
    return " and ".join(different)


def settings_of(experiment: Experiment, stage: str) -> dict[str, Any]:
    """All settings that the fingerprint of a stage depends on, by key."""
    if stage in STAGE_DATA:
        others = set(get_args(DataKind)) - set(STAGE_DATA[stage])
        sections: dict[str, Any] = {
            "seed": experiment.seed,
            "skill": experiment.skill.model_dump(),
            "data": experiment.data.model_dump(exclude=others),
            stage: getattr(experiment, stage).model_dump(exclude={"checkpoint_interval_s"}),
        }
    else:
        sections = {
            "seed": experiment.seed,
            "environment": experiment.environment.model_dump(),
            "sac" if experiment.sac else "algorithm": experiment.downstream.model_dump(),
        }
    return _flat(sections)


def require_replaceable(artifact: Artifact, made_with: Experiment, wanted: Experiment) -> None:
    """Raise ArtifactError if to make a finished stage again, as `wanted`, would lose what was finished.

    That is a stage that was made from it, or the stage itself if it is an agent; one whose own inputs are gone cannot
    be used any more and does not count.
    """
    run_dir, stage = artifact.path.parent, artifact.stage
    usable = {name: inputs for name in (*STAGE_DATA, *AGENTS) if (inputs := _inputs(run_dir, name)) is not None}
    lost = [name for name, inputs in usable.items() if stage in inputs or name == stage in AGENTS]
    if not lost:
        return
    before, now = settings_of(made_with, stage), settings_of(wanted, stage)
    changed = [key for key in before | now if before.get(key) != now.get(key)]
    changed.sort(key=lambda key: key.endswith(".total_env_steps"))  # the budget counts where all else is equal
    how = "from other data or inputs, or by another version of the code"
    if changed:
        how = f"with {changed[0]} {before.get(changed[0])}, not {now.get(changed[0])}"
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


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their keys, as in `a.b`."""

    def items() -> Iterator[tuple[str, Any]]:
        for key, value in settings.items():
            if isinstance(value, Mapping):
                yield from _flat(value, f"{prefix}{key}.").items()
            else:
                yield f"{prefix}{key}", value

    return dict(items())
