"""The office's arm: end-effector control by damped least squares."""

import numpy as np
from numpy.typing import NDArray

from skild_ray.worlds.office.scene import SETTLING_STEPS, Scene

Vector = NDArray[np.float64]

JOINTS, FINGERS, GRASP_POINT = tuple(range(7)), (9, 10), 11
HOME = np.array([0.0, -0.35, 0.0, -2.35, 0.0, 2.0, 0.785])
OPEN_M = 0.04
# Where the grasp point, between the finger tips, may be sent: it stays above the desk and within reach.
LOWEST, HIGHEST = np.array([0.28, -0.42, 0.005]), np.array([0.72, 0.42, 0.45])
MAX_YAW = 1.7

DAMPING = 1e-3
HOME_RATE = 0.1
POSITION_GAIN = 0.25
ARM_FORCES = [87.0] * 4 + [48.0] * 3
FINGER_FORCE_N = 25.0


class OfficeArm:
    """A Franka Panda whose hand points down; position, yaw and gripper can be commanded.

    One step of damped least squares turns a wanted pose into set-points of the joints,

        dq = J^T (J J^T + lambda 1)^-1 (e - J n) + n,

    with e the errors of position and rotation and n = 0.1 (q_home - q), which shows in what e leaves free.

    Args:
        scene: whose arm it is, built.

    Attributes, as read after the last simulated step:
        position: of the grasp point [3], in m.
        quaternion: of the hand [4], x y z w; (1, 0, 0, 0) points down with the fingers apart along y.
        yaw: about the vertical, in rad.
        fingers: how far each is open [2], from 0 to OPEN_M.
        is_open: the gripper's command, which it keeps.
        set_point: of the joints [7], as sent last, in rad.
    """

    def __init__(self, scene: Scene):
        self._client, self._body = scene.client, scene.arm
        for joint in (*JOINTS, *FINGERS):
            position = OPEN_M if joint in FINGERS else HOME[joint]
            self._client.resetJointState(self._body, joint, position)
            self._client.changeDynamics(self._body, joint, linearDamping=0, angularDamping=0)
        for finger in FINGERS:
            self._client.changeDynamics(
                self._body, finger, lateralFriction=1.2, spinningFriction=0.02, rollingFriction=0.002
            )
        limits = [self._client.getJointInfo(self._body, joint)[8:10] for joint in JOINTS]
        self._lower, self._upper = np.array(limits).T
        self.is_open = True
        self.drive(HOME, self.is_open)
        scene.step(SETTLING_STEPS)
        self.read()

    def read(self) -> None:
        """Read pose and joints."""
        pose = self._client.getLinkState(self._body, GRASP_POINT, computeForwardKinematics=1)
        states = self._client.getJointStates(self._body, (*JOINTS, *FINGERS))
        self._joints = np.array([state[0] for state in states])
        self.position = np.array(pose[4])
        quaternion = np.array(pose[5])
        self.quaternion = quaternion if quaternion[0] >= 0 else -quaternion
        self.yaw = float(2 * np.arctan2(self.quaternion[1], self.quaternion[0]))
        self.fingers = self._joints[len(JOINTS) :]

    def command(self, position: Vector, yaw: float) -> None:
        """Set the joints' set-points for a wanted position and yaw; both are limited to what is allowed."""
        position = np.minimum(np.maximum(position, LOWEST), HIGHEST)
        yaw = min(max(yaw, -MAX_YAW), MAX_YAW)
        wanted = np.array([np.cos(yaw / 2), np.sin(yaw / 2), 0.0, 0.0])
        error = np.concatenate((position - self.position, _rotation(self.quaternion, wanted)))
        zeros = [0.0] * self._joints.size
        linear, angular = self._client.calculateJacobian(
            self._body, GRASP_POINT, (0.0, 0.0, 0.0), self._joints.tolist(), zeros, zeros
        )
        jacobian = np.concatenate((linear, angular))[:, : len(JOINTS)]
        joints = self._joints[: len(JOINTS)]
        homewards = HOME_RATE * (HOME - joints)
        matrix = jacobian @ jacobian.T
        matrix.flat[:: len(matrix) + 1] += DAMPING
        change = jacobian.T @ np.linalg.solve(matrix, error - jacobian @ homewards) + homewards
        self.drive(np.minimum(np.maximum(joints + change, self._lower), self._upper), self.is_open)

    def drive(self, set_point: Vector, is_open: bool) -> None:
        """Send the joints [7] to these angles, in rad, and the fingers apart or together."""
        self.set_point = set_point
        fingers = [OPEN_M if is_open else 0.0] * len(FINGERS)
        self._client.setJointMotorControlArray(
            self._body,
            (*JOINTS, *FINGERS),
            self._client.POSITION_CONTROL,
            targetPositions=[*set_point.tolist(), *fingers],
            positionGains=[POSITION_GAIN] * len(JOINTS) + [0.1] * len(FINGERS),
            velocityGains=[1.0] * (len(JOINTS) + len(FINGERS)),
            forces=[*ARM_FORCES, *[FINGER_FORCE_N] * len(FINGERS)],
        )


def _rotation(start: Vector, end: Vector) -> Vector:
    """Axis times angle [3], for small angles, of the rotation from one quaternion to another, x y z w."""
    x, y, z, w = start
    a, b, c, d = end
    vector = np.array(
        [
            a * w - d * x - b * z + c * y,
            b * w - d * y - c * x + a * z,
            c * w - d * z - a * y + b * x,
        ]
    )
    return vector * (2.0 if a * x + b * y + c * z + d * w >= 0 else -2.0)
