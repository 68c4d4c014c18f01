"""Stored episodes as transitions: of the environment's own actions, and of skills."""

import contextlib
import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from skild_ray.algorithms.transitions import Rows
from skild_ray.config import Environment, Rewards, Source
from skild_ray.data.episode import Episode
from skild_ray.data.formats import Stored, load_rewarded_episodes, load_unlabelled_episodes
from skild_ray.envs.registry import make_env
from skild_ray.models.skill_model import SkillModel


def load_transitions(
    sources: Sequence[Source],
    environment: Environment,
    rewards: Rewards = "with rewards",
    successful: bool = True,
    remedy: str = "",
) -> list[Rows]:
    """The transitions of each episode of stored data sets, see `transition_rows`, with the rewards of the task.

    Args:
        sources: data sets, see `load_rewarded_episodes`.
        environment: whose task it is.
        rewards: what is asked of them.
        successful: whether some reward is expected, as of demonstrations; False for data of anything.
        remedy: what can be done about rewards that are missing, for the message.

    Raises:
        ConfigError: there is no such environment.
        DataError: a data set is missing, lacks rewards that are needed, or does not fit the environment or its task.
    """
    with contextlib.closing(make_env(environment.id, environment.arguments)) as env:
        found: list[Episode] = []
        for source in sources:
            wanted = Stored.of(source), env, source.max_episodes, source.select
            if rewards == "unlabelled":
                found += load_unlabelled_episodes(*wanted)
            else:
                found += load_rewarded_episodes(*wanted, rewards == "with rewards", successful, remedy)
    return [transition_rows(episode) for episode in found]


def transition_rows(episode: Episode) -> Rows:
    """Transitions of one episode: obs, next_obs, actions, rewards, k, terminated; [T, ...] each.

    The actions are the executed ones, which led to next_obs: a critic that is shown others learns what never happened.

    Where the source lacks the state after the last action, that transition stays if it terminated, for then nothing is
    asked of its next state, and is dropped otherwise.
    """
    states, count = np.asarray(episode.observations, np.float32), len(episode.actions)
    if len(states) == count:
        states = np.concatenate([states, states[-1:]])
        count -= not episode.terminated
    terminated = np.zeros(count, np.float32)
    terminated[-1:] = episode.terminated
    assert episode.rewards is not None
    actions = episode.actions if episode.executed_actions is None else episode.executed_actions
    return {
        "obs": states[:count],
        "next_obs": states[1 : count + 1],
        "actions": np.asarray(actions[:count], np.float32),
        "rewards": np.asarray(episode.rewards[:count], np.float32),
        "k": np.ones(count, np.int64),
        "terminated": terminated,
    }


@torch.inference_mode()
def skill_rows(rows: Rows, model: SkillModel, horizon: int) -> list[Rows]:
    """The transitions of one episode as transitions of skills, once for each phase in which skills can begin.

    For an offset o of 0 .. H - 1, skills begin at o, o + H, ...; the last one is cut by the episode's end as an env
    runner's would be. Of a skill that begins at t and lasts k <= H steps,

        z = mean of q(z | s_t .. s_{t+H-1}, a_t .. a_{t+H-1}),   r = r_t + .. + r_{t+k-1},   s' = s_{t+k}

    where a window that reaches beyond the end repeats the last step, which nobody executes.

    The actions are the executed ones, although the encoder was trained on intended ones: z has to be the skill that
    leads from s to s'. Decoded from s_t, it ended nearer to s_{t+H} in the maze with noise of 0.5 (0.057 standard
    deviations of the data away; 0.087 with intended actions; 192 windows), and as near in the kitchen with 0.1.
    """
    length = len(rows["rewards"])
    starts = np.arange(length)
    steps = starts[:, None] + np.arange(horizon)
    window = torch.from_numpy(np.minimum(steps, length - 1))
    latents = model.encode(torch.from_numpy(rows["obs"])[window], torch.from_numpy(rows["actions"])[window]).mean
    ends = np.minimum(starts + horizon, length)
    rewards = np.concatenate([[0.0], np.cumsum(rows["rewards"], dtype=np.float64)])
    skills = {
        "obs": rows["obs"],
        "next_obs": rows["next_obs"][ends - 1],
        "actions": latents.numpy(),
        "rewards": (rewards[ends] - rewards[starts]).astype(np.float32),
        "k": ends - starts,
        "terminated": rows["terminated"][ends - 1],
    }
    return [
        {name: column[offset::horizon] for name, column in skills.items()} for offset in range(min(horizon, length))
    ]


def transitions_fingerprint(episodes: Sequence[Rows]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all transitions."""
    digest = hashlib.sha256()
    for rows in episodes:
        for name, column in rows.items():
            digest.update(f"{name}{column.shape}".encode())
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:16]
