"""Behavioural cloning as stage 4: what acts, and what its decisions are."""

from typing import Any, ClassVar

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.cloning.cloned_rl_module import ClonedTorchRLModule
from skild_ray.algorithms.cloning.settings import BCSettings, SkillBCSettings
from skild_ray.algorithms.experience import Experience
from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import Pace
from skild_ray.algorithms.over_skills import PretrainedConfig, SkillConfig
from skild_ray.errors import ConfigError
from skild_ray.stages import BEHAVIOURAL_CLONING, SKILL_POSTERIOR


class ClonedConfig(PretrainedConfig):
    """Configuration of a policy that an offline stage has learned. There is no algorithm to build from it.

    Attributes:
        cloned: name of that stage.
    """

    cloned: ClassVar[str]

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or OffPolicy)

    @property
    def model_settings(self) -> dict[str, Any]:
        return super().model_settings | {"stage": self.cloned}

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=ClonedTorchRLModule)

    def pace(self) -> Pace:
        raise ConfigError(f"algorithm.type {self.settings.type!r} learns nothing in the environment")

    def build_experience(self) -> Experience:
        raise ConfigError(f"algorithm.type {self.settings.type!r} learns nothing in the environment")


class BCConfig(ClonedConfig):
    """Of the policy over actions."""

    Settings, version, cloned = BCSettings, 1, BEHAVIOURAL_CLONING.name


class SkillBCConfig(ClonedConfig, SkillConfig):
    """Of the policy over skills, the posterior."""

    Settings, version, cloned = SkillBCSettings, 1, SKILL_POSTERIOR.name
