"""Complete episodes of a policy, each fixed by its own seed, and what they amount to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from skild_ray.envs.conventions import return_range_of, subtasks_of
from skild_ray.envs.lockstep import LockstepVectorEnv
from skild_ray.envs.registry import make_env
from skild_ray.errors import SkildError
from skild_ray.evaluation.agent import Agent, Policy
from skild_ray.evaluation.results import SubtaskRate, Summary
from skild_ray.evaluation.statistics import Interval, bootstrap_mean, bounded_mean
from skild_ray.progress import TaskProgress
from skild_ray.video.recording import Recorder


@dataclass(frozen=True)
class Episode:
    """One complete episode.

    `states` [T + 1, observation_dim] are those at skill boundaries, the last one included; `actions`
    [env_steps, action_dim] are all that the environment was given. `credited_at` has the env step (from 1) in which
    each sub-task that was solved was credited, in the order of `subtasks`. `return_range` holds the smallest and the
    largest return that the environment allows, where it has that attribute.
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
    return_range: tuple[float, float] | None = None


def run_episodes(
    env: LockstepVectorEnv, policy: Policy, seeds: Sequence[int], name: str = "evaluation"
) -> list[Episode]:
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


def _run_group(env: LockstepVectorEnv, policy: Policy, seeds: Sequence[int]) -> list[Episode]:
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
    for i, recorder in enumerate(map(Recorder.inside, env.envs)):
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
                return_range=return_range_of(recorder),
            )
        )
    return episodes


def summarise(episodes: Sequence[Episode], env_steps_trained: int, seed: int) -> Summary:
    """Means with 95 % confidence intervals; the rate and the credits of each sub-task if there are several.

    Raises:
        SkildError: a return is outside of the environment's `return_range`.
    """
    solved = np.array([episode.subtasks_solved for episode in episodes])
    success = np.array([episode.success for episode in episodes])
    names = _subtask_names(episodes)
    several = len(names) > 1
    return Summary(
        episodes=len(episodes),
        success_rate=float(success.mean()),
        success_ci95=bounded_mean(success, 0, 1),
        return_mean=float(np.mean([episode.episode_return for episode in episodes])),
        return_ci95=_return_interval(episodes),
        subtasks_mean=float(solved.mean()),
        episode_length_mean=float(np.mean([episode.env_steps for episode in episodes])),
        env_steps_trained=env_steps_trained,
        seed=seed,
        subtasks_ci95=bounded_mean(solved, 0, len(names)) if several else None,
        subtasks=_rates(episodes, names) if several else (),
        credited_at=tuple(episode.credited_at for episode in episodes) if several else (),
    )


def _rates(episodes: Sequence[Episode], names: Sequence[str]) -> tuple[SubtaskRate, ...]:
    """Of the sub-tasks in their order: the k-th is completed in an episode with k credits or more."""
    credits = np.array([len(episode.credited_at) for episode in episodes])
    completed = [(name, credits >= k) for k, name in enumerate(names, 1)]
    return tuple(
        SubtaskRate(name=name, rate=float(those.mean()), ci95=bounded_mean(those, 0, 1)) for name, those in completed
    )


def _return_interval(episodes: Sequence[Episode]) -> Interval | None:
    """Within the environment's `return_range`, or between two values where there are no others; else by bootstrap."""
    returns = np.array([episode.episode_return for episode in episodes])
    ranges = [episode.return_range for episode in episodes if episode.return_range]
    if len(ranges) == len(episodes):
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        slack = 1e-6 * (high - low)  # of rewards that were added up
        if returns.min() < low - slack or returns.max() > high + slack:
            raise SkildError(
                f"returns of {returns.min():g} to {returns.max():g} are outside of the environment's return_range, "
                f"{low:g} to {high:g}; correct the attribute"
            )
        returns = returns.clip(low, high)
    elif len(set(returns)) == 2:
        low, high = returns.min(), returns.max()
    else:
        return bootstrap_mean(returns)
    return bounded_mean(returns, low, high) if low < high else None


def _subtask_names(episodes: Sequence[Episode]) -> tuple[str, ...]:
    """Those of the environment, or numbers where every episode has its own."""
    names = {episode.subtasks for episode in episodes}
    if len(names) == 1:
        return names.pop()
    return tuple(f"sub-task {number}" for number in range(1, max(map(len, names)) + 1))


def evaluation_env(agent: Agent, episodes: int) -> LockstepVectorEnv:
    """What the agent acts in, without automatic reset, its episodes recorded."""
    environment = agent.environment
    makers = [lambda: Recorder(make_env(environment.id, environment.arguments))]
    return agent.config.make_vector_env(makers * min(agent.num_envs, episodes), autoreset=False)


def play(agent: Agent, episodes: int, seed: int, deterministic: bool, name: str = "evaluation") -> list[Episode]:
    """`episodes` episodes of the agent; their seeds follow from `seed` alone."""
    torch.set_num_threads(1)  # the batches are far too small for more
    env = evaluation_env(agent, episodes)
    seeds = np.random.SeedSequence(seed).generate_state(episodes).tolist()
    try:
        return run_episodes(env, agent.policy(deterministic, seed), seeds, name)
    finally:
        env.close()
