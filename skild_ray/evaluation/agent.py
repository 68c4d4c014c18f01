"""Policies to evaluate: a finished run's, one of its checkpoints', or one of the references."""

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from torch import Tensor

from skild_ray.algorithms.pretrained import Pretrained
from skild_ray.algorithms.sac import SACTorchRLModule
from skild_ray.algorithms.skild import SkiLDTorchRLModule
from skild_ray.config import Data, Environment, Experiment, SACSettings, Source
from skild_ray.envs import make_env
from skild_ray.errors import ArtifactError
from skild_ray.runs.artifacts import RECORD_FILE, open_artifact, require_input, stage_names
from skild_ray.stages import OFFLINE

Which = Literal["trained", "initial", "posterior"]
"""The policy as it is, as training started with it, or the skill posterior as stage 2 left it (behavioural cloning)."""
MODULE_FOLDER = "learner_group/learner/rl_module/default_policy"

Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Observations [N, observation_dim] to skills [N, latent_dim], or actions where there are no skills."""


@dataclass(frozen=True)
class Agent:
    """The networks of stage 4 with where they come from."""

    experiment: Experiment
    run_dir: Path
    module: SkiLDTorchRLModule | SACTorchRLModule
    env_steps: int
    """Environment steps it was trained for."""

    def policy(self, deterministic: bool, seed: int) -> Policy:
        """Acts by the mean of pi(.|s), or by samples that `seed` fixes."""
        torch.manual_seed(seed)
        act = self.module.forward_inference if deterministic else self.module.forward_exploration

        def choose(observations: NDArray[np.float32]) -> NDArray[np.float32]:
            actions: Tensor = act({Columns.OBS: torch.from_numpy(observations)})[Columns.ACTIONS]
            return actions.numpy()

        return choose


def finished_last_stages(path: Path) -> list[Path]:
    """The folders of finished last stages at `path`: that one, or those of a run; mostly one, maybe none."""
    if (path / RECORD_FILE).exists():
        return [] if path.name in OFFLINE else [path]
    return [path / name for name in stage_names(path) if name not in OFFLINE]


def load_agent(path: str | Path, which: Which = "trained") -> Agent:
    """The agent of a run directory, of its stage-4 artifact, or of a checkpoint that an algorithm wrote.

    Args:
        path: `runs/<experiment>`, `runs/<experiment>/demo_rl` (`imitation`, `sac`), or a checkpoint directory.
        which: see `Which`; SAC's initial policy is random, and it knows no posterior.

    Raises:
        ArtifactError: nothing of the kind is there, or it is damaged or was made from other artifacts.
    """
    path = Path(os.path.expanduser(path))
    if (path / "algorithm_state.pkl").exists():
        return _from_checkpoint(path, which)
    found = finished_last_stages(path)
    if not found:
        raise ArtifactError(
            f"{path}: neither a run with a finished stage 4, nor a checkpoint; train it: skild-ray pipeline EXPERIMENT"
        )
    artifact = open_artifact(found[0].parent, found[0].name)
    experiment = artifact.experiment
    run_dir = artifact.path.parent
    module: SkiLDTorchRLModule | SACTorchRLModule
    if experiment.sac:
        module = _build_sac_module(experiment)
    else:
        for stage in Pretrained.open(run_dir).artifacts:
            require_input(artifact, stage)
        module = build_module(run_dir, experiment, which)
    if which == "trained":
        module.load_state_dict(artifact.weights())
    steps = int(artifact.facts["env_steps"]) if which == "trained" else 0
    return Agent(experiment, run_dir, module, steps)


def build_module(run_dir: Path, experiment: Experiment, which: Which = "initial") -> SkiLDTorchRLModule:
    """SkiLD's networks as training starts with them, or with the posterior as policy, from `run_dir`'s artifacts."""
    settings = experiment.algorithm
    if which == "posterior":
        settings = settings.model_copy(update={"policy_init": "posterior", "policy_init_scale": 1.0})
    pretrained = Pretrained.open(run_dir)
    facts = pretrained.skill_prior.facts
    return SkiLDTorchRLModule(
        observation_space=Box(-np.inf, np.inf, (facts["observation_dim"],), np.float32),
        action_space=Box(-np.inf, np.inf, (pretrained.experiment.skill.latent_dim,), np.float32),
        inference_only=False,
        model_config={"run_dir": str(run_dir), "algorithm": settings.model_dump()},
    )


def _build_sac_module(experiment: Experiment) -> SACTorchRLModule:
    env = make_env(experiment.environment.id, experiment.environment.kwargs)
    env.close()
    return SACTorchRLModule(
        observation_space=env.observation_space,
        action_space=env.action_space,
        inference_only=False,
        model_config={"sac": (experiment.sac or SACSettings()).model_dump()},
    )


def _from_checkpoint(path: Path, which: Which) -> Agent:
    with (path / "algorithm_state.pkl").open("rb") as file:
        state = pickle.load(file)["off_policy"]
    environment, steps = Environment(**state["environment"]), state["counts"]["env_steps"]
    if "sac" in state:
        # All that a checkpoint knows of its experiment.
        sources = [Source.model_validate(source) for source in state["sources"]]
        data = Data(task_agnostic=sources, demonstrations=sources)
        experiment = Experiment(name="checkpoint", environment=environment, data=data, sac=SACSettings(**state["sac"]))
        if which == "trained":
            trained = SACTorchRLModule.from_checkpoint(str((path / MODULE_FOLDER).resolve()))
            return Agent(experiment, path, trained, steps)
        return Agent(experiment, path, _build_sac_module(experiment), 0)
    module = SkiLDTorchRLModule.from_checkpoint(str((path / MODULE_FOLDER).resolve()))
    run_dir = Path(module.model_config["run_dir"])
    pretrained = Pretrained.open(run_dir)
    pretrained.require(state["pretrained"])
    experiment = pretrained.experiment.model_copy(update={"algorithm": module.settings, "environment": environment})
    if which != "trained":
        return Agent(experiment, run_dir, build_module(run_dir, experiment, which), 0)
    return Agent(experiment, run_dir, module, steps)
