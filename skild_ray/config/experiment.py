"""The experiment: everything that fixes a run."""

import os

from pydantic import Field, field_validator

from skild_ray.config.cluster import ProgressSettings, ResourceSettings, RolloutSettings
from skild_ray.config.data import Data, Environment
from skild_ray.config.reporting import EvaluationSettings, TrackingSettings
from skild_ray.config.sac import SACSettings
from skild_ray.config.section import Section
from skild_ray.config.skild import SkiLDSettings
from skild_ray.config.skills import (
    DemoDiscriminatorSettings,
    SkillModelSettings,
    SkillPosteriorSettings,
    SkillPriorSettings,
)


class Experiment(Section):
    """Everything that fixes a run; the same experiment and seed give the same data and models."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128, description="name of the run's folder")
    seed: int = Field(0, ge=0)
    runs: str = Field("runs", description="folder of all runs, or a URI such as s3://bucket/runs")
    environment: Environment
    data: Data
    skill: SkillModelSettings = SkillModelSettings()
    skill_prior: SkillPriorSettings = SkillPriorSettings()
    skill_posterior: SkillPosteriorSettings = SkillPosteriorSettings()
    demo_discriminator: DemoDiscriminatorSettings = DemoDiscriminatorSettings()
    algorithm: SkiLDSettings = SkiLDSettings()
    sac: SACSettings | None = Field(
        None, description="where it is given, plain SAC is trained and stages 1 to 4 are not"
    )
    rollout: RolloutSettings = RolloutSettings()
    resources: ResourceSettings = ResourceSettings()
    progress: ProgressSettings = ProgressSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()

    @field_validator("runs")
    @classmethod
    def _at_home(cls, runs: str) -> str:
        return os.path.expanduser(runs)

    @property
    def imitation(self) -> bool:
        """Whether stage 4 learns without any reward from the environment."""
        return self.algorithm.env_reward_weight == 0

    @property
    def downstream(self) -> SkiLDSettings | SACSettings:
        """The settings of the reinforcement learning, whichever algorithm it is."""
        return self.sac or self.algorithm
