"""Motions of the kitchen's arm that differ from one time to the next."""

from collections.abc import Callable

import mujoco
import numpy as np

from skild_ray.worlds.kitchen.motion import CLOSED, SPEED_M, Arm, Motion, Target, Vector, orientation

# Standard deviations of waypoints, of the joints' angles in postures, and of the points that detours lead over.
WAYPOINT_M, POSTURE_RAD, DETOUR_M = 0.015, 0.06, 0.06
DETOUR_FROM_M = 0.2
MAX_WAIT = 5


def beside(point: Vector, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Vector:
    """The point that lies so far to the right, to the furniture and up, in m, as in the world's frame."""
    return point + np.array((x, y, z))


class VariedArm(Arm):
    """An arm that draws waypoints, angles, speeds, detours and pauses.

    Args:
        model: of the kitchen.
        data: of the kitchen.
        rng: draws all of it.
        jitter, slowest, detours, pauses, holds: as of `KitchenExpert`.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        rng: np.random.Generator,
        jitter: float,
        slowest: float,
        detours: float,
        pauses: float,
        holds: float,
    ):
        super().__init__(model, data)
        self._rng = rng
        self._jitter, self._slowest = jitter, slowest
        self._detours, self._pauses, self._holds = detours, pauses, holds

    def go(self, position: Vector, hand: Vector, gripper: float, within_rad: float = 0.25) -> Motion:
        """Go to near a position through free space."""
        end = position + self._rng.normal(0.0, WAYPOINT_M * self._jitter, 3)
        way = end - self.position
        if self._rng.random() < self._detours and np.linalg.norm(way) > DETOUR_FROM_M:
            via = self.position + way / 2 + self._rng.normal(0.0, DETOUR_M, 3)
            via[1] = min(via[1], end[1])  # not into the furniture
            yield from self.move(via, hand, gripper, speed=self._speed(), within=0.05, within_rad=np.pi, limit=20)
        yield from self.move(end, hand, gripper, speed=self._speed(), within=0.03, within_rad=within_rad, limit=45)
        if self._rng.random() < self._pauses:
            yield from self.hold(self._some_steps(), gripper)

    def approach(
        self,
        position: Vector,
        hand: Vector,
        gripper: float,
        within: float = 0.012,
        within_rad: float = 0.6,
        stiffness: float = 0.12,
        speed: float = SPEED_M,
    ) -> Motion:
        """Go to exactly a position in contact or next to it."""
        return self.move(
            position,
            hand,
            gripper,
            speed=self._speed(speed),
            within=within,
            within_rad=within_rad,
            stiffness=stiffness,
            limit=25,
        )

    def push(
        self,
        position: Target,
        hand: Target,
        gripper: float,
        *,
        until: Callable[[], bool],
        speed: float,
        stiffness: float | list[float],
    ) -> Motion:
        """Move in contact until the element is where it should be, and at times linger."""
        weights = np.asarray(stiffness)
        yield from self.move(
            position, hand, gripper, until=until, speed=self._speed(speed), stiffness=weights, limit=45
        )
        yield from self.linger(gripper)

    def linger(self, gripper: float) -> Motion:
        """At times stay in contact for some steps."""
        if self._rng.random() < self._holds:
            yield from self.hold(self._some_steps(), gripper)

    def dodge(self, position: Vector, hand: Vector) -> Motion:
        """Go past something, however the hand is turned."""
        return self.move(position, hand, CLOSED, within=0.03, within_rad=np.pi, stiffness=0.06, limit=25)

    def retreat(self, back: float, gripper: float, up: float = 0.0) -> Motion:
        """Away from the furniture."""
        away = beside(self.position, y=-back, z=up)
        return self.move(away, self.rotation, gripper, within=0.03, limit=12)

    def pose(self, posture: list[float], gripper: float, within: float = 0.3) -> Motion:
        """Bend the joints to about a posture."""
        joints = posture + self._rng.normal(0.0, POSTURE_RAD * self._jitter, len(posture))
        return self.bend(joints, gripper, within=within, pace=self._speed(1.0))

    def orient(self, yaw: float = 0.0, pitch: float = 0.0, spread: float = 0.1) -> Vector:
        """Orientation of a hand that is turned about so far, in rad; each angle is uniform within `spread` of it."""
        return orientation(yaw + self.around(spread), pitch + self.around(spread))

    def around(self, spread: float) -> float:
        """A number between -spread and spread, scaled by the jitter."""
        return float(self._rng.uniform(-spread, spread)) * self._jitter

    def _speed(self, highest: float = SPEED_M) -> float:
        return highest * float(self._rng.uniform(self._slowest, 1.0))

    def _some_steps(self) -> int:
        return int(self._rng.integers(1, MAX_WAIT + 1))
