"""Several low-level environments stepped in lockstep, under decisions that last up to `horizon` of their steps."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

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


class LockstepVectorEnv(VectorEnv):
    """N environments that follow the decisions of a policy in lockstep, with one call of `act` for each of their steps.

    Decision d in s_t executes a_{t+i} = clip(act(s_{t+i}, d), -1, 1) for i = 0..k-1, where k = `horizon` unless the
    episode ends earlier; subclasses define `act`. A step of this environment is thus the semi-Markov transition (s_t,
    d, sum of the k rewards, s_{t+k}, terminated, k). Environments whose episode ended are reset by their next step,
    which ignores its decision (Gymnasium's NEXT_STEP mode).

    Info of every step, one entry an environment:
        k: environment steps this decision took; 0 for a reset.
        subtasks_solved: sub-tasks credited so far in the episode (0 where the environment knows none).
        success: whether all sub-tasks are solved; for an environment without sub-tasks, whether it terminated.

    Args:
        envs: the low-level environments, each with 1-d Box observations and actions in [-1, 1].
        decisions: the space of one decision, 1-d.
        horizon: most environment steps a decision lasts.
        autoreset: whether finished environments start again; without it they stay as they are (k = 0) until `reset`.
    """

    def __init__(self, envs: Sequence[gym.Env], decisions: Box, horizon: int, *, autoreset: bool = True) -> None:
        self.envs, self.num_envs, self.horizon = list(envs), len(envs), horizon
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP if autoreset else AutoresetMode.DISABLED}
        self.single_observation_space, self.single_action_space = envs[0].observation_space, decisions
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.subtasks = subtasks_of(envs[0])
        self._autoreset = autoreset
        (observation_dim,), (decision_dim,) = self.single_observation_space.shape or (), decisions.shape
        # Environments write their observations right into what `act` reads.
        self.inputs = np.zeros((self.num_envs, observation_dim + decision_dim), np.float32)
        self._observations, self.decisions = np.split(self.inputs, [observation_dim], axis=1)
        self._over = np.ones(self.num_envs, bool)
        self._steps = np.zeros(self.num_envs, np.int64)  # of each episode, before the decision in force
        self._seeds: list[int | None] = [None] * self.num_envs  # of each episode that was given one
        self._endless = max(ENDLESS, episode_limit(envs[0]) or 0)
        self._solved = np.zeros(self.num_envs, np.int64)
        self.step_rewards = np.zeros((self.num_envs, horizon))
        """Rewards of the environment steps of the last decisions; 0 after the end of an episode."""

    @abstractmethod
    def act(self) -> NDArray[np.float32]:
        """Actions [N, action_dim] of all environments for `inputs`, their observations and `decisions` side by side."""

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
        return self._observations.copy(), self._info(np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs, bool))

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Follow the decisions `actions` [N, decision_dim] to their end.

        Raises:
            EnvironmentFault: an environment raises, gives a reward or an observation that is not finite, or an episode
                passes ENDLESS steps, or the limit that the environment announces if that is later.
        """
        count, envs, observations = self.num_envs, self.envs, self._observations
        rewards, self.step_rewards = np.zeros(count), np.zeros((count, self.horizon))
        terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        taken = np.zeros(count, np.int64)
        active = np.flatnonzero(~self._over).tolist()
        if self._autoreset:
            for index in np.flatnonzero(self._over).tolist():
                self._reset_one(index, None, None)
        self.decisions[:] = actions
        for step in range(self.horizon):
            if not active:
                break
            taken[active] += 1
            executed = np.clip(self.act(), -1.0, 1.0)
            ended = []
            for index in active:
                try:
                    observations[index], reward, over, cut, info = envs[index].step(executed[index])
                    self._solved[index] = info.get(SOLVED, 0)
                    rewards[index] += reward
                    self.step_rewards[index, step] = reward
                    if over or cut:
                        terminated[index], truncated[index] = over, cut
                        ended.append(index)
                except Exception as error:  # whatever a user's environment raises
                    raise self._fault(index, described(error), taken) from error
            if not (np.isfinite(observations).all() and np.isfinite(self.step_rewards[:, step]).all()):
                self._refuse(self.step_rewards[:, step], taken)
            if ended:
                self._over[ended] = True
                active = [index for index in active if index not in ended]
        self._steps += taken
        longest = int(self._steps.argmax())
        if self._steps[longest] > self._endless and not self._over[longest]:
            raise EnvironmentFault(
                f"environment {name_of(self.envs[longest])!r}: an episode has not ended after "
                f"{self._steps[longest]:,} steps; set {LIMIT_KEY}"
            )
        return observations.copy(), rewards, terminated, truncated, self._info(taken, terminated)

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
        """An error that says what happened when; `taken`: steps of the decisions in force."""
        step = self._steps[index] + (0 if taken is None else taken[index])
        when = f"in step {step} of an episode" if step else "in reset()"
        seed = "" if self._seeds[index] is None else f" (seed {self._seeds[index]})"
        return EnvironmentFault(f"environment {name_of(self.envs[index])!r}: {what} {when}{seed}")

    def _info(self, taken: NDArray[np.int64], terminated: NDArray[np.bool_]) -> dict[str, Any]:
        solved = self._solved.copy()
        info: dict[str, Any] = {
            "k": taken,
            "subtasks_solved": solved,
            "success": solved == len(self.subtasks) if self.subtasks else terminated,
        }
        present = np.ones(self.num_envs, bool)
        return info | {f"_{key}": present for key in info}
