"""SAC's settings, and what the program knows of it."""

from typing import Literal

from pydantic import Field

from skild_ray.algorithms.registry import AlgorithmSpec
from skild_ray.config.algorithm import AlgorithmSettings
from skild_ray.stages import Stage


class SACSettings(AlgorithmSettings):
    """Plain soft actor-critic on the environment's own actions: a baseline without skills, which needs no other stage.

    The demonstrations, as they were executed and with the task's rewards, are in a replay of their own. Every field is
    also an argument of `SACConfig.training()`.
    """

    type: Literal["sac"] = "sac"
    total_env_steps: int = Field(200_000, gt=0, description="environment steps to train for")
    discount: float = Field(0.99, gt=0, le=1, description="gamma of an environment step")
    n_step: int = Field(
        1, gt=0, description="rewards a target adds up before it bootstraps; where reward is rare, 10 keep values small"
    )
    hidden: int = Field(256, gt=0, description="units of the two hidden layers of policy and critics")
    critic_norm: Literal["layer", "none"] = Field(
        "layer", description="without it, critics often diverge beside a replay of demonstrations"
    )
    learning_rate: float = Field(3e-4, gt=0, description="of policy, critics and temperature")
    initial_temperature: float = Field(1.0, gt=0, description="alpha at the start; it is learned from there")
    target_update_rate: float = Field(5e-3, gt=0, le=1, description="tau of the target critics, each update")
    demonstration_share: float = Field(0.5, gt=0, lt=1, description="share of every batch drawn from demonstrations")
    updates_per_env_step: float = Field(0.5, gt=0, description="customary is 1, at twice the cost")
    warmup_env_steps: int = Field(1_000, gt=0, description="environment steps collected before the first update")
    replay_capacity: int = Field(1_000_000, gt=0, description="transitions kept, demonstrations aside")

    @property
    def replayed_demonstrations(self) -> Literal["none", "with rewards", "without rewards"]:
        return "with rewards"


SPEC = AlgorithmSpec(
    settings=SACSettings,
    config="skild_ray.algorithms.sac.sac:SACConfig",
    stage=lambda settings: Stage(
        "sac",
        "SAC with demonstrations",
        summary="Soft actor-critic without skills, demonstrations in its replay",
        because="algorithm.type is sac",
    ),
    remedy="lower algorithm.learning_rate",
)
