"""Q-chunking's settings, and what the program knows of it."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from skild_ray.algorithms.registry import AlgorithmSpec
from skild_ray.config.algorithm import AlgorithmSettings, Rewards
from skild_ray.stages import DEMONSTRATIONS, TASK_AGNOSTIC, DataKind, Stage


class QCSettings(AlgorithmSettings):
    """Q-chunking (Li, Zhou and Levine, "Reinforcement Learning with Action Chunking", 2025): no skills, but chunks.

    A decision is a chunk, the actions of the next h env steps. Updates are made from offline data first, then from
    those and the experience that is collected, drawn uniformly from both. Every field is also an argument of
    `QCConfig.training()`.

    The paper's networks have 4 hidden layers of 512 units with GELU, observations as they are, and 1M offline updates;
    the defaults are what two cores can do.
    """

    type: Literal["qc"] = "qc"
    total_env_steps: int = Field(100_000, gt=0, description="environment steps to train for, after the offline updates")
    offline_updates: int = Field(50_000, ge=0, description="updates from the offline data before the first env step")
    task_agnostic: bool = Field(
        True, description="whether the offline data are demonstrations and task-agnostic data, or the former alone"
    )
    chunk_length: int = Field(5, gt=0, description="h: actions of a chunk, executed without looking")
    actor: Literal["distilled", "best_of_n"] = Field(
        "distilled",
        description="distilled (QC-FQL): a one-step actor between flow and critics; best_of_n (QC): the flow's best of "
        "`samples` chunks by the critics, at many times the cost",
    )
    distillation_weight: float = Field(
        100.0, ge=0, description="alpha, which keeps the distilled actor near the flow; it is in units of reward"
    )
    samples: int = Field(8, gt=0, description="N of best_of_n; the paper has 32")
    flow_steps: int = Field(10, gt=0, description="Euler steps from noise to a chunk")
    discount: float = Field(0.99, gt=0, le=1, description="gamma of an environment step")
    hidden: int = Field(256, gt=0, description="units of each hidden layer")
    layers: int = Field(2, gt=0, description="hidden layers of flow, actor and critics")
    learning_rate: float = Field(3e-4, gt=0)
    target_update_rate: float = Field(5e-3, gt=0, le=1, description="tau of the target critics, each update")
    updates_per_env_step: float = Field(1.0, gt=0, description="of online training")
    warmup_env_steps: int = Field(1_000, gt=0, description="environment steps collected before the first online update")
    replay_capacity: int = Field(1_000_000, gt=0, description="own env steps kept, offline data aside")

    @property
    def replayed(self) -> Mapping[DataKind, Rewards]:
        kinds: tuple[DataKind, ...] = (DEMONSTRATIONS, TASK_AGNOSTIC) if self.task_agnostic else (DEMONSTRATIONS,)
        return dict.fromkeys(kinds, "with rewards")


SPEC = AlgorithmSpec(
    settings=QCSettings,
    config="skild_ray.algorithms.qc.qc:QCConfig",
    stage=lambda settings: Stage(
        "qc",
        "Q-chunking",
        summary="Q-chunking: reinforcement learning over chunks of actions, without skills, from offline data first",
        because="algorithm.type is qc",
    ),
    remedy="lower algorithm.learning_rate or raise algorithm.distillation_weight",
)
