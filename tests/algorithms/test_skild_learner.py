"""The losses of stage 4 against hand-computed numbers, and what an update moves."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from skild_ray.algorithms.replay import Replay
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.models.discriminator import discriminator_reward

Make = Callable[..., SkiLDTorchLearner]
Batch = dict[str, Tensor]
INSIDE, OUTSIDE = 1e4, -1e4
"""Logits of states that D is certain of."""


def _column(*values: float) -> Tensor:
    return torch.tensor(values)


def _losses(learner: SkiLDTorchLearner, out: dict[str, Tensor], **batch: Tensor) -> dict[str, float]:
    """The losses of two transitions without bootstrap or reward, where the arguments do not say otherwise."""
    two = torch.zeros(2)
    module = _module(learner)
    defaults = {"q": torch.zeros(2, 2), "q_policy": two, "q_next": two, "kl_prior": two, "kl_posterior": two}
    defaults |= {"logits": torch.zeros(2, 1), "log_alpha": module.log_alpha, "log_alpha_q": module.log_alpha_q}
    defaults |= {"positive": two, "negative": two}
    defaults |= dict.fromkeys(("later_kl_prior", "later_kl_posterior", "later_logits"), torch.zeros(2, 1))
    columns = {"returns": two, "n_step_weights": torch.ones(2, 1), "bootstrap": two} | batch
    columns = {"later_weights": columns["bootstrap"][:, None]} | columns
    learner.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID, config=learner.config, batch=columns, fwd_out=defaults | out
    )
    return {name: value.item() for name, value in learner._latest.update.losses._asdict().items()}


def _target(learner: SkiLDTorchLearner, out: dict[str, Tensor], **batch: Tensor) -> list[float]:
    """The critics' targets y, told from the critic losses of Q = 0 and Q = 1."""
    found = []
    for index in range(2):
        values = []
        for q in (0.0, 1.0):
            q_values = torch.zeros(2, 2)
            q_values[:, index] = q
            values.append(_losses(learner, out | {"q": q_values}, **batch)["critic"])
        # sum_j mean_i 1/2 ((0 - y)^2 - (1 - y)^2) = y - 1/2 for 2 critics and 2 transitions
        found.append((values[0] - values[1]) + 0.5)
    return found


def _module(learner: SkiLDTorchLearner) -> SkiLDTorchRLModule:
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    assert isinstance(module, SkiLDTorchRLModule)
    return module


def _update(learner: SkiLDTorchLearner, batch: Batch, updates: int = 1) -> None:
    for _ in range(updates):
        learner.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=8), timesteps={})


def _copy(module: SkiLDTorchRLModule) -> Batch:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _moved(before: Batch, module: SkiLDTorchRLModule) -> set[str]:
    return {name.split(".")[0] for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


# --- rewards ---

LOGITS: dict[str, Any] = {"discriminator_reward": "logit", "discriminator_reward_max": 5.0, "normalize_rewards": False}
"""r_D as in the paper."""


def test_blended_reward(make_learner: Make) -> None:
    learner = make_learner(env_reward_weight=0.9, **LOGITS)
    target = _target(learner, {"logits": torch.full((2, 1), 2.0)}, returns=_column(1.0, 0.0))
    assert target == pytest.approx([0.1 * 2 + 0.9 * 1, 0.2], abs=1e-5)


def test_discriminator_reward_on_the_scale_of_returns(make_learner: Make) -> None:
    learner = make_learner(env_reward_weight=0.6, discount=0.9, normalize_rewards=True)
    never = torch.full((2, 1), -100.0)
    target = _target(learner, {"logits": never}, returns=_column(1.0, 0.0))
    assert target == pytest.approx([0.6 - 0.4 * 0.1, -0.4 * 0.1], abs=1e-5), "10 of them, 1 / (1 - gamma), make -0.4"


def test_discriminator_reward_of_every_state_of_the_walk(make_learner: Make) -> None:
    learner = make_learner(env_reward_weight=0.5, **LOGITS)
    logits = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    weights = torch.tensor([[1.0, 0.9, 0.8], [1.0, 0.9, 0.0]])
    target = _target(learner, {"logits": logits}, n_step_weights=weights, returns=_column(10.0, 0.0))
    assert target == pytest.approx([0.5 * (1 + 1.8 + 2.4) + 5, 0.5 * (1 + 1.8)], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (LOGITS, [-5, -2, 0, 2, 5]),
        (LOGITS | {"discriminator_reward_min": -1.0, "discriminator_reward_max": 0.5}, [-1, -1, 0, 0.5, 0.5]),
        ({}, [-5, -2.126928, -0.693147, -0.126928, 0]),
        ({"discriminator_reward": "log_d", "discriminator_reward_max": -0.5}, [-5, -2.126928, -0.693147, -0.5, -0.5]),
    ],
)
def test_discriminator_reward(changes: dict[str, Any], expected: list[float]) -> None:
    logits = torch.tensor([-30.0, -2.0, 0.0, 2.0, 30.0])
    reward = discriminator_reward(SkiLDSettings.model_validate(changes), logits)
    torch.testing.assert_close(reward, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-4)


# --- targets ---


def test_target_bootstraps(make_learner: Make) -> None:
    learner = make_learner(env_reward_weight=1.0)
    out = {"q_next": _column(10.0, 10.0), "later_kl_prior": torch.full((2, 1), 7.0)}
    target = _target(learner, out, returns=_column(1.0, 2.0), bootstrap=_column(0.9, 0.0))
    assert target == pytest.approx([1 + 9, 2], abs=1e-4)


def test_divergences_in_the_target(make_learner: Make) -> None:
    learner = make_learner(env_reward_weight=1.0, kl_in_target=True, alpha=0.5, alpha_q=3.0)
    out = {
        "q_next": _column(10.0, 10.0),
        "later_kl_prior": torch.full((2, 1), 4.0),
        "later_kl_posterior": torch.full((2, 1), 2.0),
        "logits": torch.full((2, 1), INSIDE),
        "later_logits": torch.full((2, 1), OUTSIDE),
    }
    target = _target(learner, out, bootstrap=_column(0.9, 0.0))
    assert target == pytest.approx([0.9 * (10 - 0.5 * 4), 0.0], abs=1e-4)


@pytest.mark.parametrize(
    ("ends_after", "terminated", "expected"),
    [
        # R is 1, 2, 4 at s_1, s_2, s_3 (D = 1, alpha_q = 1) and Q' is 10.
        (5, False, 0.9**3 * 10 - (0.9 * 1 + 0.81 * 2 + 0.729 * 4)),
        # The episode ends in s_2. A time limit bootstraps there, and charges R(s_2); a termination does neither.
        (2, False, 0.81 * 10 - (0.9 * 1 + 0.81 * 2)),
        (2, True, -0.9 * 1),
    ],
    ids=["inside", "time limit", "terminated"],
)
def test_divergences_at_every_state_of_the_walk(
    make_learner: Make, ends_after: int, terminated: bool, expected: float
) -> None:
    """The n-step target with `kl_in_target`, by hand, on what the replay draws."""
    replay = Replay(10, 1, 1, n_step=3, discount=0.9, horizon=5, seed=0, columns={"kl": 1}, later=True)
    kl = np.array([[100.0], [1.0], [2.0], [4.0], [50.0], [50.0]], np.float32)  # of s_0 .. s_5; R(s_0) is not in y
    rows = {"obs": kl[:-1], "next_obs": kl[1:], "kl": kl[:-1], "next_kl": kl[1:], "actions": kl[:-1]}
    rows |= {"rewards": np.zeros(5, np.float32), "k": np.full(5, 5), "terminated": np.zeros(5, np.float32)}
    rows = {name: column[:ends_after] for name, column in rows.items()}
    rows["terminated"] = np.float32([0] * (ends_after - 1) + [terminated])
    replay.add("episode", rows, ended=True)
    drawn = {name: torch.from_numpy(column) for name, column in replay.sample(50).items()}
    first = [int(row) for row in torch.nonzero(drawn["obs"][:, 0] == 100)[:2, 0]]
    batch = {name: column[first] for name, column in drawn.items()}

    learner = make_learner(env_reward_weight=1.0, kl_in_target=True, n_step=3, alpha=7.0, alpha_q=1.0)
    out = {"q_next": _column(10.0, 10.0), "logits": torch.full((2, 3), INSIDE)}
    out |= {"later_logits": torch.full((2, 3), INSIDE), "later_kl_posterior": batch["later_kl"][..., 0]}
    names = ("returns", "n_step_weights", "bootstrap", "later_weights")
    target = _target(learner, out, **{name: batch[name] for name in names})
    assert target == pytest.approx([expected] * 2, rel=1e-5)


def test_critic_loss(make_learner: Make) -> None:
    learner = make_learner(env_reward_weight=1.0)
    losses = _losses(learner, {"q": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, returns=_column(0.0, 1.0))
    assert losses["critic"] == pytest.approx(0.5 * (1 + 1) / 2 + 0.5 * (9 + 9) / 2)


# --- policy and divergences ---


@pytest.mark.parametrize(
    ("logit", "expected"), [(OUTSIDE, 0.5 * 4), (INSIDE, 3 * 2), (0.0, 0.5 * 0.5 * 4 + 0.5 * 3 * 2)]
)
def test_weighted_divergence(make_learner: Make, logit: float, expected: float) -> None:
    learner = make_learner(alpha=0.5, alpha_q=3.0)
    out = {"kl_prior": _column(4.0, 4.0), "kl_posterior": _column(2.0, 2.0), "logits": torch.full((2, 1), logit)}
    assert _losses(learner, out)["policy"] == pytest.approx(expected)
    assert _losses(learner, out | {"q_policy": _column(10.0, 20.0)})["policy"] == pytest.approx(expected - 15)


def test_support_is_that_of_the_first_state(make_learner: Make) -> None:
    learner = make_learner(alpha=0.5, alpha_q=3.0)
    out = {"kl_prior": _column(4.0, 4.0), "kl_posterior": _column(2.0, 2.0)}
    out["logits"] = torch.tensor([[OUTSIDE, INSIDE, INSIDE]] * 2)
    assert _losses(learner, out, n_step_weights=torch.ones(2, 3))["policy"] == pytest.approx(2.0)


@pytest.mark.parametrize(("guidance", "expected"), [("prior", 0.5 * 4), ("posterior", 3 * 2)])
def test_guidance_by_one_reference_alone(make_learner: Make, guidance: str, expected: float) -> None:
    learner = make_learner(guidance=guidance, alpha=0.5, alpha_q=3.0, kl_in_target=True, env_reward_weight=1.0)
    kl = {"kl_prior": _column(4.0, 4.0), "kl_posterior": _column(2.0, 2.0)}
    kl |= {f"later_{name}": value[:, None] for name, value in kl.items()}
    for logit in (INSIDE, OUTSIDE, 0.0):
        out = kl | {"logits": torch.full((2, 1), logit), "later_logits": torch.full((2, 1), -logit)}
        assert _losses(learner, out)["policy"] == pytest.approx(expected)
        assert _target(learner, out, bootstrap=_column(0.9, 0.0)) == pytest.approx([-0.9 * expected, 0.0], abs=1e-4)


# --- divergence weights ---


def _alpha_gradients(learner: SkiLDTorchLearner, kl_prior: float, kl_posterior: float, logit: float) -> list[float]:
    module = _module(learner)
    divergences = {"kl_prior": torch.full((2,), kl_prior), "kl_posterior": torch.full((2,), kl_posterior)}
    _losses(learner, divergences | {"logits": torch.full((2, 1), logit)})
    gradients = torch.autograd.grad(learner._latest.update.losses.alphas, [module.log_alpha, module.log_alpha_q])
    return [gradient.item() for gradient in gradients]


def test_alphas_follow_their_divergences(make_learner: Make) -> None:
    learner = make_learner(learn_alphas=True, alpha=2.0, alpha_q=4.0, target_divergence=10.0, target_divergence_q=1.0)
    assert _alpha_gradients(learner, 7.0, 0.0, OUTSIDE) == pytest.approx([2 * 3, 0]), "too close to the prior: falls"
    assert _alpha_gradients(learner, 15.0, 0.0, OUTSIDE) == pytest.approx([2 * -5, 0]), "too far from it: rises"
    assert _alpha_gradients(learner, 7.0, 3.0, INSIDE) == pytest.approx([0, 4 * -2])
    assert _alpha_gradients(learner, 7.0, 3.0, 0.0) == pytest.approx([2 * 3 / 2, 4 * -2 / 2])


def test_alphas_of_guidance_by_one_reference_alone(make_learner: Make) -> None:
    targets = {"target_divergence": 10.0, "target_divergence_q": 1.0}
    spirl = make_learner(guidance="prior", learn_alphas=True, alpha=2.0, alpha_q=4.0, **targets)
    assert _alpha_gradients(spirl, 7.0, 3.0, INSIDE) == pytest.approx([2 * 3, 0])
    posterior = make_learner(guidance="posterior", learn_alphas=True, alpha=2.0, alpha_q=4.0, **targets)
    assert _alpha_gradients(posterior, 7.0, 3.0, OUTSIDE) == pytest.approx([0, 4 * -2])


def test_learned_alphas_move_in_an_update(make_learner: Make, batch: Batch) -> None:
    for column in ("n_step_states", "obs"):
        batch[column] = batch[column] * 0
    learner = make_learner(learn_alphas=True, target_divergence=1e6, target_divergence_q=1e-6)
    module = _module(learner)
    alpha, alpha_q = module.log_alpha.item(), module.log_alpha_q.item()
    _update(learner, batch)
    assert module.log_alpha.item() < alpha
    assert module.log_alpha_q.item() > alpha_q


def test_alphas_are_detached_in_the_policy_loss(make_learner: Make) -> None:
    learner = make_learner(learn_alphas=True)
    _losses(learner, {"kl_prior": torch.ones(2, requires_grad=True)})
    alphas = [_module(learner).log_alpha, _module(learner).log_alpha_q]
    assert torch.autograd.grad(learner._latest.update.losses.policy, alphas, allow_unused=True) == (None, None)


# --- imitation ---


def _gradients(learner: SkiLDTorchLearner, batch: Batch) -> tuple[float, list[Tensor]]:
    torch.manual_seed(5)
    module = _module(learner)
    loss = learner.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID, config=learner.config, batch=batch, fwd_out=module.forward_train(batch)
    )
    parameters = [p for p in module.parameters() if p.requires_grad]
    return loss.item(), list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("returns", [1e3, float("nan")])
def test_imitation_has_no_path_for_the_environments_reward(make_learner: Make, batch: Batch, returns: float) -> None:
    learner = make_learner(env_reward_weight=0.0, discriminator_updates=1.0, learn_alphas=True, kl_in_target=True)
    loss, gradients = _gradients(learner, batch)
    other_loss, other_gradients = _gradients(learner, batch | {"returns": torch.full((8,), returns)})
    assert other_loss == loss
    assert all(torch.equal(*pair) for pair in zip(gradients, other_gradients, strict=True))


def test_demonstration_guided_rl_uses_it(make_learner: Make, batch: Batch) -> None:
    learner = make_learner(env_reward_weight=0.9)
    assert _gradients(learner, batch)[0] != _gradients(learner, batch | {"returns": torch.zeros(8)})[0]


def test_spirl_learns_nothing_from_demonstrations(make_learner: Make, batch: Batch) -> None:
    learner = make_learner(guidance="prior", env_reward_weight=1.0, policy_init="prior")
    changed = {name: column + 1 for name, column in batch.items() if name.startswith(("posterior", "demonstration"))}
    for parameter in _module(learner).discriminator.parameters():
        parameter.data += 1
    loss, gradients = _gradients(learner, batch)
    for parameter in _module(learner).discriminator.parameters():
        parameter.data -= 1
    other_loss, other_gradients = _gradients(learner, batch | changed)
    assert other_loss == loss
    assert all(torch.equal(*pair) for pair in zip(gradients, other_gradients, strict=True))


# --- updates ---


def test_an_update_moves_policy_critics_and_targets(make_learner: Make, batch: Batch) -> None:
    learner = make_learner()
    module = _module(learner)
    before = _copy(module)
    _update(learner, batch)
    assert _moved(before, module) == {"policy", "critics", "target_critics", "num_updates"}


def test_one_update_of_the_policy_in_several_of_the_critics(make_learner: Make, batch: Batch) -> None:
    learner = make_learner(critic_updates_per_policy_update=3, learn_alphas=True)
    module, moved = _module(learner), []
    for _ in range(6):
        before = _copy(module)
        _update(learner, batch)
        moved.append(_moved(before, module))
    critics = {"critics", "target_critics", "num_updates"}
    assert moved == [critics, critics, critics | {"policy", "log_alpha", "log_alpha_q"}] * 2


def test_targets_follow_slowly(make_learner: Make, batch: Batch) -> None:
    learner = make_learner(target_update_rate=0.005, critic_lr=0.01)
    module = _module(learner)
    for _ in range(2):
        targets = [p.clone() for p in module.target_critics.parameters()]
        _update(learner, batch)
        for old, target, source in zip(
            targets, module.target_critics.parameters(), module.critics.parameters(), strict=True
        ):
            torch.testing.assert_close(target, 0.995 * old + 0.005 * source.detach(), rtol=1e-6, atol=1e-7)


def test_policy_rests_while_the_critics_warm_up(make_learner: Make, batch: Batch) -> None:
    learner = make_learner(critic_warmup_updates=2, learn_alphas=True)
    module = _module(learner)
    before = _copy(module)
    _update(learner, batch, 2)
    assert _moved(before, module) == {"critics", "target_critics", "num_updates"}
    _update(learner, batch)
    assert {"policy", "log_alpha", "log_alpha_q"} <= _moved(before, module)


@pytest.mark.parametrize(
    ("rate", "expected"), [(1.0, [1, 1, 1, 1, 1, 1]), (0.5, [0, 1, 0, 1, 0, 1]), (0.3, [0, 0, 0, 1, 0, 0])]
)
def test_discriminator_updates(make_learner: Make, batch: Batch, rate: float, expected: list[int]) -> None:
    learner = make_learner(discriminator_updates=rate)
    module = _module(learner)
    moved = []
    for _ in expected:
        before = _copy(module)
        _update(learner, batch)
        moved.append(int("discriminator" in _moved(before, module)))
    assert moved == expected


def test_online_discriminator_learns_the_labels(make_learner: Make, batch: Batch) -> None:
    learner = make_learner(discriminator_updates=1.0, discriminator_lr=0.01, discriminator_noise=0.0)
    discriminator = _module(learner).discriminator

    def gap() -> float:
        positive, negative = (discriminator(batch[f"{name}_states"]).mean() for name in ("demonstration", "replayed"))
        return (positive - negative).item()

    before = gap()
    _update(learner, batch, 30)
    assert gap() > before + 1


def test_gradients_are_clipped_for_each_optimiser(make_learner: Make, batch: Batch) -> None:
    batch["returns"] = batch["returns"] * 1e6  # the critics' gradient is huge, the policy's is not
    learner = make_learner(gradient_clip=1.0)
    _update(learner, batch)
    norms = {}
    for name, optimizer in learner.get_optimizers_for_module(DEFAULT_MODULE_ID):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms[name.rsplit("_", 1)[-1]] = torch.stack([g.norm() for g in gradients]).norm().item()
    assert norms["critic"] == pytest.approx(1.0, rel=1e-3)
    assert norms["policy"] > 1e-3


def test_updates_that_are_not_finite_are_skipped(make_learner: Make, batch: Batch) -> None:
    learner = make_learner(env_reward_weight=0.9)
    module = _module(learner)
    before = _copy(module)
    _update(learner, batch | {"returns": torch.full((8,), float("inf"))})
    assert "critics" not in _moved(before, module)
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    _update(learner, batch)
    assert "critics" in _moved(before, module)


def test_everything_together_stays_finite(make_learner: Make, batch: Batch) -> None:
    learner = make_learner(
        discriminator_updates=1.0, learn_alphas=True, kl_in_target=True, kl="sampled", kl_clamp=100.0
    )
    _update(learner, batch, 3)
    assert all(torch.isfinite(value).all() for value in _module(learner).state_dict().values())
    assert math.isfinite(learner._latest.update.losses.total.item())
