"""Stage 4: what the settings of all algorithms have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from skild_ray.config.section import Section, SectionClass
from skild_ray.stages import DataKind

Rewards = Literal["with rewards", "without rewards", "unlabelled"]
"""What is asked of data: rewards and ends of the task at hand; its ends, with rewards of 0; or neither."""


class AlgorithmSettings(Section):
    """Settings of one algorithm of stage 4. Its `type` says which: the experiment's other keys of this section are its.

    An algorithm derives its own class, with its own `type` and defaults, in `algorithms/<name>/settings.py`.
    """

    type: str = Field(
        "skild",
        description="a name from skild_ray.algorithms.registry, one that an installed package registers, or "
        "'module:attribute' of an AlgorithmSpec",
    )
    total_env_steps: int = Field(300_000, gt=0, description="environment steps to train for")
    batch_size: int = Field(256, gt=0, description="transitions an update")
    synchronous: bool = Field(False, description="sample, then learn: slower, reproducible bit for bit with one runner")

    @property
    def replayed(self) -> Mapping[DataKind, Rewards]:
        """The kinds of data whose transitions stage 4 learns from, and whether it needs their rewards."""
        return {}

    @property
    def without_rewards(self) -> str:
        """How to learn from transitions that have no rewards, for messages; empty if nothing of the kind is offered."""
        return ""

    @property
    def replayed_runs(self) -> Sequence[str]:
        """The folders of the runs whose replays stage 4 learns from, too."""
        return ()

    def fixed(self, name: str) -> str | None:
        """Why the setting of this name cannot change in the course of a run; None if it can.

        By default none can: networks, replay and the beginning depend on them.
        """
        return "cannot change in the course of a run"

    @classmethod
    def for_content(cls, content: Any) -> SectionClass:
        """The class for this content of an experiment's section `algorithm`.

        Raises:
            ConfigError: there is no such `type`.
        """
        from skild_ray.algorithms.registry import spec_of  # a table of names; what they stand for needs this module

        kind = content.get("type", cls.model_fields["type"].default) if isinstance(content, Mapping) else None
        return spec_of(str(kind or cls.model_fields["type"].default)).settings
