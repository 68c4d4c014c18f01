"""SkiLD's stage 4 as an RLlib algorithm: its environment and its configuration."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env

from skild_ray.algorithms.off_policy import OffPolicy, OffPolicyConfig, Pace
from skild_ray.algorithms.pretrained import Pretrained, load_decoder
from skild_ray.algorithms.skild.reference import TracedSkillVectorEnv, squashed
from skild_ray.algorithms.skild.skild_experience import SkillExperience
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.config import Experiment, SkiLDSettings
from skild_ray.envs.registry import make_env
from skild_ray.envs.skill_env import SkillVectorEnv
from skild_ray.runs.folder import run_folder

SKILL_ENV = "skild_ray/skills"


def make_skill_env(context: Mapping[str, Any]) -> SkillVectorEnv:
    """The skill-level vector environment of one env runner, from RLlib's environment context."""
    torch.set_num_threads(1)
    pretrained = Pretrained.open(context["run_dir"])
    skill, quirks = pretrained.experiment.skill, context["reference_quirks"]
    decoder = load_decoder(pretrained.skill_prior)
    vector_env = TracedSkillVectorEnv if "shifted_transitions" in quirks else SkillVectorEnv
    return vector_env(
        [lambda: make_env(context["id"], context["kwargs"])] * context.get("num_envs", 1),
        squashed(decoder) if "squashed_decoder" in quirks else decoder,
        skill.latent_dim,
        skill.horizon,
    )


register_env(SKILL_ENV, make_skill_env)


class SkiLDConfig(OffPolicyConfig):
    """Configuration of `SkiLD`.

        config = (
            SkiLDConfig()
            .environment("skild_ray/Maze-v0", env_config={"max_episode_steps": 2000})
            .pretrained(run_dir="runs/maze")
            .env_runners(num_env_runners=2, num_envs_per_env_runner=16)
            .training(alpha=2.0, n_step=8)
        )
        algo = config.build_algo()

    `training` takes every field of `skild_ray.config.SkiLDSettings`, which documents them, and nothing unknown.
    """

    section = SkiLDSettings
    version = 2
    vector_env = SKILL_ENV
    make_vector_env = staticmethod(make_skill_env)

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SkiLD)
        self.run_dir: str | None = None

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """The algorithm that an experiment file describes, on the artifacts in its run directory."""
        config = super().from_experiment(experiment).training(**experiment.algorithm.model_dump())
        return config.pretrained(run_dir=str(run_folder(experiment).resolve()))

    def pretrained(self, *, run_dir: str) -> Self:
        """Name the folder that holds the artifacts of stages 1 to 3."""
        self.run_dir = str(Path(os.path.expanduser(run_dir)).resolve())
        return self

    @property
    def settings(self) -> SkiLDSettings:
        """The fields of `SkiLDSettings`, validated."""
        settings: SkiLDSettings = self.validated()
        return settings

    def validate(self) -> None:
        super().validate()
        if self.run_dir is None or self.low_level_env is None:
            raise ValueError("SkiLDConfig needs .environment(ID) and .pretrained(run_dir=DIR)")
        self.env_config |= {"run_dir": self.run_dir, "reference_quirks": self.settings.reference_quirks}

    def pace(self) -> Pace:
        settings = self.settings
        return Pace(
            total_env_steps=settings.total_env_steps,
            horizon=Pretrained.open(self.run_dir or "").experiment.skill.horizon,
            batch_size=settings.batch_size,
            samples_per_decision=settings.samples_per_skill_step,
            warmup_decisions=settings.warmup_skill_steps,
            synchronous=settings.synchronous,
        )

    def build_experience(self) -> SkillExperience:
        return SkillExperience(Pretrained.open(self.run_dir or ""), self.settings, self.low_level, self.seed or 0)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SkiLDTorchRLModule)

    def get_default_learner_class(self) -> type:
        return SkiLDTorchLearner

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"run_dir": self.run_dir, "algorithm": self.settings.model_dump()}


class SkiLD(OffPolicy):
    """Learning over skills: a step is one skill, worth up to H environment steps."""

    config: SkiLDConfig

    @classmethod
    def get_default_config(cls) -> SkiLDConfig:
        return SkiLDConfig()
