"""RLPD's losses against numbers by hand and RLlib's SAC, and what an update moves."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from ray.rllib.algorithms.sac import SACConfig as RLlibSACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from skild_ray.algorithms.rlpd.losses import rlpd_losses
from skild_ray.algorithms.rlpd.rlpd import RLPDConfig
from skild_ray.algorithms.rlpd.rlpd_learner import RLPDTorchLearner
from skild_ray.algorithms.rlpd.rlpd_rl_module import squashed_sample
from skild_ray.models.gaussian import Gaussian

SPACES = {DEFAULT_MODULE_ID: (Box(-np.inf, np.inf, (3,), np.float32), Box(-1, 1, (2,), np.float32))}
SETTINGS = {"hidden": 16, "batch_size": 32, "updates_per_env_step": 0.5, "layers": 2, "critics": 3}


def _learner(**changes: Any) -> RLPDTorchLearner:
    torch.manual_seed(0)
    config = RLPDConfig().environment("none").demonstrations("none").training(**SETTINGS | changes)
    learner = config.build_learner(spaces=SPACES)
    learner.build()
    assert isinstance(learner, RLPDTorchLearner)
    return learner


def _batch(size: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    bootstrap = torch.tensor([0.99] * (size - 2) + [0.0] * 2)
    return {
        "obs": torch.randn(size, 3, generator=generator),
        "later_states": torch.randn(size, 1, 3, generator=generator),
        "next_obs": torch.randn(size, 3, generator=generator),
        "later_weights": bootstrap[:, None],
        "actions": 2 * torch.rand(size, 2, generator=generator) - 1,
        "returns": 0.1 * torch.randn(size, generator=generator),
        "bootstrap": bootstrap,
    }


def test_losses_by_hand() -> None:
    """E = 3 critics, H = -1, alpha = 1/2; y = (1 + 0.9 * 2, 0.5 + 0 * 7) = (2.8, 0.5)."""
    alpha = torch.tensor(0.5, requires_grad=True)
    q = torch.tensor([[2.8, 0.5], [1.8, 0.5], [2.8, -1.5]], requires_grad=True)
    log_pi, q_policy = torch.tensor([1.0, -3.0], requires_grad=True), torch.tensor([2.0, 4.0], requires_grad=True)
    batch = {"returns": torch.tensor([1.0, 0.5]), "bootstrap": torch.tensor([0.9, 0.0])}
    out = {"q": q, "q_next": torch.tensor([2.0, 7.0]), "alpha": alpha}
    losses = rlpd_losses(batch, out, target_entropy=-1.0).losses
    assert losses.critic.item() == pytest.approx((1 + 4) / 6)
    assert losses.policy.item() == losses.temperature.item() == 0, "an update of the critics alone"
    losses = rlpd_losses(batch, out | {"log_pi": log_pi, "q_policy": q_policy}, target_entropy=-1.0).losses
    assert losses.policy.item() == pytest.approx((0.5 * 1 - 2 + 0.5 * -3 - 4) / 2)
    assert losses.temperature.item() == pytest.approx(0.5 * (1 - -1)), "the entropy is 1"
    losses.total.backward()
    assert alpha.grad is not None and alpha.grad.item() == pytest.approx(2), "by its own loss alone"
    assert q.grad is not None and q.grad[1].tolist() == pytest.approx([-2 / 6, 0.0])
    assert log_pi.grad is not None and log_pi.grad.tolist() == pytest.approx([0.25, 0.25])
    assert q_policy.grad is not None and q_policy.grad.tolist() == pytest.approx([-0.5, -0.5])


def test_losses_with_two_critics_are_those_of_rllibs_sac() -> None:
    """On the same forward pass. RLlib's sums over critics, and its Huber loss is half the square of small errors."""
    ours, batch = _learner(critics=2, critic_subset=2, backup_entropy=True), _batch()
    module = ours.module[DEFAULT_MODULE_ID].unwrapped()
    module.log_alpha.data.fill_(-2.0)
    out = module.forward_train(batch)
    out |= {name: 0.1 * out[name] for name in ("q", "q_next", "later_log_pi")}
    ours.compute_loss_for_module(module_id=DEFAULT_MODULE_ID, config=ours.config, batch=batch, fwd_out=out)
    losses = ours._latest.update.losses

    theirs = RLlibSACConfig().training(gamma=0.99, initial_alpha=math.exp(-2)).build_learner(spaces=SPACES)
    theirs.build()
    expected = theirs.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID,
        config=theirs.config,
        batch={
            "rewards": batch["returns"],
            "terminateds": batch["bootstrap"] == 0,
            "n_step": torch.ones(8),
            "weights": torch.ones(8),
        },
        fwd_out={
            "qf_preds": out["q"][0],
            "qf_twin_preds": out["q"][1],
            "q_target_next": out["q_next"],
            "q_curr": out["q_policy"],
            "logp_resampled": out["log_pi"],
            "logp_next_resampled": out["later_log_pi"][:, 0],
        },
    )
    # Of alpha, RLlib's loss has the logarithm, and its target entropy is -2.
    alpha_loss = 2.0 * (out["log_pi"].mean() - 2)
    assert (out["q"] - ours._latest.update.target).abs().max() < 1, "else this compares nothing"
    assert (losses.critic + losses.policy + alpha_loss).item() == pytest.approx(expected.item(), rel=1e-5)


def test_entropy_of_every_state_of_the_walk() -> None:
    """y = sum w_i r_i + w_3 Q' - alpha sum_{i=1}^{3} w_i log pi_i, by hand; the second walk terminates in s_2."""
    batch = {
        "returns": torch.tensor([1.0, 2.0]),
        "bootstrap": torch.tensor([0.729, 0.0]),
        "later_weights": torch.tensor([[0.9, 0.81, 0.729], [0.9, 0.0, 0.0]]),
    }
    out = {"q": torch.zeros(2, 2), "q_next": torch.tensor([10.0, 10.0]), "alpha": torch.tensor(0.5)}
    out |= {"later_log_pi": torch.tensor([[1.0, 2.0, 4.0]] * 2)}
    expected = [1 + 0.729 * 10 - 0.5 * (0.9 * 1 + 0.81 * 2 + 0.729 * 4), 2 - 0.5 * 0.9 * 1]
    assert rlpd_losses(batch, out, target_entropy=-1.0).target.tolist() == pytest.approx(expected, rel=1e-5)


def test_density_of_squashed_actions() -> None:
    torch.manual_seed(0)
    gaussian = Gaussian(torch.tensor([[0.3, -0.2]]).expand(1000, 2), torch.tensor([[-0.5, 0.4]]).expand(1000, 2))
    actions, log_density = squashed_sample(gaussian)
    normal = torch.distributions.Normal(gaussian.mean, gaussian.log_std.exp())
    tanh = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    inside = actions.abs().amax(1) < 0.999
    expected = tanh.log_prob(actions.clamp(-0.9999, 0.9999)).sum(-1)
    torch.testing.assert_close(log_density[inside], expected[inside], rtol=1e-3, atol=1e-3)
    far = squashed_sample(Gaussian(torch.full((1, 2), 40.0), torch.zeros(1, 2)))[1]
    assert torch.isfinite(far).all()


def test_density_of_actions_up_to_a_bound() -> None:
    """That of a / b, by the same noise."""
    gaussian = Gaussian(torch.tensor([[0.3, -0.2]]), torch.tensor([[-0.5, 0.4]]))
    scaled = Gaussian(3.5 * gaussian.mean, gaussian.log_std + math.log(3.5))
    torch.manual_seed(0)
    unit, log_density = squashed_sample(gaussian)
    torch.manual_seed(0)
    actions, same = squashed_sample(scaled, bound=3.5)
    torch.testing.assert_close(actions, 3.5 * unit)
    torch.testing.assert_close(same, log_density)


def test_smallest_of_a_random_subset_bootstraps() -> None:
    """Target critics that are 0, 1, 2 everywhere: the smaller of two is 0 twice in three times, else 1."""
    module = _learner(critics=3, critic_subset=2).module[DEFAULT_MODULE_ID].unwrapped()
    module.target_critics.weights[-1].data.zero_()
    module.target_critics.biases[-1].data.copy_(torch.arange(3.0).view(3, 1, 1))
    drawn = torch.stack([module.forward_train(_batch())["q_next"] for _ in range(60)])
    assert (drawn == drawn[:, :1]).all(), "one subset for the whole batch"
    assert set(drawn[:, 0].tolist()) == {0.0, 1.0}
    assert 0.4 < (drawn[:, 0] == 0).float().mean() < 0.9
    module.log_alpha.data.zero_()
    module.critics.weights[-1].data.zero_()
    module.critics.biases[-1].data.copy_(torch.arange(3.0).view(3, 1, 1))
    assert module.forward_train(_batch())["q_policy"].tolist() == [1.0] * 8, "the policy follows the mean of all"


def _updated(learner: RLPDTorchLearner) -> set[str]:
    """Parts of the networks that an update moves."""
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    learner.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(_batch())}, env_steps=8), timesteps={})
    after = module.state_dict()
    for name, value in after.items():
        if name.startswith("target_critics"):
            expected = 0.99 * before[name] + 0.01 * after[name.removeprefix("target_")]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    return {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}


def test_one_update_of_the_policy_in_several_of_the_critics() -> None:
    learner = _learner(target_update_rate=0.01, critic_updates_per_policy_update=3)
    moved = [_updated(learner) - {"num_updates"} for _ in range(6)]
    critics = {"critics", "target_critics"}
    assert moved == [critics, critics, critics | {"policy", "log_alpha"}] * 2


def test_temperature_starts_where_it_is_set() -> None:
    temperatures = [
        _learner(**changes).module[DEFAULT_MODULE_ID].unwrapped().log_alpha.exp().item()
        for changes in ({}, {"initial_temperature": 0.05})
    ]
    assert temperatures == pytest.approx([1.0, 0.05])
