"""A policy a = tanh(u) that begins where behavioural cloning has ended."""

import torch
from torch import Tensor, nn

from skild_ray.models.action_policy import ActionPolicy

EXACT = 0.99
"""Largest mean action of a cloned policy that is kept exactly."""


class TanhPolicy(nn.Module):
    """u ~ N(g(mu(s)), sigma^2) of a cloned policy a ~ N(mu(s), sigma^2), whose networks it takes over.

    g is `artanh_extended`, so that the mean action tanh(g(mu)) is mu up to +-0.99, and within 0.01 of it, clipped to
    [-1, 1], beyond. sigma is the cloned one: its noise around 0, less of it near the bounds. All of it is trained.
    """

    def __init__(self, cloned: ActionPolicy) -> None:
        super().__init__()
        self.mean, self.log_std = cloned.mean, cloned.log_std

    def forward(self, states: Tensor) -> Tensor:
        """Means and log-stds of u [B, 2 D] in standardised states [B, observation_dim]."""
        mean = artanh_extended(self.mean(states))
        return torch.cat([mean, self.log_std.expand_as(mean)], -1)


def artanh_extended(actions: Tensor) -> Tensor:
    """artanh(a) up to |a| = 0.99, and its tangent there for what is beyond, where artanh soon ends; elementwise.

    Unlike a clip it has a slope everywhere: a mean outside of the bounds can be brought back.
    """
    inside = actions.clamp(-EXACT, EXACT)
    return torch.atanh(inside) + (actions - inside) / (1 - EXACT**2)
