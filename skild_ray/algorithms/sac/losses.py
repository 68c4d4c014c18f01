"""The losses of soft actor-critic with a learned temperature, as functions of tensors (Haarnoja et al., 2018).

With the target entropy H = -action_dim, a walk of n steps from (s_0, a_0) to s_n whose weights are w_i = gamma^i (0
after the end of an episode, w_n = 0 where it terminates), and a_i' ~ pi(s_i):

    y      = sum_{i=0}^{n-1} w_i r_i + w_n min_j Q'_j(s_n, a_n') - alpha sum_{i=1}^{n} w_i log pi(a_i'|s_i)
    critic = sum_j 1/2 (Q_j(s_0, a_0) - y)^2
    policy = alpha log pi(a~|s_0) - min_j Q_j(s_0, a~),   a~ ~ pi(s_0)
    alpha  = -log alpha (log pi(a~|s_0) + H)

Rewards of a walk are not corrected for the policy that chose its actions; its entropies are those of the current
policy.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class SACLosses(NamedTuple):
    """The separate losses, each a scalar; every one has its own optimiser and parameters."""

    critic: Tensor
    policy: Tensor
    alpha: Tensor

    @property
    def total(self) -> Tensor:
        return self.critic + self.policy + self.alpha


class Update(NamedTuple):
    """The losses of a batch of B walks and what they are made of."""

    losses: SACLosses
    target: Tensor
    """y, [B]."""


def sac_losses(batch: Mapping[str, Tensor], out: Mapping[str, Tensor], action_dim: int) -> Update:
    """All losses of one batch.

    Args:
        batch: from the replay: `returns` [B] = sum_i w_i r_i, `bootstrap` [B] = w_n and `later_weights` [B, n] = w_1 ..
            w_n.
        out: of `SACTorchRLModule` on that batch.
        action_dim: dimensions of an action.
    """
    log_alpha = out["log_alpha"]
    alpha = log_alpha.detach().exp()
    entropy_cost = alpha * (batch["later_weights"] * out["later_log_pi"]).sum(-1)
    target = batch["returns"] + batch["bootstrap"] * out["q_next"] - entropy_cost
    target_entropy = -float(action_dim)
    losses = SACLosses(
        critic=0.5 * (out["q"] - target).square().mean(1).sum(),
        policy=(alpha * out["log_pi"] - out["q_policy"]).mean(),
        alpha=-(log_alpha * (out["log_pi"].detach() + target_entropy)).mean(),
    )
    return Update(losses, target)
