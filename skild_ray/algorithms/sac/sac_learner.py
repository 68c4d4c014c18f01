"""The losses of plain SAC and how they are applied."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from skild_ray.algorithms.sac.sac_rl_module import SACTorchRLModule


class SACLosses(NamedTuple):
    """The separate losses, each a scalar; every one has its own optimiser and parameters."""

    critic: Tensor
    policy: Tensor
    alpha: Tensor


class _Latest(NamedTuple):
    """The last update, kept for its metrics."""

    module_id: str
    batch: Mapping[str, Tensor]
    out: Mapping[str, Tensor]
    losses: SACLosses
    target: Tensor


class SACTorchLearner(TorchLearner):
    """Soft actor-critic with a learned temperature (Haarnoja et al., 2018).

    With the target entropy H = -action_dim, a walk of n steps from (s_0, a_0) to s_n whose weights are w_i = gamma^i (0
    after the end of an episode, w_n = 0 where it terminates), and a_i' ~ pi(s_i):

        y      = sum_{i=0}^{n-1} w_i r_i + w_n min_j Q'_j(s_n, a_n') - alpha sum_{i=1}^{n} w_i log pi(a_i'|s_i)
        critic = sum_j 1/2 (Q_j(s_0, a_0) - y)^2
        policy = alpha log pi(a~|s_0) - min_j Q_j(s_0, a~),   a~ ~ pi(s_0)
        alpha  = -log alpha (log pi(a~|s_0) + H)

    The losses are summed and differentiated once; no parameter is in two of them. Rewards of a walk are not corrected
    for the policy that chose its actions; its entropies are those of the current policy.
    """

    _latest: _Latest

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module: SACTorchRLModule = self.module[module_id].unwrapped()
        rate = module.settings.learning_rate
        groups = {
            "critic": list(module.critics.parameters()),
            "policy": list(module.policy.parameters()),
            "alpha": [module.log_alpha],
        }
        for name, parameters in groups.items():
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(parameters, lr=rate, fused=True),
                params=parameters,
                lr_or_lr_schedule=rate,
            )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Tensor], fwd_out: Mapping[str, Tensor]
    ) -> Tensor:
        module: SACTorchRLModule = self.module[module_id].unwrapped()
        out, log_alpha = fwd_out, fwd_out["log_alpha"]
        alpha = log_alpha.detach().exp()
        entropy_cost = alpha * (batch["later_weights"] * out["later_log_pi"]).sum(-1)
        target = batch["returns"] + batch["bootstrap"] * out["q_next"] - entropy_cost
        target_entropy = -float(module.action_space.shape[0])
        losses = SACLosses(
            critic=0.5 * (out["q"] - target).square().mean(1).sum(),
            policy=(alpha * out["log_pi"] - out["q_policy"]).mean(),
            alpha=-(log_alpha * (out["log_pi"].detach() + target_entropy)).mean(),
        )
        self._latest = _Latest(module_id, batch, out, losses, target)
        return losses.critic + losses.policy + losses.alpha

    def apply_gradients(self, gradients_dict: Mapping[Any, Tensor]) -> None:
        """Step the optimisers, then move the target critics."""
        super().apply_gradients(gradients_dict)
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule iterates over something else)
            module: SACTorchRLModule = self.module[module_id].unwrapped()
            module.target_critics.follow(module.critics, module.settings.target_update_rate)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Log the last update of a round: logging every one would cost more than it tells."""
        super().after_gradient_based_update(timesteps=timesteps)
        module_id, batch, out, losses, target = self._latest
        values = {
            "policy_loss": losses.policy,
            "critic_loss": losses.critic,
            "alpha_loss": losses.alpha,
            "temperature": out["log_alpha"].exp(),
            "entropy": -out["log_pi"].mean(),
            "q_1": out["q"][0].mean(),
            "q_2": out["q"][1].mean(),
            "q_target": target.mean(),
            "q_policy": out["q_policy"].mean(),
            "policy_log_sigma": out["log_sigma"].mean(),
            "env_reward": batch["returns"].mean(),
        }
        numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
        self.metrics.log_dict(dict(zip(values, numbers, strict=True)), key=module_id, window=1)
