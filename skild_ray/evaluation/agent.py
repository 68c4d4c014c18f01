"""Policies to evaluate: a finished run's, one of its checkpoints', or one without reinforcement learning."""

import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from skild_ray.algorithms.off_policy_config import OffPolicyConfig, config_of
from skild_ray.algorithms.registry import spec_of
from skild_ray.algorithms.train import input_artifacts
from skild_ray.config import Environment, EvaluationSettings, Experiment
from skild_ray.envs.scaled_actions import ActionMap
from skild_ray.errors import ArtifactError
from skild_ray.runs.artifacts import finished_last_stages, open_artifact, require_input

Which = Literal["trained", "initial", "posterior"]
"""The policy as it is, as training started with it, or the skill posterior as stage 2 left it (behavioural cloning)."""
MODULE_FOLDER = "learner_group/learner/rl_module/default_policy"

Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Observations [N, observation_dim] to decisions [N, decision_dim]: skills, or actions where there are no skills."""


@dataclass(frozen=True)
class Agent:
    """A policy with what it acts in."""

    config: OffPolicyConfig
    """Of its algorithm."""
    module: TorchRLModule
    env_steps: int = 0
    """Environment steps it was trained for."""
    num_envs: int = EvaluationSettings().num_envs
    """Environments that a process steps in lockstep to evaluate it."""

    @property
    def environment(self) -> Environment:
        return self.config.low_level

    @property
    def action_map(self) -> ActionMap | None:
        """What turns its environment's actions in [-1, 1] into raw ones; None where they are the same."""
        return ActionMap.of(self.environment)

    def policy(self, deterministic: bool, seed: int) -> Policy:
        """Acts by the mean of pi(.|s), or by samples that `seed` fixes."""
        torch.manual_seed(seed)
        act = self.module.forward_inference if deterministic else self.module.forward_exploration

        def choose(observations: NDArray[np.float32]) -> NDArray[np.float32]:
            actions: Tensor = act({Columns.OBS: torch.from_numpy(observations)})[Columns.ACTIONS]
            return actions.numpy()

        return choose

    def without_rl(self) -> dict[Which, "Agent"]:
        """The policies without reinforcement learning that are worth a row beside this one; see `OffPolicyConfig`."""
        found: Mapping[Any, OffPolicyConfig] = self.config.without_rl()
        return {
            which: replace(self, config=config, module=config.build_module(), env_steps=0)
            for which, config in found.items()
        }


def load_agent(path: str | Path) -> Agent:
    """The agent of a run directory, of its stage-4 artifact, or of a checkpoint that an algorithm wrote.

    Args:
        path: `runs/<experiment>`, `runs/<experiment>/<last stage>`, or a checkpoint directory.

    Raises:
        ArtifactError: nothing of the kind is there, or it is damaged or was made from other artifacts.
    """
    path = Path(os.path.expanduser(path))
    if (path / "algorithm_state.pkl").exists():
        return _from_checkpoint(path)
    found = finished_last_stages(path)
    if not found:
        raise ArtifactError(
            f"{path}: neither a run with a finished stage 4, nor a checkpoint; train it: skild-ray pipeline EXPERIMENT"
        )
    artifact = open_artifact(found[0].parent, found[0].name)
    experiment = artifact.experiment
    config = config_in(artifact.path.parent, experiment)
    for source in input_artifacts(experiment, artifact.path.parent):
        require_input(artifact, source)
    module = config.build_module()
    module.load_state_dict(artifact.weights())
    return Agent(config, module, int(artifact.facts["env_steps"]), experiment.evaluation.num_envs)


def config_in(run_dir: Path, experiment: Experiment) -> OffPolicyConfig:
    """The algorithm's configuration on the artifacts in `run_dir`, wherever the experiment's own run is."""
    moved = experiment.model_copy(update={"runs": os.fspath(run_dir.parent), "name": run_dir.name})
    return spec_of(experiment.algorithm.type).load_config().from_experiment(moved)


def _from_checkpoint(path: Path) -> Agent:
    with (path / "algorithm_state.pkl").open("rb") as file:
        state = pickle.load(file)["off_policy"]
    config = config_of(state["config"])
    config.require_inputs(state["experience"])
    module_class = config.get_default_rl_module_spec().module_class
    module = module_class.from_checkpoint(str((path / MODULE_FOLDER).resolve()))
    return Agent(config, module, state["counts"]["env_steps"])
