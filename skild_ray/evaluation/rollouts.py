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
from skild_ray.envs.registry import make_env
from skild_ray.envs.skill_env import SkillVectorEnv
from skild_ray.evaluation.policy import Agent, Policy
from skild_ray.progress import TaskProgress


@dataclass(frozen=True)
class Episode:
    """One complete episode. `states` [T + 1, observation_dim] are those at skill boundaries, the last one included."""

    episode_return: float
    env_steps: int
    subtasks_solved: int
    success: bool
    states: NDArray[np.float32]


def run_episodes(env: SkillVectorEnv, policy: Policy, seeds: Sequence[int], name: str = "evaluation") -> list[Episode]:
    """One episode for each seed, in their order, `env.num_envs` at a time.

    Every group runs until its last episode has ended: no episode is preferred for being short.

    Args:
        env: made with `autoreset=False`.
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
    return [
        Episode(float(returns[i]), int(lengths[i]), int(solved[i]), bool(success[i]), np.stack(states[i]))
        for i in range(env.num_envs)
    ]


def summarise(episodes: Sequence[Episode], env_steps_trained: int, seed: int) -> dict[str, Any]:
    """Means with 95 % confidence intervals: Wilson's for the success rate, Student's for the return."""
    count = len(episodes)
    successes = sum(episode.success for episode in episodes)
    returns = np.array([episode.episode_return for episode in episodes])
    interval = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    half = float(stats.t.ppf(0.975, count - 1) * returns.std(ddof=1) / math.sqrt(count)) if count > 1 else math.inf
    return {
        "episodes": count,
        "success_rate": successes / count,
        "success_ci95": [float(interval.low), float(interval.high)],
        "return_mean": float(returns.mean()),
        "return_ci95": [float(returns.mean() - half), float(returns.mean() + half)],
        "subtasks_mean": float(np.mean([episode.subtasks_solved for episode in episodes])),
        "episode_length_mean": float(np.mean([episode.env_steps for episode in episodes])),
        "env_steps_trained": env_steps_trained,
        "seed": seed,
    }


def evaluation_env(run_dir: Any, experiment: Experiment, episodes: int) -> SkillVectorEnv:
    """The environment to evaluate in, without automatic reset: skill-level with the decoder of `run_dir`, SAC's own."""
    makers = [lambda: make_env(experiment.environment.id, experiment.environment.kwargs)]
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


def evaluate(agent: Agent, episodes: int, seed: int, deterministic: bool, name: str = "evaluation") -> dict[str, Any]:
    """Summary of `episodes` episodes of the agent; the episodes' seeds follow from `seed` alone."""
    torch.set_num_threads(1)  # the batches are far too small for more
    env = evaluation_env(agent.run_dir, agent.experiment, episodes)
    seeds = np.random.SeedSequence(seed).generate_state(episodes).tolist()
    try:
        played = run_episodes(env, agent.policy(deterministic, seed), seeds, name)
    finally:
        env.close()
    return summarise(played, agent.env_steps, seed)
