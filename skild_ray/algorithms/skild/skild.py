"""SkiLD's stage 4 as an RLlib algorithm: its environment and its configuration."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from gymnasium.spaces import Box
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import Makers, OffPolicyConfig, Pace
from skild_ray.algorithms.pretrained import Pretrained, load_decoder
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.algorithms.skild.skild_experience import SkillExperience
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.algorithms.typing import takes
from skild_ray.config import Experiment
from skild_ray.envs.skill_env import SkillVectorEnv
from skild_ray.runs.folder import run_folder


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

    `training` takes every field of `SkiLDSettings`, which documents them, and nothing unknown.
    """

    Settings = SkiLDSettings
    version = 2
    settings: SkiLDSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SkiLD)
        self.run_dir: str | None = None

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """The algorithm that an experiment file describes, on the artifacts in its run directory."""
        return super().from_experiment(experiment).pretrained(run_dir=str(run_folder(experiment).resolve()))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        return super().from_record(record).pretrained(run_dir=record["run_dir"])

    @property
    def record(self) -> dict[str, Any]:
        return super().record | {"run_dir": self.run_dir}

    @takes(SkiLDSettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `SkiLDSettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    def pretrained(self, *, run_dir: str) -> Self:
        """Name the folder that holds the artifacts of stages 1 to 3."""
        self.run_dir = str(Path(os.path.expanduser(run_dir)).resolve())
        return self

    def validate(self) -> None:
        super().validate()
        if self.run_dir is None:
            raise ValueError("SkiLDConfig needs .pretrained(run_dir=DIR)")

    def open_pretrained(self) -> Pretrained:
        """The artifacts of stages 1 to 3."""
        return Pretrained.open(self.run_dir or "")

    def pace(self) -> Pace:
        settings = self.settings
        return Pace(
            total_env_steps=settings.total_env_steps,
            horizon=self.open_pretrained().experiment.skill.horizon,
            batch_size=settings.batch_size,
            samples_per_decision=settings.samples_per_skill_step,
            warmup_decisions=settings.warmup_skill_steps,
            synchronous=settings.synchronous,
        )

    def build_experience(self) -> SkillExperience:
        return SkillExperience(self.open_pretrained(), self.settings, self.low_level, self.seed or 0)

    def make_vector_env(self, makers: Makers, autoreset: bool = True) -> SkillVectorEnv:
        pretrained = self.open_pretrained()
        skill = pretrained.experiment.skill
        decoder = load_decoder(pretrained.skill_prior)
        return SkillVectorEnv(makers, decoder, skill.latent_dim, skill.horizon, autoreset=autoreset)

    def spaces(self) -> tuple[Box, Box]:
        pretrained = self.open_pretrained()
        dims = pretrained.skill_prior.facts["observation_dim"], pretrained.experiment.skill.latent_dim
        observations, skills = (Box(-np.inf, np.inf, (dim,), np.float32) for dim in dims)
        return observations, skills

    def require_inputs(self, experience: Mapping[str, Any]) -> None:
        self.open_pretrained().require(experience["pretrained"])

    def without_rl(self) -> Mapping[str, Self]:
        """The policy that training starts from; where that is the posterior, also the posterior with its own sigma."""
        found = {"initial": self}
        if self.settings.policy_init == "posterior":
            found["posterior"] = self.copy(copy_frozen=False).training(policy_init_scale=1.0)
        return found

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SkiLDTorchRLModule)

    def get_default_learner_class(self) -> type:
        return SkiLDTorchLearner

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"run_dir": self.run_dir, "algorithm": self.settings.model_dump()}


class SkiLD(OffPolicy):
    """Learning over skills: a decision is one skill, worth up to H environment steps."""

    config: SkiLDConfig

    @classmethod
    def get_default_config(cls) -> SkiLDConfig:
        return SkiLDConfig()
