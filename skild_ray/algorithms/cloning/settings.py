"""What the program knows of behavioural cloning."""

from typing import Literal

from pydantic import Field

from skild_ray.algorithms.registry import AlgorithmSpec
from skild_ray.config.algorithm import AlgorithmSettings
from skild_ray.stages import BEHAVIOURAL_CLONING, SKILL_POSTERIOR, SKILL_PRIOR, Stage


class BCSettings(AlgorithmSettings):
    """Behavioural cloning of actions: the policy of the stage `behavioural_cloning`, whose section has its settings."""

    type: Literal["bc"] = "bc"
    total_env_steps: Literal[0] = Field(0, description="nothing is learned in the environment")


class SkillBCSettings(AlgorithmSettings):
    """Behavioural cloning of skills: the skill posterior, as stage 2 leaves it."""

    type: Literal["skill_bc"] = "skill_bc"
    total_env_steps: Literal[0] = Field(0, description="nothing is learned in the environment")


SPEC = AlgorithmSpec(
    settings=BCSettings,
    config="skild_ray.algorithms.cloning.cloning:BCConfig",
    stage=lambda settings: Stage(
        "bc",
        "BC",
        inputs=(BEHAVIOURAL_CLONING.name,),
        summary="Behavioural cloning of the demonstrations' actions, without skills or reinforcement learning",
        because="algorithm.type is bc",
    ),
    remedy="lower behavioural_cloning.learning_rate",
)
OVER_SKILLS = AlgorithmSpec(
    settings=SkillBCSettings,
    config="skild_ray.algorithms.cloning.cloning:SkillBCConfig",
    stage=lambda settings: Stage(
        "skill_bc",
        "Skill BC",
        inputs=(SKILL_PRIOR.name, SKILL_POSTERIOR.name),
        summary="Behavioural cloning of the demonstrations' skills, without reinforcement learning",
        because="algorithm.type is skill_bc",
    ),
    remedy="lower skill_posterior.learning_rate",
)
