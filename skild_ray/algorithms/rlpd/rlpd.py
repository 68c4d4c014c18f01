"""RLPD as an RLlib algorithm: its configuration."""

from typing import Any, Self

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import Pace
from skild_ray.algorithms.prior_data import PriorDataConfig, PriorDataExperience
from skild_ray.algorithms.rlpd.rlpd_learner import RLPDTorchLearner
from skild_ray.algorithms.rlpd.rlpd_rl_module import RLPDTorchRLModule
from skild_ray.algorithms.rlpd.settings import RLPDSettings
from skild_ray.algorithms.standardised import standardise_by
from skild_ray.algorithms.typing import takes


class RLPDConfig(PriorDataConfig):
    """Configuration of `RLPD`.

        config = (
            RLPDConfig()
            .environment("skild_ray/Kitchen-v0", env_config={"task": "mkls"})
            .demonstrations("kitchen/teleop-complete15-v2")
            .training(total_env_steps=200_000)
        )
        algo = config.build_algo()

    `training` takes every field of `RLPDSettings`, which documents them, and nothing unknown.
    """

    Settings = RLPDSettings
    version = 1
    settings: RLPDSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or RLPD)
        # An update of the critics alone leaves the policy out, and learners have to know before they add up gradients.
        self.torch_ddp_kwargs = {"find_unused_parameters": True}

    @takes(RLPDSettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `RLPDSettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    def pace(self) -> Pace:
        settings = self.settings
        return Pace(
            total_env_steps=settings.total_env_steps,
            horizon=self.horizon,
            batch_size=settings.batch_size,
            samples_per_decision=settings.updates_per_env_step * self.horizon * settings.batch_size,
            warmup_decisions=max(1, settings.warmup_env_steps // self.horizon),
            synchronous=settings.synchronous,
        )

    def build_experience(self) -> PriorDataExperience:
        settings = self.settings
        last = ("later_states", "later_weights") if settings.backup_entropy else ("next_obs",)
        return self.prior_data_experience(
            settings.shares,
            annealed_over=settings.shares_annealed_over,
            reward_bias=settings.reward_bias,
            capacity=settings.replay_capacity,
            columns=("obs", "actions", "returns", "bootstrap", *last),
            n_step=settings.n_step,
            discount=settings.discount,
            later=settings.backup_entropy,
        )

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=RLPDTorchRLModule)

    def get_default_learner_class(self) -> type:
        return RLPDTorchLearner


class RLPD(OffPolicy):
    """Learning over the environment's own actions: a decision is one environment step.

    Prior data are in replays of their own, from which a fixed share of every batch comes, by default half of it from
    the demonstrations (symmetric sampling): they are never overwritten, and get rarer only with `shares_annealed_over`.

    Observations are standardised by the statistics of the prior data's states, which are part of the weights: a
    checkpoint brings its own. Without prior data they enter as they are.
    """

    config: RLPDConfig
    experience: PriorDataExperience

    def setup(self, config: RLPDConfig) -> None:
        super().setup(config)
        standardise_by(self.learner_group, self.experience.prior_observations())

    @classmethod
    def get_default_config(cls) -> RLPDConfig:
        return RLPDConfig()
