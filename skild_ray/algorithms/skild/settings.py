"""SkiLD's settings, and what the program knows of it."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from skild_ray.algorithms.registry import AlgorithmSpec
from skild_ray.config.algorithm import AlgorithmSettings, Rewards
from skild_ray.stages import DEMO_RL, DEMONSTRATIONS, IMITATION, TASK_AGNOSTIC, DataKind

# What an agent that resumes from another's checkpoint can change. The rest fixes its networks, what its replay holds,
# or how it began.
CHANGEABLE = frozenset(
    (
        *("alpha", "alpha_q", "target_divergence", "target_divergence_q", "sigma_floor", "n_step"),
        *("target_update_rate", "policy_lr", "critic_lr", "alpha_lr", "discriminator_lr", "gradient_clip"),
        *("batch_size", "samples_per_skill_step", "discriminator_reward_min", "discriminator_reward_max"),
        *("discriminator_weight_decay", "discriminator_label_smoothing", "discriminator_noise"),
    )
)


class SkiLDSettings(AlgorithmSettings):
    """Stage 4, SkiLD: an off-policy actor-critic over skills (section 4.3 and algorithm 1 of the paper).

    A skill step is one decision z, worth up to H environment steps. Every field is also an argument of
    `SkiLDConfig.training()`.
    """

    type: Literal["skild"] = "skild"
    discount: float | None = Field(
        None,
        gt=0,
        le=1,
        description="gamma of a full skill; one cut after k steps has gamma^(k/H). null: 1 - 1 / 2T for demonstrations "
        "of T skills, so that a return looks twice as far as one of them lasts",
    )
    n_step: int = Field(
        3, gt=0, description="skills summed before bootstrapping; with one reward in a hundred skills 8 are better"
    )
    env_reward_weight: float = Field(
        0.6, ge=0, le=1, description="lambda in (1 - lambda) r_D + lambda r_env; 0: imitation"
    )

    normalize_rewards: bool = Field(
        True,
        description="returns of the environment, and of r_D, within about [-1, 1] before they are blended: alpha, "
        "alpha_q and lambda then mean the same in every environment",
    )

    guidance: Literal["support", "prior", "posterior"] = Field(
        "support", description="weight of the posterior: D(s), 0 (SPiRL: the prior alone) or 1; the prior has the rest"
    )
    policy_init: Literal["prior", "posterior"] = "posterior"
    policy_init_scale: float = Field(
        0.37,
        gt=0,
        description="factor on the initial policy's sigma; a posterior's mean solves more than its samples do",
    )
    latent_squash: Literal["scaled_tanh", "tanh", "clip", "none"] = Field(
        "clip", description="z from u ~ pi: b tanh(u/b), b tanh(u), clip(u, -b, b) or u"
    )
    latent_bound: float = Field(3.0, gt=0, description="b above")

    alpha: float = Field(
        0.0025, ge=0, description="weight of KL(pi || prior), in returns a nat; its start where it is learned"
    )
    alpha_q: float = Field(0.0025, ge=0, description="the same of KL(pi || posterior)")
    learn_alphas: bool = Field(False, description="dual descent of alpha and alpha_q on the two target divergences")
    target_divergence: float = Field(10.0, gt=0, description="delta, target KL(pi || prior) in nats")
    target_divergence_q: float = Field(1.0, gt=0, description="delta_q, target KL(pi || posterior) in nats")
    kl: Literal["analytic", "sampled"] = "analytic"
    kl_samples: int = Field(10, gt=0, description="samples of the sampled KL")
    kl_clamp: float | None = Field(None, gt=0, description="clamp of the KL to [-x, x]; the reference has 100")
    kl_in_target: bool = Field(
        False, description="subtract the weighted KL at every later state of the walk from the critic's target"
    )
    posterior_scale: float = Field(0.37, gt=0, description="factor on the posterior's sigma inside the KL")
    sigma_floor: float = Field(0.05, ge=0, description="smallest sigma of prior and posterior inside the KL")

    critic_hidden: int = Field(256, gt=0)
    critic_layers: int = Field(2, ge=0, description="hidden blocks of each critic")
    critic_norm: Literal["layer", "none"] = "layer"
    critics: int = Field(2, gt=0, description="size of the ensemble; 10 in RLPD")
    critic_subset: int = Field(
        2, gt=0, description="target critics, drawn for every update, whose smallest value bootstraps"
    )
    critic_updates_per_policy_update: int = Field(
        1, gt=0, description="updates of the critics for one of policy and alphas; 20 in RLPD"
    )
    target_update_rate: float = Field(0.01, gt=0, le=1, description="tau of the target critics, each update")

    policy_lr: float = Field(1e-4, gt=0)
    critic_lr: float = Field(3e-4, gt=0)
    alpha_lr: float = Field(3e-4, gt=0)
    discriminator_lr: float = Field(3e-4, gt=0)
    gradient_clip: float | None = Field(1.0, gt=0, description="largest gradient norm of each optimiser's parameters")
    samples_per_skill_step: float = Field(
        128.0, gt=0, description="replayed transitions for each new one; 128: reference"
    )
    demonstration_share: float = Field(
        0.0, ge=0, lt=1, description="share of every batch drawn from the demonstrations, their skills by the encoder"
    )
    task_agnostic_share: float = Field(
        0.0, ge=0, lt=1, description="the same of the task-agnostic data, with the task's rewards"
    )
    warmup_skill_steps: int = Field(1_000, gt=0, description="skill steps collected before the first update")
    critic_warmup_updates: int = Field(800, ge=0, description="first updates that leave policy and alphas alone")
    replay_capacity: int = Field(1_000_000, gt=0, description="skill transitions kept")

    discriminator_reward: Literal["logit", "log_d"] = Field(
        "log_d", description="r_D: log D - log(1 - D), or log D, which is never positive"
    )
    discriminator_reward_min: float = Field(-5.0, description="clip of r_D from below")
    discriminator_reward_max: float = Field(0.0, description="clip of r_D from above")
    discriminator_updates: float | None = Field(
        None,
        ge=0,
        le=1,
        description="discriminator updates a learner update; default: 0.2 in imitation, else 0, frozen",
    )
    discriminator_weight_decay: float = Field(1e-2, ge=0, description="of the online discriminator")
    discriminator_label_smoothing: float = Field(0.05, ge=0, lt=0.5)
    discriminator_noise: float = Field(0.1, ge=0, description="std added to its inputs online, in standardised units")

    @property
    def discriminator_rate(self) -> float:
        """`discriminator_updates` with its default."""
        default = 0.2 if self.env_reward_weight == 0 else 0.0
        return default if self.discriminator_updates is None else self.discriminator_updates

    @property
    def discriminator_scale(self) -> float:
        """c_D, factor on r_D: its discounted sums are within [-1, 1] where rewards are normalised.

        c_D = (1 - gamma) / max(|discriminator_reward_min|, |discriminator_reward_max|), since sum_i gamma^i is
        1 / (1 - gamma).
        """
        if not self.normalize_rewards:
            return 1.0
        assert self.discount is not None, "see `with_demonstrations_of`"
        return (1 - self.discount) / max(abs(self.discriminator_reward_min), abs(self.discriminator_reward_max))

    def with_demonstrations_of(self, skills: float) -> Self:
        """These settings, with those that are left to the data set for demonstrations of that many skills each."""
        if self.discount is not None:
            return self
        return self.model_copy(update={"discount": 1 - 1 / max(2.0, 2 * skills)})

    @property
    def replayed(self) -> Mapping[DataKind, Rewards]:
        return self.replayed_with(self.env_reward_weight)

    def replayed_with(self, env_reward_weight: float) -> Mapping[DataKind, Rewards]:
        """`replayed` with this `env_reward_weight`."""
        rewards: Rewards = "with rewards" if env_reward_weight > 0 else "without rewards"
        return {kind: rewards for kind, share in self.shares.items() if share}

    @property
    def shares(self) -> Mapping[DataKind, float]:
        """Of every batch, of each kind of prior data."""
        return {DEMONSTRATIONS: self.demonstration_share, TASK_AGNOSTIC: self.task_agnostic_share}

    @property
    def draws_subset(self) -> bool:
        """Whether an update bootstraps from some of the target critics only."""
        return self.critic_subset < self.critics

    def fixed(self, name: str) -> str | None:
        if self.learn_alphas and name in ("alpha", "alpha_q"):
            return "with algorithm.learn_alphas it is only where learning starts"
        return None if name in CHANGEABLE else super().fixed(name)

    @model_validator(mode="after")
    def _reward_range(self) -> "SkiLDSettings":
        if self.discriminator_reward_min >= self.discriminator_reward_max:
            raise ValueError("discriminator_reward_min must be below discriminator_reward_max")
        if self.normalize_rewards and self.discount == 1:
            raise ValueError("normalize_rewards needs a discount below 1")
        return self

    @model_validator(mode="after")
    def _shares_and_subset(self) -> "SkiLDSettings":
        if sum(self.shares.values()) >= 1:
            raise ValueError("demonstration_share and task_agnostic_share must leave room for the policy's transitions")
        if self.critic_subset > self.critics:
            raise ValueError(f"critic_subset {self.critic_subset} is more than the {self.critics} critics there are")
        return self


SPEC = AlgorithmSpec(
    settings=SkiLDSettings,
    config="skild_ray.algorithms.skild.skild:SkiLDConfig",
    stage=lambda settings: IMITATION if settings.env_reward_weight == 0 else DEMO_RL,
    remedy="lower algorithm.critic_lr or algorithm.policy_lr, or bound the skills (algorithm.latent_squash)",
)
