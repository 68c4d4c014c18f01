"""The losses of RLPD as functions of tensors (Ball et al., "Efficient Online Reinforcement Learning with Offline Data",
ICML 2023): soft actor-critic with E critics Q_j, of which a random subset M of the target critics bootstraps.

A walk of n steps goes from (s_0, a_0) to s_n; its weights are w_i = gamma^i (0 after the end of an episode, w_n = 0
where it terminates). With a_i' ~ pi(s_i), a~ ~ pi(s_0), and the target entropy H:

    y           = sum_{i=0}^{n-1} w_i r_i + w_n min_{j in M} Q'_j(s_n, a_n')
                  [- alpha sum_{i=1}^{n} w_i log pi(a_i'|s_i) with `backup_entropy`]
    critic      = 1/E sum_j (Q_j(s_0, a_0) - y)^2
    policy      = alpha log pi(a~|s_0) - 1/E sum_j Q_j(s_0, a~)
    temperature = alpha (-log pi(a~|s_0) - H)

M is drawn for each update. With `choose_by_q` (Hu, Mirchandani and Sadigh, "Imitation Bootstrapped Reinforcement
Learning", RSS 2024) a_n' is the better one of a' ~ pi(s_n) and the decision c of the cloned policy,

    a_n'        = argmax_{a in {a', c}} min_{j in M'} Q'_j(s_n, a)

with M' drawn apart from M. Policy and temperature are updated once in several updates of the critics. Rewards of a walk
are not corrected for the policy that chose its actions; its entropies are those of the current policy.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class RLPDLosses(NamedTuple):
    """The separate losses, each a scalar; every one has its own optimiser and parameters."""

    critic: Tensor
    policy: Tensor
    """0 in an update of the critics alone, as `temperature`."""
    temperature: Tensor

    @property
    def total(self) -> Tensor:
        return self.critic + self.policy + self.temperature


class Update(NamedTuple):
    """The losses of a batch of B walks and what they are made of."""

    losses: RLPDLosses
    target: Tensor
    """y, [B]."""


def rlpd_losses(batch: Mapping[str, Tensor], out: Mapping[str, Tensor], target_entropy: float) -> Update:
    """All losses of one batch.

    Args:
        batch: from the replay: `returns` [B] = sum_i w_i r_i, `bootstrap` [B] = w_n, and with `backup_entropy`
            `later_weights` [B, n] = w_1 .. w_n.
        out: of `RLPDTorchRLModule` on that batch; without `log_pi` only the critics have a loss.
        target_entropy: H, in nats.
    """
    alpha = out["alpha"]
    target = batch["returns"] + batch["bootstrap"] * out["q_next"]
    if "later_log_pi" in out:
        target = target - alpha.detach() * (batch["later_weights"] * out["later_log_pi"]).sum(-1)
    zero = target.new_zeros(())
    policy, temperature = zero, zero
    if "log_pi" in out:
        policy = (alpha.detach() * out["log_pi"] - out["q_policy"]).mean()
        temperature = alpha * (-out["log_pi"].detach().mean() - target_entropy)
    return Update(RLPDLosses((out["q"] - target).square().mean(), policy, temperature), target)


def better_decisions(candidates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The better one of two decisions in each state, the first where they are equally good.

    Args:
        candidates: [2, B, D].
        values: Q of each, [2, B].

    Returns:
        The decisions [B, D], and 1 where the second is better, else 0 [B].
    """
    second = values[1] > values[0]
    return torch.where(second[:, None], candidates[1], candidates[0]), second.to(values.dtype)
