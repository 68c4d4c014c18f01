"""The losses of Q-chunking, as functions of tensors (Li, Zhou and Levine, 2025).

A chunk A = (a_t, .., a_{t+h-1}) is one action of the critics Q_j(s, A) and of the policy pi(A|s). The data have k of
its steps: h, unless their episode ends before. With R = sum_{i<k} gamma^i r_{t+i}, and A' ~ pi(s_{t+k}):

    y      = R + gamma^k mean_j Q'_j(s_{t+k}, A'),      y = R where the episode terminates
    critic = w (Q_j(s_t, A) - y)^2,                     w = 0 where k < h and it does not terminate, else 1

The flow v models the chunks of the data. With noise x_0 ~ N(0, I), u ~ U(0, 1) and x_u = (1 - u) x_0 + u A:

    flow   = m_i (v_i(s_t, x_u, u) - (A - x_0)_i)^2,    m_i = 0 for the actions that the data do not have, else 1

F(s, e) is what it carries noise e to. The distilled actor mu does so in one step, to where the critics like it (as in
flow Q-learning; Park, Li and Levine, 2025):

    policy = alpha (mu_i(s_t, e) - F_i(s_t, e))^2 - mean_j Q_j(s_t, clip(mu(s_t, e), -1, 1))

Squares are averaged over the batch, and over the critics or the numbers i of a chunk.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class QCLosses(NamedTuple):
    """The separate losses, each a scalar; no parameter is in two of them."""

    critic: Tensor
    flow: Tensor
    policy: Tensor
    """0 without a distilled actor."""

    @property
    def total(self) -> Tensor:
        return self.critic + self.flow + self.policy


class Update(NamedTuple):
    """The losses of a batch of B chunks and what they are made of."""

    losses: QCLosses
    target: Tensor
    """y, [B]."""


def qc_losses(batch: Mapping[str, Tensor], out: Mapping[str, Tensor], distillation_weight: float) -> Update:
    """All losses of one batch.

    Args:
        batch: of `ChunkExperience`: `returns` [B] = R, `bootstrap` [B] = gamma^k, 0 where it terminates, `weight` [B] =
            w, and `inside` [B, h] = m, one number an action.
        out: of `QCTorchRLModule` on that batch.
        distillation_weight: alpha.
    """
    target = batch["returns"] + batch["bootstrap"] * out["q_next"]
    flow_error, inside = out["velocity"] - out["displacement"], batch["inside"]
    mask = inside.repeat_interleave(flow_error.shape[1] // inside.shape[1], dim=1)
    policy = torch.zeros((), device=target.device)
    if "proposal" in out:
        distance = (out["proposal"] - out["flow_chunk"]).square().mean()
        policy = distillation_weight * distance - out["q_policy"].mean()
    losses = QCLosses(
        critic=(batch["weight"] * (out["q"] - target).square()).mean(),
        flow=(mask * flow_error.square()).mean(),
        policy=policy,
    )
    return Update(losses, target)
