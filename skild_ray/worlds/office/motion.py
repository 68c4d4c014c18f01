"""Motions of the office's hand, as generators of actions: every step takes one until the motion is over."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from skild_ray.worlds.office.arm import HIGHEST, LOWEST
from skild_ray.worlds.office.environment import MOVE_M, TURN_RAD, OfficeEnv

Vector = NDArray[np.float64]
Motion = Iterator[NDArray[np.float32]]
Target = Vector | Callable[[], Vector]

OPEN, CLOSED = 1.0, -1.0

# The largest action on the way, and how much of the remaining way an action covers, within that.
FASTEST = 0.95
# Between these heights of the grasp point the hand travels; a carried object hangs up to 5 cm below.
TRAVEL_M = (0.18, 0.24)
# Standard deviation of waypoints in the air, and of the points that detours lead over.
WAYPOINT_M, DETOUR_M = 0.012, 0.05
DETOUR_FROM_M = 0.15
MAX_WAIT = 5


class Hand:
    """The hand with its gripper, which draws heights, speeds, detours and pauses.

    It reads the environment and changes nothing. Positions are those of the grasp point in m, steps those of the
    environment; motions end by themselves after `limit` steps.

    Args:
        env: whose hand it is.
        rng: draws all that differs.
        jitter, slowest, detours, pauses: as of `OfficeExpert`.
    """

    def __init__(
        self, env: OfficeEnv, rng: np.random.Generator, jitter: float, slowest: float, detours: float, pauses: float
    ):
        self._env, self._rng = env, rng
        self._jitter, self._slowest = jitter, slowest
        self._detours, self._pauses = detours, pauses

    @property
    def position(self) -> Vector:
        """Of the grasp point [3]."""
        return self._env.arm.position

    def move(
        self,
        position: Target,
        gripper: float,
        *,
        yaw: float = 0.0,
        until: Callable[[], bool] | None = None,
        speed: float | None = None,
        within: float = 0.015,
        limit: int = 40,
    ) -> Motion:
        """Move on a straight line, while the hand turns.

        Args:
            position: [3], or a function if it moves.
            gripper: OPEN or CLOSED.
            yaw: of the hand, in rad.
            until: ends the motion; without it, nearness does.
            speed: the largest action; default: drawn.
            within: ends the motion if position is so near, in m.
            limit: steps.
        """
        speed = self.speed() if speed is None else speed
        for _ in range(limit):
            offset = (position() if callable(position) else position) - self.position
            if until() if until else np.sqrt(offset @ offset) < within:
                return
            offset /= MOVE_M
            offset *= min(1.0, speed / max(float(np.abs(offset).max()), 1e-9))
            turn = (yaw - self._env.arm.yaw) / TURN_RAD
            yield np.array([*offset, min(max(turn, -speed), speed), gripper], np.float32)

    def travel(self, x: float, y: float, gripper: float, yaw: float = 0.0) -> Motion:
        """Rise, and go to above a place on the desk, at times on a detour or with a pause."""
        height = float(self._rng.uniform(*TRAVEL_M))
        end = np.array((x, y, height)) + self._rng.normal(0.0, WAYPOINT_M * self._jitter, 3)
        rise, speed = self.position[2], self.speed()
        if rise < height - 0.05:
            above = np.array((*self.position[:2], height))
            yield from self.move(above, gripper, yaw=yaw, speed=speed, within=0.05, limit=15)
        way = end - self.position
        if self._rng.random() < self._detours and np.linalg.norm(way) > DETOUR_FROM_M:
            via = self.position + way / 2 + self._rng.normal(0.0, DETOUR_M, 3)
            via = np.clip(via, (*LOWEST[:2], TRAVEL_M[0]), HIGHEST)
            yield from self.move(via, gripper, yaw=yaw, speed=speed, within=0.05, limit=20)
        yield from self.move(end, gripper, yaw=yaw, speed=speed, within=0.035, limit=35)
        if self._rng.random() < self._pauses:
            yield from self.hold(gripper, int(self._rng.integers(1, MAX_WAIT + 1)), yaw=yaw)

    def hold(
        self, gripper: float, steps: int, *, yaw: float = 0.0, until: Callable[[], bool] = lambda: False
    ) -> Motion:
        """Stay where the hand is now."""
        return self.move(self.position.copy(), gripper, yaw=yaw, until=until, speed=FASTEST, limit=steps)

    def close(self, position: Vector, yaw: float) -> Motion:
        """Close the gripper around a position until its fingers have come to rest."""
        before = np.full(2, np.inf)

        def is_at_rest() -> bool:
            nonlocal before
            fingers = self._env.arm.fingers
            is_still = bool(np.abs(fingers - before).max() < 0.0008)
            before = fingers
            return is_still

        return self.move(position, CLOSED, yaw=yaw, until=is_at_rest, speed=FASTEST, limit=9)

    def speed(self) -> float:
        """A largest action, drawn."""
        return FASTEST * float(self._rng.uniform(self._slowest, 1.0))

    def around(self, spread: float) -> float:
        """A number between -spread and spread, scaled by the jitter."""
        return float(self._rng.uniform(-spread, spread)) * self._jitter
