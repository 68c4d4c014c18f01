"""The losses of SkiLD's stage 4 and how they are applied."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor, nn

from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.config import Algorithm
from skild_ray.models.discriminator import discriminator_loss


class SkiLDLosses(NamedTuple):
    """The separate losses, each a scalar; every one has its own optimiser and parameters."""

    critic: Tensor
    policy: Tensor
    alphas: Tensor
    discriminator: Tensor

    @property
    def total(self) -> Tensor:
        return self.critic + self.policy + self.alphas + self.discriminator


class SkiLDTorchLearner(TorchLearner):
    """Demonstration-guided soft policy iteration over skills (section 4.3 and algorithm 1 of the paper).

    With D = D(s) the demonstration support, KL_p = KL(pi(.|s) || prior), KL_q = KL(pi(.|s) || posterior), an n-step
    walk of states s_i, rewards r_i and weights w_i, and lambda = `env_reward_weight`:

        r~_i     = (1 - lambda) r_D(s_i) + lambda r_i
        R(s)     = alpha (1 - D) KL_p + alpha_q D KL_q
        y        = sum_i w_i r~_i + bootstrap [ min_j Q'_j(s', z') - R(s') ],   z' ~ pi(s')
        critic   = sum_j 1/2 (Q_j(s, z) - y)^2
        policy   = R(s) - min_j Q_j(s, z~),   z~ ~ pi(s)
        alpha    = alpha (delta - KL_p)(1 - D),   alpha_q: alpha_q (delta_q - KL_q) D
        D online = cross-entropy of demonstrations (1) against replayed states (0)

    With `guidance` prior or posterior, D is 0 or 1 in R and in the alphas' losses, whatever the discriminator says.
    With prior, lambda = 1 and a policy that starts as the prior this is SPiRL (Pertsch et al., CoRL 2020).

    R(s') stands in y only with `kl_in_target`. r_D is the logit log D - log(1 - D), positive where a state looks like
    a demonstration, or log D, which is never positive and so never pays for staying; both are clipped. With lambda = 0
    (imitation) no reward of the environment reaches a loss.

    The losses are summed and differentiated once; no parameter is in two of them. The first `critic_warmup_updates`
    move the critics only.
    """

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        for name, (parameters, learning_rate, decay) in self._groups(module_id).items():
            optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay, fused=True)
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=optimizer,
                params=parameters,
                lr_or_lr_schedule=learning_rate,
            )

    def set_state(self, state: Any) -> None:
        """A checkpoint brings its optimisers' moments; their rates and decays are those of this configuration."""
        super().set_state(state)
        for module_id in self._module.keys():  # noqa: SIM118
            for name, (_, learning_rate, decay) in self._groups(module_id).items():
                for group in self.get_optimizer(module_id, name).param_groups:
                    group["lr"], group["weight_decay"] = learning_rate, decay

    def _groups(self, module_id: str) -> dict[str, tuple[list[nn.Parameter], float, float]]:
        """Parameters, learning rate and weight decay of each optimiser."""
        module: SkiLDTorchRLModule = self._module[module_id].unwrapped()
        settings = module.settings
        groups: dict[str, tuple[list[nn.Parameter], float, float]] = {
            "critic": (list(module.critics.parameters()), settings.critic_lr, 0.0),
            "policy": ([p for p in module.policy.parameters() if p.requires_grad], settings.policy_lr, 0.0),
        }
        if settings.learn_alphas:
            groups["alpha"] = ([module.log_alpha, module.log_alpha_q], settings.alpha_lr, 0.0)
        if module.online_discriminator:
            parameters = list(module.discriminator.parameters())
            groups["discriminator"] = (parameters, settings.discriminator_lr, settings.discriminator_weight_decay)
        return groups

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Tensor], fwd_out: Mapping[str, Tensor]
    ) -> Tensor:
        module: SkiLDTorchRLModule = self._module[module_id].unwrapped()
        settings, out = module.settings, fwd_out
        with torch.no_grad():
            support = posterior_weight(settings, out["logits"][:, 0])
            reward_d = (batch["n_step_weights"] * discriminator_reward(settings, out["logits"])).sum(-1)
            weight = env_reward_weight(settings)
            reward = (1 - weight) * reward_d + (weight * batch["returns"] if weight > 0 else 0.0)
            alpha, alpha_q = module.log_alpha.exp(), module.log_alpha_q.exp()
            value = out["q_next"]
            if settings.kl_in_target:
                stale = "current_state_weights" in settings.reference_quirks
                next_support = support if stale else posterior_weight(settings, out["next_logits"])
                value = value - alpha * (1 - next_support) * out["kl_prior_next"]
                value = value - alpha_q * next_support * out["kl_posterior_next"]
            target = reward + batch["bootstrap"] * value
        divergence = alpha * (1 - support) * out["kl_prior"] + alpha_q * support * out["kl_posterior"]
        zero = target.new_zeros(())
        losses = SkiLDLosses(
            critic=0.5 * (out["q"] - target).square().mean(1).sum(),
            policy=(divergence - out["q_policy"]).mean(),
            alphas=self._alpha_loss(settings, support, out) if settings.learn_alphas else zero,
            discriminator=(
                discriminator_loss(out["positive"], out["negative"], settings.discriminator_label_smoothing)
                if module.online_discriminator
                else zero
            ),
        )
        self._latest = (module_id, batch, out, losses, support, reward_d, reward, target)
        return losses.total

    @staticmethod
    def _alpha_loss(settings: Algorithm, support: Tensor, out: Mapping[str, Tensor]) -> Tensor:
        gap = (settings.target_divergence - out["kl_prior"].detach()) * (1 - support)
        gap_q = (settings.target_divergence_q - out["kl_posterior"].detach()) * support
        return (out["log_alpha"].exp() * gap + out["log_alpha_q"].exp() * gap_q).mean()

    def apply_gradients(self, gradients_dict: Mapping[Any, Tensor]) -> None:
        """Clip and step each optimiser, then move the target critics; an update that is not finite is skipped."""
        for parameter_id, gradient in gradients_dict.items():
            self._params[parameter_id].grad = gradient
        for module_id in self._module.keys():  # noqa: SIM118 (a MultiRLModule iterates over something else)
            module: SkiLDTorchRLModule = self._module[module_id].unwrapped()
            settings, update = module.settings, int(module.num_updates)
            skipped = 0
            self._gradient_norms: dict[str, Tensor] = {}  # before clipping, of this update's optimisers
            for full_name, optimizer in self.get_optimizers_for_module(module_id):
                name = full_name.removeprefix(f"{module_id}_")
                if not self._is_due(name, update, settings):
                    continue
                parameters = optimizer.param_groups[0]["params"]
                limit = settings.gradient_clip or float("inf")
                norm = nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
                self._gradient_norms[name] = norm
                if torch.isfinite(norm):
                    optimizer.step()
                else:
                    skipped += 1
            if skipped:
                self.metrics.log_value((module_id, "skipped_updates"), skipped, reduce="lifetime_sum")
            module.num_updates += 1
            module.target_critics.follow(module.critics, settings.target_update_rate)

    @staticmethod
    def _is_due(name: str, update: int, settings: Algorithm) -> bool:
        if name in ("policy", "alpha"):
            return update >= settings.critic_warmup_updates
        if name == "discriminator":  # a fraction f < 1 means every 1/f-th update
            rate = settings.discriminator_rate
            return int((update + 1) * rate) > int(update * rate)
        return True

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Log the last update of a round: logging every one would cost more than it tells."""
        super().after_gradient_based_update(timesteps=timesteps)
        module_id, batch, out, losses, support, reward_d, reward, target = self._latest
        module: SkiLDTorchRLModule = self._module[module_id].unwrapped()
        weight = env_reward_weight(module.settings)
        inside = support > 0.5
        values = {
            "policy_loss": losses.policy,
            "critic_loss": losses.critic,
            "alpha_loss": losses.alphas,
            "discriminator_loss": losses.discriminator,
            "alpha": module.log_alpha.exp(),
            "alpha_q": module.log_alpha_q.exp(),
            "q_1": out["q"][0].mean(),
            "q_2": out["q"][1].mean(),
            "q_target": target.mean(),
            "q_policy": out["q_policy"].mean(),
            "policy_log_sigma": out["log_sigma"].mean(),
            "prior_divergence": _mean_where(out["kl_prior"], ~inside),
            "posterior_divergence": _mean_where(out["kl_posterior"], inside),
            "p_demo": torch.sigmoid(out["logits"][:, 0]).mean(),
            "env_reward": weight * batch["returns"].mean(),
            "discriminator_reward": (1 - weight) * reward_d.mean(),
            "rl_training_reward": reward.mean(),
        }
        values |= {f"{name}_gradient": norm for name, norm in self._gradient_norms.items()}
        numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
        self.metrics.log_dict(dict(zip(values, numbers, strict=True)), key=module_id, window=1)


def posterior_weight(settings: Algorithm, logits: Tensor) -> Tensor:
    """The share of the posterior's divergence, of logits d of D: D(s) = sigmoid(d), or 0 or 1 as `guidance` says."""
    match settings.guidance:
        case "prior":
            return torch.zeros_like(logits)
        case "posterior":
            return torch.ones_like(logits)
        case _:
            return torch.sigmoid(logits)


def env_reward_weight(settings: Algorithm) -> float:
    """lambda, the weight of the environment's reward. The released imitation configuration keeps it at 0.9."""
    quirk = settings.env_reward_weight == 0 and "imitation_env_reward" in settings.reference_quirks
    return 0.9 if quirk else settings.env_reward_weight


def discriminator_reward(settings: Algorithm, logits: Tensor) -> Tensor:
    """r_D of logits d = log D - log(1 - D): d itself or log D, clipped.

    The reference goes through float32 probabilities, which saturate: d beyond about +-17 turns into +-46.05.
    """
    if "saturating_reward" in settings.reference_quirks:
        probability = torch.sigmoid(logits)
        return torch.log(probability + 1e-20) - torch.log(1 - probability + 1e-20)
    reward = logits if settings.discriminator_reward == "logit" else nn.functional.logsigmoid(logits)
    return reward.clamp(settings.discriminator_reward_min, settings.discriminator_reward_max)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask].mean() if mask.any() else values.new_tensor(float("nan"))
