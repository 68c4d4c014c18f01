"""What DAC learns from: RLPD's batches, and transitions for the discriminator to tell apart."""

from numpy.typing import NDArray

from skild_ray.algorithms.prior_data import PriorDataExperience
from skild_ray.stages import DEMONSTRATIONS

JUDGED = ("obs", "actions", "terminated")
"""Columns of the transitions that the discriminator tells apart."""


class DACExperience(PriorDataExperience):
    """`PriorDataExperience` whose batches also have, drawn uniformly and apart from the critics' transitions,

    demonstrated_obs, demonstrated_actions, demonstrated_terminated: of the demonstrations   [B, ...]
    own_obs, own_actions, own_terminated: of what the policy collected                       [B, ...]
    """

    def draw(self, updates: int, size: int) -> dict[str, NDArray]:
        drawn = super().draw(updates, size)
        for source, replay in (("demonstrated", self._prior[DEMONSTRATIONS]), ("own", self.replay)):
            for name, column in zip(JUDGED, replay.sample_columns(updates * size, *JUDGED), strict=True):
                drawn[f"{source}_{name}"] = column
        return drawn
