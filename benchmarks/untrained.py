"""Artifacts of stages 1 to 3 with random weights: as large and as fast as trained ones."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import nn

from skild_ray.config import Experiment
from skild_ray.envs import make_env
from skild_ray.models.discriminator import Discriminator
from skild_ray.models.skill_model import SkillHead, SkillModel
from skild_ray.offline.demo_discriminator import DEMONSTRATIONS_FILE
from skild_ray.runs.artifacts import Artifact, publish

ROLLOUT_STEPS = 2_000
NORM_PASSES = 50


def publish_untrained(experiment: Experiment) -> None:
    """Write untrained skill prior, skill posterior and demo discriminator into `run_folder(experiment)`.

    Inputs are standardised by what random actions see, and so are the decoder's batch-norms, without which its actions
    would be close to zero. The discriminator's artifact carries those states in place of demonstrations.
    """
    env = make_env(experiment.environment.id, experiment.environment.arguments)
    observations, actions = _random_rollout(env, experiment.seed)
    env.close()
    torch.manual_seed(experiment.seed)
    horizon = experiment.skill.horizon
    observation_dim, action_dim = observations.shape[1], actions.shape[1]
    skill_model = SkillModel(observation_dim, action_dim, experiment.skill)
    skill_model.fit_standardizers(torch.from_numpy(observations))
    windows = torch.from_numpy(observations[: ROLLOUT_STEPS // horizon * horizon]).unflatten(0, (-1, horizon))
    with torch.no_grad():
        for _ in range(NORM_PASSES):
            skill_model.decode(windows, torch.randn(len(windows), experiment.skill.latent_dim))
    posterior = SkillHead(observation_dim, experiment.skill)
    settings = experiment.demo_discriminator
    discriminator = Discriminator(observation_dim, settings.hidden, settings.layers)
    for module in (posterior, discriminator):
        module.standardize.load_state_dict(skill_model.standardize.state_dict())

    def write(stage: str, module: nn.Module, inputs: Sequence[Artifact] = (), extra: Sequence[Path] = ()) -> Artifact:
        facts = {"observation_dim": observation_dim, "action_dim": action_dim}
        made_from: dict[str, Any] = {"fingerprint": "untrained", "data": {}, "facts": facts}
        return publish(experiment, stage, module.state_dict(), [], inputs=inputs, extra=extra, **made_from)

    prior = write("skill_prior", skill_model)
    write("skill_posterior", posterior, [prior])
    with tempfile.TemporaryDirectory() as folder:
        states = Path(folder) / DEMONSTRATIONS_FILE
        ends = np.array([len(observations)])
        safetensors.numpy.save_file({"observations": observations, "actions": actions, "ends": ends}, states)
        write("demo_discriminator", discriminator, extra=[states])


def _random_rollout(env: gym.Env, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observations [N, observation_dim] and the random actions [N, action_dim] taken in them."""
    env.action_space.seed(seed)
    actions = np.stack([env.action_space.sample() for _ in range(ROLLOUT_STEPS)])
    observation, _ = env.reset(seed=seed)
    observations = []
    for action in actions:
        observations.append(observation)
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
    return np.stack(observations).astype(np.float32), actions
