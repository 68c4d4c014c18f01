"""Scripted experts acting in an environment, one episode at a time."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from skild_ray.config import Environment, Generate, Section
from skild_ray.data.episode import Episode
from skild_ray.envs import make_env
from skild_ray.envs.conventions import ACTION_TOLERANCE, LIMIT_KEY, SOLVED, subtasks_of
from skild_ray.errors import ConfigError, SkildError
from skild_ray.worlds.expert import Expert
from skild_ray.worlds.named import load_expert

RECORDING_VERSION = 2
"""Of what is recorded; raised when that changes, so that older data sets are made again. 2: executed actions, too."""

FIRST_CAPACITY = 1024
MAX_EPISODE_STEPS = 2**20


class Request(Section):
    """Everything that the content of a generated data set depends on."""

    environment: str
    env_kwargs: dict[str, Any]
    expert: str
    expert_version: int
    expert_kwargs: dict[str, Any]
    episodes: int
    action_noise: float
    seed: int
    recording: int = RECORDING_VERSION

    @classmethod
    def of(cls, source: Generate, environment: Environment, seed: int) -> "Request":
        return cls(
            environment=environment.id,
            env_kwargs={**environment.arguments, **source.env_kwargs},
            expert=source.expert,
            expert_version=getattr(load_expert(source.expert), "version", 1),
            expert_kwargs=source.expert_kwargs,
            episodes=source.episodes,
            action_noise=source.action_noise,
            seed=seed if source.seed is None else source.seed,
        )

    def make_env(self) -> gym.Env:
        """The environment of the request; see `skild_ray.envs.make_env`."""
        return make_env(self.environment, self.env_kwargs)


@dataclass(frozen=True)
class Failure:
    """An episode that was not solved in its `env_steps`, or could not be played to its end because of an error."""

    index: int
    seed: int
    env_steps: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Spent:
    """Env steps that it took to make a data set: in its metadata, for whoever counts what a result has cost."""

    kept_env_steps: int
    dropped_env_steps: int
    dropped_episodes: int

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "Spent | None":
        """What a data set with this metadata took, None if it was not generated."""
        spent = metadata.get("skild_ray", {}).get("spent")
        return cls(**spent) if spent else None

    def __str__(self) -> str:
        total = self.kept_env_steps + self.dropped_env_steps
        if not self.dropped_episodes:
            return f"{total:,} env steps; no episode was dropped"
        return (
            f"{total:,} env steps, {self.dropped_env_steps:,} of them in {self.dropped_episodes:,} episodes that did "
            "not solve their sub-tasks and were dropped"
        )


def prepared(request: Request) -> dict[str, Any]:
    """The keyword arguments with which workers construct the request's expert; see `Expert`.

    Raises:
        ConfigError: if the expert has no such arguments.
    """
    prepare = getattr(load_expert(request.expert), "prepare", None)
    if prepare is None:
        return request.expert_kwargs
    try:
        inspect.signature(prepare).bind(**request.expert_kwargs)
    except TypeError as error:
        raise ConfigError(f"expert {request.expert!r}: {error}; they are its expert_kwargs") from None
    return prepare(**request.expert_kwargs)


def collect(
    request: Request, first: int, count: int, expert_kwargs: dict[str, Any] | None = None
) -> list[Episode | Failure]:
    """Episodes `first`, ..., `first + count - 1` of the infinite sequence of episodes that a request defines.

    Episode i depends on request and i only, not on who plays it and which others were played before. `expert_kwargs`
    are those of `prepared`, which is called without them.
    """
    env = _cached_env(request.model_dump_json())
    expert_kwargs = prepared(request) if expert_kwargs is None else expert_kwargs
    make_expert = partial(load_expert(request.expert), **expert_kwargs)
    return [_attempt(env, make_expert, request, index) for index in range(first, first + count)]


@lru_cache(maxsize=1)
def _cached_env(request: str) -> gym.Env:
    return Request.model_validate_json(request).make_env()


def _attempt(env: gym.Env, make_expert: Callable[..., Expert], request: Request, index: int) -> Episode | Failure:
    for_env, for_expert, for_noise = np.random.SeedSequence([request.seed, index]).spawn(3)
    seed = int(for_env.generate_state(1)[0])
    try:
        observation, _ = env.reset(seed=seed)
        expert = make_expert(env, np.random.default_rng(for_expert))
        expert.reset(observation)
        episode = _play(env, expert, observation, request.action_noise, np.random.default_rng(for_noise), seed)
    except SkildError:
        raise
    except Exception as error:  # whatever a user's environment or expert raises
        text = " ".join(str(error).split())
        return Failure(index, seed, error=f"{type(error).__name__}: {text}" if text else type(error).__name__)
    return episode if isinstance(episode, Episode) else Failure(index, seed, env_steps=episode)


def _play(
    env: gym.Env, expert: Expert, observation: Any, action_noise: float, rng: np.random.Generator, seed: int
) -> Episode | int:
    """The episode that was just reset, or its env steps if it ends before all sub-tasks are solved."""
    assert isinstance(env.action_space, spaces.Box) and env.observation_space.shape is not None
    low, high = env.action_space.low, env.action_space.high
    names = subtasks_of(env)
    capacity = FIRST_CAPACITY
    observations = np.empty((capacity + 1, *env.observation_space.shape), np.float32)
    actions = np.empty((capacity, *low.shape), np.float32)
    rewards = np.empty(capacity, np.float32)
    scale = np.float32(action_noise)
    noise = np.multiply(scale, rng.standard_normal(actions.shape, np.float32))
    act, step, steps = expert.act, env.step, 0
    observations[0] = observation
    while True:
        # Runs millions of times: a handful of array writes around expert and physics, nothing else.
        action = act(observation)
        if not steps and np.shape(action) != low.shape:  # anything that broadcasts could be stored below
            raise ValueError(f"the expert's action has shape {np.shape(action)}, the environment's {low.shape}")
        actions[steps] = action
        if action_noise:
            action = np.minimum(np.maximum(actions[steps] + noise[steps], low), high)
        observation, reward, terminated, truncated, info = step(action)
        rewards[steps] = reward
        steps += 1
        observations[steps] = observation
        if terminated or truncated:
            break
        if steps == capacity:
            if capacity >= MAX_EPISODE_STEPS:
                raise RuntimeError(f"the episode did not end within {capacity:,} steps; set {LIMIT_KEY}")
            observations = np.concatenate((observations, np.empty_like(observations[1:])))
            actions = np.concatenate((actions, np.empty_like(actions)))
            rewards = np.concatenate((rewards, np.empty_like(rewards)))
            noise = np.concatenate((noise, np.multiply(scale, rng.standard_normal(noise.shape, np.float32))))
            capacity *= 2
    if names and info.get(SOLVED, 0) < len(names):
        return steps
    # The same float32 arithmetic as in the loop, so the same bits.
    executed = np.clip(actions[:steps] + noise[:steps], low, high) if action_noise else None
    observations, actions = observations[: steps + 1].copy(), actions[:steps].copy()
    _require_usable(observations, actions, rewards[:steps])
    return Episode(observations, actions, rewards[:steps].copy(), bool(terminated), seed, names, executed)


def _require_usable(observations: NDArray, actions: NDArray, rewards: NDArray) -> None:
    """Raise ValueError, which names the step, where a value is not finite or an action is not in [-1, 1]."""
    found = []
    for name, values, wrong, first in (
        ("action", actions, ~(np.abs(actions) <= 1 + ACTION_TOLERANCE), 1),
        ("reward", rewards, ~np.isfinite(rewards), 1),
        ("observation", observations, ~np.isfinite(observations), 0),
    ):
        if wrong.any():
            row, *column = np.argwhere(wrong)[0]
            place = f" in column {column[0]}" if column else ""
            wanted = "; the expert's actions must be in [-1, 1]" if name == "action" else ""
            found.append((row + first, f"{name} {values[(row, *column)]}{place} in step {row + first}{wanted}"))
    if found:  # the first of them made the others
        raise ValueError(min(found, key=lambda step_and_text: step_and_text[0])[1])
