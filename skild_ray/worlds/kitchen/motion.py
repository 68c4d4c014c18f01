"""Motions of the kitchen's arm, as generators of actions: every step takes one until the motion is over."""

from collections.abc import Callable, Iterator

import mujoco
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Motion = Iterator[NDArray[np.float32]]
Target = Vector | Callable[[], Vector]

JOINTS = 7
OPEN, CLOSED = 1.0, -1.0

# An action of 1 puts the set-point of a joint so far ahead of its reading (2 rad/s for 0.08 s).
SETPOINT_RAD = 0.16
# The share of the distance to its set-point that a joint covers in a step.
RESPONSE = np.array([0.51] * 4 + [0.63] * 3)
STEP_RAD = 0.95 * SETPOINT_RAD * RESPONSE
# Limits of the joints with a margin in which their springs do not act yet.
LOWEST = np.array([-2.85, -1.74, -2.85, -3.03, -2.85, 0.03, -2.85])
HIGHEST = np.array([2.85, 1.74, 2.85, -0.45, 2.85, 2.08, 2.85])
# Where joints that the task leaves free are drawn to, and how fast.
COMFORTABLE = np.array([0.15, -1.74, 1.84, -2.48, 0.26, 0.71, 1.6])
COMFORT_RATE = 0.15
COMFORT_RAD = 0.04
BEND_STEPS = 30

# The tip, which is what moves are about, lies between the finger pads, so far from the site in the hand.
TIP_M = 0.035
SPEED_M = 0.045
TURN_RAD = 0.12
DAMPING = 1e-4

# Axes of the hand (columns) that points to +y with its fingers apart along x.
_FORWARD = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def orientation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Vector:
    """Rotation matrix [3, 3] of a hand that points away from the robot's base, to +y.

    Args:
        yaw: to the left, about the vertical, in rad, as all three.
        pitch: upwards.
        roll: about the direction in which the hand points.
    """
    (cy, cp, cr), (sy, sp, sr) = np.cos((yaw, pitch, roll)), np.sin((yaw, pitch, roll))
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    return about_z @ about_x @ about_y @ _FORWARD


class Arm:
    """The arm and its gripper.

    It reads the simulation and changes nothing. Positions are those of the tip in the world's frame, in m; a step is
    one of the environment, 0.08 s. Motions end by themselves after `limit` steps.

    Args:
        model: of the kitchen.
        data: of the kitchen; it is read whenever an action is computed.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData):
        self._model, self._data = model, data
        self._site = model.site("end_effector").id
        self._body = int(model.site_bodyid[self._site])
        self._gains = model.actuator_gainprm[:JOINTS, 0].copy()
        self._position_jacobian = np.zeros((3, model.nv))
        self._rotation_jacobian = np.zeros((3, model.nv))

    @property
    def joints(self) -> Vector:
        """Angles [7] in rad."""
        return self._data.qpos[:JOINTS].copy()

    @property
    def rotation(self) -> Vector:
        """Rotation matrix [3, 3] of the hand."""
        return self._data.site_xmat[self._site].reshape(3, 3).copy()

    @property
    def position(self) -> Vector:
        """Of the tip [3]."""
        return self._data.site_xpos[self._site] + TIP_M * self._data.site_xmat[self._site, 2::3]

    def move(
        self,
        position: Target,
        rotation: Target,
        gripper: float,
        *,
        until: Callable[[], bool] | None = None,
        speed: float = SPEED_M,
        within: float = 0.02,
        within_rad: float = 0.25,
        stiffness: float | Vector = 0.15,
        limit: int = 40,
    ) -> Motion:
        """Move the tip on a straight line, while the hand turns.

        Args:
            position: [3], or a function if it moves.
            rotation: matrix [3, 3] of the hand, or a function.
            gripper: OPEN or CLOSED.
            until: ends the motion; without it, nearness does.
            speed: m a step.
            within: ends the motion if the tip is so near, in m, and
            within_rad: the hand is turned to within this angle.
            stiffness: what an error of rotation counts, in m/rad, about each axis of the world: where joints cannot
                give both, a low one sacrifices rotation.
            limit: steps.
        """
        for _ in range(limit):
            offset = _now(position) - self.position
            turn = _rotation_vector(_now(rotation) @ self.rotation.T)
            distance, angle = float(np.sqrt(offset @ offset)), float(np.sqrt(turn @ turn))
            if until() if until else distance < within and angle < within_rad:
                return
            offset *= min(1.0, speed / max(distance, 1e-9))
            turn *= min(1.0, TURN_RAD / max(angle, 1e-9))
            yield self._action(self._solve(offset, turn, stiffness), gripper)

    def press(
        self,
        position: Target,
        direction: Target,
        force: float,
        rotation: Vector,
        gripper: float,
        *,
        until: Callable[[], bool],
        stiffness: float = 1500.0,
        rotation_stiffness: float = 15.0,
        limit: int = 40,
    ) -> Motion:
        """Press with a force in one direction, and hold the line through `position` like a spring across it.

        The set-points are ahead of the joints by torque / gain with torque = J^T (wrench).

        Args:
            position: [3], or a function.
            direction: unit vector [3], or a function.
            force: in N.
            rotation: matrix [3, 3] of the hand.
            gripper: OPEN or CLOSED.
            until: ends the motion.
            stiffness: N/m across the direction.
            rotation_stiffness: Nm/rad.
            limit: steps.
        """
        for _ in range(limit):
            if until():
                return
            along, offset = _now(direction), _now(position) - self.position
            across = offset - along * (along @ offset)
            turn = _rotation_vector(rotation @ self.rotation.T)
            position_jacobian, rotation_jacobian = self._jacobians()
            torque = position_jacobian.T @ (force * along + stiffness * across)
            torque += rotation_jacobian.T @ (rotation_stiffness * turn)
            yield self._action(RESPONSE * torque / self._gains, gripper)

    def bend(self, joints: Vector, gripper: float, *, within: float = 0.3, pace: float = 1.0) -> Motion:
        """Move every joint to its angle, at `pace` times the highest speed, until all are within `within` rad of it."""
        joints = np.clip(joints, LOWEST, HIGHEST)
        for _ in range(BEND_STEPS):
            change = joints - self._data.qpos[:JOINTS]
            if np.abs(change).max() < within:
                return
            yield self._action(change, gripper, pace)

    def hold(self, steps: int, gripper: float) -> Motion:
        """Stay where the tip is now."""
        return self.move(self.position, self.rotation, gripper, until=lambda: False, stiffness=0.25, limit=steps)

    def _solve(self, offset: Vector, turn: Vector, stiffness: float | Vector) -> Vector:
        """Changes dq of the joints [7] that move tip and hand: damped least squares within the joints' limits.

        dq = argmin |J dq - e|^2 + mu |dq - n|^2 for LOWEST <= q + dq <= HIGHEST, with e the errors of position and
        weighted rotation, and n a step to a comfortable posture, which shows where e leaves freedom. Joints that would
        pass a limit are put on it, one set after the other, and the rest take over their part.
        """
        position_jacobian, rotation_jacobian = self._jacobians()
        weights = np.broadcast_to(stiffness, 3)
        jacobian = np.concatenate((position_jacobian, weights[:, None] * rotation_jacobian))
        error = np.concatenate((offset, weights * turn))
        joints = self._data.qpos[:JOINTS]
        low, high = LOWEST - joints, HIGHEST - joints
        comfort = np.clip(COMFORT_RATE * (COMFORTABLE - joints), -COMFORT_RAD, COMFORT_RAD)
        matrix = jacobian.T @ jacobian
        matrix.flat[:: JOINTS + 1] += DAMPING
        vector = jacobian.T @ error + DAMPING * comfort
        change = np.linalg.solve(matrix, vector)
        bounded = np.zeros(JOINTS, bool)
        for _ in range(3):
            beyond = (change < low) | (change > high)
            if not beyond.any():
                break
            bounded |= beyond
            change[bounded] = np.clip(change, low, high)[bounded]
            free = ~bounded
            rest = vector[free] - matrix[np.ix_(free, bounded)] @ change[bounded]
            change[free] = np.linalg.solve(matrix[np.ix_(free, free)], rest)
        return change

    def _jacobians(self) -> tuple[Vector, Vector]:
        """Of tip and hand for the arm's joints, [3, 7] each."""
        position, rotation = self._position_jacobian, self._rotation_jacobian
        mujoco.mj_jac(self._model, self._data, position, rotation, self.position, self._body)
        return position[:, :JOINTS], rotation[:, :JOINTS]

    def _action(self, change: Vector, gripper: float, pace: float = 1.0) -> NDArray[np.float32]:
        """The action that changes the joints so, or by a part of it if that is too far for one step.

        The set-points hold the arm's weight, too, which the environment does not compensate.
        """
        change = change * min(1.0, pace / max(float(np.abs(change / STEP_RAD).max()), 1e-9))
        weight = self._data.qfrc_bias[:JOINTS] / self._gains
        action = np.full(JOINTS + 2, gripper, np.float32)
        action[:JOINTS] = (change / RESPONSE + weight) / SETPOINT_RAD
        return action.clip(-1.0, 1.0)


def _now(target: Target) -> Vector:
    return target() if callable(target) else target


def _rotation_vector(rotation: Vector) -> Vector:
    """Axis times angle of a rotation matrix [3, 3]."""
    quaternion, vector = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector
