"""Diagonal Gaussians over the latent space, without the overhead of `torch.distributions` in inner loops."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG_STD_RANGE = (-10.0, 2.0)
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """N(mean, diag(exp(log_std))^2); both [..., D]."""

    mean: Tensor
    log_std: Tensor

    @classmethod
    def from_output(cls, output: Tensor) -> "Gaussian":
        """Split a network's output [..., 2 D] into mean and log-std, the latter clamped to [-10, 2]."""
        mean, log_std = output.chunk(2, dim=-1)
        return cls(mean, log_std.clamp(*LOG_STD_RANGE))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A reparameterised sample mean + std * eps, [..., D]."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """log N(value), summed over the D dimensions, [...]."""
        standardised = (value - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * standardised.square() - self.log_std - HALF_LOG_2PI).sum(-1)

    def kl(self, other: "Gaussian") -> Tensor:
        """KL(self || other) a dimension, [..., D]:

        log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2.
        """
        gap = self.log_std - other.log_std
        distance = (self.mean - other.mean) * torch.exp(-other.log_std)
        return 0.5 * (torch.exp(2 * gap) + distance.square() - 1) - gap

    def floored(self, std: float) -> "Gaussian":
        """The same with every standard deviation at least `std`."""
        return self if std <= 0 else Gaussian(self.mean, self.log_std.clamp(min=math.log(std)))


def standard(like: Gaussian) -> Gaussian:
    """N(0, I) in the shape of `like`."""
    return Gaussian(torch.zeros_like(like.mean), torch.zeros_like(like.log_std))
