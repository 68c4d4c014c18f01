"""RLPD's settings, and what the program knows of it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from skild_ray.algorithms.registry import AlgorithmSpec
from skild_ray.config.algorithm import AlgorithmSettings
from skild_ray.stages import Stage


class RLPDSettings(AlgorithmSettings):
    """RLPD on the environment's own actions: a baseline without skills, which needs no other stage.

    The demonstrations, as they were executed and with the task's rewards, are in a replay of their own. Every field is
    also an argument of `RLPDConfig.training()`.
    """

    type: Literal["rlpd"] = "rlpd"
    total_env_steps: int = Field(200_000, gt=0, description="environment steps to train for")
    discount: float = Field(0.99, gt=0, le=1, description="gamma of an environment step")
    n_step: int = Field(
        1, gt=0, description="rewards a target adds up before it bootstraps; where reward is rare, 10 keep values small"
    )
    reward_bias: float = Field(0.0, description="added to the reward of every environment step, as -1 for 0/1 rewards")
    hidden: int = Field(256, gt=0, description="units of each hidden layer of policy and critics")
    layers: int = Field(3, gt=0, description="hidden layers of policy and critics")
    critics: int = Field(10, gt=0, description="E, size of the ensemble")
    critic_subset: int = Field(
        2, gt=0, description="target critics, drawn for every update, whose smallest value bootstraps; 1 in AntMaze"
    )
    learning_rate: float = Field(3e-4, gt=0, description="of policy, critics and temperature")
    backup_entropy: bool = Field(
        False, description="whether targets have an entropy bonus; as published where rewards are dense"
    )
    initial_temperature: float = Field(1.0, gt=0, description="alpha at the start; it is learned from there")
    target_entropy: float | None = Field(
        None, description="of the policy, in nats; default: -1/2 for each dimension of an action"
    )
    target_update_rate: float = Field(5e-3, gt=0, le=1, description="tau of the target critics, each update")
    demonstration_share: float = Field(0.5, gt=0, lt=1, description="share of every batch drawn from demonstrations")
    updates_per_env_step: float = Field(1.0, gt=0, description="of the critics; 20 as published, on a GPU")
    critic_updates_per_policy_update: int = Field(
        1, gt=0, description="updates of the critics for one of policy and temperature; 20 as published"
    )
    warmup_env_steps: int = Field(5_000, gt=0, description="environment steps collected before the first update")
    replay_capacity: int = Field(1_000_000, gt=0, description="transitions kept, demonstrations aside")

    @property
    def replayed_demonstrations(self) -> Literal["none", "with rewards", "without rewards"]:
        return "with rewards"

    @property
    def draws_subset(self) -> bool:
        """Whether an update bootstraps from some of the target critics only."""
        return self.critic_subset < self.critics

    def entropy_target(self, action_dim: int) -> float:
        """`target_entropy` with its default."""
        return -action_dim / 2 if self.target_entropy is None else self.target_entropy

    @model_validator(mode="after")
    def _subset_of_ensemble(self) -> Self:
        if self.critic_subset > self.critics:
            raise ValueError(f"critic_subset {self.critic_subset} is more than the {self.critics} critics there are")
        return self


SPEC = AlgorithmSpec(
    settings=RLPDSettings,
    config="skild_ray.algorithms.rlpd.rlpd:RLPDConfig",
    stage=lambda settings: Stage(
        "rlpd",
        "RLPD",
        summary="Reinforcement learning with prior data, without skills",
        because="algorithm.type is rlpd",
    ),
    remedy="lower algorithm.learning_rate",
)
