"""The office: objects to be tidied away into a tray, a bin and a drawer, in a prescribed order."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from skild_ray.worlds.office.arm import OfficeArm, Vector
from skild_ray.worlds.office.scene import (
    BIN_INSIDE,
    BIN_PLACE,
    BIN_RIM,
    DRAWER_INSIDE,
    DRAWER_PLACE,
    DRAWER_RIM,
    DRAWER_TRAVEL,
    HANDLE,
    LAMP_PLACE,
    MONITOR_PLACE,
    OBJECTS,
    TRAY_INSIDE,
    TRAY_PLACE,
    TRAY_RIM,
    Scene,
)
from skild_ray.worlds.office.start import JITTER_M, MAX_JITTER_M, PRESETS, Preset, draw_start

Layout = Literal["compact", "reference"]

TARGETS = ("tray", "bin", "drawer")
FIXED, RANDOM = "fixed", "random"
FIXED_TASK = ("eraser to tray", "can to bin", "bottle to drawer")

OBSERVATION_DIMENSIONS: dict[Layout, int] = {"compact": 60, "reference": 97}
ACTION_DIMENSIONS: dict[Layout, int] = {"compact": 5, "reference": 8}
# Where x, y, z, yaw and gripper are in an action.
ACTION_INDICES: dict[Layout, tuple[int, ...]] = {"compact": (0, 1, 2, 3, 4), "reference": (0, 1, 2, 5, 6)}

# An action of 1 sends the grasp point so far ahead of where it is.
MOVE_M, TURN_RAD = 0.03, 0.15
GRIPPER_THRESHOLD = 0.5
PHYSICS_STEPS = 10

LIFTED_M, NEAR_M = 0.08, 0.09
RELEASED_M = 0.065
OPEN_SHARE, CLOSED_SHARE = 0.75, 0.25


class Subtask(NamedTuple):
    """A sub-task: "open" and "close" are about the drawer."""

    verb: Literal["pick", "place", "open", "close"]
    object: str
    target: str

    def __str__(self) -> str:
        if self.verb == "pick":
            return f"pick {self.object}"
        return f"place {self.object} in {self.target}" if self.verb == "place" else f"{self.verb} {self.target}"


_TARGETS = {
    "tray": (TRAY_PLACE, TRAY_INSIDE, TRAY_RIM),
    "bin": (BIN_PLACE, BIN_INSIDE, BIN_RIM),
    "drawer": (DRAWER_PLACE, DRAWER_INSIDE, DRAWER_RIM),
}
"""Centre, half lengths inside along x and y, and height of the rim of each target; of the drawer where it is closed."""


class OfficeEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]], EzPickle):
    """A Franka Panda at a desk with seven objects, a tray, a bin and a drawer.

    A task brings objects to targets, one after the other. It has sub-tasks: pick and place for each of them, and for
    the drawer "open" before and "close" after. With the same seed and actions a trajectory is the same, bit for bit,
    in any process: every `reset` builds the world anew.

    Observation, float32; lengths in m, quaternions x y z w, objects in the order of OBJECTS:
        "compact" [60]: position and quaternion of each object (7 * 7); of the grasp point (7); how far the two fingers
            are open; 1 where the gripper's command is open, else 0; the drawer's opening.
        "reference" [97]: position and quaternion of each object (7 * 7) and of bin, tray and drawer, which are
            constant (3 * 7); position of the drawer's handle (3); of the grasp point, fingers and gripper as above
            (10); position and quaternion of monitor and lamp, constant (2 * 7).
    Quaternions have the sign that makes w of objects, and x of the hand, positive.
    Action, limited to [-1, 1], held for 1/24 s:
        "compact" [5]: how far ahead of where it is the grasp point is sent along x, y and z, in units of 0.03 m, and
            in yaw, in units of 0.15 rad; gripper: above 0.5 it opens, below -0.5 it closes, between it stays.
        "reference" [8]: x, y, z, roll, pitch, yaw, gripper, neutral; roll, pitch and neutral are without effect.

    Reward: 1 for each sub-task credited in the step; the first that remains is looked at. "pick": the object is 8 cm
    above where it stands on the desk, and within 9 cm of the grasp point. "place": it lies inside of the target (of the
    drawer where that is now), below its rim, and the gripper is open. "open" and "close": the drawer is open by more
    than 75 %, or less than 25 %. The episode terminates when all are credited.

    Public attributes: `subtasks`, their names; `goals`, the same as `Subtask`s; `scene` and `arm`. A copy, by `copy` or
    `pickle`, is a new environment with the same arguments.

    Args:
        task: "fixed", which is FIXED_TASK; "random": every `reset` draws three objects and the order of the targets,
            all with equal probability; or a list such as ["cup to drawer", "eraser to bin"] of different objects and
            targets. Before the first `reset` a random task has the sub-tasks of the fixed one.
        observation: layout of the observation, see above.
        action: layout of the action, see above.
        max_episode_steps: steps after which an episode is truncated.
        position_jitter: objects stand so far, in m, along x and y from their places at most; None: 0.05 where the
            start is varied or shifted, 0.01 where it is fixed.
        render_mode: None or "rgb_array".
        start: what `reset` draws. "varied": which object stands at which place, with any yaw, and how far the drawer is
            open, up to 40 %. "shifted": the same, but objects stand about their own places. "fixed": they do, with a
            yaw within 0.25 rad, and the drawer is closed. See `draw_start`.

    Raises:
        ValueError: on an unknown task, layout or render mode, or an action that is not finite.
        gymnasium.error.ResetNeeded: if `step` is called before `reset` or after the end of an episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 24}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(
        self,
        task: str | Sequence[str] = FIXED,
        observation: Layout = "compact",
        action: Layout = "compact",
        max_episode_steps: int = 350,
        position_jitter: float | None = None,
        render_mode: str | None = None,
        start: Preset = "varied",
    ):
        for name, layout in (("observation", observation), ("action", action)):
            if layout not in get_args(Layout):
                raise ValueError(f"unknown {name} layout {layout!r}: it is one of {', '.join(get_args(Layout))}")
        if start not in PRESETS:
            raise ValueError(f"unknown start {start!r}: it is one of {', '.join(PRESETS)}")
        jitter = JITTER_M[start] if position_jitter is None else position_jitter
        if start != "fixed" and not 0 <= jitter <= MAX_JITTER_M:
            raise ValueError(f"position_jitter must be in [0, {MAX_JITTER_M}] where the start is {start}, got {jitter}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"unknown render mode {render_mode!r}: it is None or rgb_array")
        EzPickle.__init__(self, task, observation, action, max_episode_steps, position_jitter, render_mode, start)
        self._is_random = task == RANDOM
        self._set_task(_assignments(task))
        self.observation_layout, self.action_layout = observation, action
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self._start, self._jitter = start, jitter
        self.observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATION_DIMENSIONS[observation],), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIMENSIONS[action],), np.float32)
        self._action_indices = list(ACTION_INDICES[action])
        self.scene = Scene(is_visible=render_mode is not None)
        self._solved = 0
        self._steps_left = 0

    @property
    def return_range(self) -> tuple[float, float]:
        """Smallest and largest return of an episode."""
        return 0.0, float(len(self.subtasks))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode: the arm is at home, objects and drawer are as `start` says."""
        super().reset(seed=seed)
        if self._is_random:
            objects = self.np_random.permutation(list(OBJECTS))[: len(TARGETS)].tolist()
            self._set_task(tuple(zip(objects, self.np_random.permutation(TARGETS).tolist(), strict=True)))
        start = draw_start(self.np_random, self._start, self._jitter)
        self.scene.build(start.places, start.opening)
        self.arm = OfficeArm(self.scene)
        self._solved = 0
        self._steps_left = self.max_episode_steps
        return self._observe(), {"subtasks_solved": 0}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Move for 1/24 s."""
        if self._steps_left <= 0:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        wanted = np.asarray(action, np.float64)
        if not np.isfinite(wanted).all():
            raise ValueError(f"the action must be finite, got {action}")
        self._steps_left -= 1
        wanted = np.minimum(np.maximum(wanted[self._action_indices], -1.0), 1.0)
        arm = self.arm
        if abs(wanted[4]) > GRIPPER_THRESHOLD:
            arm.is_open = bool(wanted[4] > 0)
        arm.command(arm.position + MOVE_M * wanted[:3], arm.yaw + TURN_RAD * wanted[3])
        self.scene.step(PHYSICS_STEPS)
        arm.read()
        credited = 0
        while self._solved < len(self.goals) and self.is_solved(self.goals[self._solved]):
            self._solved += 1
            credited += 1
        terminated = self._solved == len(self.goals)
        truncated = self._steps_left == 0 and not terminated
        if terminated:
            self._steps_left = 0
        return self._observe(), float(credited), terminated, truncated, {"subtasks_solved": self._solved}

    def is_solved(self, subtask: Subtask) -> bool:
        """Whether the sub-task, of any task, is solved at this moment."""
        if subtask.verb == "open":
            return self.scene.drawer_opening() > OPEN_SHARE * DRAWER_TRAVEL
        if subtask.verb == "close":
            return self.scene.drawer_opening() < CLOSED_SHARE * DRAWER_TRAVEL
        position = np.array(self.scene.object_pose(subtask.object)[0])
        if subtask.verb == "pick":
            is_lifted = position[2] > OBJECTS[subtask.object].rest_height + LIFTED_M
            return bool(is_lifted and np.linalg.norm(position - self.arm.position) < NEAR_M)
        place, inside, rim = self.target(subtask.target)
        is_inside = (np.abs(position - place)[:2] < inside).all() and position[2] < rim
        return bool(is_inside and self.arm.is_open and self.arm.fingers.sum() > RELEASED_M)

    @property
    def subtask_reward(self) -> float | None:
        """What each sub-task of any episode pays; None where episodes have different ones."""
        return None if self._is_random else 1.0

    def solved(self, observations: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        """For each sub-task whether it is solved in the observations [N, d] of this environment's layout: bool [N].

        Nothing is said where every episode draws its task.

        Raises:
            ValueError: if the observations have other dimensions.
        """
        if self._is_random:
            return {}
        values, dimensions = np.asarray(observations, np.float64), OBSERVATION_DIMENSIONS[self.observation_layout]
        if values.shape[-1] != dimensions:
            raise ValueError(
                f"observations have {values.shape[-1]} dimensions, the layout {self.observation_layout!r} {dimensions}"
            )
        if self.observation_layout == "compact":
            hand, opening = values[:, 49:59], values[:, 59]
        else:
            hand, opening = values[:, 73:83], values[:, 71] - (DRAWER_PLACE + HANDLE)[1]
        positions = dict(zip(OBJECTS, values[:, :49].reshape(-1, len(OBJECTS), 7)[..., :3].swapaxes(0, 1), strict=True))
        is_free = (hand[:, 9] > 0.5) & (hand[:, 7:9].sum(1) > RELEASED_M)

        def is_solved(subtask: Subtask) -> NDArray[np.bool_]:
            if subtask.verb == "open":
                return opening > OPEN_SHARE * DRAWER_TRAVEL
            if subtask.verb == "close":
                return opening < CLOSED_SHARE * DRAWER_TRAVEL
            position = positions[subtask.object]
            if subtask.verb == "pick":
                is_lifted = position[:, 2] > OBJECTS[subtask.object].rest_height + LIFTED_M
                return is_lifted & (np.linalg.norm(position - hand[:, :3], axis=1) < NEAR_M)
            place, inside, rim = _TARGETS[subtask.target]
            offset = position - place
            if subtask.target == "drawer":
                offset[:, 1] -= opening
            return (np.abs(offset)[:, :2] < inside).all(1) & (position[:, 2] < rim) & is_free

        return {str(goal): is_solved(goal) for goal in self.goals}

    def target(self, name: str) -> tuple[Vector, tuple[float, float], float]:
        """Centre [3], where it is now, half lengths inside along x and y, and height of the rim of a target, in m."""
        place, inside, rim = _TARGETS[name]
        if name == "drawer":
            place = np.add(place, (0.0, self.scene.drawer_opening(), 0.0))
        return place, inside, rim

    def handle(self) -> Vector:
        """Centre [3] of the drawer's handle."""
        return np.add(DRAWER_PLACE + HANDLE, (0.0, self.scene.drawer_opening(), 0.0))

    def render(self) -> Any:
        """A picture uint8 [480, 480, 3] from in front of the desk."""
        return None if self.render_mode is None else self.scene.render(480, 480)

    def close(self) -> None:
        self.scene.close()

    def _set_task(self, assignments: Sequence[tuple[str, str]]) -> None:
        goals: list[Subtask] = []
        for name, target in assignments:
            is_drawer = target == "drawer"
            goals += [Subtask("open", name, target)] * is_drawer
            goals += [Subtask("pick", name, target), Subtask("place", name, target)]
            goals += [Subtask("close", name, target)] * is_drawer
        self.goals = tuple(goals)
        self.subtasks = tuple(map(str, goals))

    def _observe(self) -> NDArray[np.float32]:
        arm = self.arm
        numbers: list[float] = []
        for name in OBJECTS:
            position, quaternion = self.scene.object_pose(name)
            numbers += position
            numbers += quaternion if quaternion[3] >= 0 else [-number for number in quaternion]
        hand = [*arm.position, *arm.quaternion, *arm.fingers, float(arm.is_open)]
        if self.observation_layout == "compact":
            return np.array([*numbers, *hand, self.scene.drawer_opening()], np.float32)
        still = (0.0, 0.0, 0.0, 1.0)
        furniture = [number for place in (BIN_PLACE, TRAY_PLACE, DRAWER_PLACE) for number in (*place, *still)]
        return np.array(
            [*numbers, *furniture, *self.handle(), *hand, *MONITOR_PLACE, *still, *LAMP_PLACE, *still], np.float32
        )


def _assignments(task: str | Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of object and target."""
    if isinstance(task, str):
        if task not in (FIXED, RANDOM) and " to " not in task:
            raise ValueError(f"unknown office task {task!r}: it is {FIXED}, {RANDOM}, or a list of 'OBJECT to TARGET'")
        task = (task,) if " to " in task else FIXED_TASK
    pairs = []
    for text in task:
        name, _, target = text.partition(" to ")
        if name not in OBJECTS or target not in TARGETS:
            raise ValueError(
                f"unknown office task {text!r}: it is 'OBJECT to TARGET' with one of {', '.join(OBJECTS)} and one of "
                f"{', '.join(TARGETS)}"
            )
        pairs.append((name, target))
    if not pairs or any(len(set(names)) < len(names) for names in zip(*pairs, strict=True)):
        raise ValueError(f"an office task brings different objects to different targets, at least one, got {[*task]}")
    return pairs
