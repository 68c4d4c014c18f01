"""DAC's settings, and what the program knows of it."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from skild_ray.algorithms.registry import AlgorithmSpec
from skild_ray.algorithms.rlpd.settings import RLPDSettings
from skild_ray.config.algorithm import Rewards
from skild_ray.stages import DEMONSTRATIONS, TASK_AGNOSTIC, DataKind, Stage


class DACSettings(RLPDSettings):
    """Imitation without skills, the off-policy successor of GAIL: RLPD whose reward is that of a discriminator of
    transitions, which learns along (Kostrikov, Agrawal, Dwibedi, Levine and Tompson, "Discriminator-Actor-Critic", ICLR
    2019). No reward of the environment is used.

    As published are the discriminator of (s, a), its gradient penalty, its reward up to the clip, and absorbing states.
    The rest is RLPD's, where DAC has TD3. Every field is also an argument of `DACConfig.training()`.
    """

    type: Literal["dac"] = "dac"  # type: ignore[assignment]
    discount: float = Field(0.99, gt=0, lt=1, description="gamma of an environment step")
    reward_bias: Literal[0] = Field(0, description="no reward of the environment is used")
    demonstration_share: float = Field(
        0.5, ge=0, lt=1, description="share of every batch of the critics drawn from demonstrations; 0 as published"
    )
    discriminator_reward: Literal["logit", "log_d"] = Field(
        "logit", description="r_D: log D - log(1 - D), or log D, which is never positive"
    )
    discriminator_reward_min: float = Field(-5.0, description="clip of r_D from below")
    discriminator_reward_max: float = Field(5.0, description="clip of r_D from above")
    discriminator_hidden: int = Field(256, gt=0, description="units of each hidden layer")
    discriminator_layers: int = Field(2, gt=0, description="hidden layers")
    discriminator_lr: float = Field(1e-3, gt=0, description="one step of it is made in each update")
    gradient_penalty: float = Field(
        10.0, ge=0, description="weight of (slope - 1)^2 between demonstrated and own transitions; 0: none"
    )

    @property
    def replayed(self) -> Mapping[DataKind, Rewards]:
        kinds = (DEMONSTRATIONS, *((TASK_AGNOSTIC,) if self.task_agnostic_share else ()))
        return dict.fromkeys(kinds, "without rewards")

    @model_validator(mode="after")
    def _reward_range(self) -> "DACSettings":
        if self.discriminator_reward_min >= self.discriminator_reward_max:
            raise ValueError("discriminator_reward_min must be below discriminator_reward_max")
        return self


SPEC = AlgorithmSpec(
    settings=DACSettings,
    config="skild_ray.algorithms.dac.dac:DACConfig",
    stage=lambda settings: Stage(
        "dac",
        "DAC",
        inputs=settings.inputs,
        summary="Adversarial imitation without skills: the demonstrations are the only reward",
        because="algorithm.type is dac",
    ),
    remedy="lower algorithm.learning_rate or algorithm.discriminator_lr",
)
