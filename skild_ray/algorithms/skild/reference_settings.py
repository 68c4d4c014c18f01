"""Settings of the code released with the paper, and what the program knows of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

from pydantic import Field, field_validator

from skild_ray.algorithms.skild import settings as skild
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.config import Rewards
from skild_ray.stages import DataKind

Quirk = Literal[
    "ignored_fixed_alpha",
    "frozen_discriminator",
    "imitation_env_reward",
    "current_state_weights",
    "squashed_decoder",
    "shifted_transitions",
    "saturating_reward",
]


class ReferenceSettings(SkiLDSettings):
    """SkiLD as published: algorithm 1 of the paper, with the defects of the released code that change results, or some,
    or none.

    The defaults are the numbers of the released maze. Its kitchen and office fix `alpha` and `alpha_q`, at 0.1 and 5,
    and have `policy_init` posterior. The released offline stages are those of `experiments/maze_reference.yaml`.
    """

    type: Literal["skild_reference"] = "skild_reference"  # type: ignore[assignment]
    batch_size: int = Field(128, gt=0)
    discount: float | None = Field(0.99, gt=0, le=1)
    n_step: int = Field(1, gt=0)
    env_reward_weight: float = Field(0.9, ge=0, le=1)
    normalize_rewards: bool = False
    policy_init: Literal["prior", "posterior"] = "prior"
    policy_init_scale: float = Field(1.0, gt=0)
    latent_squash: Literal["scaled_tanh", "tanh", "clip", "none"] = "tanh"
    latent_bound: float = Field(2.0, gt=0)
    alpha: float = Field(1.0, ge=0)
    alpha_q: float = Field(1.0, ge=0)
    learn_alphas: bool = True
    kl: Literal["analytic", "sampled"] = "sampled"
    kl_clamp: float | None = Field(100.0, gt=0)
    kl_in_target: bool = True
    posterior_scale: float = Field(1.0, gt=0)
    sigma_floor: float = Field(0.0, ge=0)
    critic_norm: Literal["layer", "none"] = "none"
    target_update_rate: float = Field(5e-3, gt=0, le=1)
    policy_lr: float = Field(3e-4, gt=0)
    critic_lr: float = Field(3e-4, gt=0)
    gradient_clip: float | None = Field(None, gt=0)
    warmup_skill_steps: int = Field(2_000, gt=0)
    critic_warmup_updates: int = Field(0, ge=0)
    replay_capacity: int = Field(2_000_000, gt=0)
    discriminator_reward: Literal["logit", "log_d"] = "logit"
    discriminator_reward_max: float = 5.0
    reference_quirks: list[Quirk] = Field(
        list(get_args(Quirk)), description="defects to restore, by name; default, or true: all of them"
    )

    @field_validator("reference_quirks", mode="before")
    @classmethod
    def _all_quirks(cls, value: object) -> object:
        return {True: list(get_args(Quirk)), False: []}[value] if isinstance(value, bool) else value

    def followed(self) -> "ReferenceSettings":
        """The settings as the released code follows them.

        ignored_fixed_alpha: a fixed alpha is not applied, which leaves it at 1.
        frozen_discriminator: D is never updated.
        imitation_env_reward: imitation keeps the environment's reward, with weight 0.9.
        """
        quirks = self.reference_quirks
        changes: dict[str, float] = {"discriminator_updates": self.discriminator_rate}
        if "ignored_fixed_alpha" in quirks and not self.learn_alphas:
            changes["alpha"] = 1.0
        if "frozen_discriminator" in quirks:
            changes["discriminator_updates"] = 0.0
        if "imitation_env_reward" in quirks and self.env_reward_weight == 0:
            changes["env_reward_weight"] = 0.9
        return self.model_copy(update=changes)

    @property
    def replayed(self) -> Mapping[DataKind, Rewards]:
        return self.replayed_with(self.followed().env_reward_weight)


SPEC = replace(
    skild.SPEC, settings=ReferenceSettings, config="skild_ray.algorithms.skild.reference:ReferenceSkiLDConfig"
)
