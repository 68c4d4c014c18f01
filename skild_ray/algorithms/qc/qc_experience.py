"""What Q-chunking learns from: chunks that begin at any env step of the offline data or of its own experience."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from skild_ray.algorithms.replay import Replay, draw_batches
from skild_ray.algorithms.transitions import Rows
from skild_ray.errors import ArtifactError

KEPT = ("obs", "next_obs", "returns", "bootstrap")
"""Columns of the replays that are columns of a batch."""


class ChunkExperience:
    """Offline data and own experience, env step by env step; see `skild_ray.algorithms.experience.Experience`.

    Each row of a batch begins at a step that is drawn uniformly from all steps of both. The offline data are in a
    replay of their own, so that they are never overwritten and checkpoints need not hold them.

    Of a chunk that begins at step t of an episode that has k <= h steps from there, a draw gives
        obs, next_obs   s_t and s_{t+k}                                               [B, observation_dim]
        actions         a_t .. a_{t+h-1} in one row                                   [B, h * action_dim]
        inside          1 for the first k actions, 0 for the rest                     [B, h]
        weight          0 if k < h although the episode does not terminate, else 1    [B]
        returns         sum_{i<k} gamma^i r_{t+i}                                     [B]
        bootstrap       gamma^k, 0 if the episode terminates                          [B]

    Actions after a termination are drawn uniformly from [-1, 1]: nobody executes them, and so the critics learn that
    they do not matter.

    Args:
        offline: transitions of each episode of the offline data, by the environment's own actions.
        length: h.
        discount: gamma of an env step.
        capacity: own env steps kept.
        seed: of what is drawn.
    """

    def __init__(self, offline: Sequence[Rows], *, length: int, discount: float, capacity: int, seed: int) -> None:
        dims = [offline[0][name].shape[1] for name in ("obs", "actions")]
        sizes = capacity, sum(len(rows["rewards"]) for rows in offline)
        *seeds, own_seed = np.random.SeedSequence([seed, 2]).generate_state(3).tolist()
        self.replay, self._offline = (
            Replay(size, *dims, n_step=length, discount=discount, horizon=1, seed=s, columns={}, walk_actions=True)
            for size, s in zip(sizes, seeds, strict=True)
        )
        self._rng = np.random.default_rng(own_seed)
        for index, rows in enumerate(offline):
            self._offline.add(str(index), rows, ended=True)

    def add(self, chunks: Sequence[SingleAgentEpisode]) -> None:
        for chunk in chunks:
            self.replay.add(chunk.id_, step_rows(chunk), chunk.is_done)

    def draw(self, updates: int, size: int) -> dict[str, NDArray]:
        share = len(self._offline) / (len(self._offline) + len(self.replay))
        batches = [
            draw_batches(
                [(self._offline, count), (self.replay, size - count)], 1, (*KEPT, "n_step_actions", "n_step_weights")
            )
            for count in self._rng.binomial(size, share, updates).tolist()
        ]
        drawn = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        inside, actions = drawn["n_step_weights"] > 0, drawn["n_step_actions"]
        unexecuted = self._rng.uniform(-1.0, 1.0, actions.shape).astype(np.float32)
        return {name: drawn[name] for name in KEPT} | {
            "actions": np.where(inside[..., None], actions, unexecuted).reshape(len(actions), -1),
            "inside": inside.astype(np.float32),
            "weight": (inside[:, -1] | (drawn["bootstrap"] == 0)).astype(np.float32),
        }

    def offline_observations(self) -> NDArray:
        """All states of the offline data, [N, observation_dim]."""
        return self._offline.recent()["obs"]

    def forget_open_episodes(self) -> None:
        self.replay.forget_open_episodes()

    def get_state(self) -> dict[str, Any]:
        offline = self._offline.get_state()
        del offline["data"]
        return {"replay": self.replay.get_state(), "offline": offline, "rng": self._rng.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        offline = state["offline"]
        if offline["added"] != self._offline.added:
            raise ArtifactError(
                f"the checkpoint: was trained from {offline['added']:,} offline transitions, there are "
                f"{self._offline.added:,}; restore the data, or train anew"
            )
        self.replay.set_state(state["replay"])
        self._offline.set_state(offline | {"data": {}})
        self._rng.bit_generator.state = state["rng"]


def step_rows(episode: SingleAgentEpisode) -> Rows:
    """The env steps of one (chunk of an) episode in `ChunkVectorEnv`: the columns of `episode_rows`, with k = 1."""
    infos = episode.get_infos()[1:]
    executed = [int(info["k"]) for info in infos]
    states = [info["states"][:k] for info, k in zip(infos, executed, strict=True)]
    observations = np.concatenate([*states, episode.get_observations(-1)[None]], dtype=np.float32)
    rewards = np.concatenate([info["step_rewards"][:k] for info, k in zip(infos, executed, strict=True)])
    decisions = np.asarray(episode.get_actions(), np.float32).reshape(len(infos), len(infos[0]["states"]), -1)
    actions = np.concatenate([decision[:k] for decision, k in zip(decisions, executed, strict=True)])
    terminated = np.zeros(len(rewards), np.float32)
    terminated[-1] = episode.is_terminated
    return {
        "obs": observations[:-1],
        "next_obs": observations[1:],
        "actions": np.clip(actions, -1.0, 1.0),
        "rewards": rewards,
        "k": np.ones(len(rewards), np.int64),
        "terminated": terminated,
    }
