"""The experiment: one typed schema with every default, unit and range, read from YAML.

A section a subject: `data`, `skills` (the offline stages), `algorithm` (stage 4; each algorithm has its own in its
folder), `cluster`, `reporting`; `experiment` puts them together, and `loading` reads and merges files.
"""

from skild_ray.config.algorithm import AlgorithmSettings, Rewards
from skild_ray.config.cluster import ProgressSettings, ResourceSettings, RolloutSettings
from skild_ray.config.data import Data, Environment, Generate, Source
from skild_ray.config.experiment import Experiment
from skild_ray.config.loading import (
    load_experiment,
    overridden,
    override_experiment,
    read_mapping,
    to_yaml,
    with_values,
)
from skild_ray.config.messages import explain
from skild_ray.config.reporting import EvaluationSettings, MLflowSettings, TrackingSettings, WandbSettings
from skild_ray.config.section import Section
from skild_ray.config.skills import (
    BehaviouralCloningSettings,
    DemoDiscriminatorSettings,
    Norm,
    SkillModelSettings,
    SkillPosteriorSettings,
    SkillPriorSettings,
    Training,
)

__all__ = [
    "AlgorithmSettings",
    "BehaviouralCloningSettings",
    "Data",
    "DemoDiscriminatorSettings",
    "Environment",
    "EvaluationSettings",
    "Experiment",
    "Generate",
    "MLflowSettings",
    "Norm",
    "ProgressSettings",
    "ResourceSettings",
    "Rewards",
    "RolloutSettings",
    "Section",
    "SkillModelSettings",
    "SkillPosteriorSettings",
    "SkillPriorSettings",
    "Source",
    "TrackingSettings",
    "Training",
    "WandbSettings",
    "explain",
    "load_experiment",
    "overridden",
    "override_experiment",
    "read_mapping",
    "to_yaml",
    "with_values",
]
