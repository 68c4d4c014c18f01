"""Q-chunking as an RLlib algorithm: its configuration."""

from typing import Any, Self

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import Makers, Pace
from skild_ray.algorithms.prior_data import PriorDataConfig
from skild_ray.algorithms.qc.qc_experience import ChunkExperience
from skild_ray.algorithms.qc.qc_learner import QCTorchLearner
from skild_ray.algorithms.qc.qc_rl_module import QCTorchRLModule
from skild_ray.algorithms.qc.settings import QCSettings
from skild_ray.algorithms.standardised import standardise_by
from skild_ray.algorithms.typing import takes
from skild_ray.envs.chunk_env import ChunkVectorEnv


class QCConfig(PriorDataConfig):
    """Configuration of `QC`.

        config = (
            QCConfig()
            .environment("skild_ray/Kitchen-v0", env_config={"task": "mkls"})
            .demonstrations("kitchen/teleop-complete15-v2")
            .task_agnostic("D4RL/kitchen/mixed-v2")
            .training(offline_updates=100_000, chunk_length=5)
        )
        algo = config.build_algo()

    `training` takes every field of `QCSettings`, which documents them, and nothing unknown.
    """

    Settings = QCSettings
    version = 1
    settings: QCSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or QC)

    @takes(QCSettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `QCSettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    @property
    def horizon(self) -> int:
        return self.settings.chunk_length

    def make_vector_env(self, makers: Makers, autoreset: bool = True) -> ChunkVectorEnv:
        return ChunkVectorEnv(makers, self.horizon, autoreset=autoreset)

    def pace(self) -> Pace:
        settings = self.settings
        return Pace(
            total_env_steps=settings.total_env_steps,
            horizon=self.horizon,
            batch_size=settings.batch_size,
            samples_per_decision=settings.updates_per_env_step * settings.batch_size,
            warmup_decisions=settings.warmup_env_steps,
            synchronous=settings.synchronous,
            offline_updates=settings.offline_updates,
        )

    def build_experience(self) -> ChunkExperience:
        settings = self.settings
        return ChunkExperience(
            [rows for kind in settings.replayed for rows in self.transitions(kind)],
            length=settings.chunk_length,
            discount=settings.discount,
            capacity=settings.replay_capacity,
            seed=self.seed or 0,
        )

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=QCTorchRLModule)

    def get_default_learner_class(self) -> type:
        return QCTorchLearner


class QC(OffPolicy):
    """Learning over chunks of actions: a decision is the actions of the next h environment steps.

    What is stored are the environment steps within it, so that chunks to learn from begin at every one of them.
    Observations are standardised by the statistics of the offline data's states.
    """

    config: QCConfig
    experience: ChunkExperience

    def setup(self, config: QCConfig) -> None:
        super().setup(config)
        standardise_by(self.learner_group, self.experience.offline_observations())

    @classmethod
    def get_default_config(cls) -> QCConfig:
        return QCConfig()
