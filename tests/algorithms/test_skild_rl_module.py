"""The networks of stage 4: what they start from, what acts, and where gradients go."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained import SKILL, publish_pretrained, tiny_experiment
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from skild_ray.algorithms.pretrained import Pretrained, References, load_head
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.algorithms.train import algorithm_config
from skild_ray.config import Experiment
from skild_ray.evaluation.agent import Which
from skild_ray.models.gaussian import Gaussian
from skild_ray.runs.folder import run_folder

Make = Callable[..., SkiLDTorchRLModule]
Batch = dict[str, Tensor]
PARTS = ("policy", "critics", "target_critics", "discriminator", "log_alpha", "log_alpha_q")


def _parts_with_gradient(module: SkiLDTorchRLModule, value: Tensor) -> set[str]:
    module.zero_grad()
    value.backward(retain_graph=True)
    named = [(name, p) for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    return {part for part in PARTS for name, _ in named if name.split(".")[0] == part}


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_policy_starts_from(make_module: Make, pretrained_run: Experiment, batch: Batch, start: str) -> None:
    module = make_module(policy_init=start, policy_init_scale=0.5)
    pretrained = Pretrained.open(run_folder(pretrained_run))
    head = load_head(pretrained.skill_prior if start == "prior" else pretrained.skill_posterior)
    policy, expected = module.policy(batch["obs"]), head(batch["obs"])
    torch.testing.assert_close(policy.mean, expected.mean)
    torch.testing.assert_close(policy.log_std.exp(), 0.5 * expected.log_std.exp())


def test_prior_and_posterior_differ(make_module: Make, batch: Batch) -> None:
    means = [make_module(policy_init=start).policy(batch["obs"]).mean for start in ("prior", "posterior")]
    assert not torch.allclose(*means)


def test_critics_of_normalised_returns_start_at_zero(make_module: Make, batch: Batch) -> None:
    for normalised in (True, False):
        values = make_module(normalize_rewards=normalised).forward_train(batch)["q"]
        assert (values == 0).all() == normalised


def test_target_critics_start_equal(make_module: Make) -> None:
    module = make_module()
    for target, source in zip(module.target_critics.parameters(), module.critics.parameters(), strict=True):
        assert torch.equal(target, source)
        assert not target.requires_grad


@pytest.mark.parametrize(
    ("squash", "expected"),
    [
        ("scaled_tanh", lambda u: 2 * torch.tanh(u / 2)),
        ("tanh", lambda u: 2 * torch.tanh(u)),
        ("clip", lambda u: u.clamp(-2, 2)),
        ("none", lambda u: u),
    ],
)
def test_squashing(make_module: Make, batch: Batch, squash: str, expected: Callable[[Tensor], Tensor]) -> None:
    module = make_module(latent_squash=squash, latent_bound=2.0)
    latents = torch.linspace(-6, 6, 25)
    torch.testing.assert_close(module.squash(latents), expected(latents))
    deterministic = module.forward_inference({"obs": batch["obs"]})["actions"]
    torch.testing.assert_close(deterministic, expected(module.policy(batch["obs"]).mean).detach())


def test_exploration_samples_the_policy(make_module: Make, batch: Batch) -> None:
    module = make_module(latent_squash="clip", latent_bound=2.0)
    states = batch["obs"][:1].expand(20_000, -1)
    actions = module.forward_exploration({"obs": states})["actions"]
    policy = module.policy(batch["obs"][:1])
    expected = policy.mean + policy.log_std.exp() * torch.randn(20_000, 3)
    torch.testing.assert_close(actions.mean(0), expected.clamp(-2, 2).mean(0).detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(actions.std(0), expected.clamp(-2, 2).std(0).detach(), atol=0.05, rtol=0)
    assert not actions.requires_grad


def test_env_runners_hold_the_policy_only(make_module: Make) -> None:
    acting, learning = make_module(inference_only=True), make_module()
    assert {name.split(".")[0] for name in acting.state_dict()} == {"policy"}
    state = learning.get_state(inference_only=True)
    assert set(state) == set(acting.state_dict())
    acting.set_state(state)


def test_smallest_of_a_random_subset_of_many_critics(make_module: Make, batch: Batch) -> None:
    """Critics that are 0, 1, 2 everywhere: the smaller of two is 0 twice in three times, and the mean of all 1."""
    module = make_module(critics=3, critic_subset=2)
    for ensemble in (module.critics, module.target_critics):
        for value, member in enumerate(ensemble):
            torch.nn.init.zeros_(member[-1].weight)
            torch.nn.init.constant_(member[-1].bias, value)
    outs = [module.forward_train(batch) for _ in range(60)]
    drawn = torch.stack([out["q_next"] for out in outs])
    assert (drawn == drawn[:, :1]).all(), "one subset for the whole batch"
    assert set(drawn[:, 0].tolist()) == {0.0, 1.0}
    assert 0.4 < (drawn[:, 0] == 0).float().mean() < 0.9
    assert outs[0]["q_policy"].tolist() == [1.0] * 8


def test_values_of_a_training_pass(make_module: Make, batch: Batch) -> None:
    module = make_module()
    with torch.no_grad():
        for target in module.target_critics.parameters():
            target.mul_(1.5)
    torch.manual_seed(3)
    out = module.forward_train(batch)
    states, next_states = module.critic_inputs(batch["obs"]), module.critic_inputs(batch["next_obs"])
    torch.testing.assert_close(out["q"], module.critics(torch.cat([states, batch["actions"]], -1)))
    torch.manual_seed(3)
    policy = module.policy(batch["obs"])
    latents = module.squash(policy.sample())
    torch.testing.assert_close(out["q_policy"], module.critics(torch.cat([states, latents], -1)).min(0).values)
    next_latents = module.squash(module.policy(batch["next_obs"]).sample())
    targets = module.target_critics(torch.cat([next_states, next_latents], -1)).min(0).values
    torch.testing.assert_close(out["q_next"], targets)
    torch.testing.assert_close(out["logits"], module.discriminator(batch["n_step_states"]))
    assert out["logits"].shape == (8, 3)
    assert not {"later_kl_prior", "positive"} & out.keys()


@pytest.mark.parametrize("name", ["prior", "posterior"])
def test_divergence_is_summed_over_dimensions(make_module: Make, batch: Batch, name: str) -> None:
    module = make_module()
    policy = module.policy(batch["obs"])
    reference = Normal(batch[f"{name}_mean"], batch[f"{name}_log_std"].exp())
    expected = kl_divergence(Normal(policy.mean, policy.log_std.exp()), reference).sum(-1)
    torch.testing.assert_close(module.forward_train(batch)[f"kl_{name}"], expected)


def test_later_divergences_are_of_their_own_states(make_module: Make, batch: Batch) -> None:
    module = make_module(kl_in_target=True)
    out = module.forward_train(batch)
    for step in range(3):
        policy = module.policy(batch["later_states"][:, step])
        for name in ("prior", "posterior"):
            reference = Gaussian(batch[f"later_{name}_mean"][:, step], batch[f"later_{name}_log_std"][:, step])
            torch.testing.assert_close(out[f"later_kl_{name}"][:, step], policy.kl(reference).sum(-1).detach())
    torch.testing.assert_close(out["later_logits"], module.discriminator(batch["later_states"]))


def test_sampled_divergence_estimates_the_analytic_one(make_module: Make, batch: Batch) -> None:
    module = make_module(kl="sampled", kl_samples=5_000)
    analytic, sampled = make_module().forward_train(batch), module.forward_train(batch)
    for name in ("kl_prior", "kl_posterior"):
        torch.testing.assert_close(sampled[name], analytic[name], rtol=0.1, atol=0.1)
    assert _parts_with_gradient(module, sampled["kl_prior"].sum()) == {"policy"}


def test_divergence_clamp(make_module: Make, batch: Batch) -> None:
    module = make_module(kl_clamp=0.5)
    batch["prior_mean"] += 50
    clamped = module.forward_train(batch)["kl_prior"]
    assert clamped.tolist() == [0.5] * 8
    assert _parts_with_gradient(module, clamped.sum()) == set(), "no gradient outside the clamp"


def test_sigma_floor_raises_the_references_only(make_module: Make, batch: Batch) -> None:
    module = make_module(sigma_floor=0.5)
    batch["prior_log_std"] = torch.full_like(batch["prior_log_std"], -5.0)
    policy = module.policy(batch["obs"])
    expected = kl_divergence(Normal(policy.mean, policy.log_std.exp()), Normal(batch["prior_mean"], 0.5)).sum(-1)
    torch.testing.assert_close(module.forward_train(batch)["kl_prior"], expected)


def test_where_gradients_go(make_module: Make, batch: Batch) -> None:
    for name in ("prior_mean", "posterior_mean", "prior_log_std", "posterior_log_std"):
        batch[name].requires_grad_()
    trained = {"normalize_rewards": False}  # critics that start at 0 have no slope yet
    module = make_module(discriminator_updates=1.0, learn_alphas=True, kl_in_target=True, **trained)
    out = module.forward_train(batch)
    assert _parts_with_gradient(module, out["q"].sum()) == {"critics"}
    assert _parts_with_gradient(module, out["q_policy"].sum()) == {"policy"}
    assert _parts_with_gradient(module, (out["kl_prior"] + out["kl_posterior"]).sum()) == {"policy"}
    assert _parts_with_gradient(module, (out["positive"] - out["negative"]).sum()) == {"discriminator"}
    for name in ("q_next", "logits", "later_kl_prior", "later_kl_posterior", "later_logits", "log_sigma"):
        assert not out[name].requires_grad, name
    assert all(p.requires_grad for p in module.critics.parameters()), "protected during the policy's pass only"


def test_online_discriminator_sees_demonstrations_and_replay(make_module: Make, batch: Batch) -> None:
    module = make_module(discriminator_updates=0.5, discriminator_noise=0.0)
    out = module.forward_train(batch)
    torch.testing.assert_close(out["positive"], module.discriminator(batch["demonstration_states"]))
    torch.testing.assert_close(out["negative"], module.discriminator(batch["replayed_states"]))


def test_frozen_discriminator(make_module: Make, batch: Batch) -> None:
    module = make_module()
    assert "positive" not in module.forward_train(batch)
    assert not any(p.requires_grad for p in module.discriminator.parameters())


def test_fixed_alphas(make_module: Make) -> None:
    module = make_module(alpha=0.1, alpha_q=5.0)
    assert [module.log_alpha.exp().item(), module.log_alpha_q.exp().item()] == pytest.approx([0.1, 5.0])
    assert make_module(alpha=0.0).log_alpha.exp().item() < 1e-15


def test_batch_norm_statistics_do_not_move(make_module: Make, batch: Batch, tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, skill=SKILL | {"head_norm": "batch"})
    publish_pretrained(experiment)
    module = make_module(run_dir=run_folder(experiment))
    norms = [part for part in module.policy.net if isinstance(part, nn.BatchNorm1d)]
    assert norms
    before = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    module.train()
    out = module.forward_train(batch)
    for norm, old in zip(norms, before, strict=True):
        assert not norm.training
        assert all(torch.equal(value, old[name]) for name, value in norm.named_buffers())
    assert _parts_with_gradient(module, out["kl_prior"].sum()) == {"policy"}
    assert all(norm.weight.grad is not None for norm in norms), "their affine part is trained"


def test_references_have_the_posteriors_sigma_scaled(pretrained_run: Experiment, batch: Batch) -> None:
    pretrained = Pretrained.open(run_folder(pretrained_run))
    whole, half = (References(pretrained, scale)(batch["obs"].numpy()) for scale in (1.0, 0.5))
    for name in References.NAMES:
        factor = 0.5 if name == "posterior_log_std" else 1.0
        np.testing.assert_allclose(np.exp(half[name]), factor * np.exp(whole[name]), rtol=1e-5)


def test_behavioural_cloning_is_the_posterior_with_its_own_sigma(pretrained_run: Experiment, batch: Batch) -> None:
    settings = pretrained_run.algorithm.model_copy(update={"policy_init": "posterior", "policy_init_scale": 0.5})
    experiment = pretrained_run.model_copy(update={"algorithm": settings})
    expected = load_head(Pretrained.open(run_folder(experiment)).skill_posterior)(batch["obs"])
    scales: dict[Which, float] = {"initial": 0.5, "posterior": 1.0}
    for which, scale in scales.items():
        policy = algorithm_config(experiment).without_rl()[which].build_module().policy(batch["obs"])
        torch.testing.assert_close(policy.mean, expected.mean)
        torch.testing.assert_close(policy.log_std.exp(), scale * expected.log_std.exp())
