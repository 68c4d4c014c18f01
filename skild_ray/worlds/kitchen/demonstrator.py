"""A demonstrator for the kitchen: a script for each sub-task, of a few motions of the arm."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.worlds.expert import unwrapped
from skild_ray.worlds.kitchen.environment import KitchenEnv
from skild_ray.worlds.kitchen.motion import CLOSED, OPEN, Motion, Target, Vector, orientation
from skild_ray.worlds.kitchen.variety import VariedArm, beside

# Places in MuJoCo's qpos; for the hinged ones also the index of the joint.
BOTTOM_BURNER, TOP_BURNER, LIGHT, SLIDE, HINGE, MICROWAVE = 11, 15, 17, 19, 21, 22
KETTLE_X, KETTLE_Y, KETTLE_TILT = 23, 24, 29

# Postures in front of the elements, with the gripper that the sub-task begins with.
POSTURES: dict[str, tuple[list[float], float]] = {
    "microwave": ([-0.90, -1.50, 2.04, -1.99, 0.30, 1.64, 1.37], OPEN),
    "kettle": ([0.31, -1.39, 2.41, -2.72, 0.72, 1.00, 1.86], OPEN),
    "bottom burner": ([-0.84, -1.25, 1.40, -2.54, 0.08, 1.85, 1.14], CLOSED),
    "top burner": ([-0.81, -1.07, 1.17, -2.40, -0.02, 1.73, 0.95], CLOSED),
    "light switch": ([-0.82, -1.34, 1.33, -2.61, 0.07, 1.91, 1.17], CLOSED),
    "slide cabinet": ([-0.75, -1.20, 0.83, -2.51, -0.15, 1.82, 0.93], CLOSED),
    "hinge cabinet": ([-0.98, -1.24, 1.16, -1.76, -0.06, 1.28, 1.12], OPEN),
}
# Around the open door of the hinge cabinet, from its left up to between it and the handle of the slide cabinet.
LEFT_OF_DOOR = [-0.60, -1.25, 0.95, -3.00, -0.20, 2.05, 1.20]
BELOW_DOOR = [0.04, -0.78, -0.46, -2.95, -0.89, 2.05, 1.18]
RIGHT_OF_DOOR = [0.08, -1.21, -0.82, -2.95, -1.27, 2.00, 2.03]
BEHIND_DOOR = [0.55, -0.80, -0.47, -2.40, -1.25, 1.80, 2.45]

BURNER_FORCE_N = 95.0
# A grip does not slip if the tip is so far past the handle's bar, and the hand turns against the door by this share of
# the door's angle.
HANDLE_DEPTH_M = 0.035
AGAINST_DOOR = 0.7


class KitchenExpert:
    """Solves `subtasks` of a `KitchenEnv` one after the other, each as often as it takes, and then holds still.

    It knows more than the observation tells: it reads the simulation, and it has phases. Demonstrations differ in
    waypoints, angles of the hand, speeds, detours on the way, pauses and ends of pushes, but not in the way in which a
    sub-task is solved.

    Args:
        env: a `KitchenEnv`, may be wrapped.
        rng: draws all that differs.
        jitter: scale of the differences in waypoints, angles and ends of pushes; 0 for none.
        slowest: speeds of motions are uniform between this share of the highest and the highest.
        detours: share of the longer ways that lead over a random point.
        pauses: share of the ways at whose end the arm waits for 1 to 5 steps.
        holds: share of the pushes after which the hand stays in contact for 1 to 5 steps.

    Raises:
        TypeError: if the environment is no `KitchenEnv`.
    """

    version = 3

    def __init__(
        self,
        env: gym.Env,
        rng: np.random.Generator,
        jitter: float = 1.0,
        slowest: float = 0.8,
        detours: float = 0.15,
        pauses: float = 0.05,
        holds: float = 0.2,
    ):
        kitchen = unwrapped(env, KitchenEnv, "kitchen")
        self._kitchen, self._data = kitchen, kitchen.data
        self._arm = VariedArm(kitchen.model, kitchen.data, rng, jitter, slowest, detours, pauses, holds)
        self._scripts: dict[str, Callable[[], Motion]] = {
            "microwave": self._microwave,
            "kettle": self._kettle,
            "bottom burner": lambda: self._burner("knob2_site", BOTTOM_BURNER, -0.88, 0.040, -0.05),
            "top burner": lambda: self._burner(
                "knob4_site", TOP_BURNER, -0.92, 0.047, 0.25 if self._door_is_open() else -0.05
            ),
            "light switch": self._light_switch,
            "slide cabinet": self._slide_cabinet,
            "hinge cabinet": self._hinge_cabinet,
        }
        self._actions: Motion = iter(())

    def reset(self, observation: NDArray[np.float32]) -> None:
        """Begin with the first of the episode's sub-tasks."""
        self._actions = self._solve_all()

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The script's next action, for the state that the simulation is in."""
        return next(self._actions)

    def _solve_all(self) -> Motion:
        is_first = True
        for subtask in self._kitchen.subtasks:
            is_credited = self._kitchen.is_solved(subtask)
            while not is_credited:
                if not is_first:
                    yield from self._prepare(subtask)
                is_first = False
                for action in self._scripts[subtask]():
                    yield action
                    is_credited = is_credited or self._kitchen.is_solved(subtask)
        while True:
            yield from self._arm.hold(100, CLOSED)

    def _prepare(self, subtask: str) -> Motion:
        """Take the posture for a sub-task, from wherever another one, or its own failure, left the arm."""
        if self._door_is_open():
            if subtask == "slide cabinet":
                return  # it has its own way
            x, _, z = self._arm.position
            if x > -0.2 and z > 2.3:
                yield from self._arm.pose(BELOW_DOOR, CLOSED, within=0.6)
        yield from self._arm.pose(*POSTURES[subtask])

    # Sub-tasks. Numbers are in m and rad, in the world's frame: x to the right, y to the furniture, z up.

    def _microwave(self) -> Motion:
        """Pull its door by the handle."""
        qpos = self._data.qpos
        height, yaw, pitch = self._arm.around(0.03), 0.3 + self._arm.around(0.1), -0.45 + self._arm.around(0.1)
        yield from self._grip("microhandle_site", orientation(yaw, pitch), height, above=0.05)
        goal = -0.75 + self._arm.around(0.08)
        yield from self._arm.push(
            self._arc("microhandle_site", MICROWAVE, -1, height),
            lambda: orientation(yaw - AGAINST_DOOR * qpos[MICROWAVE], pitch),
            CLOSED,
            until=lambda: qpos[MICROWAVE] < goal,
            speed=0.035,
            stiffness=[0.05, 0.05, 0.15],
        )
        yield from self._arm.hold(3, OPEN)
        yield from self._arm.retreat(0.10, OPEN)

    def _kettle(self) -> Motion:
        """Push it low with open fingers."""
        qpos = self._data.qpos
        kettle = qpos[KETTLE_X : KETTLE_X + 3].copy()
        hand = self._arm.orient(pitch=-0.4, spread=0.07)
        yield from self._arm.go(beside(kettle, 0.0, -0.24, 0.16), hand, OPEN)
        yield from self._arm.approach(beside(kettle, 0.0, -0.17, 0.065), hand, OPEN, within=0.035, within_rad=0.6)
        goal, x = 0.70 + self._arm.around(0.03), kettle[0] + self._arm.around(0.01)

        def behind() -> Vector:
            y = qpos[KETTLE_Y]
            return np.array([x + 0.075 * (y - 0.35) - 0.16 * qpos[KETTLE_TILT], y - 0.042, kettle[2] + 0.07])

        def lifting() -> Vector:
            return orientation(pitch=-0.4 + 0.5 * (qpos[KETTLE_Y] - 0.35))

        yield from self._arm.push(
            behind,
            lifting,
            OPEN,
            until=lambda: qpos[KETTLE_Y] > goal,
            speed=0.04,
            stiffness=[0.02, 0.12, 0.15],
        )
        yield from self._arm.retreat(0.2, OPEN, up=0.12)

    def _burner(self, knob: str, joint: int, goal: float, radius: float, pitch: float) -> Motion:
        """Turn the knob with the closed fist on the upper left of its bar, so far from its axis.

        The radius is the middle of those at which the fist finds the bar: an agent will miss it by a centimetre.
        """
        centre = self._site(knob)
        hand = self._arm.orient(yaw=-0.1, pitch=pitch)
        radius, goal = radius + self._arm.around(0.003), goal + self._arm.around(0.08)
        depth = -0.010
        yield from self._arm.go(beside(centre, -0.07, -0.12, radius - 0.02), hand, CLOSED)
        yield from self._arm.approach(beside(centre, -0.05, depth, radius), hand, CLOSED)

        qpos = self._data.qpos

        def bar() -> Vector:
            return beside(centre, -radius * np.sin(qpos[joint]), depth, radius * np.cos(qpos[joint]))

        def normal() -> Vector:
            return np.array([np.cos(qpos[joint]), 0.0, np.sin(qpos[joint])])

        yield from self._arm.press(
            bar, normal, BURNER_FORCE_N, hand, CLOSED, until=lambda: qpos[joint] < goal, limit=25
        )
        yield from self._arm.linger(CLOSED)
        yield from self._arm.retreat(0.12, CLOSED)

    def _light_switch(self) -> Motion:
        """Push it to the left with the fist."""
        switch = self._site("light_site")
        hand = self._arm.orient(pitch=0.05)
        yield from self._arm.go(beside(switch, 0.06, -0.12, -0.01), hand, CLOSED)
        yield from self._arm.approach(beside(switch, x=0.065), hand, CLOSED)
        left = beside(switch, -0.06, 0.005)
        qpos = self._data.qpos
        yield from self._arm.push(left, hand, CLOSED, until=lambda: qpos[LIGHT] < -0.67, speed=0.03, stiffness=0.05)
        yield from self._arm.retreat(0.12, CLOSED)

    def _slide_cabinet(self) -> Motion:
        """Push the handle to the right with the fist."""
        handle = beside(self._site("slide_site"), z=self._arm.around(0.03) - 0.10)
        if self._door_is_open():
            yield from self._slide_behind_door(handle)
        else:
            yield from self._slide_freely(handle)
        yield from self._arm.retreat(0.14, CLOSED)

    def _slide_freely(self, handle: Vector) -> Motion:
        yaw, pitch = -0.1 + self._arm.around(0.1), 0.2 + self._arm.around(0.1)
        hand = orientation(yaw, pitch)
        yield from self._arm.go(beside(handle, -0.10, -0.14), hand, CLOSED)
        yield from self._arm.approach(beside(handle, x=-0.06), hand, CLOSED, within=0.015)
        qpos = self._data.qpos
        yield from self._slide(handle, lambda: orientation(yaw - qpos[SLIDE], pitch), [0.04, 0.04, 0.04])

    def _slide_behind_door(self, handle: Vector) -> Motion:
        """Past the open door of the hinge cabinet, with the hand on its edge."""
        x, _, z = self._arm.position
        if x < -0.2:
            if z > 2.1:
                yield from self._arm.pose(LEFT_OF_DOOR, CLOSED, within=0.25)
            yield from self._arm.pose(BELOW_DOOR, CLOSED, within=0.4)
        yield from self._arm.pose(RIGHT_OF_DOOR, CLOSED)
        yield from self._arm.pose(BEHIND_DOOR, CLOSED, within=0.15)
        yaw = 0.42 + self._arm.around(0.04)
        hand = orientation(yaw, roll=np.pi / 2)
        inside = beside(handle, x=-0.055)
        outside = beside(inside, 0.17 * np.sin(yaw), -0.17 * np.cos(yaw))
        yield from self._arm.move(outside, hand, CLOSED, within_rad=0.2, stiffness=0.2, limit=20)
        yield from self._arm.approach(inside, hand, CLOSED, within_rad=0.3, stiffness=0.2, speed=0.03)
        yield from self._slide(handle, hand, [0.04, 0.1, 0.04])

    def _slide(self, handle: Vector, hand: Target, stiffness: list[float]) -> Motion:
        """Push the handle, which is where it says, up to the goal."""
        qpos = self._data.qpos
        start, goal = qpos[SLIDE], 0.37 + self._arm.around(0.03)
        yield from self._arm.push(
            lambda: beside(handle, x=qpos[SLIDE] - start + 0.05),
            hand,
            CLOSED,
            until=lambda: qpos[SLIDE] > goal,
            speed=0.05,
            stiffness=stiffness,
        )

    def _hinge_cabinet(self) -> Motion:
        """Pull the door by its handle until the hand fits behind it, and push its inner face."""
        qpos = self._data.qpos
        height, yaw, pitch = -0.08 + self._arm.around(0.03), self._arm.around(0.12), 0.2 + self._arm.around(0.1)
        yield from self._grip("hinge_site2", orientation(yaw, pitch), height)
        ajar = 0.8 + self._arm.around(0.05)
        yield from self._arm.push(
            self._arc("hinge_site2", HINGE, 1, height),
            lambda: orientation(yaw - AGAINST_DOOR * qpos[HINGE], pitch),
            CLOSED,
            until=lambda: qpos[HINGE] > ajar,
            speed=0.04,
            stiffness=[0.05, 0.05, 0.1],
        )
        yield from self._arm.hold(3, OPEN)
        yield from self._arm.retreat(0.11, OPEN)

        hinge = self._data.xanchor[HINGE].copy()
        z = self._site("hinge_site2")[2] + height - hinge[2]

        def behind(radius: float, gap: float) -> Vector:
            """The point so far from the hinge and from the door's inner face."""
            cos, sin = np.cos(qpos[HINGE]), np.sin(qpos[HINGE])
            return beside(hinge, -radius * cos - gap * sin, -radius * sin + gap * cos, z)

        hand = self._arm.orient(yaw=-0.3, pitch=pitch, spread=0.1)
        for radius, gap in ((0.47, 0.03), (0.34, 0.05)):
            yield from self._arm.dodge(behind(radius, gap), hand)
        goal = 1.38 + self._arm.around(0.06)
        yield from self._arm.push(
            lambda: behind(0.32, -0.08),
            hand,
            CLOSED,
            until=lambda: qpos[HINGE] > goal,
            speed=0.05,
            stiffness=0.04,
        )
        yield from self._arm.dodge(beside(self._arm.position, -0.10, -0.10, -0.06), hand)

    # Parts that sub-tasks share.

    def _grip(self, site: str, hand: Vector, height: float, above: float = 0.0) -> Motion:
        """Come to a handle along the hand's own direction, go past its bar and close the gripper."""
        handle = beside(self._site(site), z=height)
        ahead = hand[:, 2] * [1.0, 1.0, 0.0]
        ahead /= np.linalg.norm(ahead)
        yield from self._arm.go(beside(handle - 0.12 * ahead, z=above), hand, OPEN, within_rad=0.35)
        yield from self._arm.approach(handle + HANDLE_DEPTH_M * ahead, hand, OPEN, within_rad=0.3, stiffness=0.15)
        yield from self._arm.hold(4, CLOSED)

    def _arc(self, site: str, joint: int, sign: int, height: float, ahead: float = 0.2) -> Callable[[], Vector]:
        """A point on a handle's circle that keeps `ahead` rad in front of it."""
        centre = self._data.xanchor[joint].copy()
        cos, sin = np.cos(ahead), sign * np.sin(ahead)

        def point() -> Vector:
            x, y, z = self._site(site) - centre
            return beside(centre, cos * x - sin * y, sin * x + cos * y, z + height)

        return point

    def _site(self, name: str) -> Vector:
        return self._data.site(name).xpos.copy()

    def _door_is_open(self) -> bool:
        return bool(self._data.qpos[HINGE] > 0.5)
