"""How the losses of RLPD are applied: optimisers, target networks, metrics."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from skild_ray.algorithms.learner import Latest, LossesLearner
from skild_ray.algorithms.rllib_internals import set_gradients
from skild_ray.algorithms.rlpd.losses import Update, rlpd_losses
from skild_ray.algorithms.rlpd.rlpd_rl_module import RLPDTorchRLModule

POLICY_METRICS = ("policy_loss", "alpha_loss", "entropy", "q_policy", "policy_log_sigma")
"""Those that an update of the critics alone does not have."""


class RLPDTorchLearner(LossesLearner):
    """Minimises the losses of `skild_ray.algorithms.rlpd.losses`, whose module docstring has the formulas.

    Where the policy is not updated, its parameters and alpha have no gradient, and their optimisers leave them alone.
    """

    reward_name: ClassVar[str] = "env_reward"
    """Name of the metric that is the mean of the returns."""

    _latest_of_policy: Latest | None = None
    """The last update of the policy, until it is logged."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._policy_metrics: dict[str, float] = {}

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module: RLPDTorchRLModule = self.module[module_id].unwrapped()
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

    def losses(self, module: RLPDTorchRLModule, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Update:
        return rlpd_losses(batch, out, module.settings.entropy_target(module.action_space.shape[0]))

    def compute_loss_for_module(self, *, fwd_out: Mapping[str, Tensor], **kwargs: Any) -> Tensor:
        total = super().compute_loss_for_module(fwd_out=fwd_out, **kwargs)
        if "log_pi" in fwd_out:
            self._latest_of_policy = self._latest
        return total

    def apply_gradients(self, gradients_dict: Mapping[Any, Tensor]) -> None:
        """Step the optimisers, then move the target critics."""
        set_gradients(self, gradients_dict)
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule iterates over something else)
            for _, optimizer in self.get_optimizers_for_module(module_id):
                optimizer.step()
            module: RLPDTorchRLModule = self.module[module_id].unwrapped()
            module.num_updates += 1
            module.target_critics.follow(module.critics, module.settings.target_update_rate)

    def metrics_of(self, latest: Latest) -> dict[str, Tensor]:
        _, batch, out, update = latest
        values = {
            "critic_loss": update.losses.critic,
            "temperature": out["alpha"],
            "q_1": out["q"][0].mean(),
            "q_2": out["q"][-1].mean(),
            "q_spread": out["q"].std(0).mean(),
            "q_target": update.target.mean(),
            self.reward_name: batch["returns"].mean(),
        }
        if "cloned" in out:
            values["cloned"] = out["cloned"].mean()
        if self._latest_of_policy is not None:
            _, _, out, update = self._latest_of_policy
            values |= {
                "policy_loss": update.losses.policy,
                "alpha_loss": update.losses.temperature,
                "entropy": -out["log_pi"].mean(),
                "q_policy": out["q_policy"].mean(),
                "policy_log_sigma": out["log_sigma"].mean(),
            }
            self._latest_of_policy = None
        return values

    def logged(self, found: dict[str, float]) -> dict[str, float]:
        """Also the metrics of the policy's last update, if that was in an earlier round."""
        self._policy_metrics |= {name: found[name] for name in POLICY_METRICS if name in found}
        return found | self._policy_metrics

    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Also what was logged of the policy's last update, which lies before a checkpoint."""
        state: dict[str, Any] = super().get_state(components, **kwargs)
        return state if components else state | {"policy_metrics": dict(self._policy_metrics)}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._policy_metrics = dict(state.get("policy_metrics", self._policy_metrics))
