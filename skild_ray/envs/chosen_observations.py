"""Environments with a dictionary of observations, of which some are put side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from skild_ray.errors import ConfigError


class ChosenObservations(gym.ObservationWrapper[NDArray[np.float32], Any, Any], RecordConstructorArgs):
    """Observations of these keys of a dictionary, float32 [d], side by side in this order.

    Args:
        env: whose observations are a dictionary of numbers and vectors; keys of nested ones are joined by `/`.
        keys: which are chosen.

    Attributes:
        observation_keys: of data sets for this environment, unless they have names of their own.

    Raises:
        ConfigError: observations are no dictionary, or there is no such key.
    """

    def __init__(self, env: gym.Env, keys: Sequence[str]) -> None:
        RecordConstructorArgs.__init__(self, keys=list(keys))
        super().__init__(env)
        if not isinstance(env.observation_space, spaces.Dict):
            raise ConfigError(f"environment.observations: observations are {env.observation_space}, and have no keys")
        parts = vectors_in(env.observation_space)
        for key in keys:
            if key not in parts:
                raise ConfigError(
                    f"environment.observations: there are no vectors {key!r}; there are {', '.join(parts) or 'none'}"
                )
        self.observation_keys = tuple(keys)
        low, high = (
            np.concatenate([np.ravel(getattr(parts[key], bound)) for key in keys]) for bound in ("low", "high")
        )
        self.observation_space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def observation(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        return np.concatenate([np.ravel(at(observation, key)) for key in self.observation_keys], dtype=np.float32)


def boxes_in(space: spaces.Dict, prefix: str = "") -> dict[str, spaces.Box]:
    """The arrays of a dictionary and those nested in it, by keys joined by `/`."""
    found: dict[str, spaces.Box] = {}
    for key, part in space.spaces.items():
        if isinstance(part, spaces.Dict):
            found |= boxes_in(part, f"{prefix}{key}/")
        elif isinstance(part, spaces.Box):
            found[f"{prefix}{key}"] = part
    return found


def vectors_in(space: spaces.Dict) -> dict[str, spaces.Box]:
    """Of `boxes_in`, the vectors and numbers."""
    return {key: box for key, box in boxes_in(space).items() if len(box.shape) < 2}


def at(observation: Mapping[str, Any], key: str) -> Any:
    """What a nested dictionary has under a key joined by `/`."""
    for part in key.split("/"):
        observation = observation[part]
    return observation
