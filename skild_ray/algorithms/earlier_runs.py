"""The transitions that an earlier run collected, as prior data."""

import numpy as np

from skild_ray.algorithms.replay import episodes_of
from skild_ray.algorithms.transitions import Rows
from skild_ray.config import Environment
from skild_ray.errors import ArtifactError
from skild_ray.runs.artifacts import Artifact, finished_last_stages, open_artifact
from skild_ray.runs.storage import local_folder
from skild_ray.stages import SKILL_PRIOR

REPLAY_FILE = "replay.npz"
"""Beside the weights of a finished stage 4: the policy's own transitions, as `Replay.recent` gives them."""


def open_earlier(path: str, environment: Environment, over_skills: bool) -> Artifact:
    """The finished stage 4 whose replay is at `path`, a run's folder or URI.

    Args:
        path: of the run.
        environment: what it has to be collected in, with equal arguments: they decide what is rewarded.
        over_skills: whether its decisions have to be skills; otherwise they have to be actions.

    Raises:
        ArtifactError: there is none, or it was collected otherwise.
    """
    folder, _, name = path.rstrip("/").rpartition("/")
    found = finished_last_stages(local_folder(folder).expanduser() / name)
    if len(found) != 1:
        what = "more than one policy; name one of its stages" if found else "no finished stage 4, hence no replay"
        raise ArtifactError(f"{path}: {what}; see algorithm.replays")
    artifact = open_artifact(found[0].parent, found[0].name)
    if REPLAY_FILE not in artifact.record["sha256"]:
        raise ArtifactError(f"{artifact.path}: it collected nothing; name another run in algorithm.replays")
    theirs, ours = (
        {"id": world.id, **{f"kwargs.{key}": value for key, value in world.arguments.items()}}
        for world in (artifact.experiment.environment, environment)
    )
    for key in theirs | ours:
        if theirs.get(key) != ours.get(key):
            raise ArtifactError(
                f"{artifact.path}: its replay was collected with environment.{key} {theirs.get(key)!r}, not "
                f"{ours.get(key)!r}; name a run in the same environment in algorithm.replays"
            )
    if (SKILL_PRIOR.name in artifact.record["inputs"]) != over_skills:
        its, needed = ("actions", "skills") if over_skills else ("skills", "actions")
        raise ArtifactError(
            f"{artifact.path}: its replay holds {its} as decisions, and this algorithm needs {needed}; name another "
            "run in algorithm.replays"
        )
    return artifact


def earlier_transitions(artifact: Artifact, observation_dim: int, decision_dim: int) -> list[Rows]:
    """The transitions of each episode that an earlier run's replay holds, with the environment's rewards.

    Raises:
        ArtifactError: its observations or decisions have other dimensions.
    """
    with np.load(artifact.path / REPLAY_FILE) as file:
        recent = dict(file)
    found = recent["obs"].shape[1], recent["actions"].shape[1]
    if found != (observation_dim, decision_dim):
        raise ArtifactError(
            f"{artifact.path}: its replay has observations and decisions of {found[0]} and {found[1]} dimensions, not "
            f"{observation_dim} and {decision_dim}; name another run in algorithm.replays"
        )
    bias = getattr(artifact.experiment.algorithm, "reward_bias", 0.0)  # which that run's rewards have in them
    recent["rewards"] = recent["rewards"] - np.float32(bias) * recent["k"].astype(np.float32)
    return episodes_of(recent)
