"""RLPD as an RLlib algorithm: its configuration."""

import functools
from collections.abc import Mapping
from typing import Any, Self

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor

from skild_ray.algorithms.demonstrated import DemonstratedConfig, DemonstratedExperience
from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import Pace
from skild_ray.algorithms.rlpd.rlpd_learner import RLPDTorchLearner
from skild_ray.algorithms.rlpd.rlpd_rl_module import RLPDTorchRLModule
from skild_ray.algorithms.rlpd.settings import RLPDSettings
from skild_ray.algorithms.typing import takes
from skild_ray.models.networks import Standardizer


class RLPDConfig(DemonstratedConfig):
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

    def build_experience(self) -> DemonstratedExperience:
        settings = self.settings
        last = ("later_states", "later_weights") if settings.backup_entropy else ("next_obs",)
        return DemonstratedExperience(
            self.demonstrated(),
            share=settings.demonstration_share,
            reward_bias=settings.reward_bias,
            capacity=settings.replay_capacity,
            seed=self.seed or 0,
            columns=("obs", "actions", "returns", "bootstrap", *last),
            n_step=settings.n_step,
            discount=settings.discount,
            horizon=self.horizon,
            later=settings.backup_entropy,
        )

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=RLPDTorchRLModule)

    def get_default_learner_class(self) -> type:
        return RLPDTorchLearner


class RLPD(OffPolicy):
    """Learning over the environment's own actions: a decision is one environment step.

    Demonstrations are in a replay of their own, from which a fixed share of every batch comes, half by default
    (symmetric sampling): they are never overwritten, and do not get rarer as experience grows.

    Observations are standardised by the statistics of the demonstrations' states, which are part of the weights: a
    checkpoint brings its own.
    """

    config: RLPDConfig
    experience: DemonstratedExperience

    def setup(self, config: RLPDConfig) -> None:
        super().setup(config)
        observations = torch.from_numpy(self.experience.prior_observations())
        standardize = Standardizer(observations.shape[1])
        standardize.fit(observations)
        self.learner_group.foreach_learner(func=functools.partial(_standardize, statistics=standardize.state_dict()))

    @classmethod
    def get_default_config(cls) -> RLPDConfig:
        return RLPDConfig()


def _standardize(learner: RLPDTorchLearner, statistics: Mapping[str, Tensor]) -> None:
    learner.module[DEFAULT_MODULE_ID].unwrapped().standardize.load_state_dict(statistics)
