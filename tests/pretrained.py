"""Finished stages 1 to 3 with random weights, for tests of what comes after them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from torch import nn

from skild_ray.algorithms.pretrained import Pretrained
from skild_ray.config import Experiment
from skild_ray.models.discriminator import Discriminator
from skild_ray.models.skill_model import SkillHead, SkillModel
from skild_ray.offline.demo_discriminator import DEMONSTRATIONS_FILE
from skild_ray.runs.artifacts import publish
from skild_ray.runs.folder import run_folder

SKILL = {"horizon": 5, "latent_dim": 3, "hidden": 16, "decoder_layers": 1, "head_layers": 1}
SKILL |= {"decoder_hidden": 128, "decoder_norm": "batch"}
ALGORITHM = {
    "critic_hidden": 16,
    "critic_layers": 1,
    "batch_size": 32,
    "samples_per_skill_step": 16,
    "warmup_skill_steps": 64,
    "critic_warmup_updates": 0,
    "n_step": 3,
    "discount": 0.99,
    "total_env_steps": 3_000,
}
SOURCE = {"generate": {"expert": "line_world:LineExpert", "episodes": 6}}


def tiny_experiment(runs: object, **sections: Any) -> Experiment:
    """A small experiment on the line; keyword arguments replace whole sections, or are merged into `algorithm`."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "runs": str(runs),
        "environment": {"id": "line_world:LineEnv"},
        "data": {"task_agnostic": {"play": SOURCE}, "demonstrations": {"scripted": SOURCE}},
        "skill": SKILL,
        "demo_discriminator": {"hidden": 8, "layers": 1},
        "rollout": {"num_env_runners": 0, "num_envs_per_env_runner": 4, "decisions_per_fragment": 16},
        "progress": {"report_interval_s": 0.01},
    }
    algorithm = sections.pop("algorithm", {})
    if algorithm.get("type", "skild") in ("skild", "skild_reference"):
        algorithm = ALGORITHM | algorithm
    return Experiment.model_validate(settings | sections | {"algorithm": algorithm})


def publish_pretrained(
    experiment: Experiment,
    observation_dim: int = 2,
    action_dim: int = 1,
    seed: int = 0,
    fingerprint: Callable[[str], str] = lambda stage: "random",
) -> Pretrained:
    """Random weights, standardisers that are not the identity, and 50 demonstration states around 3.

    With the `fingerprint` of the experiment's `Run` each stage passes for one that has been trained.
    """
    torch.manual_seed(seed)
    skill, facts = experiment.skill, {"observation_dim": observation_dim, "action_dim": action_dim}
    states = 2 * torch.randn(200, observation_dim) + 0.5
    model = SkillModel(observation_dim, action_dim, skill)
    model.fit_standardizers(states)
    head = SkillHead(observation_dim, skill)
    head.standardize.fit(states)
    settings = experiment.demo_discriminator
    discriminator = Discriminator(observation_dim, settings.hidden, settings.layers)
    discriminator.standardize.fit(states)
    _vary(model, head, discriminator)

    def write(stage: str, module: nn.Module, **arguments: Any) -> Any:
        made = {"fingerprint": fingerprint(stage), "data": {}, "inputs": [], "facts": facts} | arguments
        return publish(experiment, stage, module.state_dict(), [{"iteration": 1, "loss": 0.0}], **made)

    prior = write("skill_prior", model)
    demonstrations = run_folder(experiment) / DEMONSTRATIONS_FILE
    generator = np.random.default_rng(seed)
    arrays = {
        "observations": generator.normal(3, 1, (50, observation_dim)).astype(np.float32),
        "actions": generator.normal(0, 1, (50, action_dim)).astype(np.float32),
        "ends": np.array([20, 50]),
    }
    safetensors.numpy.save_file(arrays, demonstrations)
    return Pretrained(
        prior,
        write("skill_posterior", head, inputs=[prior]),
        write("demo_discriminator", discriminator, extra=[demonstrations]),
    )


def _vary(*modules: nn.Module) -> None:
    """Move biases off zero, so that no output is symmetric by accident."""
    for module in modules:
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.3)
