"""Actions in an environment's own units, and those in [-1, 1] that are learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from skild_ray.config import Environment
from skild_ray.config.data import ACTION_BOUNDS
from skild_ray.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class ActionMap:
    """Between raw actions u and those a that are learned, in each dimension:

        a = 2 (u - low) / (high - low) - 1,   u = low + (a + 1) (high - low) / 2

    Attributes:
        low: [action_dim], what -1 stands for, in raw units.
        high: [action_dim], what 1 stands for.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, environment: Environment) -> "ActionMap | None":
        """That of an environment with given bounds, such as those of artifacts; None where actions are not scaled."""
        bounds = environment.arguments.get(ACTION_BOUNDS)
        return cls(np.array(bounds["low"], np.float64), np.array(bounds["high"], np.float64)) if bounds else None

    def scale(self, raw: NDArray[np.floating]) -> NDArray[np.float32]:
        """a of raw actions [..., action_dim], which are rounded to float32 first, as stored ones are.

        Raises:
            DataError: they have another number of dimensions.
        """
        if raw.shape[-1:] != self.low.shape:
            raise DataError(f"actions have {raw.shape[-1]} dimensions, environment.actions has {len(self.low)} bounds")
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as such
            raw = np.asarray(raw, np.float32)
        return np.asarray(2 * (raw - self.low) / (self.high - self.low) - 1, np.float32)

    def unscale(self, actions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Raw actions of a [..., action_dim]."""
        return self.low + (np.asarray(actions, np.float64) + 1) * (self.high - self.low) / 2


class ScaledActions(gym.ActionWrapper[Any, NDArray[np.float32], Any], RecordConstructorArgs):
    """An environment whose raw actions are the `ActionMap.unscale` of those in [-1, 1] that it is given.

    Args:
        env: with vectors as actions.
        low: what -1 stands for in each dimension; default: the lower bounds of its actions.
        high: what 1 stands for.

    Attributes:
        action_map: the map.
        raw_action_space: of the environment itself.

    Raises:
        ConfigError: actions are no vectors, or bounds are missing, not finite or as many as other dimensions.
    """

    def __init__(self, env: gym.Env, low: Sequence[float] | None = None, high: Sequence[float] | None = None) -> None:
        RecordConstructorArgs.__init__(self, low=low, high=high)
        super().__init__(env)
        space = env.action_space
        if not (isinstance(space, spaces.Box) and len(space.shape) == 1):
            raise ConfigError(f"environment.actions: actions are {space}, not a vector, and cannot be scaled")
        self.raw_action_space = space
        self.action_map = ActionMap(
            np.array(space.low if low is None else low, np.float64),
            np.array(space.high if high is None else high, np.float64),
        )
        for bounds in (self.action_map.low, self.action_map.high):
            if bounds.shape != space.shape:
                raise ConfigError(f"environment.actions: {len(bounds)} bounds for the {space.shape[0]} of {space}")
            if not np.isfinite(bounds).all():
                raise ConfigError(
                    f"environment.actions: {space} has no bounds: give 'low' and 'high', or scale: minmax"
                )
        self.action_space = spaces.Box(-1.0, 1.0, space.shape, np.float32)

    def action(self, action: NDArray[np.float32]) -> NDArray:
        """In raw units; within the environment's own bounds, whatever rounding adds."""
        space = self.raw_action_space
        return np.clip(self.action_map.unscale(action), space.low, space.high).astype(space.dtype)
