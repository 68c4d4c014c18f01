"""SUPE as an RLlib algorithm: its configuration."""

from collections.abc import Mapping
from typing import Any, Self

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.prior_data import PriorDataExperience
from skild_ray.algorithms.rlpd.skill_rlpd import SkillRLPD, SkillRLPDConfig
from skild_ray.algorithms.supe.settings import SUPESettings
from skild_ray.algorithms.supe.supe_experience import SUPEExperience
from skild_ray.algorithms.supe.supe_learner import SUPETorchLearner
from skild_ray.algorithms.supe.supe_rl_module import SUPETorchRLModule
from skild_ray.algorithms.typing import takes
from skild_ray.stages import DataKind


class SUPEConfig(SkillRLPDConfig):
    """Configuration of `SUPE`.

        config = (
            SUPEConfig()
            .environment("skild_ray/Kitchen-v0", env_config={"task": "mkls"})
            .pretrained(run_dir="runs/kitchen")
            .task_agnostic("kitchen/play-v0")
            .training(total_env_steps=200_000, relabel="pred")
        )
        algo = config.build_algo()

    `training` takes every field of `SUPESettings`, which documents them, and nothing unknown.
    """

    Settings = SUPESettings
    version = 1
    settings: SUPESettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SUPE)

    @takes(SUPESettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `SUPESettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    @property
    def experience_class(self) -> type[SUPEExperience]:
        return SUPEExperience

    def prior_data_experience(
        self, shares: Mapping[DataKind, float], replay_share: float = 0.0, **arguments: Any
    ) -> PriorDataExperience:
        relabelling = {"relabel": self.settings.relabel, "warmup": self.pace().warmup_decisions}
        return super().prior_data_experience(shares, replay_share, **relabelling, **arguments)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SUPETorchRLModule)

    def get_default_learner_class(self) -> type:
        return SUPETorchLearner


class SUPE(SkillRLPD):
    """Learning over skills with prior data, optimistic about what is new."""

    config: SUPEConfig

    @classmethod
    def get_default_config(cls) -> SUPEConfig:
        return SUPEConfig()
