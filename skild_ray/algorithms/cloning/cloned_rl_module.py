"""A cloned policy as an RLModule."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from skild_ray.algorithms.pretrained import load_action_policy, load_head
from skild_ray.runs.artifacts import open_artifact
from skild_ray.stages import BEHAVIOURAL_CLONING


class ClonedTorchRLModule(TorchRLModule):
    """The Gaussian policy of a finished offline stage, frozen: over actions, or over skills.

    `model_config`: `run_dir`, the folder of the finished stages, and `stage`, the one that learned the policy.
    """

    def setup(self) -> None:
        artifact = open_artifact(Path(self.model_config["run_dir"]), self.model_config["stage"])
        over_actions = artifact.stage == BEHAVIOURAL_CLONING.name
        self.policy: nn.Module = load_action_policy(artifact) if over_actions else load_head(artifact)

    @torch.no_grad()
    def _forward_inference(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """The mean decision."""
        return {Columns.ACTIONS: self.policy(batch[Columns.OBS]).mean}

    @torch.no_grad()
    def _forward_exploration(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """A sampled decision."""
        return {Columns.ACTIONS: self.policy(batch[Columns.OBS]).sample()}
