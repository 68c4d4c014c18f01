"""The models of the offline stages, loaded from their artifacts for stage 4."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from skild_ray.config import Experiment
from skild_ray.envs.scaled_actions import ActionMap
from skild_ray.models.action_policy import ActionPolicy
from skild_ray.models.discriminator import Discriminator
from skild_ray.models.gaussian import Gaussian
from skild_ray.models.networks import fold
from skild_ray.models.skill_model import SkillHead, SkillModel
from skild_ray.runs.artifacts import Artifact, open_inputs, require_hash
from skild_ray.stages import DEMONSTRATIONS_FILE, SKILD_INPUTS, SKILL_PRIOR


def load_skill_model(artifact: Artifact) -> SkillModel:
    """Encoder, decoder and prior, frozen, in evaluation mode."""
    experiment = artifact.experiment
    model = SkillModel(artifact.facts["observation_dim"], artifact.facts["action_dim"], experiment.skill)
    model.load_state_dict(artifact.weights())
    return model.eval().requires_grad_(False)


def load_decoder(artifact: Artifact) -> torch.nn.Sequential:
    """The low-level policy a(s, z) of a skill-prior artifact, batch-norm and standardisation folded away."""
    model = load_skill_model(artifact)
    return fold(model.standardize, model.decoder)


def load_raw_decoder(artifact: Artifact) -> torch.nn.Sequential:
    """The low-level policy as an environment without wrappers executes it: `load_decoder`, clipped, in raw units.

    Without `environment.actions` raw units are those of actions in [-1, 1].
    """
    decoder, scale = load_decoder(artifact), ActionMap.of(artifact.experiment.environment)
    layers: list[torch.nn.Module] = [*decoder, torch.nn.Hardtanh(-1.0, 1.0)]
    if scale is not None:
        raw = torch.nn.Linear(len(scale.low), len(scale.low))
        raw.weight.data = torch.diag(torch.from_numpy((scale.high - scale.low) / 2)).float()
        raw.bias.data = torch.from_numpy((scale.high + scale.low) / 2).float()
        layers.append(raw)
    return torch.nn.Sequential(*layers).eval().requires_grad_(False)


def load_head(artifact: Artifact) -> SkillHead:
    """The prior of a skill-prior artifact, or the posterior of a skill-posterior artifact; frozen."""
    if artifact.stage == SKILL_PRIOR.name:
        return load_skill_model(artifact).prior
    head = SkillHead(artifact.facts["observation_dim"], artifact.experiment.skill)
    head.load_state_dict(artifact.weights())
    return head.eval().requires_grad_(False)


def load_action_policy(artifact: Artifact) -> ActionPolicy:
    """The cloned policy pi(a|s) of a behavioural-cloning artifact; frozen."""
    dims = artifact.facts["observation_dim"], artifact.facts["action_dim"]
    policy = ActionPolicy(*dims, artifact.experiment.behavioural_cloning)
    policy.load_state_dict(artifact.weights())
    return policy.eval().requires_grad_(False)


def load_discriminator(artifact: Artifact) -> Discriminator:
    """D(s), trainable."""
    settings = artifact.experiment.demo_discriminator
    discriminator = Discriminator(artifact.facts["observation_dim"], settings.hidden, settings.layers)
    discriminator.load_state_dict(artifact.weights())
    return discriminator


def load_demonstration_states(artifact: Artifact) -> NDArray:
    """States of the demonstrations, float32 [N, observation_dim], that the discriminator's artifact carries."""
    return safetensors.numpy.load_file(artifact.path / DEMONSTRATIONS_FILE)["observations"]


@dataclass(frozen=True)
class Pretrained:
    """The three artifacts below one run directory, checked to belong together."""

    skill_prior: Artifact
    skill_posterior: Artifact
    demo_discriminator: Artifact

    @classmethod
    def open(cls, run_dir: str | Path) -> "Pretrained":
        """Raise ArtifactError if one is missing or damaged, or the posterior was trained from another prior."""
        run_dir = Path(os.path.expanduser(run_dir))
        return cls(*open_inputs(run_dir, SKILD_INPUTS))

    @property
    def artifacts(self) -> tuple[Artifact, Artifact, Artifact]:
        return self.skill_prior, self.skill_posterior, self.demo_discriminator

    @property
    def hashes(self) -> dict[str, str]:
        """Hash of each artifact's weights by stage."""
        return {artifact.stage: artifact.model_hash for artifact in self.artifacts}

    def require(self, hashes: Mapping[str, str]) -> None:
        """Raise ArtifactError unless these are the artifacts that a checkpoint with these `hashes` was trained from."""
        for artifact in self.artifacts:
            require_hash("the checkpoint", hashes, artifact, "restore that one, or train stage 4 anew")

    @property
    def demonstration_skills(self) -> float:
        """T, how many skills a demonstration lasts on average."""
        with safe_open(self.demo_discriminator.path / DEMONSTRATIONS_FILE, "numpy") as file:
            env_steps, episodes = (file.get_slice(name).get_shape()[0] for name in ("actions", "ends"))
        return env_steps / episodes / self.experiment.skill.horizon

    @property
    def experiment(self) -> Experiment:
        """The experiment the skill prior was trained in."""
        return self.skill_prior.experiment


class References:
    """Prior p(z|s) and posterior q(z|s), the frozen Gaussians that regularise the policy; q with its sigma scaled.

    They never change, so stage 4 evaluates them once for each state that enters the replay, not at every update.
    """

    NAMES = ("prior_mean", "prior_log_std", "posterior_mean", "posterior_log_std")

    def __init__(self, pretrained: Pretrained, posterior_scale: float = 1.0) -> None:
        self._prior, self._posterior = load_head(pretrained.skill_prior), load_head(pretrained.skill_posterior)
        self._posterior_log_scale = math.log(posterior_scale)

    @torch.inference_mode()
    def __call__(self, observations: NDArray) -> dict[str, NDArray]:
        """Means and log-stds [N, D] by the names above."""
        states = torch.tensor(observations)  # a copy: arrays from the object store are read-only
        mean, log_std = self._posterior(states)
        parts = (*self._prior(states), mean, log_std + self._posterior_log_scale)
        return {name: part.numpy() for name, part in zip(self.NAMES, parts, strict=True)}


def reference_gaussians(batch: Mapping[str, Tensor], prefix: str = "") -> tuple[Gaussian, Gaussian]:
    """Prior and posterior of a batch that holds the columns of `References`, each name led by `prefix`."""
    parts = [batch[prefix + name] for name in References.NAMES]
    return Gaussian(parts[0], parts[1]), Gaussian(parts[2], parts[3])
