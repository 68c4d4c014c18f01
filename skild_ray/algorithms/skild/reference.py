"""The released code's way of doing things, where it has defects that change results; see `reference_quirks`."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from skild_ray.envs.skill_env import Decoder, SkillVectorEnv


def squashed(decoder: Decoder) -> Decoder:
    """`squashed_decoder`: actions are tanh of the decoder's output, which was trained to be the action itself."""
    return lambda inputs: torch.from_numpy(np.tanh(decoder(inputs).numpy()))


class TracedSkillVectorEnv(SkillVectorEnv):
    """`SkillVectorEnv` whose info has what `ShiftedTransitions` need.

    first_observation: s_{t+1}, the state after the skill's first environment step; the state itself after a reset.
    last_reward: of the skill's last environment step; 0 after a reset.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._traces = [_Trace(env) for env in self.envs]
        self.envs = [*self._traces]

    def step(self, actions: NDArray[np.float32]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        for trace in self._traces:
            trace.first, trace.last_reward = None, 0.0
        observations, rewards, terminated, truncated, info = super().step(actions)
        first = observations.copy()
        for index, trace in enumerate(self._traces):
            if trace.first is not None:
                first[index] = trace.first
        info["first_observation"], info["last_reward"] = first, np.array([trace.last_reward for trace in self._traces])
        info["_first_observation"] = info["_last_reward"] = np.ones(self.num_envs, bool)
        return observations, rewards, terminated, truncated, info


class _Trace(gym.Wrapper):
    """Notes the first observation and the last reward of the skill in force."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.first: NDArray[np.float32] | None = None
        self.last_reward = 0.0

    def step(self, action: Any) -> Any:
        outcome = self.env.step(action)
        if self.first is None:
            self.first = np.array(outcome[0], np.float32)
        self.last_reward = float(outcome[1])
        return outcome
