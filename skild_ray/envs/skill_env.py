"""The skill-level environment: an action is a skill z, which a frozen decoder turns into up to H environment steps."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from skild_ray.envs.conventions import (
    ENDLESS,
    LIMIT_KEY,
    SOLVED,
    episode_limit,
    name_of,
    not_finite,
    subtasks_of,
)
from skild_ray.errors import EnvironmentFault, described

Decoder = Callable[[Tensor], Tensor]


class SkillVectorEnv(VectorEnv):
    """N environments that run skills in lockstep, with one batched decode for each environment step.

    Taking skill z in s_t executes a_{t+i} = clip(decoder(s_{t+i}, z), -1, 1) for i = 0..k-1, where k = H unless the
    episode ends earlier. A skill step is thus the semi-Markov transition (s_t, z, sum of the k rewards, s_{t+k},
    terminated, k). Environments whose episode ended are reset by their next step, which ignores its action
    (Gymnasium's NEXT_STEP mode).

    Info of every step, one entry an environment:
        k: environment steps this skill took; 0 for a reset.
        subtasks_solved: sub-tasks credited so far in the episode (0 where the environment knows none).
        success: whether all sub-tasks are solved; for an environment without sub-tasks, whether it terminated.
        first_observation, last_reward: only with `trace`: s_{t+1} and the reward of the last environment step.

    Args:
        env_fns: makers of the low-level environments, each with 1-d Box observations and actions in [-1, 1].
        decoder: maps [N, observation_dim + latent_dim] to actions [N, action_dim].
        latent_dim: dimensions of z.
        horizon: H.
        squash: tanh the decoder's output instead of clipping it, as the reference does.
        trace: see above.
        autoreset: whether finished environments start again; without it they stay as they are (k = 0) until `reset`.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env]],
        decoder: Decoder,
        latent_dim: int,
        horizon: int,
        *,
        squash: bool = False,
        trace: bool = False,
        autoreset: bool = True,
    ) -> None:
        self.envs = [make() for make in env_fns]
        self.num_envs = len(self.envs)
        self.horizon, self.latent_dim = horizon, latent_dim
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP if autoreset else AutoresetMode.DISABLED}
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = Box(-np.inf, np.inf, (latent_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.subtasks = subtasks_of(self.envs[0])
        self._decoder, self._squash, self._trace, self._autoreset = decoder, squash, trace, autoreset
        self._observation_dim = int(np.prod(self.single_observation_space.shape or ()))
        # The decoder reads this tensor; observations are written into it through the array that shares its memory.
        self._inputs = torch.zeros(self.num_envs, self._observation_dim + latent_dim)
        self._input_array: NDArray[np.float32] = self._inputs.numpy()
        self._observations = self._input_array[:, : self._observation_dim]
        self._over = np.ones(self.num_envs, bool)
        self._steps = np.zeros(self.num_envs, np.int64)  # of each episode, before the skill in progress
        self._seeds: list[int | None] = [None] * self.num_envs  # of each episode that was given one
        self._endless = max(ENDLESS, episode_limit(self.envs[0]) or 0)
        self._solved = np.zeros(self.num_envs, np.int64)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a new episode everywhere. One seed is spread over the environments; a sequence gives each its own."""
        if seed is None:
            seeds: Sequence[int | None] = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            seeds = [int(s) for s in np.random.SeedSequence(int(seed)).generate_state(self.num_envs)]
        else:
            seeds = list(seed)
        for index in range(self.num_envs):
            self._reset_one(index, seeds[index], options)
        nothing = np.zeros(self.num_envs)
        info = self._info(nothing.astype(np.int64), self._observations, nothing, nothing.astype(bool))
        return self._observations.copy(), info

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Run the skills `actions` [N, latent_dim] to their end.

        Raises:
            EnvironmentFault: an environment raises, gives a reward or an observation that is not finite, or an episode
                passes ENDLESS steps, or the limit that the environment announces if that is later.
        """
        count, envs, observations = self.num_envs, self.envs, self._observations
        rewards, last_rewards = np.zeros(count), np.zeros(count)
        terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        taken = np.zeros(count, np.int64)
        active = np.flatnonzero(~self._over).tolist()
        if self._autoreset:
            for index in np.flatnonzero(self._over).tolist():
                self._reset_one(index, None, None)
        first = observations
        self._input_array[:, self._observation_dim :] = actions
        for step in range(self.horizon):
            if not active:
                break
            taken[active] += 1
            decoded = self._decode()
            ended = []
            for index in active:
                try:
                    observations[index], reward, over, cut, info = envs[index].step(decoded[index])
                    self._solved[index] = info.get(SOLVED, 0)
                    rewards[index] += reward
                    last_rewards[index] = reward
                    if over or cut:
                        terminated[index], truncated[index] = over, cut
                        ended.append(index)
                except Exception as error:  # whatever a user's environment raises
                    raise self._fault(index, described(error), taken) from error
            if not (np.isfinite(observations).all() and np.isfinite(last_rewards).all()):
                self._refuse(last_rewards, taken)
            if ended:
                self._over[ended] = True
                active = [index for index in active if index not in ended]
            if step == 0 and self._trace:
                first = observations.copy()
        self._steps += taken
        longest = int(self._steps.argmax())
        if self._steps[longest] > self._endless and not self._over[longest]:
            raise EnvironmentFault(
                f"environment {name_of(self.envs[longest])!r}: an episode has not ended after "
                f"{self._steps[longest]:,} steps; set {LIMIT_KEY}"
            )
        return observations.copy(), rewards, terminated, truncated, self._info(taken, first, last_rewards, terminated)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the low-level environments."""
        for env in self.envs:
            env.close()

    def _reset_one(self, index: int, seed: int | None, options: dict[str, Any] | None) -> None:
        self._steps[index], self._seeds[index] = 0, seed
        try:
            self._observations[index], info = self.envs[index].reset(seed=seed, options=options)
            self._solved[index] = info.get(SOLVED, 0)
        except Exception as error:  # whatever a user's environment raises
            raise self._fault(index, described(error)) from error
        if wrong := not_finite(self._observations[index]):
            raise self._fault(index, wrong)
        self._over[index] = False

    def _refuse(self, rewards: NDArray[np.float64], taken: NDArray[np.int64]) -> NoReturn:
        """Raise for the first environment whose reward or observation is not finite."""
        told = (not_finite(self._observations[index], rewards[index]) for index in range(self.num_envs))
        index, wrong = next((index, wrong) for index, wrong in enumerate(told) if wrong)
        raise self._fault(index, wrong, taken)

    def _fault(self, index: int, what: str, taken: NDArray[np.int64] | None = None) -> EnvironmentFault:
        """An error that says what happened when; `taken`: steps of the skills in progress."""
        step = self._steps[index] + (0 if taken is None else taken[index])
        when = f"in step {step} of an episode" if step else "in reset()"
        seed = "" if self._seeds[index] is None else f" (seed {self._seeds[index]})"
        return EnvironmentFault(f"environment {name_of(self.envs[index])!r}: {what} {when}{seed}")

    @torch.inference_mode()
    def _decode(self) -> NDArray[np.float32]:
        """Actions [N, action_dim] for the current observations and skills."""
        actions: NDArray[np.float32] = self._decoder(self._inputs).numpy()
        return np.tanh(actions) if self._squash else np.clip(actions, -1.0, 1.0)

    def _info(
        self,
        taken: NDArray[np.int64],
        first: NDArray[np.float32],
        last_rewards: NDArray[np.float64],
        terminated: NDArray[np.bool_],
    ) -> dict[str, Any]:
        solved = self._solved.copy()
        info: dict[str, Any] = {
            "k": taken,
            "subtasks_solved": solved,
            "success": solved == len(self.subtasks) if self.subtasks else terminated,
        }
        if self._trace:
            info |= {"first_observation": first.copy(), "last_reward": last_rewards}
        present = np.ones(self.num_envs, bool)
        return info | {f"_{key}": present for key in info}


class SkillEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """`SkillVectorEnv` of a single environment as a plain one; takes the same arguments, `env_fn` for `env_fns`."""

    def __init__(
        self, env_fn: Callable[[], gym.Env], decoder: Decoder, latent_dim: int, horizon: int, **kwargs: Any
    ) -> None:
        self._vector = SkillVectorEnv([env_fn], decoder, latent_dim, horizon, autoreset=False, **kwargs)
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space
        self.subtasks = self._vector.subtasks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        observations, info = self._vector.reset(seed=None if seed is None else [seed], options=options)
        return observations[0], _first(info)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run the skill `action` [latent_dim] to its end."""
        observations, rewards, terminated, truncated, info = self._vector.step(action[None])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(info)

    def close(self) -> None:
        self._vector.close()


def _first(info: dict[str, Any]) -> dict[str, Any]:
    return {key: values[0] for key, values in info.items() if not key.startswith("_")}
