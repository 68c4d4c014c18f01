"""What the learners of stage 4 have in common: all losses of a batch at once, and the metrics of a round's last one."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor


class Latest(NamedTuple):
    """The last update, kept for its metrics."""

    module_id: str
    batch: Mapping[str, Tensor]
    out: Mapping[str, Tensor]
    update: Any
    """Of `LossesLearner.losses`."""


class LossesLearner(TorchLearner):
    """Sums the losses of a batch and differentiates them once: no parameter is in two of them.

    Only the last update of a round is logged; logging each would cost more than it says.
    """

    _latest: Latest

    @abstractmethod
    def losses(self, module: Any, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Any:
        """The update of a batch: its `losses`, of which the `total` is minimised, and what they are made of.

        Args:
            module: the RLModule.
            batch: from the replay.
            out: of the module on that batch.
        """

    @abstractmethod
    def metrics_of(self, latest: Latest) -> dict[str, Tensor]:
        """The metrics of an update by name, each a scalar."""

    def logged(self, found: dict[str, float]) -> dict[str, float]:
        """What is logged if these are the metrics of the last update."""
        return found

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Tensor], fwd_out: Mapping[str, Tensor]
    ) -> Tensor:
        update = self.losses(self.module[module_id].unwrapped(), batch, fwd_out)
        self._latest = Latest(module_id, batch, fwd_out, update)
        total: Tensor = update.losses.total
        return total

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        values = self.metrics_of(self._latest)
        numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
        found = self.logged(dict(zip(values, numbers, strict=True)))
        self.metrics.log_dict(found, key=self._latest.module_id, window=1)
