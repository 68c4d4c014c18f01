"""A demonstrator for the kitchen that repeats recorded episodes, and corrects what noise does to them."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.data.keyed import chosen
from skild_ray.data.minari_store import read_minari
from skild_ray.worlds.expert import unwrapped
from skild_ray.worlds.kitchen.environment import NUM_JOINTS, KitchenEnv
from skild_ray.worlds.kitchen.motion import SETPOINT_RAD


class KitchenTracker:
    """Follows the set-points of an episode of a data set, drawn at random.

    The action a of joint readings q puts the joints' set-points to q + 0.16 a. Recorded with q_t and a_t, they are met
    from a reading q by a_t + (q_t - q) / 0.16, limited to [-1, 1]. With noise on the executed actions the
    episodes lead back to the recorded path from states beside it, which tells a policy what the recording alone does
    not: what to do there (the idea of DART, Laskey et al., CoRL 2017). After the last action the set-points stay.

    Args:
        env: a `KitchenEnv`, may be wrapped.
        rng: draws the episode.
        setpoints: of each recorded episode, [T, 9], as `prepare` gives them.

    Raises:
        TypeError: if the environment is no `KitchenEnv`.
    """

    version = 2

    @classmethod
    def prepare(cls, dataset: str) -> dict[str, Any]:
        """The arguments of the constructor.

        Args:
            dataset: Minari id of episodes in a kitchen with this start state, of any layout.

        Raises:
            DataError: if the data set is missing or cannot be read.
        """
        # All layouts begin with the robot's positions. Intended actions: noise is not to be repeated.
        setpoints = [
            episode.observations[: len(episode.actions), :NUM_JOINTS] + SETPOINT_RAD * episode.actions
            for episode in map(chosen, read_minari(dataset))
        ]
        return {"setpoints": [recording.astype(np.float32) for recording in setpoints]}

    def __init__(self, env: gym.Env, rng: np.random.Generator, setpoints: Sequence[NDArray[np.float32]]):
        unwrapped(env, KitchenEnv, "kitchen_tracker")
        self._setpoints = setpoints[int(rng.integers(len(setpoints)))]
        self._step = 0

    def reset(self, observation: NDArray[np.float32]) -> None:
        """Begin with the recording's first set-point."""
        self._step = 0

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action that meets the next set-point."""
        setpoint = self._setpoints[min(self._step, len(self._setpoints) - 1)]
        self._step += 1
        return ((setpoint - observation[:NUM_JOINTS]) / SETPOINT_RAD).clip(-1.0, 1.0)
