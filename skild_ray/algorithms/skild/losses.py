"""The losses of SkiLD's stage 4 as functions of tensors (section 4.3 and algorithm 1 of the paper).

With D = D(s) the demonstration support, KL_p = KL(pi(.|s) || prior) and KL_q = KL(pi(.|s) || posterior):

    R(s)    = alpha (1 - D) KL_p + alpha_q D KL_q

A walk of n skill transitions goes from (s_0, z_0) through s_1 .. s_{n-1} to s_n. Its weights are w_0 = 1 and
w_i = gamma_0 .. gamma_{i-1}. An episode that ends cuts it short: s_n is then its last state, the w_i in between are 0,
and w_n is 0 if it terminated. With lambda = `env_reward_weight`, rewards r_i of the environment and z_n ~ pi(.|s_n):

    r~_i    = (1 - lambda) c_D r_D(s_i) + lambda c r_i
    y       = sum_{i=0}^{n-1} w_i r~_i + w_n min_j Q'_j(s_n, z_n)   [- sum_{i=1}^{n} w_i R(s_i) with `kl_in_target`]
    critic  = sum_j 1/2 (Q_j(s_0, z_0) - y)^2
    policy  = R(s_0) - min_j Q_j(s_0, z~),   z~ ~ pi(.|s_0)
    alphas  = alpha (delta - KL_p)(1 - D) + alpha_q (delta_q - KL_q) D   at s_0
    D       = cross-entropy of demonstrations (1) against replayed states (0), where D is trained online

c and c_D are 1 in the paper. With `normalize_rewards` c is that of `skild_ray.algorithms.reward_scale`, c_D that of
`SkiLDSettings.discriminator_scale`: two returns of one size are blended, and alpha is in units of either.

The paper's target has the last sum, with n = 1: y = r~ + gamma [min_j Q'_j(s', z') - R(s')]. For n > 1 the recursion
Q(s_0, z_0) = r~_0 + gamma [Q(s_1, z_1) - R(s_1)], unrolled n times, charges R at every state that the walk enters; R is
that of the current policy, and carries no gradient there.

Of more than `critic_subset` critics, that many are drawn for each update. The smallest of their targets bootstraps, and
the policy follows the mean of all critics instead of the smallest (as in RLPD, Ball et al., 2023).

The default leaves the sum out. The critic then values the return alone, and R only holds the policy back where it acts
(policy regularisation in the terms of Wu et al., 2019, "Behavior Regularized Offline Reinforcement Learning"). With the
sum, divergences count on the scale of the rewards, which fixed alphas do not know; the paper learns its alphas.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.models.discriminator import discriminator_loss, discriminator_reward


class SkiLDLosses(NamedTuple):
    """The separate losses, each a scalar; every one has its own optimiser and parameters."""

    critic: Tensor
    policy: Tensor
    alphas: Tensor
    discriminator: Tensor

    @property
    def total(self) -> Tensor:
        return self.critic + self.policy + self.alphas + self.discriminator


class Update(NamedTuple):
    """The losses of a batch of B walks and what they are made of."""

    losses: SkiLDLosses
    support: Tensor
    """D(s_0), [B]."""
    discriminator_reward: Tensor
    """sum_i w_i c_D r_D(s_i), [B]."""
    reward: Tensor
    """sum_i w_i r~_i, [B]."""
    target: Tensor
    """y, [B]."""


def skild_losses(
    settings: SkiLDSettings,
    batch: Mapping[str, Tensor],
    out: Mapping[str, Tensor],
    reward_d: Callable[[SkiLDSettings, Tensor], Tensor] = discriminator_reward,
) -> Update:
    """All losses of one batch.

    Args:
        settings: of the algorithm.
        batch: from the replay: `returns` [B] = c sum_i w_i r_i, `n_step_weights` [B, n] = w_0 .. w_{n-1}, `bootstrap`
            [B] = w_n, and with `kl_in_target` `later_weights` [B, n] = w_1 .. w_n.
        out: of `SkiLDTorchRLModule` on that batch.
        reward_d: r_D of the settings and logits d.
    """
    with torch.no_grad():
        alpha, alpha_q = out["log_alpha"].exp(), out["log_alpha_q"].exp()
        support = posterior_weight(settings, out["logits"][:, 0])
        rewards_d = settings.discriminator_scale * reward_d(settings, out["logits"])
        discriminator_return = (batch["n_step_weights"] * rewards_d).sum(-1)
        weight = settings.env_reward_weight  # with 0 (imitation) no reward of the environment reaches a loss
        reward = (1 - weight) * discriminator_return + (weight * batch["returns"] if weight > 0 else 0.0)
        target = reward + batch["bootstrap"] * out["q_next"]
        if settings.kl_in_target:
            later_support = posterior_weight(settings, out["later_logits"])
            cost = regulariser(later_support, out["later_kl_prior"], out["later_kl_posterior"], alpha, alpha_q)
            target = target - (batch["later_weights"] * cost).sum(-1)
    held_back = regulariser(support, out["kl_prior"], out["kl_posterior"], alpha, alpha_q)
    zero = target.new_zeros(())
    losses = SkiLDLosses(
        critic=0.5 * (out["q"] - target).square().mean(1).sum(),
        policy=(held_back - out["q_policy"]).mean(),
        alphas=alpha_loss(settings, support, out) if settings.learn_alphas else zero,
        discriminator=(
            discriminator_loss(out["positive"], out["negative"], settings.discriminator_label_smoothing)
            if settings.discriminator_rate > 0
            else zero
        ),
    )
    return Update(losses, support, discriminator_return, reward, target)


def regulariser(support: Tensor, kl_prior: Tensor, kl_posterior: Tensor, alpha: Tensor, alpha_q: Tensor) -> Tensor:
    """R = alpha (1 - D) KL_p + alpha_q D KL_q, elementwise."""
    return alpha * (1 - support) * kl_prior + alpha_q * support * kl_posterior


def alpha_loss(settings: SkiLDSettings, support: Tensor, out: Mapping[str, Tensor]) -> Tensor:
    """Dual descent of both weights: mean of alpha (delta - KL_p)(1 - D) + alpha_q (delta_q - KL_q) D."""
    gap = (settings.target_divergence - out["kl_prior"].detach()) * (1 - support)
    gap_q = (settings.target_divergence_q - out["kl_posterior"].detach()) * support
    return (out["log_alpha"].exp() * gap + out["log_alpha_q"].exp() * gap_q).mean()


def posterior_weight(settings: SkiLDSettings, logits: Tensor) -> Tensor:
    """The share of the posterior's divergence, of logits d of D: D(s) = sigmoid(d), or 0 or 1 as `guidance` says.

    With `guidance` prior, lambda = 1 and a policy that starts as the prior this is SPiRL (Pertsch et al., CoRL 2020).
    """
    match settings.guidance:
        case "prior":
            return torch.zeros_like(logits)
        case "posterior":
            return torch.ones_like(logits)
        case _:
            return torch.sigmoid(logits)
