"""RLPD from a cloned policy: where it starts, how it chooses by Q, and what it refuses."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrained import tiny_experiment
from torch import Tensor, nn

from skild_ray.algorithms.pretrained import load_action_policy
from skild_ray.algorithms.registry import last_stage
from skild_ray.algorithms.rlpd.cloned_policy import artanh_extended
from skild_ray.algorithms.rlpd.losses import better_decisions
from skild_ray.algorithms.rlpd.rlpd import RLPD, RLPDConfig
from skild_ray.algorithms.rlpd.rlpd_rl_module import RLPDTorchRLModule
from skild_ray.algorithms.rlpd.settings import RLPDSettings
from skild_ray.algorithms.train import metrics_row, try_environment
from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError
from skild_ray.models.action_policy import ActionPolicy
from skild_ray.runs.artifacts import Artifact, publish

SETTINGS = {"type": "rlpd", "hidden": 16, "layers": 2, "critics": 3, "demonstration_share": 0.0, "batch_size": 32}
SETTINGS |= {"warmup_env_steps": 100, "updates_per_env_step": 0.25, "total_env_steps": 300}


def _experiment(runs: Path, **changes: Any) -> Experiment:
    cloning = {"hidden": 16, "layers": 1}
    return tiny_experiment(runs, behavioural_cloning=cloning, algorithm=SETTINGS | changes)


def _publish_cloned(experiment: Experiment, observation_dim: int = 2) -> Artifact:
    """A policy with random weights, whose mean actions are mostly inside of (-1, 1)."""
    torch.manual_seed(0)
    policy = ActionPolicy(observation_dim, 1, experiment.behavioural_cloning)
    policy.standardize.fit(2 * torch.randn(100, observation_dim) + 0.5)
    policy.log_std.data.fill_(-2.0)
    return publish(
        experiment,
        "behavioural_cloning",
        policy.state_dict(),
        [{"iteration": 1, "loss": 0.0}],
        fingerprint="random",
        data={},
        inputs=[],
        facts={"observation_dim": observation_dim, "action_dim": 1},
    )


def _module(experiment: Experiment, inference_only: bool = False) -> RLPDTorchRLModule:
    config = RLPDConfig.from_experiment(experiment)
    observations, decisions = config.spaces()
    return RLPDTorchRLModule(
        observation_space=observations,
        action_space=decisions,
        inference_only=inference_only,
        model_config=config.model_settings,
    )


# --- where it starts ---


def test_the_scale_of_means_before_the_tanh() -> None:
    means = torch.tensor([0.0, 0.5, -0.99, 1.2], requires_grad=True)
    slope = 1 / (1 - 0.99**2)
    expected = [0.0, math.atanh(0.5), -math.atanh(0.99), math.atanh(0.99) + 0.21 * slope]
    found = artanh_extended(means)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    found.sum().backward()
    assert means.grad is not None and means.grad[[0, 1, 3]].tolist() == pytest.approx([1, 1 / 0.75, slope], rel=1e-4)


def test_the_policy_starts_as_the_cloned_one(tmp_path: Path) -> None:
    experiment = _experiment(tmp_path, policy_init="cloned")
    cloned = load_action_policy(_publish_cloned(experiment))
    module = _module(experiment)
    states = 3 * torch.randn(200, 2)
    with torch.no_grad():
        mean = cloned(states).mean
    actions = module.forward_inference({"obs": states})["actions"]
    inside = mean.abs() < 0.99
    assert 0.5 < inside.float().mean() < 1, "else this compares less than it should"
    torch.testing.assert_close(actions[inside], mean[inside], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actions, mean.clamp(-1, 1), rtol=0, atol=0.011)
    gaussian = module._gaussian(module.standardize(states))
    torch.testing.assert_close(gaussian.log_std, torch.full_like(mean, -2.0))
    assert all(parameter.requires_grad for parameter in module.policy.parameters())


# --- choice by Q ---


def test_the_better_decision_by_hand() -> None:
    candidates = torch.tensor([[[0.1], [0.2], [0.3]], [[-0.1], [-0.2], [-0.3]]])
    chosen, second = better_decisions(candidates, torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 0.0]]))
    torch.testing.assert_close(chosen, torch.tensor([[-0.1], [0.2], [0.3]]))
    assert second.tolist() == [1, 0, 0], "the policy's own where they are equal"


class _Critics(nn.Module):
    """Q_0 = a, Q_1 = -a, Q_2 = a - 3: of all of them the smallest is the last for a < 3/2."""

    def forward(self, inputs: Tensor, members: Tensor | None = None) -> Tensor:
        action = inputs[..., -1]
        q = torch.stack([action, -action, action - 3])
        return q if members is None else q[members]


def test_acting_and_target_take_the_better_action(tmp_path: Path) -> None:
    experiment = _experiment(tmp_path, choose_by_q=True, critic_subset=3)
    cloned = load_action_policy(_publish_cloned(experiment))
    plain, module = _module(_experiment(tmp_path)), _module(experiment)
    plain.load_state_dict(module.state_dict(), strict=False)
    states = 3 * torch.randn(200, 2)
    with torch.no_grad():
        proposals = cloned(states).mean.clamp(-1, 1)
    module.target_critics = _Critics()
    own = plain.forward_inference({"obs": states})["actions"]
    chosen = module.forward_inference({"obs": states})["actions"]
    torch.testing.assert_close(chosen, torch.maximum(own, proposals), msg="by the smallest of all target critics")
    assert 0.1 < (own > proposals).float().mean() < 0.9, "else this compares less than it should"
    batch = {"obs": states, "next_obs": states, "actions": own, "returns": own[:, 0], "bootstrap": own[:, 0]}
    out = module.forward_train(batch)
    second, bootstraps = out["cloned"] > 0, out["q_next"] + 3
    assert second.any() and not second.all()
    torch.testing.assert_close(bootstraps[second], proposals[second, 0])
    assert (bootstraps[~second] >= proposals[~second, 0]).all()


def test_env_runners_have_the_critics_by_which_they_choose(tmp_path: Path) -> None:
    experiment = _experiment(tmp_path, choose_by_q=True)
    _publish_cloned(experiment)
    learner, runner = _module(experiment), _module(experiment, inference_only=True)
    runner.set_state(learner.get_state(inference_only=True))
    states = torch.randn(20, 2)
    found = [module.forward_inference({"obs": states})["actions"] for module in (learner, runner)]
    torch.testing.assert_close(found[0], found[1])
    assert not hasattr(runner, "critics")
    assert not hasattr(_module(_experiment(tmp_path), inference_only=True), "target_critics")


# --- the run ---


def test_what_is_needed_follows_from_the_settings(tmp_path: Path) -> None:
    for changes in ({"policy_init": "cloned"}, {"choose_by_q": True}):
        assert last_stage(_experiment(tmp_path, **changes)).inputs == ("behavioural_cloning",)
    assert last_stage(_experiment(tmp_path)).inputs == ()
    with pytest.raises(ValueError, match="has no entropy to back up"):
        RLPDSettings(choose_by_q=True, backup_entropy=True)


def test_a_cloned_policy_of_other_dimensions_is_one_line(tmp_path: Path) -> None:
    experiment = _experiment(tmp_path, policy_init="cloned")
    _publish_cloned(experiment, observation_dim=5)
    with pytest.raises(ArtifactError, match=r"cloned with 5 observations and 1 actions, and line_world:LineEnv has 2"):
        try_environment(RLPDConfig.from_experiment(experiment))


def test_a_run(tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RESULT_DIR", str(tmp_path / "ray"))
    experiment = _experiment(tmp_path, policy_init="cloned", choose_by_q=True)
    cloned = _publish_cloned(experiment)
    algo = RLPDConfig.from_experiment(experiment).build_algo()
    assert isinstance(algo, RLPD)
    try:
        module = algo.env_runner_group.local_env_runner.module
        torch.testing.assert_close(module.standardize.mean, load_action_policy(cloned).standardize.mean)
        while not algo.finished:
            row = metrics_row(algo.train(), algo, [], seconds=0.0)
        assert 0 <= row["cloned"] <= 1 and np.isfinite(row["critic_loss"])
        algo.config.require_inputs(algo.experience.get_state())
        with pytest.raises(ArtifactError, match="the checkpoint: was trained from another behavioural_cloning"):
            algo.config.require_inputs({"inputs": {}})
    finally:
        algo.stop()
