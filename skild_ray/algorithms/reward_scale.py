"""One scale for the rewards of any environment."""

import logging
from typing import Any

from skild_ray.algorithms.replay import Replay

logger = logging.getLogger(__name__)


class RewardScale:
    """The factor c by which the environment's rewards are multiplied before anything is weighed against them.

    The policy that maximises E[sum_t gamma^t c r_t] is the same for every c > 0. What c decides is how returns compare
    with what has a unit of its own: divergences times alpha, r_D, a critic's first outputs, its optimiser's steps. Here

        c = 1 / max_t |G_t|,   G_t = r_t + gamma_t G_{t+1}

    over all transitions that are stored when the warm-up ends. If no reward other than 0 has come by then, c follows
    from the first one that does; before, it multiplies nothing. From then on it is constant. Discounted returns are
    thus about within [-1, 1], whatever the environment counts, and the same alphas serve all.

    Args:
        warmup: own transitions stored before c is measured; None: c is 1.
    """

    def __init__(self, warmup: int | None) -> None:
        self._warmup = warmup
        self.value = 1.0
        self._measured = warmup is None

    def measure(self, own: Replay, *others: Replay) -> None:
        """Set c if it is due: `own` has the policy's transitions, `others` those that it learns from beside them."""
        if self._measured or own.added < (self._warmup or 0):
            return
        largest = max(replay.largest_return() for replay in (own, *others))
        if largest > 0:
            self.value, self._measured = 1 / largest, True
            logger.info("rewards are multiplied by %.4g: discounted returns reach %.4g", self.value, largest)

    def get_state(self) -> dict[str, Any]:
        return {"value": self.value, "measured": self._measured}

    def set_state(self, state: dict[str, Any]) -> None:
        self.value, self._measured = state["value"], state["measured"]
