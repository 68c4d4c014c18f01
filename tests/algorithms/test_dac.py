"""DAC: its losses against numbers by hand, what it learns from, and short runs."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from pretrained import tiny_experiment
from ray.rllib.core import DEFAULT_MODULE_ID
from short_runs import equal
from torch import Tensor, nn

from skild_ray.algorithms.dac.dac import DAC
from skild_ray.algorithms.dac.dac_rl_module import DACTorchRLModule
from skild_ray.algorithms.dac.losses import dac_discriminator_loss, discriminator_returns
from skild_ray.algorithms.dac.settings import DACSettings
from skild_ray.algorithms.train import algorithm_config, metrics_row, module_weights
from skild_ray.config import Experiment
from skild_ray.stages import DEMONSTRATIONS, TASK_AGNOSTIC
from skild_ray.tracking import MetricsRow

SETTINGS = {"type": "dac", "hidden": 16, "layers": 2, "critics": 3, "batch_size": 32, "warmup_env_steps": 100}
SETTINGS |= {"discriminator_hidden": 16, "updates_per_env_step": 0.25, "total_env_steps": 500}


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[str]:
    """Six walks along the line with actions of 0.8, without rewards; in D4RL's layout they lack the last state."""
    folder = tmp_path_factory.mktemp("dac")
    columns: dict[str, list[Any]] = {"observations": [], "actions": [], "terminals": []}
    for goal in np.linspace(0.5, 1.0, 6):
        steps = math.ceil(goal / 0.08)
        columns["observations"] += [(0.08 * step, goal) for step in range(steps)]
        columns["actions"] += [(0.8,)] * steps
        columns["terminals"] += [False] * (steps - 1) + [True]
    with h5py.File(folder / "walks.hdf5", "w") as file:
        for name, values in columns.items():
            file[name] = np.array(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RESULT_DIR", str(folder / "ray"))
        yield str(folder / "walks.hdf5")


def _experiment(demonstrations: str, runs: Path, num_learners: int = 0, **changes: Any) -> Experiment:
    source = {"dataset": demonstrations}
    return tiny_experiment(
        runs,
        data={"task_agnostic": [source], "demonstrations": [source]},
        resources={"num_learners": num_learners},
        algorithm=SETTINGS | changes,
    )


def _algo(experiment: Experiment) -> DAC:
    algo = algorithm_config(experiment).build_algo()
    assert isinstance(algo, DAC)
    return algo


# --- losses ---


def test_returns_by_hand() -> None:
    """gamma = 1/2, r_D = d clipped to [-1, 2], d_abs = 1.5, so that V_abs = 3. The second walk terminates after two
    transitions, the third is cut there by a time limit."""
    settings = DACSettings(discount=0.5, discriminator_reward_min=-1, discriminator_reward_max=2)
    batch = {
        "returns": torch.full((3,), 100.0),
        "n_step_weights": torch.tensor([[1.0, 0.5, 0.25], [1.0, 0.5, 0.0], [1.0, 0.5, 0.0]]),
        "bootstrap": torch.tensor([0.125, 0.0, 0.25]),
    }
    out = {"logits": torch.tensor([[1.0, 7.0, -7.0]] * 3), "absorbing": torch.tensor(1.5, requires_grad=True)}
    returns = discriminator_returns(settings, batch, out)
    assert returns.tolist() == pytest.approx([1 + 0.5 * 2 - 0.25, 2 + 0.25 * 3, 2])
    assert not returns.requires_grad


def test_an_end_is_worth_what_the_demonstrations_make_of_it() -> None:
    """With log D, never positive, an end that only the policy comes to costs as much as going on for ever would."""
    settings = DACSettings(discount=0.9, discriminator_reward="log_d", discriminator_reward_max=0)
    batch = {"n_step_weights": torch.ones(1, 1), "bootstrap": torch.zeros(1)}
    alike, never = (
        discriminator_returns(settings, batch, {"logits": torch.zeros(1, 1), "absorbing": torch.tensor(absorbing)})
        for absorbing in (0.0, -100.0)
    )
    assert alike.item() == pytest.approx(-math.log(2) * (1 + 0.9 / 0.1), rel=1e-5)
    assert never.item() == pytest.approx(-math.log(2) - 5 * 0.9 / 0.1, rel=1e-5)


def test_discriminator_loss_by_hand() -> None:
    settings = DACSettings(gradient_penalty=10)
    absorbing = torch.tensor(0.0, requires_grad=True)
    slope = torch.tensor([1.0, 3.0], requires_grad=True)
    batch = {"demonstrated_terminated": torch.tensor([1.0, 0.0]), "own_terminated": torch.tensor([0.0, 0.0])}
    out = {"positive": torch.tensor([0.0, 2.0]), "negative": torch.tensor([0.0, -2.0])}
    out |= {"absorbing": absorbing, "slope": slope}
    entropy = (2 * math.log(2) + 2 * math.log(1 + math.exp(-2))) / 4
    loss = dac_discriminator_loss(settings, batch, out)
    assert loss.item() == pytest.approx(entropy + math.log(2) / 4 + 10 * (0 + 4) / 2, rel=1e-5)
    loss.backward()
    assert absorbing.grad is not None and absorbing.grad.item() == pytest.approx(-0.5 / 4), "only demonstrations end"
    assert slope.grad is not None and slope.grad.tolist() == pytest.approx([0, 10 * 2 * 2 / 2])


class _Plane(nn.Module):
    """d(s, a) = (w . (s, a))^2 / 2, whose slope is |w . (s, a)| |w|."""

    def forward(self, pairs: Tensor) -> Tensor:
        return (pairs @ torch.tensor([0.0, 3.0, 4.0])).square() / 2


def test_slope_between_demonstrated_and_own_transitions() -> None:
    """Both at (1, 2, 3), where w . (s, a) = 18; and at (1, 2, 3) and 0, somewhere between."""
    module = DACTorchRLModule(
        observation_space=Box(-np.inf, np.inf, (2,), np.float32),
        action_space=Box(-1, 1, (1,), np.float32),
        model_config={"algorithm": DACSettings(hidden=8, discriminator_hidden=8).model_dump()},
    )
    module.discriminator = _Plane()
    states, actions, one = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), torch.ones(1)
    batch = {"obs": states, "next_obs": states, "actions": actions, "returns": one, "bootstrap": one}
    batch |= {"n_step_states": states[:, None], "n_step_actions": actions[:, None], "n_step_weights": one[:, None]}
    batch |= {"demonstrated_obs": states, "demonstrated_actions": actions, "own_obs": states, "own_actions": actions}
    assert module.forward_train(batch)["slope"].tolist() == pytest.approx([18 * 5])
    batch |= {"own_obs": 0 * states, "own_actions": 0 * actions}
    slopes = [module.forward_train(batch)["slope"].item() for _ in range(20)]
    assert all(0 < slope < 18 * 5 for slope in slopes) and np.std(slopes) > 5


# --- what it learns from ---


def test_it_needs_demonstrations_and_no_rewards(demonstrations: str, tmp_path: Path) -> None:
    for share in (0.0, 0.25):
        settings = DACSettings(demonstration_share=share)
        assert settings.replayed == {DEMONSTRATIONS: "without rewards"}
    assert DACSettings(task_agnostic_share=0.1).replayed.keys() == {DEMONSTRATIONS, TASK_AGNOSTIC}
    algo = _algo(_experiment(demonstrations, tmp_path, demonstration_share=0.0, total_env_steps=200))
    try:
        while not algo.finished:
            algo.train()
        drawn = algo.experience.draw(2, 32)
        own = algo.replay.recent()
        for name, known in (("demonstrated_actions", np.array([[0.8]])), ("own_actions", own["actions"])):
            assert np.isclose(drawn[name][:, None], known).any(1).all()
        assert 0.05 < drawn["demonstrated_terminated"].mean() < 0.3, "six of 58 do"
        assert np.isin(drawn["actions"], own["actions"]).all(), "the critics get no demonstrations"
        assert drawn["n_step_actions"].shape == (64, 1, 1)
    finally:
        algo.stop()


# --- runs ---


def _finish(algo: DAC) -> list[MetricsRow]:
    rows = []
    while not algo.finished:
        rows.append(metrics_row(algo.train(), algo, [], seconds=0.0))
    return rows


def test_a_checkpoint_holds_everything(demonstrations: str, tmp_path: Path) -> None:
    """A synchronous run and what is restored from its checkpoint learn and log the same from there on."""
    algo = _algo(_experiment(demonstrations, tmp_path, synchronous=True, n_step=3))
    restored = None
    try:
        start = module_weights(algo)
        while algo.counts["env_steps"] < 350:
            algo.train()
        checkpoint = algo.save_to_path(str(tmp_path / "checkpoint"))
        rows = _finish(algo)
        restored = DAC.from_checkpoint(checkpoint)  # not before: both draw from this process's generator
        assert _finish(restored) == rows
        end = module_weights(algo)
        assert equal(end, module_weights(restored))
        moved = {name.split(".")[0] for name, value in end.items() if not torch.equal(value, start[name])}
        assert {"discriminator", "absorbing_logit", "critics", "policy"} <= moved
        assert 0 < rows[-1]["p_demo"] < 1 and rows[-1]["discriminator_loss"] > 0
        assert "discriminator_reward" in rows[-1] and "env_reward" not in rows[-1]
    finally:
        algo.stop()
        if restored:
            restored.stop()


def test_two_learners_with_updates_of_the_critics_alone(demonstrations: str, tmp_path: Path) -> None:
    """Both learners have the same weights after it, although most updates leave the policy out."""
    changes = {"critic_updates_per_policy_update": 4, "total_env_steps": 300}
    algo = _algo(_experiment(demonstrations, tmp_path, num_learners=2, **changes))
    try:
        _finish(algo)
        states = algo.learner_group.foreach_learner(
            lambda learner: {
                name: value.cpu() for name, value in learner.module[DEFAULT_MODULE_ID].state_dict().items()
            }
        )
        first, second = (result.get() for result in states)
        assert equal(first, second)
        assert int(first["module.num_updates"]) == algo.counts["updates"] > 20
    finally:
        algo.stop()
