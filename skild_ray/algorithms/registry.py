"""The algorithms of stage 4, by the `type` that an experiment names."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skild_ray.config import Experiment
from skild_ray.stages import DEMO_RL, IMITATION, Stage

if TYPE_CHECKING:
    from skild_ray.algorithms.off_policy import OffPolicyConfig


@dataclass(frozen=True)
class AlgorithmSpec:
    """What the program knows of an algorithm before it imports it.

    Attributes:
        config: `module:class` of its `OffPolicyConfig`, which knows the rest.
        stage: stage 4 with these settings.
        remedy: what to change where losses are not finite any more.
    """

    config: str
    stage: Callable[[Any], Stage]
    remedy: str

    def load_config(self) -> "type[OffPolicyConfig]":
        """The class of its configuration."""
        module, _, name = self.config.partition(":")
        found: type[OffPolicyConfig] = getattr(importlib.import_module(module), name)
        return found


ALGORITHMS: Mapping[str, AlgorithmSpec] = {
    "skild": AlgorithmSpec(
        config="skild_ray.algorithms.skild.skild:SkiLDConfig",
        stage=lambda settings: IMITATION if settings.env_reward_weight == 0 else DEMO_RL,
        remedy="lower algorithm.critic_lr or algorithm.policy_lr, or bound the skills (algorithm.latent_squash)",
    ),
    "sac": AlgorithmSpec(
        config="skild_ray.algorithms.sac.sac:SACConfig",
        stage=lambda settings: Stage(
            "sac",
            "SAC with demonstrations",
            summary="Soft actor-critic without skills, demonstrations in its replay",
            because="algorithm.type is sac",
        ),
        remedy="lower sac.learning_rate",
    ),
}


def spec_of(experiment: Experiment) -> AlgorithmSpec:
    """Of the algorithm that the experiment trains."""
    return ALGORITHMS["sac" if experiment.sac else "skild"]


def last_stage(experiment: Experiment) -> Stage:
    """Stage 4 of the experiment."""
    return spec_of(experiment).stage(experiment.downstream)
