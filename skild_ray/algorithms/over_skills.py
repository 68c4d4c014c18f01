"""Algorithms that start from artifacts of the offline stages, and those whose decisions are skills."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from gymnasium.spaces import Box

from skild_ray.algorithms.off_policy_config import Makers, OffPolicyConfig
from skild_ray.algorithms.pretrained import load_decoder
from skild_ray.algorithms.registry import spec_of
from skild_ray.config import Experiment
from skild_ray.envs.lockstep import LockstepVectorEnv
from skild_ray.envs.skill_env import SkillVectorEnv
from skild_ray.runs.artifacts import Artifact, open_artifact, open_inputs
from skild_ray.runs.folder import run_folder
from skild_ray.stages import SKILL_PRIOR


class PretrainedConfig(OffPolicyConfig):
    """Configuration of an algorithm that starts from artifacts of the offline stages, which its `Stage` names.

    The RLModule finds them in `model_config["run_dir"]`.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self.run_dir: str | None = None

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """The algorithm that an experiment file describes, on the artifacts in its run directory."""
        return super().from_experiment(experiment).pretrained(run_dir=str(run_folder(experiment).resolve()))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        config = super().from_record(record)
        config.run_dir = record["run_dir"]
        return config

    @property
    def record(self) -> dict[str, Any]:
        return super().record | {"run_dir": self.run_dir}

    def pretrained(self, *, run_dir: str) -> Self:
        """Name the folder that holds the artifacts of the stages before this one."""
        self.run_dir = str(Path(os.path.expanduser(run_dir)).resolve())
        return self

    @property
    def input_stages(self) -> Sequence[str]:
        """Names of the stages that it starts from, with these settings."""
        return spec_of(self.settings.type).stage(self.settings).inputs

    @property
    def inputs(self) -> Sequence[Artifact]:
        """The artifacts of those stages, checked to belong together.

        Raises:
            ArtifactError: see `open_inputs`.
        """
        return open_inputs(Path(self.run_dir or ""), self.input_stages)

    def validate(self) -> None:
        super().validate()
        if self.input_stages and self.run_dir is None:
            raise ValueError(f"{type(self).__name__} needs .pretrained(run_dir=DIR)")

    @property
    def model_settings(self) -> dict[str, Any]:
        return super().model_settings | {"run_dir": self.run_dir}


class SkillConfig(PretrainedConfig):
    """Configuration of an algorithm over skills: a decision is a z, decoded into up to H environment steps.

    The decoder is that of the finished stage `skill_prior`, which the algorithm's `Stage` names among its inputs.
    """

    @property
    def skill_prior(self) -> Artifact:
        """The artifact with encoder, decoder and prior; see `load_skill_model`.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        return open_artifact(Path(self.run_dir or ""), SKILL_PRIOR.name)

    @property
    def horizon(self) -> int:
        return self.skill_prior.experiment.skill.horizon

    def make_vector_env(self, makers: Makers, autoreset: bool = True) -> LockstepVectorEnv:
        artifact = self.skill_prior
        skill = artifact.experiment.skill
        return SkillVectorEnv(makers, load_decoder(artifact), skill.latent_dim, skill.horizon, autoreset=autoreset)

    def spaces(self) -> tuple[Box, Box]:
        """From the artifact alone: an agent can be loaded where its environment is not installed."""
        artifact = self.skill_prior
        dims = artifact.facts["observation_dim"], artifact.experiment.skill.latent_dim
        observations, skills = (Box(-np.inf, np.inf, (dim,), np.float32) for dim in dims)
        return observations, skills
