"""The networks of Q-chunking and their forward passes."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from skild_ray.algorithms.qc.settings import QCSettings
from skild_ray.models.networks import Ensemble, Predictor, Standardizer


class QCTorchRLModule(TorchRLModule, InferenceOnlyAPI):
    """Flow v(s, x, u), twin critics Q(s, A) with targets and, unless `best_of_n`, the distilled actor mu(s, e).

    The policy maps noise to a chunk: by mu, or by the flow to N chunks, of which the critics choose. Observations enter
    standardised, by the statistics of the offline data, see `QC`.

    `model_config`: `algorithm`, the fields of `QCSettings`.
    """

    def setup(self) -> None:
        self.settings = settings = QCSettings.model_validate(self.model_config["algorithm"])
        self.distilled = settings.actor == "distilled"
        states, self.chunk_dim = self.observation_space.shape[0], self.action_space.shape[0]
        self.standardize = Standardizer(states)
        shape = settings.hidden, settings.layers - 1
        self.actor = Predictor(states + self.chunk_dim, self.chunk_dim, *shape, "none") if self.distilled else None
        fixed = torch.randn(settings.samples, self.chunk_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("fixed_noise", torch.zeros(self.chunk_dim) if self.distilled else fixed, persistent=False)
        if self.inference_only and self.distilled:
            return
        self.flow = Predictor(states + self.chunk_dim + 1, self.chunk_dim, *shape, "none")
        self.critics = Ensemble(2, states + self.chunk_dim, *shape, "layer")
        if not self.inference_only:
            self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)

    def get_non_inference_attributes(self) -> list[str]:
        return ["target_critics", *(("flow", "critics") if self.distilled else ())]

    @torch.no_grad()
    def _forward_inference(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """The chunk that the same noise leads to in all states: 0, or N draws that are fixed for good."""
        states = self.standardize(batch[Columns.OBS])
        noise = self.fixed_noise.expand(len(states), *self.fixed_noise.shape)
        return {Columns.ACTIONS: self.chunks(states, noise)}

    @torch.no_grad()
    def _forward_exploration(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """A sampled chunk."""
        states = self.standardize(batch[Columns.OBS])
        return {Columns.ACTIONS: self.chunks(states, self.noise(states))}

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Everything that `qc_losses` is made of.

        Returns:
            q [2, B]: critics at (s, A) of the batch.
            q_next [B]: mean target critic at (s', A' ~ pi(s')), no gradient.
            velocity, displacement [B, h * action_dim]: v(s, x_u, u) and A - x_0.
            proposal, flow_chunk [B, h * action_dim]: mu(s, e) and, without gradient, F(s, e); with a distilled actor.
            q_policy [B]: mean critic at (s, clip(mu(s, e))), gradient to the actor only; with a distilled actor.
        """
        states, next_states = self.standardize(batch[Columns.OBS]), self.standardize(batch["next_obs"])
        chunks = batch[Columns.ACTIONS]
        start, time = torch.randn_like(chunks), torch.rand_like(chunks[:, :1])
        between = (1 - time) * start + time * chunks
        out = {
            "q": self.critics(torch.cat([states, chunks], -1)),
            "velocity": self.flow(torch.cat([states, between, time], -1)),
            "displacement": chunks - start,
        }
        if self.actor is not None:
            noise = self.noise(states)
            out["proposal"] = self.actor(torch.cat([states, noise], -1))
            self.critics.requires_grad_(False)
            out["q_policy"] = self.critics(torch.cat([states, out["proposal"].clamp(-1, 1)], -1)).mean(0)
            self.critics.requires_grad_(True)
        with torch.no_grad():
            if self.actor is not None:
                out["flow_chunk"] = self.carried(states, noise)
            next_chunks = self.chunks(next_states, self.noise(next_states))
            out["q_next"] = self.target_critics(torch.cat([next_states, next_chunks], -1)).mean(0)
        return out

    def noise(self, states: Tensor) -> Tensor:
        """What `chunks` needs to sample one chunk for each of the standardised states [B, observation_dim]."""
        return torch.randn(len(states), *self.fixed_noise.shape, device=states.device)

    def chunks(self, states: Tensor, noise: Tensor) -> Tensor:
        """The policy: a chunk [B, h * action_dim] for each standardised state [B, observation_dim].

        `noise` is e of the actor [B, h * action_dim]; for `best_of_n` where each of the N chunks to choose from starts,
        [B, N, h * action_dim].
        """
        if self.actor is not None:
            return self.actor(torch.cat([states, noise], -1)).clamp(-1, 1)
        repeated = states[:, None].expand(-1, noise.shape[1], -1)
        candidates = self.carried(repeated, noise)
        best = self.critics(torch.cat([repeated, candidates], -1)).mean(0).argmax(-1)
        return candidates[torch.arange(len(states), device=best.device), best]

    def carried(self, states: Tensor, noise: Tensor) -> Tensor:
        """F(s, e): where the flow carries the noise [..., h * action_dim], by `flow_steps` Euler steps, in [-1, 1]."""
        steps, x = self.settings.flow_steps, noise
        for step in range(steps):
            time = torch.full_like(x[..., :1], step / steps)
            x = x + self.flow(torch.cat([states, x, time], -1)) / steps
        return x.clamp(-1, 1)
