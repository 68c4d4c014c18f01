"""One scale for the rewards of any environment."""

import logging
from typing import Any

from skild_ray.algorithms.replay import Replay

logger = logging.getLogger(__name__)


class RewardScale:
    """The factor c by which rewards are multiplied before anything is added to them or weighed against them.

    The policy that maximises E[sum_t gamma^t c r_t] is the same for every c > 0. What c decides is how returns compare
    with what has a unit of its own: divergences times alpha, r_D, a critic's first outputs and its optimiser's steps.
    Measured, it is

        c = 1 / max_t |G_t|,   G_t = r_t + gamma_t G_{t+1}

    over all transitions that are stored when the warm-up ends, or when the first reward other than 0 comes, if that is
    later: c means nothing before. It is constant from then on. Returns are then about within [-1, 1], whatever the
    environment counts, and so one alpha serves many.

    Args:
        fixed: c; None: measured.
        warmup: own transitions stored before it is measured.
    """

    def __init__(self, fixed: float | None, warmup: int) -> None:
        self._warmup = warmup
        self._value = fixed

    @property
    def value(self) -> float:
        """c, 1 while there is nothing to measure."""
        return 1.0 if self._value is None else self._value

    def measure(self, own: Replay, *others: Replay) -> None:
        """Set c if it is due: `own` has the policy's transitions, `others` what it learns from beside them."""
        if self._value is not None or own.added < self._warmup:
            return
        largest = max(replay.largest_return() for replay in (own, *others))
        if largest > 0:
            self._value = 1 / largest
            logger.info("rewards are multiplied by %.4g: discounted returns reach %.4g so far", self._value, largest)

    def get_state(self) -> dict[str, Any]:
        return {"value": self._value}

    def set_state(self, state: dict[str, Any]) -> None:
        self._value = state["value"]
