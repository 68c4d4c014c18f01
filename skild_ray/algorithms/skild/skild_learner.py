"""How the losses of SkiLD's stage 4 are applied: optimisers, schedules, target networks, metrics."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from skild_ray.algorithms.learner import Latest, LossesLearner
from skild_ray.algorithms.rllib_internals import set_gradients
from skild_ray.algorithms.skild.losses import Update, skild_losses
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule


class SkiLDTorchLearner(LossesLearner):
    """Minimises the losses of `skild_ray.algorithms.skild.losses`, whose module docstring has the formulas.

    The first `critic_warmup_updates` move the critics only, and so do all but every
    `critic_updates_per_policy_update`-th of the others.
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
        for module_id in self.module.keys():  # noqa: SIM118
            for name, (_, learning_rate, decay) in self._groups(module_id).items():
                for group in self.get_optimizer(module_id, name).param_groups:
                    group["lr"], group["weight_decay"] = learning_rate, decay

    def _groups(self, module_id: str) -> dict[str, tuple[list[nn.Parameter], float, float]]:
        """Parameters, learning rate and weight decay of each optimiser."""
        module: SkiLDTorchRLModule = self.module[module_id].unwrapped()
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

    def losses(self, module: SkiLDTorchRLModule, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Update:
        return skild_losses(module.settings, batch, out)

    def apply_gradients(self, gradients_dict: Mapping[Any, Tensor]) -> None:
        """Clip and step each optimiser, then move the target critics; an update that is not finite is skipped."""
        set_gradients(self, gradients_dict)
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule iterates over something else)
            module: SkiLDTorchRLModule = self.module[module_id].unwrapped()
            settings, update = module.settings, int(module.num_updates)
            skipped = 0
            self._gradient_norms: dict[str, Tensor] = {}  # before clipping, of this update's optimisers
            for full_name, optimizer in self.get_optimizers_for_module(module_id):
                name = full_name.removeprefix(f"{module_id}_")
                if not self._is_due(name, update, module):
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
    def _is_due(name: str, update: int, module: SkiLDTorchRLModule) -> bool:
        if name in ("policy", "alpha"):
            return update >= module.settings.critic_warmup_updates and module.updates_policy
        if name == "discriminator":  # a fraction f < 1 means every 1/f-th update
            rate = module.settings.discriminator_rate
            return int((update + 1) * rate) > int(update * rate)
        return True

    def metrics_of(self, latest: Latest) -> dict[str, Tensor]:
        module_id, batch, out, update = latest
        losses = update.losses
        module: SkiLDTorchRLModule = self.module[module_id].unwrapped()
        weight = module.settings.env_reward_weight
        inside = update.support > 0.5
        values = {
            "policy_loss": losses.policy,
            "critic_loss": losses.critic,
            "alpha_loss": losses.alphas,
            "discriminator_loss": losses.discriminator,
            "alpha": module.log_alpha.exp(),
            "alpha_q": module.log_alpha_q.exp(),
            "q_1": out["q"][0].mean(),
            "q_2": out["q"][-1].mean(),
            "q_target": update.target.mean(),
            "q_policy": out["q_policy"].mean(),
            "policy_log_sigma": out["log_sigma"].mean(),
            "prior_divergence": _mean_where(out["kl_prior"], ~inside),
            "posterior_divergence": _mean_where(out["kl_posterior"], inside),
            "p_demo": torch.sigmoid(out["logits"][:, 0]).mean(),
            "env_reward": weight * batch["returns"].mean(),
            "discriminator_reward": (1 - weight) * update.discriminator_reward.mean(),
            "rl_training_reward": update.reward.mean(),
        }
        values |= {f"{name}_gradient": norm for name, norm in self._gradient_norms.items()}
        return values


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask].mean() if mask.any() else values.new_tensor(float("nan"))
