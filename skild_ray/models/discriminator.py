"""The demonstration discriminator D(s), its loss (section 4.2 of the paper, demonstration support) and its reward."""

from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from skild_ray.models.networks import Predictor, Standardizer


class Discriminator(nn.Module):
    """logit d(s) with D(s) = sigmoid(d(s)), near 1 inside the demonstrations' support and near 0 outside.

    Shapes: [..., observation_dim] -> [...].
    """

    def __init__(self, observation_dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.standardize = Standardizer(observation_dim)
        self.net = Predictor(observation_dim, 1, hidden, layers, "none")

    def forward(self, observations: Tensor, noise: float = 0.0) -> Tensor:
        inputs = self.standardize(observations)
        if noise > 0:
            inputs = inputs + noise * torch.randn_like(inputs)
        return self.net(inputs).squeeze(-1)


def discriminator_loss(positive: Tensor, negative: Tensor, smoothing: float) -> Tensor:
    """Mean binary cross-entropy of two batches of logits, labels 1 - smoothing and smoothing."""
    logits = torch.cat([positive, negative])
    labels = torch.full_like(logits, smoothing)
    labels[: len(positive)] = 1 - smoothing
    return functional.binary_cross_entropy_with_logits(logits, labels)


class RewardSettings(Protocol):
    """The settings of an algorithm whose reward is the discriminator's."""

    @property
    def discriminator_reward(self) -> Literal["logit", "log_d"]: ...

    @property
    def discriminator_reward_min(self) -> float: ...

    @property
    def discriminator_reward_max(self) -> float: ...


def discriminator_reward(settings: RewardSettings, logits: Tensor) -> Tensor:
    """r_D of logits d = log D - log(1 - D), clipped: d itself, positive where a state looks like a demonstration, or
    log D, which is never positive and so never pays for staying.
    """
    reward = logits if settings.discriminator_reward == "logit" else functional.logsigmoid(logits)
    return reward.clamp(settings.discriminator_reward_min, settings.discriminator_reward_max)
