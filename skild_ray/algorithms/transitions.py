"""From the episodes that env runners return to the rows that the replay stores."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

Rows = dict[str, NDArray]


def episode_rows(episode: SingleAgentEpisode) -> Rows:
    """The transitions of one (chunk of an) episode: obs, next_obs, actions, rewards, k, terminated; [T, ...] each."""
    observations = np.asarray(episode.get_observations(), np.float32)
    infos = episode.get_infos()[1:]
    terminated = np.zeros(len(episode), np.float32)
    terminated[-1] = episode.is_terminated
    return {
        "obs": observations[:-1],
        "next_obs": observations[1:],
        "actions": np.asarray(episode.get_actions(), np.float32),
        "rewards": np.asarray(episode.get_rewards(), np.float32),
        "k": np.array([info["k"] for info in infos]),
        "terminated": terminated,
    }


class ShiftedTransitions:
    """The released code's transitions, off by one: restored by the quirk `shifted_transitions`.

    The state of a skill is the one after its first environment step (that of an episode's first skill excepted), the
    next state that of the following skill; a time limit counts as a termination and loses its last reward; where the
    episode terminates on the first step of a skill, that skill is merged into the one before. Rows therefore leave an
    episode only when it has ended.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[tuple[Rows, list[dict[str, Any]]]]] = {}

    def __call__(self, episode: SingleAgentEpisode) -> Rows | None:
        """All rows of the episode of which this is the last chunk, or None where more is to come."""
        chunks = self._open.setdefault(episode.id_, [])
        chunks.append((episode_rows(episode), episode.get_infos()[1:]))
        if not episode.is_done:
            return None
        del self._open[episode.id_]
        rows = {name: np.concatenate([chunk[name] for chunk, _ in chunks]) for name in chunks[0][0]}
        infos = [info for _, chunk_infos in chunks for info in chunk_infos]
        if episode.is_terminated and rows["k"][-1] == 1 and len(infos) > 1:
            rows["rewards"][-2] += rows["rewards"][-1]
            end = rows["next_obs"][-1]
            rows = {name: column[:-1] for name, column in rows.items()}
            rows["next_obs"][-1] = end
        elif not episode.is_terminated:
            rows["rewards"][-1] -= infos[-1]["last_reward"]
        count = len(rows["rewards"])
        first = np.stack([info["first_observation"] for info in infos[:count]])
        rows["obs"][1:] = first[1:]
        rows["next_obs"][:-1] = first[1:]
        rows["terminated"][-1] = 1.0
        return rows
