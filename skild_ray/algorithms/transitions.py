"""From the episodes that env runners return to the rows that the replay stores."""

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
