"""What SUPE learns from: its own skill transitions and prior data, told apart, with rewards on one scale."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from skild_ray.algorithms.prior_data import PriorData, PriorDataExperience
from skild_ray.algorithms.reward_scale import RewardScale
from skild_ray.algorithms.supe.settings import Relabel


class SUPEExperience(PriorDataExperience):
    """`PriorDataExperience` whose rewards are multiplied by the `reward_scale`.

    A batch also has `own` [updates * size], 1 for the policy's own transitions and 0 for prior data. With `relabel` min
    the rewards of the latter are the smallest of the policy's own so far.

    Args:
        prior: prior data by name.
        relabel: see `SUPESettings`.
        warmup: see `RewardScale`, which measures the rewards of prior data only if they count.
        arguments: see `PriorDataExperience`.
    """

    def __init__(self, prior: Mapping[str, PriorData], *, relabel: Relabel, warmup: int, **arguments: Any) -> None:
        super().__init__(prior, **arguments)
        self.reward_scale = RewardScale(warmup)
        self._relabel = relabel
        self._smallest = float("inf")

    def add(self, chunks: Sequence[SingleAgentEpisode]) -> None:
        before = self.replay.added
        super().add(chunks)
        new = self.replay.recent(self.replay.added - before)["rewards"]
        self._smallest = min(self._smallest, float(new.min(initial=np.inf)))
        self.reward_scale.measure(self.replay, *(self._prior.values() if self._relabel == "none" else ()))

    def draw(self, updates: int, size: int) -> dict[str, NDArray]:
        prior = sum(count for _, count in self._given(size))
        own = np.tile(np.arange(size) >= prior, updates)
        drawn = super().draw(updates, size)
        returns = drawn["returns"]
        if self._relabel == "min":
            returns = np.where(own, returns, np.float32(self._smallest))
        scaled = returns * np.float32(self.reward_scale.value)
        return drawn | {"returns": scaled, "own": own.astype(np.float32)}

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"reward_scale": self.reward_scale.get_state(), "smallest": self._smallest}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self.reward_scale.set_state(state["reward_scale"])
        self._smallest = state["smallest"]
