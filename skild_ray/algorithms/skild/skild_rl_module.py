"""The networks of SkiLD's stage 4 and their forward passes."""

import contextlib
import copy
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from skild_ray.algorithms.pretrained import Pretrained, load_discriminator, load_head, reference_gaussians
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.models.gaussian import Gaussian
from skild_ray.models.networks import Ensemble, Standardizer


class SkiLDTorchRLModule(TorchRLModule, InferenceOnlyAPI):
    """Policy pi(z|s), critics with targets, discriminator D(s) and the two divergence weights.

    The policy is a Gaussian over u, in the space of prior and posterior; the executed skill is z = squash(u) (section
    4.3 of the paper, appendix on the action space). Weights of the finished stages are loaded here, so learners and
    env runners need no more than the run directory. Batch-norms, where a head has them, keep their stored statistics.

    `model_config`: `run_dir`, the folder of the finished stages, and `algorithm`, the fields of `SkiLDSettings`.
    """

    def setup(self) -> None:
        content = self.model_config["algorithm"]
        self.settings = settings = cast(SkiLDSettings, SkiLDSettings.for_content(content).model_validate(content))
        pretrained = Pretrained.open(self.model_config["run_dir"])
        initial = pretrained.skill_prior if settings.policy_init == "prior" else pretrained.skill_posterior
        self.policy = load_head(initial).requires_grad_(True)
        self.policy.standardize.requires_grad_(False)
        latent_dim, output = self.action_space.shape[0], self.policy.net[-1]
        assert isinstance(output, nn.Linear)
        output.bias.data[latent_dim:] += math.log(settings.policy_init_scale)  # the last half are log-sigmas
        if self.inference_only:
            return
        observation_dim = self.observation_space.shape[0]
        self.critic_inputs = Standardizer(observation_dim)
        self.critic_inputs.load_state_dict(self.policy.standardize.state_dict())
        inputs = observation_dim + latent_dim
        self.critics = Ensemble(
            settings.critics, inputs, settings.critic_hidden, settings.critic_layers, settings.critic_norm
        )
        if settings.normalize_rewards:  # a network's first outputs are as large as all returns are
            self.critics.start_at_zero()
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.discriminator = load_discriminator(pretrained.demo_discriminator)
        self.discriminator.requires_grad_(self.online_discriminator)
        for name in ("log_alpha", "log_alpha_q"):
            self.register_parameter(name, nn.Parameter(torch.zeros(()), requires_grad=settings.learn_alphas))
        self._set_alphas()
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))
        self.eval()

    @property
    def online_discriminator(self) -> bool:
        """Whether D is trained along with the policy."""
        return self.settings.discriminator_rate > 0

    @property
    def updates_policy(self) -> bool:
        """Whether the next update moves policy and alphas, too, once `critic_warmup_updates` are over."""
        return (int(self.num_updates) + 1) % self.settings.critic_updates_per_policy_update == 0

    def train(self, mode: bool = True) -> "SkiLDTorchRLModule":
        """Always evaluation mode: nothing here has noise, and stored batch-norm statistics must not move."""
        super().train(False)
        return self

    def _set_alphas(self) -> None:
        """Set both weights to those of the settings."""
        for parameter, value in ((self.log_alpha, self.settings.alpha), (self.log_alpha_q, self.settings.alpha_q)):
            parameter.data.fill_(math.log(max(value, 1e-20)))

    def set_state(self, state: Any) -> None:
        """Weights of a checkpoint; fixed alphas are those of these settings, which may be others than it had."""
        super().set_state(state)
        if not (self.inference_only or self.settings.learn_alphas):
            self._set_alphas()

    def get_non_inference_attributes(self) -> list[str]:
        return [
            *("critic_inputs", "critics", "target_critics", "discriminator"),
            *("log_alpha", "log_alpha_q", "num_updates"),
        ]

    def squash(self, latents: Tensor) -> Tensor:
        """The executed skill z of u ~ pi: b tanh(u / b), b tanh(u), clip(u, -b, b) or u, elementwise."""
        bound = self.settings.latent_bound
        match self.settings.latent_squash:
            case "scaled_tanh":
                return bound * torch.tanh(latents / bound)
            case "tanh":
                return bound * torch.tanh(latents)
            case "clip":
                return latents.clamp(-bound, bound)
            case _:
                return latents

    @torch.no_grad()
    def _forward_inference(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """The deterministic skill squash(mu(s))."""
        return {Columns.ACTIONS: self.squash(self.policy(batch[Columns.OBS]).mean)}

    @torch.no_grad()
    def _forward_exploration(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """A sampled skill squash(u), u ~ pi(.|s)."""
        return {Columns.ACTIONS: self.squash(self.policy(batch[Columns.OBS]).sample())}

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Everything that `skild_losses` is made of, at the states s_0 .. s_n of each walk.

        Returns:
            q [E, B]: critics at (s_0, z_0) of the batch.
            q_policy [B]: smallest critic at (s_0, z ~ pi(s_0)), or the mean of all where a subset of them bootstraps;
                gradient to the policy only, and only where it is updated.
            q_next [B]: smallest target critic, of a random subset, at (s_n, z ~ pi(s_n)), no gradient.
            kl_prior, kl_posterior [B]: divergences at s_0, gradient to the policy only.
            logits [B, n]: d at s_0 .. s_{n-1}, no gradient.
            later_kl_prior, later_kl_posterior, later_logits [B, n]: divergences and d at s_1 .. s_n, no gradient; only
                with `kl_in_target`.
            log_sigma [B]: mean log-sigma of the policy at s_0.
            log_alpha, log_alpha_q: scalars.
            positive, negative [B]: d on demonstrations and on replayed states; only with an online discriminator.
        """
        observations, next_observations = batch[Columns.OBS], batch["next_obs"]
        states, next_states = self.critic_inputs(observations), self.critic_inputs(next_observations)
        policy = self.policy(observations)
        out = {
            "q": self.critics(torch.cat([states, batch[Columns.ACTIONS]], -1)),
            "log_sigma": policy.log_std.detach().mean(-1),
            "log_alpha": self.log_alpha,
            "log_alpha_q": self.log_alpha_q,
        }
        self.critics.requires_grad_(False)
        with contextlib.nullcontext() if self.updates_policy else torch.no_grad():
            q_policy = self.critics(torch.cat([states, self.squash(policy.sample())], -1))
            out["q_policy"] = q_policy.mean(0) if self.settings.draws_subset else q_policy.amin(0)
        self.critics.requires_grad_(True)
        prior, posterior = reference_gaussians(batch)
        out["kl_prior"], out["kl_posterior"] = self._divergence(policy, prior), self._divergence(policy, posterior)
        with torch.no_grad():
            next_policy = self.policy(next_observations)
            next_latents = self.squash(next_policy.sample())
            out["q_next"] = self.target_critics(torch.cat([next_states, next_latents], -1), self._subset()).amin(0)
            out["logits"] = self.discriminator(batch["n_step_states"])
            if self.settings.kl_in_target:
                later_policy = self._along(batch["later_states"])
                prior, posterior = reference_gaussians(batch, "later_")
                out["later_kl_prior"] = self._divergence(later_policy, prior)
                out["later_kl_posterior"] = self._divergence(later_policy, posterior)
                out["later_logits"] = self.discriminator(batch["later_states"])
        if self.online_discriminator:
            noise = self.settings.discriminator_noise
            both = torch.cat([batch["demonstration_states"], batch["replayed_states"]])
            out["positive"], out["negative"] = self.discriminator(both, noise).chunk(2)
        return out

    def _subset(self) -> Tensor | None:
        """Indices of the target critics that bootstrap in this update; None for all."""
        settings = self.settings
        return torch.randperm(settings.critics)[: settings.critic_subset] if settings.draws_subset else None

    def _along(self, states: Tensor) -> Gaussian:
        """The policy at all states of walks, [B, n, observation_dim] -> [B, n, D]."""
        return Gaussian(*(part.unflatten(0, states.shape[:2]) for part in self.policy(states.flatten(0, 1))))

    def _divergence(self, policy: Gaussian, reference: Gaussian) -> Tensor:
        """KL(pi || reference) [B] in u-space, analytic or a mean over reparameterised samples; gradient to pi only."""
        settings = self.settings
        reference = reference.floored(settings.sigma_floor)
        if settings.kl == "analytic":
            divergence = policy.kl(reference).sum(-1)
        else:
            shape = (settings.kl_samples, *policy.mean.shape)
            samples = Gaussian(policy.mean.expand(shape), policy.log_std.expand(shape)).sample()
            divergence = (policy.log_prob(samples) - reference.log_prob(samples)).mean(0)
        return divergence if settings.kl_clamp is None else divergence.clamp(-settings.kl_clamp, settings.kl_clamp)
