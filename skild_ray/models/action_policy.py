"""A policy over the environment's own actions, as behavioural cloning learns it."""

import torch
from torch import Tensor, nn

from skild_ray.config import BehaviouralCloningSettings
from skild_ray.models.gaussian import LOG_STD_RANGE, Gaussian
from skild_ray.models.networks import Predictor, Standardizer


class ActionPolicy(nn.Module):
    """pi(a|s) = N(mu(s), diag(sigma^2)), with mu a multi-layer perceptron of the standardised state.

    It is not squashed by a tanh: recorded actions are often exactly -1 or 1, where the density of a squashed Gaussian
    is infinite. Environments clip the samples instead.

    sigma is the same in all states. A sigma(s) weights the squared errors of mu by 1 / sigma(s)^2, so maximum
    likelihood would fit the smoothest stretches of the demonstrations ever more exactly, at the expense of the others.
    """

    def __init__(self, observation_dim: int, action_dim: int, settings: BehaviouralCloningSettings) -> None:
        super().__init__()
        self.standardize = Standardizer(observation_dim)
        self.mean = Predictor(observation_dim, action_dim, settings.hidden, settings.layers, settings.norm)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def forward(self, observations: Tensor, noise: float = 0.0) -> Gaussian:
        """The Gaussian [B, action_dim] in each of the observations [B, observation_dim].

        `noise` is the standard deviation of what is added to them, in standardised units.
        """
        inputs = self.standardize(observations)
        if noise > 0:
            inputs = inputs + noise * torch.randn_like(inputs)
        mean = self.mean(inputs)
        return Gaussian(mean, self.log_std.clamp(*LOG_STD_RANGE).expand_as(mean))
