"""The experiment: everything that fixes a run."""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, field_validator

from skild_ray.config.algorithm import AlgorithmSettings
from skild_ray.config.cluster import ProgressSettings, ResourceSettings, RolloutSettings
from skild_ray.config.data import Data, Environment
from skild_ray.config.reporting import EvaluationSettings, TrackingSettings
from skild_ray.config.section import Section
from skild_ray.config.skills import (
    BehaviouralCloningSettings,
    DemoDiscriminatorSettings,
    SkillModelSettings,
    SkillPosteriorSettings,
    SkillPriorSettings,
)
from skild_ray.errors import ConfigError


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
    behavioural_cloning: BehaviouralCloningSettings = BehaviouralCloningSettings()
    algorithm: SerializeAsAny[AlgorithmSettings] = Field({}, validate_default=True, description="stage 4, by its type")
    rollout: RolloutSettings = RolloutSettings()
    resources: ResourceSettings = ResourceSettings()
    progress: ProgressSettings = ProgressSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()

    @field_validator("runs")
    @classmethod
    def _at_home(cls, runs: str) -> str:
        return os.path.expanduser(runs)

    @field_validator("algorithm", mode="wrap")
    @classmethod
    def _of_its_type(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> AlgorithmSettings:
        if isinstance(value, AlgorithmSettings) or not isinstance(value, Mapping):
            checked: AlgorithmSettings = validate(value)
            return checked
        try:
            kind = AlgorithmSettings.for_content(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        settings = kind.model_validate(value)
        assert isinstance(settings, AlgorithmSettings)
        return settings
