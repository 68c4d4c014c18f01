"""What SAC learns from: its own transitions, and demonstrations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from skild_ray.algorithms.replay import Replay, draw_batches
from skild_ray.algorithms.sac.settings import SACSettings
from skild_ray.algorithms.transitions import Rows, episode_rows

COLUMNS = ("obs", "actions", "returns", "bootstrap", "later_states", "later_weights")


class DemonstratedExperience:
    """Transitions of the environment's own actions, beside a replay of the demonstrations that is never overwritten.

    See `skild_ray.algorithms.experience.Experience`.
    """

    def __init__(self, demonstrations: Sequence[Rows], settings: SACSettings, seed: int) -> None:
        self._settings = settings
        capacities = settings.replay_capacity, sum(len(rows["rewards"]) for rows in demonstrations)
        seeds = np.random.SeedSequence([seed, 2]).generate_state(2)
        self.replay, self._demonstrations = (
            Replay(
                capacity,
                demonstrations[0]["obs"].shape[1],
                demonstrations[0]["actions"].shape[1],
                n_step=settings.n_step,
                discount=settings.discount,
                horizon=1,
                seed=int(own_seed),
                columns={},
                later=True,
            )
            for capacity, own_seed in zip(capacities, seeds, strict=True)
        )
        for index, rows in enumerate(demonstrations):
            self._demonstrations.add(str(index), rows, ended=True)

    def add(self, chunks: Sequence[SingleAgentEpisode]) -> None:
        for chunk in chunks:
            self.replay.add(chunk.id_, episode_rows(chunk), chunk.is_done)

    def draw(self, updates: int, size: int) -> dict[str, NDArray]:
        given = round(size * self._settings.demonstration_share)
        return draw_batches([(self._demonstrations, given), (self.replay, size - given)], updates, COLUMNS)

    def forget_open_episodes(self) -> None:
        self.replay.forget_open_episodes()

    def get_state(self) -> dict[str, Any]:
        return {"replay": self.replay.get_state(), "demonstrations": self._demonstrations.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.replay.set_state(state["replay"])
        self._demonstrations.set_state(state["demonstrations"])
