"""The losses of SUPE as functions of tensors (Wilcoxson et al., ICML 2025): those of RLPD on optimistic labels.

A transition of a skill, x = (s, z), is the policy's own or prior data. The network f(x) predicts K fixed random
features f0(x) (random network distillation; Burda et al., 2019), r^(x) the reward r, and m^(x) = sigmoid(l(x)) the
probability that the episode goes on. With gamma = discount^(k/H) and the coefficient beta, the labels are

    e(x)    = 1/K sum_i (f_i(x) - f0_i(x))^2
    own     : r~ = r + beta e(x),       w~ = gamma, 0 where the episode terminates
    prior   : r~ = r^(x) + beta e(x),   w~ = gamma m^(x)

and y = r~ + w~ min_{j in M} Q'_j(s', z') is RLPD's target. `relabel: min` has no r^: r of prior data is the smallest
reward that was met, see `SUPEExperience`. `relabel: none` has no m^ either: prior data are labelled as own transitions.

The models learn from own transitions alone, whose rewards and ends are known. Labels carry no gradient:

    rnd          = mean e(x)
    reward_model = mean (r^(x) - r)^2
    termination  = mean -[goes on] log m^(x) - [terminates] log (1 - m^(x))
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from skild_ray.algorithms.rlpd.losses import rlpd_losses


class SUPELosses(NamedTuple):
    """The separate losses, each a scalar; no parameter is in two of them."""

    critic: Tensor
    policy: Tensor
    temperature: Tensor
    rnd: Tensor
    """0 where the network is not in use, as the two that follow."""
    reward_model: Tensor
    termination: Tensor

    @property
    def total(self) -> Tensor:
        return self.critic + self.policy + self.temperature + self.rnd + self.reward_model + self.termination


class Update(NamedTuple):
    """The losses of a batch of B transitions and what they are made of."""

    losses: SUPELosses
    target: Tensor
    """y, [B]."""
    reward: Tensor
    """r~ without the bonus, [B]."""
    bonus: Tensor
    """beta e(x), [B]."""


def supe_losses(
    batch: Mapping[str, Tensor], out: Mapping[str, Tensor], target_entropy: float, coefficient: float
) -> Update:
    """All losses of one batch.

    Args:
        batch: of `SUPEExperience`: `returns` [B] = r, `bootstrap` [B] = gamma, 0 where it terminates, `own` [B] = 1 for
            own transitions, 0 for prior data, and with `backup_entropy` `later_weights` [B, 1] = `bootstrap`.
        out: of `SUPETorchRLModule` on that batch.
        target_entropy: in nats.
        coefficient: beta.
    """
    own, reward, zero = batch["own"] > 0, batch["returns"], batch["returns"].new_zeros(())
    survival, bonus = torch.ones_like(reward), torch.zeros_like(reward)
    rnd, reward_model, termination = zero, zero, zero
    if "novelty" in out:
        bonus = coefficient * out["novelty"].detach()
        rnd = _mean_where(own, out["novelty"])
    if "reward" in out:
        reward_model = _mean_where(own, (out["reward"] - reward).square())
        reward = torch.where(own, reward, out["reward"].detach())
    if "survival" in out:
        goes_on = (batch["bootstrap"] > 0).to(reward)
        termination = _mean_where(own, binary_cross_entropy_with_logits(out["survival"], goes_on, reduction="none"))
        survival = torch.where(own, survival, torch.sigmoid(out["survival"].detach()))
    labels = {"returns": reward + bonus, "bootstrap": batch["bootstrap"] * survival}
    if "later_weights" in batch:
        labels["later_weights"] = labels["bootstrap"][:, None]
    losses, target = rlpd_losses({**batch, **labels}, out, target_entropy)
    return Update(SUPELosses(*losses, rnd, reward_model, termination), target, reward, bonus)


def _mean_where(mask: Tensor, values: Tensor) -> Tensor:
    """0 where the mask is nowhere true."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
