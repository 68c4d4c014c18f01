"""The skill model: encoder, closed-loop decoder and skill prior, and the heads that share the prior's form.

Section 4.1 of the paper (learning skills and the skill prior) and section 4.2 (skill posterior).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skild_ray.config import SkillModelSettings
from skild_ray.models.gaussian import HALF_LOG_2PI, Gaussian, standard
from skild_ray.models.networks import Predictor, Standardizer


class Encoder(nn.Module):
    """q(z | s_0..H-1, a_0..H-1): Linear on each [a_t, s_t], one LSTM layer, the last step's output to 2 D numbers."""

    def __init__(self, observation_dim: int, action_dim: int, config: SkillModelSettings) -> None:
        super().__init__()
        width = config.hidden
        self.embed = nn.Linear(action_dim + observation_dim, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.project = nn.Linear(width, width)
        self.head = nn.Linear(width, 2 * config.latent_dim)
        # Gates are ordered input, forget, cell, output; an open forget gate remembers early steps.
        for name in ("bias_ih_l0", "bias_hh_l0"):
            nn.init.ones_(self.lstm.get_parameter(name)[width : 2 * width])

    def forward(self, states: Tensor, actions: Tensor) -> Gaussian:
        inputs = torch.cat([actions, states], dim=-1)
        # Nothing non-linear stands between embedding and gates, so one small product replaces two large ones.
        weight_ih, weight_hh, bias_ih, bias_hh = self.lstm.parameters()
        weight, bias = weight_ih @ self.embed.weight, weight_ih @ self.embed.bias + bias_ih
        start = inputs.new_zeros(1, len(inputs), self.lstm.hidden_size)
        parameters = [weight, weight_hh, bias, bias_hh]
        outputs, _, _ = torch.lstm(
            inputs, (start, start), parameters, True, 1, 0.0, self.training, bidirectional=False, batch_first=True
        )
        return Gaussian.from_output(self.head(self.project(outputs[:, -1])))


class SkillHead(nn.Module):
    """A Gaussian over skills given a state, N(mu(s), sigma(s)): the form of prior, posterior and policy."""

    def __init__(self, observation_dim: int, config: SkillModelSettings) -> None:
        super().__init__()
        self.standardize = Standardizer(observation_dim)
        self.net = Predictor(
            observation_dim, 2 * config.latent_dim, config.hidden, config.head_layers, config.head_norm
        )

    def forward(self, observations: Tensor, standardised: bool = False) -> Gaussian:
        """The Gaussian in each of the observations [B, observation_dim], standardised here unless they are already."""
        return Gaussian.from_output(self.net(observations if standardised else self.standardize(observations)))


class SkillLosses(NamedTuple):
    """The parts of the stage-1 loss, each a scalar."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor
    prior: Tensor
    action_mse: Tensor


class SkillModel(nn.Module):
    """Variational auto-encoder over windows of H steps, with a state-conditioned skill prior.

    With z ~ q(z | s, a) and a_hat_t = decoder(s_t, z) on the recorded states (closed loop), the loss is

        mean[ -log N(a; a_hat, 1) ]  +  beta * mean_dims KL(q || N(0, I))  -  log p(stop(z) | s_0)

    where the reconstruction is averaged over batch, time and action dimensions, the KL over batch and latent
    dimensions, and the prior's log-likelihood is summed over latent dimensions. The prior's term does not reach the
    encoder.

    Shapes: states [B, H, observation_dim], actions [B, H, action_dim].
    """

    def __init__(self, observation_dim: int, action_dim: int, config: SkillModelSettings) -> None:
        super().__init__()
        self.standardize = Standardizer(observation_dim)
        self.encoder = Encoder(observation_dim, action_dim, config)
        inputs = observation_dim + config.latent_dim
        self.decoder = Predictor(inputs, action_dim, config.decoder_hidden, config.decoder_layers, config.decoder_norm)
        self.prior = SkillHead(observation_dim, config)

    def fit_standardizers(self, observations: Tensor) -> None:
        """Set the statistics of all inputs from [N, observation_dim]."""
        self.standardize.fit(observations)
        self.prior.standardize.load_state_dict(self.standardize.state_dict())

    def hidden_matrices(self) -> Iterator[Tensor]:
        """The weights [out, in] of encoder and decoder that lead from hidden units to hidden units, LSTM included."""
        lstm = self.encoder.lstm
        yield from (lstm.get_parameter("weight_ih_l0"), lstm.get_parameter("weight_hh_l0"), self.encoder.project.weight)
        layers = [module for module in self.decoder if isinstance(module, nn.Linear)]
        yield from (layer.weight for layer in layers[1:-1])

    def encode(self, states: Tensor, actions: Tensor) -> Gaussian:
        """q(z | s, a), [B, D]."""
        return self.encoder(self.standardize(states), actions)

    def decode(self, states: Tensor, latents: Tensor) -> Tensor:
        """Actions [B, H, action_dim] of skills `latents` [B, D] in each of the states [B, H, observation_dim]."""
        batch, horizon, _ = states.shape
        inputs = torch.cat([self.standardize(states), latents[:, None].expand(-1, horizon, -1)], dim=-1)
        return self.decoder(inputs.flatten(0, 1)).unflatten(0, (batch, horizon))

    def forward(self, states: Tensor, actions: Tensor, kl_weight: float) -> SkillLosses:
        """The loss above; a forward pass, so that data-parallel training sees it."""
        encoded = self.encode(states, actions)
        latents = encoded.sample()
        mse = (self.decode(states, latents) - actions).square().mean()
        reconstruction = 0.5 * mse + HALF_LOG_2PI
        kl = encoded.kl(standard(encoded)).mean()
        prior = -self.prior(states[:, 0]).log_prob(latents.detach()).mean()
        return SkillLosses(reconstruction + kl_weight * kl + prior, reconstruction, kl, prior, mse)
