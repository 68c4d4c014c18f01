"""A demonstrator for the office: a script for each kind of sub-task, of a few motions of the hand."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.worlds.expert import unwrapped
from skild_ray.worlds.office.environment import ACTION_INDICES, OfficeEnv, Subtask
from skild_ray.worlds.office.motion import CLOSED, OPEN, Hand, Motion, Vector
from skild_ray.worlds.office.scene import DRAWER_TRAVEL, OBJECTS

# Of the hand, above an object before it comes down on it.
ABOVE_M = 0.08
# The lowest that the finger tips, 7 mm below the grasp point, may come.
LOWEST_GRASP_M = 0.013
# The fingers are 2 cm wide: an object so far from their middle slips out, and is grasped again, at most so often.
OFF_CENTRE_M, GRASPS = 0.010, 3
# An object is in the hand if its centre is so near the grasp point.
IN_HAND_M = 0.045
# Objects are let go so far above the bottom of the target, and no lower than the hand's palm can come.
DROP_M = 0.05
LOWEST_DROP_M = {"tray": 0.075, "bin": 0.095, "drawer": 0.10}
# How far from the middle of a target, along x and y, they are let go.
DROP_SPREAD_M = (0.03, 0.02)
# In a drawer that was shut by more than this, nothing can be put.
HALF_OPEN = 0.6
# The fingers reach around the bar of the drawer's handle so far below its middle.
BELOW_BAR_M = 0.01


class OfficeExpert:
    """Solves the sub-tasks of an `OfficeEnv` one after the other, each as often as it takes, and then holds still.

    It knows more than the observation tells: it reads the simulation, and it has phases. Demonstrations differ in
    waypoints, heights, grasps, places of release, speeds, detours and pauses.

    Args:
        env: an `OfficeEnv`, may be wrapped.
        rng: draws all that differs.
        jitter: scale of the differences in waypoints, grasps and places of release; 0 for none.
        slowest: speeds of motions are uniform between this share of the highest and the highest.
        detours: share of the longer ways that lead over a random point.
        pauses: share of the ways at whose end the hand waits for 1 to 5 steps.

    Raises:
        TypeError: if the environment is no `OfficeEnv`.
    """

    version = 2

    def __init__(
        self,
        env: gym.Env,
        rng: np.random.Generator,
        jitter: float = 1.0,
        slowest: float = 0.8,
        detours: float = 0.15,
        pauses: float = 0.05,
    ):
        office = unwrapped(env, OfficeEnv, "office")
        self._office = office
        self._hand = Hand(office, rng, jitter, slowest, detours, pauses)
        self._scripts: dict[str, Callable[[Subtask], Motion]] = {
            "pick": self._pick,
            "place": self._place,
            "open": self._open,
            "close": self._close,
        }
        self._indices = list(ACTION_INDICES[office.action_layout])
        self._stood: dict[str, Vector] = {}
        self._actions: Motion = iter(())

    def reset(self, observation: NDArray[np.float32]) -> None:
        """Begin with the first of the episode's sub-tasks."""
        self._actions = self._solve_all()

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The script's next action, for the state that the simulation is in."""
        action = np.zeros(self._office.action_space.shape or (), np.float32)
        action[self._indices] = next(self._actions)
        return action

    def _solve_all(self) -> Motion:
        for subtask in self._office.goals:
            is_credited = self._office.is_solved(subtask)
            while not is_credited:
                for action in self._scripts[subtask.verb](subtask):
                    yield action
                    is_credited = self._office.is_solved(subtask)
                    if is_credited:
                        break
        while True:
            yield from self._hand.hold(OPEN, 100)

    # Sub-tasks: each ends as soon as it is credited.

    def _pick(self, subtask: Subtask) -> Motion:
        """Take an object from above, across its narrow side, and lift it."""
        thing, hand = OBJECTS[subtask.object], self._hand
        length, width, height = thing.size
        along = hand.around(max(0.0, (length - width) / 4))
        lift = hand.around(0.004) + (0.01 if height > 0.05 else 0.0)
        x, y, _ = self._object(subtask)
        self._stood[subtask.object] = np.array((x, y))
        yaw = self._yaw_across(subtask)

        def grasp() -> Vector:
            x, y, z = self._object(subtask)
            return np.array((x + along * np.cos(yaw), y + along * np.sin(yaw), max(z + lift, LOWEST_GRASP_M)))

        yield from hand.travel(x, y, OPEN, yaw)
        yield from hand.move(lambda: np.add(grasp(), (0.0, 0.0, ABOVE_M)), OPEN, yaw=yaw, within=0.025)
        ahead = np.array((np.cos(yaw), np.sin(yaw), 0.0))
        for _ in range(GRASPS):
            yield from hand.move(grasp, OPEN, yaw=yaw, within=0.012, limit=20)
            yield from hand.close(grasp(), yaw)
            if abs(ahead @ (grasp() - hand.position)) < OFF_CENTRE_M:
                break
            yield from hand.hold(OPEN, 3, yaw=yaw)
        yield from hand.move(np.add(hand.position, (0.0, 0.0, 0.15)), CLOSED, yaw=yaw, within=0.02, limit=12)

    def _place(self, subtask: Subtask) -> Motion:
        """Carry the object to above the target, lower it and let it go."""
        if subtask.target == "drawer" and self._office.scene.drawer_opening() < HALF_OPEN * DRAWER_TRAVEL:
            if self._is_in_hand(subtask):
                yield from self._put_back(subtask)
            yield from self._open(subtask)
        if not self._is_in_hand(subtask):
            yield from self._pick(subtask)
        hand = self._hand
        shift = np.array([hand.around(spread) for spread in DROP_SPREAD_M])
        place, _, _ = self._office.target(subtask.target)
        x, y = place[:2] + shift
        yield from hand.travel(x, y, CLOSED)
        above_bottom = hand.position[2] - self._object(subtask)[2] + OBJECTS[subtask.object].rest_height
        z = max(LOWEST_DROP_M[subtask.target], above_bottom + DROP_M)
        yield from hand.move(np.array((x, y, z)), CLOSED, within=0.015, limit=15)
        yield from hand.hold(OPEN, 6)
        yield from hand.move(np.add(hand.position, (0.0, 0.0, 0.10)), OPEN, within=0.02, limit=8)

    def _open(self, subtask: Subtask) -> Motion:
        yield from self._slide(0.95 * DRAWER_TRAVEL, 0.015)

    def _close(self, subtask: Subtask) -> Motion:
        yield from self._slide(0.0, -0.015)

    # Parts that sub-tasks share.

    def _put_back(self, subtask: Subtask) -> Motion:
        """Put the object down on the desk, where it was picked."""
        hand, (x, y) = self._hand, self._stood[subtask.object]
        yield from hand.travel(x, y, CLOSED)
        z = hand.position[2] - self._object(subtask)[2] + OBJECTS[subtask.object].rest_height + 0.005
        yield from hand.move(np.array((x, y, z)), CLOSED, within=0.012, limit=20)
        yield from hand.hold(OPEN, 3)

    def _slide(self, opening: float, ahead: float) -> Motion:
        """Reach around the bar of the drawer's handle with open fingers and move it."""
        hand, office = self._hand, self._office
        x, y, z = np.add(office.handle(), (hand.around(0.015), ahead, -BELOW_BAR_M))
        yield from hand.travel(x, y, OPEN)
        yield from hand.move(np.array((x, y, z)), OPEN, within=0.015, limit=20)
        shift = 0.07 if ahead > 0 else -0.07
        yield from hand.move(
            lambda: np.array((x, office.handle()[1] + shift, z)),
            OPEN,
            until=lambda: abs(office.scene.drawer_opening() - opening) < 0.004,
            limit=25,
        )

    def _object(self, subtask: Subtask) -> tuple[float, ...]:
        return self._office.scene.object_pose(subtask.object)[0]

    def _yaw_across(self, subtask: Subtask) -> float:
        """Yaw of a hand whose fingers close across the object's narrow side, the nearest to 0."""
        thing = OBJECTS[subtask.object]
        x, y, z, w = self._office.scene.object_pose(subtask.object)[1]
        yaw, period = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)), np.pi
        if thing.is_round and 1 - 2 * (x * x + y * y) > 0.7:
            return self._hand.around(0.2)
        if thing.is_round:  # it lies: its axis, which was upright, has this direction
            yaw = np.arctan2(2 * (y * z - w * x), 2 * (x * z + w * y))
        elif thing.size[0] == thing.size[1]:
            period = np.pi / 2
        return float((yaw + period / 2) % period - period / 2)

    def _is_in_hand(self, subtask: Subtask) -> bool:
        return bool(np.linalg.norm(self._object(subtask) - self._hand.position) < IN_HAND_M)
