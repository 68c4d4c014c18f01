"""Plain SAC with demonstrations in its replay, as an RLlib algorithm: its configuration."""

from typing import Any, Self

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.demonstrated import DemonstratedConfig, DemonstratedExperience
from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import Pace
from skild_ray.algorithms.sac.sac_learner import SACTorchLearner
from skild_ray.algorithms.sac.sac_rl_module import SACTorchRLModule
from skild_ray.algorithms.sac.settings import SACSettings
from skild_ray.algorithms.typing import takes

COLUMNS = ("obs", "actions", "returns", "bootstrap", "later_states", "later_weights")
"""Of a batch."""


class SACConfig(DemonstratedConfig):
    """Configuration of `SAC`.

        config = (
            SACConfig()
            .environment("skild_ray/Kitchen-v0", env_config={"task": "mkls"})
            .demonstrations("kitchen/teleop-complete15-v2")
            .training(total_env_steps=200_000)
        )
        algo = config.build_algo()

    `training` takes every field of `SACSettings`, which documents them, and nothing unknown.
    """

    Settings = SACSettings
    version = 2
    settings: SACSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SAC)

    @takes(SACSettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `SACSettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    def pace(self) -> Pace:
        settings = self.settings
        return Pace(
            total_env_steps=settings.total_env_steps,
            horizon=self.horizon,
            batch_size=settings.batch_size,
            samples_per_decision=settings.updates_per_env_step * settings.batch_size,
            warmup_decisions=settings.warmup_env_steps,
            synchronous=settings.synchronous,
        )

    def build_experience(self) -> DemonstratedExperience:
        settings = self.settings
        return DemonstratedExperience(
            self.demonstrated(),
            share=settings.demonstration_share,
            capacity=settings.replay_capacity,
            seed=self.seed or 0,
            columns=COLUMNS,
            n_step=settings.n_step,
            discount=settings.discount,
            horizon=self.horizon,
            later=True,
        )

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SACTorchRLModule)

    def get_default_learner_class(self) -> type:
        return SACTorchLearner


class SAC(OffPolicy):
    """Learning over the environment's own actions: a step is one environment step.

    Demonstrations are in a replay of their own, from which a fixed share of every batch comes, half by default
    (symmetric sampling, as of Ball et al., "Efficient Online Reinforcement Learning with Offline Data", 2023): they are
    never overwritten, and do not get rarer as experience grows.

    RLlib's own SAC has the same losses (Huber's in place of the square), but neither its replay nor its temperature is
    in checkpoints on the new API stack, and it draws episodes one by one, at several times the cost of an update. This
    one shares the loop, the replay and the checkpoints of SkiLD, with which it is compared.
    """

    config: SACConfig

    @classmethod
    def get_default_config(cls) -> SACConfig:
        return SACConfig()
