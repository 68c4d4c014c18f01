"""What an evaluation finds: the summary of every policy, deterministic and sampled, and the filmed episodes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from skild_ray.errors import ArtifactError
from skild_ray.evaluation.agent import Which
from skild_ray.evaluation.statistics import Interval

RESULTS_FILE, VIDEO_FOLDER = "evaluation.json", "videos"
FORMAT = 2
"""Of the results; an evaluation that was kept in another one, with other intervals, is made again."""
LABELS: dict[Which, str] = {"trained": "trained", "initial": "initial", "posterior": "skill BC"}
"""The policies as tables name them."""


class SubtaskRate(BaseModel, frozen=True):
    """The share of the episodes in which a sub-task was completed."""

    name: str
    rate: float
    ci95: Interval


class Summary(BaseModel, frozen=True):
    """One policy, deterministic or sampled: means over complete episodes, with 95 % intervals (see `statistics`).

    The fields are the keys of `evaluation.json`; the last three are there only if the task has several sub-tasks.
    """

    episodes: int
    success_rate: float
    success_ci95: Interval
    return_mean: float
    return_ci95: Interval | None
    """None if it is unknown."""
    subtasks_mean: float
    """Sub-tasks solved in an episode."""
    episode_length_mean: float
    """In env steps."""
    env_steps_trained: int
    seed: int
    """Which the seeds of the episodes follow from."""
    subtasks_ci95: Interval | None = None
    subtasks: tuple[SubtaskRate, ...] = ()
    """In the order in which they are solved."""
    credited_at: tuple[tuple[int, ...], ...] = ()
    """For each episode, the env step (from 1) of the credit of each sub-task that was solved in it."""


class Video(BaseModel, frozen=True):
    """An episode of the trained, deterministic policy that was recorded to be filmed."""

    name: str
    """Of its files, which are in the folder `VIDEO_FOLDER`."""
    episode: int
    """Its index in the evaluation."""
    seed: int
    success: bool
    env_steps: int
    subtasks: tuple[str, ...]
    credited_at: tuple[int, ...]

    def recording(self, folder: Path) -> Path:
        """The recorded episode, if the evaluation is stored in `folder`; the film and key frames are beside it."""
        return folder / VIDEO_FOLDER / f"{self.name}.npz"


@dataclass(frozen=True)
class PolicySummary:
    """One policy: by the mean of pi(.|s), and by samples of it."""

    deterministic: Summary
    sampled: Summary


@dataclass(frozen=True)
class Evaluation:
    """An agent's policies, all evaluated on the same episodes.

    `policies` has the trained policy, and those of `Agent.without_rl` that were asked for. `videos` has fewer than the
    `videos_wanted` episodes if there are fewer, and none if the environment cannot be rendered.
    """

    policies: Mapping[Which, PolicySummary]
    videos_wanted: int = 0
    videos: tuple[Video, ...] = ()
    format: int = FORMAT

    @property
    def trained(self) -> PolicySummary:
        return self.policies["trained"]

    @property
    def episodes(self) -> int:
        return self.trained.deterministic.episodes

    @property
    def seed(self) -> int:
        return self.trained.deterministic.seed

    @property
    def labelled(self) -> list[tuple[str, Summary]]:
        """Every policy, deterministic and sampled, as tables name them and in their order."""
        present = [(label, self.policies[which]) for which, label in LABELS.items() if which in self.policies]
        return [
            (f"{label}, {how}", summary)
            for label, policy in present
            for how, summary in (("deterministic", policy.deterministic), ("sampled", policy.sampled))
        ]

    def to_json(self) -> dict[str, Any]:
        """The content of `evaluation.json`.

        The deterministic summary of a policy holds the sampled one as 'sampled'. The trained policy is the root, which
        also holds the others by name, 'format' and, if videos were wanted, 'videos_wanted' and 'videos'.
        """

        def both(policy: PolicySummary, **facts: int) -> dict[str, Any]:
            return _to_json(policy.deterministic) | facts | {"sampled": _to_json(policy.sampled)}

        content = both(self.trained, format=self.format)
        content |= {which: both(policy) for which, policy in self.policies.items() if which != "trained"}
        if self.videos_wanted:
            content |= {"videos_wanted": self.videos_wanted, "videos": [_to_json(video) for video in self.videos]}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Evaluation":
        """What `to_json` returned.

        Raises:
            ValueError, KeyError, TypeError: the content is something else.
        """
        both: dict[Which, Mapping[str, Any]] = {"trained": content}
        both |= {which: content[which] for which in LABELS if which in content}
        return cls(
            policies={
                which: PolicySummary(Summary.model_validate(part), Summary.model_validate(part["sampled"]))
                for which, part in both.items()
            },
            videos_wanted=content.get("videos_wanted", 0),
            videos=tuple(Video.model_validate(video) for video in content.get("videos", ())),
            format=content.get("format", 1),
        )


def read_evaluation(artifact: Path) -> Evaluation | None:
    """The evaluation that is stored in the folder of an artifact, if there is one.

    Raises:
        ArtifactError: it is damaged.
    """
    path = artifact / RESULTS_FILE
    if not path.exists():
        return None
    try:
        return Evaluation.from_json(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path}: damaged; delete it and run: skild-ray pipeline EXPERIMENT") from None


def _to_json(part: Summary | Video) -> dict[str, Any]:
    """Without the fields of a summary that only several sub-tasks have."""
    return part.model_dump(mode="json", exclude_defaults=True)
