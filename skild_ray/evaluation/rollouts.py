"""Complete episodes of a policy, each fixed by its own seed, and what they amount to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from skild_ray.algorithms.pretrained import Pretrained, load_decoder
from skild_ray.config import Experiment
from skild_ray.envs.action_env import ActionVectorEnv
from skild_ray.envs.conventions import subtasks_of
from skild_ray.envs.registry import make_env
from skild_ray.envs.skill_env import SkillVectorEnv
from skild_ray.evaluation.policy import Agent, Policy
from skild_ray.evaluation.recording import Recorder
from skild_ray.progress import TaskProgress


@dataclass(frozen=True)
class Episode:
    """One complete episode.

    `states` [T + 1, observation_dim] are those at skill boundaries, the last one included; `actions`
    [env_steps, action_dim] are all that the environment was given. `credited_at` has the env step (from 1) in which
    each sub-task that was solved was credited, in the order of `subtasks`.
    """

    episode_return: float
    env_steps: int
    subtasks_solved: int
    success: bool
    states: NDArray[np.float32]
    seed: int
    actions: NDArray[np.float32]
    subtasks: tuple[str, ...]
    credited_at: tuple[int, ...]


def run_episodes(env: SkillVectorEnv, policy: Policy, seeds: Sequence[int], name: str = "evaluation") -> list[Episode]:
    """One episode for each seed, in their order, `env.num_envs` at a time.

    Every group runs until its last episode has ended: no episode is preferred for being short.

    Args:
        env: made by `evaluation_env`.
        policy: chooses skills.
        seeds: of the episodes' environments.
        name: shown with the progress.
    """
    episodes: list[Episode] = []
    with TaskProgress(name, len(seeds), "episodes") as progress:
        for first in range(0, len(seeds), env.num_envs):
            group = list(seeds[first : first + env.num_envs])
            spare = [0] * (env.num_envs - len(group))
            episodes += _run_group(env, policy, group + spare)[: len(group)]
            progress.update(len(episodes))
    return episodes


def _run_group(env: SkillVectorEnv, policy: Policy, seeds: Sequence[int]) -> list[Episode]:
    observations, _ = env.reset(seed=seeds)
    states = [[observation] for observation in observations]
    returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
    solved, success = np.zeros(env.num_envs, int), np.zeros(env.num_envs, bool)
    over = np.zeros(env.num_envs, bool)
    while not over.all():
        observations, rewards, terminated, truncated, info = env.step(policy(observations))
        returns += rewards
        lengths += info["k"]
        for index in np.flatnonzero(~over):
            states[index].append(observations[index])
        ended = (terminated | truncated) & ~over
        solved[ended], success[ended] = info["subtasks_solved"][ended], info["success"][ended]
        over |= ended
    episodes = []
    for i, recorder in enumerate(env.envs):
        assert isinstance(recorder, Recorder)
        episodes.append(
            Episode(
                episode_return=float(returns[i]),
                env_steps=int(lengths[i]),
                subtasks_solved=int(solved[i]),
                success=bool(success[i]),
                states=np.stack(states[i]),
                seed=int(seeds[i]),
                actions=np.stack(recorder.actions),
                subtasks=subtasks_of(recorder),
                credited_at=tuple(recorder.credited_at),
            )
        )
    return episodes


def summarise(episodes: Sequence[Episode], env_steps_trained: int, seed: int) -> dict[str, Any]:
    """Means with 95 % confidence intervals: Wilson's for rates, Student's for return and sub-tasks.

    Where there are several sub-tasks, 'subtasks' has the completion rate of each, and 'credited_at' the env steps of
    the credits in every episode, in the order of the sub-tasks.
    """
    count = len(episodes)
    returns = np.array([episode.episode_return for episode in episodes])
    solved = np.array([episode.subtasks_solved for episode in episodes])
    success_rate, success_ci95 = _rate(sum(episode.success for episode in episodes), count)
    summary = {
        "episodes": count,
        "success_rate": success_rate,
        "success_ci95": success_ci95,
        "return_mean": float(returns.mean()),
        "return_ci95": _mean_ci95(returns),
        "subtasks_mean": float(solved.mean()),
        "episode_length_mean": float(np.mean([episode.env_steps for episode in episodes])),
        "env_steps_trained": env_steps_trained,
        "seed": seed,
    }
    names = _subtask_names(episodes)
    if len(names) > 1:
        summary["subtasks_ci95"] = _mean_ci95(solved)
        rates = [_rate(sum(len(e.credited_at) > index for e in episodes), count) for index in range(len(names))]
        summary["subtasks"] = [
            {"name": name, "rate": rate, "ci95": ci95} for name, (rate, ci95) in zip(names, rates, strict=True)
        ]
        summary["credited_at"] = [list(episode.credited_at) for episode in episodes]
    return summary


def _rate(hits: int, count: int) -> tuple[float, list[float]]:
    interval = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return hits / count, [float(interval.low), float(interval.high)]


def _mean_ci95(values: NDArray[Any]) -> list[float]:
    count = len(values)
    half = float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count)) if count > 1 else math.inf
    return [float(values.mean() - half), float(values.mean() + half)]


def _subtask_names(episodes: Sequence[Episode]) -> tuple[str, ...]:
    """Those of the environment, or numbers where every episode has its own."""
    names = {episode.subtasks for episode in episodes}
    if len(names) == 1:
        return names.pop()
    return tuple(f"sub-task {number}" for number in range(1, max(map(len, names)) + 1))


def evaluation_env(run_dir: Any, experiment: Experiment, episodes: int) -> SkillVectorEnv:
    """The environment to evaluate in, without automatic reset, episodes recorded: skill-level with the decoder of
    `run_dir`, SAC's own."""
    makers = [lambda: Recorder(make_env(experiment.environment.id, experiment.environment.kwargs))]
    makers *= min(experiment.evaluation.num_envs, episodes)
    if experiment.sac:
        return ActionVectorEnv(makers, autoreset=False)
    pretrained = Pretrained.open(run_dir)
    skill = pretrained.experiment.skill
    return SkillVectorEnv(
        makers,
        load_decoder(pretrained.skill_prior),
        skill.latent_dim,
        skill.horizon,
        squash="squashed_decoder" in experiment.algorithm.reference_quirks,
        autoreset=False,
    )


def play(agent: Agent, episodes: int, seed: int, deterministic: bool, name: str = "evaluation") -> list[Episode]:
    """`episodes` episodes of the agent; their seeds follow from `seed` alone."""
    torch.set_num_threads(1)  # the batches are far too small for more
    env = evaluation_env(agent.run_dir, agent.experiment, episodes)
    seeds = np.random.SeedSequence(seed).generate_state(episodes).tolist()
    try:
        return run_episodes(env, agent.policy(deterministic, seed), seeds, name)
    finally:
        env.close()
