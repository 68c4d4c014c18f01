"""Point-mass navigation in a large random maze with one sparse goal."""

import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from skild_ray.worlds.maze.layout import CENTRE_OFFSET, cell_of, distances_to, maze_walls, touches_wall, wall_boxes

Task = Literal["target", "random"]

START = (10.0, 24.0)
START_RANGE = 2.0
TARGET = (18.0, 8.0)
CELL_JITTER = 0.1
POINT_RADIUS = 0.1
CONTACT_MARGIN = 0.004  # 0.002 of the point and 0.002 of the wall, in m: where contact forces begin
MAX_SPEED = 5.0
PIXELS_PER_CELL = 10


class MazeEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]], EzPickle):
    """The maze of the SkiLD paper: a force-controlled point mass that has to find one target.

    Observation: (x, y, vx, vy), float32, in m and m/s; `maze_layout` says where the cells lie. Action: the force on x
    and y in units of 100 N, limited to [-1, 1]. The point weighs 4.2 kg and has a radius of 0.1 m; its speed is
    limited to 5 m/s along each axis at the beginning of every step of 0.01 s.

    Reward: `goal_reward` in the step in which the point comes within `target_radius` of the target, which ends the
    episode; 0 otherwise.

    Public attributes: `walls` (bool [42, 42], first axis x), `start` and `target` (float [2]) of the current episode,
    `target_radius`, `subtasks`, `subtask_reward`, `return_range`. A copy, by `copy` or `pickle`, is a new environment
    with the same arguments.

    Args:
        task: "target": from (10, 24) + U(-2, 2)^2, drawn anew while the point would touch a wall, to (18, 8).
            "random": from a random free cell to a random free cell that is farther away than `target_radius`.
        max_episode_steps: steps after which an episode is truncated.
        target_radius: distance from the target, in m, that counts as reaching it.
        goal_reward: reward for reaching it.
        render_mode: None, or "rgb_array" for a map seen from above (x down, y to the right).

    Raises:
        ValueError: on an unknown task or render mode, or an action that is not finite.
        gymnasium.error.ResetNeeded: if `step` is called before `reset` or after the end of an episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012 (as Gymnasium declares it)
    subtasks = ("goal",)

    def __init__(
        self,
        task: Task = "target",
        max_episode_steps: int = 2000,
        target_radius: float = 2.0,
        goal_reward: float = 100.0,
        render_mode: str | None = None,
    ):
        if task not in get_args(Task):
            raise ValueError(f"unknown maze task {task!r}: it is one of {', '.join(get_args(Task))}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render mode {render_mode!r}: it is None or 'rgb_array'")
        EzPickle.__init__(self, task, max_episode_steps, target_radius, goal_reward, render_mode)
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode = render_mode
        self.task = task
        self.max_episode_steps = max_episode_steps
        self.target_radius = float(target_radius)
        self.goal_reward = float(goal_reward)
        self.return_range = min(0.0, self.goal_reward), max(0.0, self.goal_reward)
        self.walls = maze_walls()
        self.start = np.array(START)
        self.target = np.array(TARGET)

        # A few free cells may be walled in: those that the target can be reached from are the maze.
        self._cells = np.array(sorted(distances_to(cell_of(*TARGET), self.walls)))
        self._model = _maze_model()
        self._data = mujoco.MjData(self._model)
        # Views into the simulation: reading an attribute of MjData builds a new array each time.
        self._qpos, self._qvel, self._ctrl = self._data.qpos, self._data.qvel, self._data.ctrl
        self._velocity = (0.0, 0.0)
        self._target_xy = TARGET
        self._squared_radius = self.target_radius**2
        self._steps_left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode: put the point at rest on the start and let one step without force pass."""
        super().reset(seed=seed)
        self.start, self.target = self._draw_fixed() if self.task == "target" else self._draw_random()
        self._target_xy = (float(self.target[0]), float(self.target[1]))
        self._steps_left = self.max_episode_steps

        mujoco.mj_resetData(self._model, self._data)
        self._qpos[:] = self.start
        mujoco.mj_step(self._model, self._data)
        vx, vy = self._velocity = tuple(self._qvel.tolist())
        x, y = self._qpos.tolist()
        return np.array((x, y, vx, vy), np.float32), {"subtasks_solved": 0}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Apply a force for 0.01 s."""
        # Runs once per 0.01 s of simulation and costs about as much as the physics: plain floats, no small arrays.
        if self._steps_left <= 0:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        ax, ay = action
        if not math.isfinite(ax + ay):
            raise ValueError(f"the action must be finite, got {action}")
        self._steps_left -= 1
        self._ctrl[:] = action  # MuJoCo itself limits it to [-1, 1]

        vx, vy = self._velocity
        if not -MAX_SPEED <= vx <= MAX_SPEED:
            self._qvel[0] = math.copysign(MAX_SPEED, vx)
        if not -MAX_SPEED <= vy <= MAX_SPEED:
            self._qvel[1] = math.copysign(MAX_SPEED, vy)
        mujoco.mj_step(self._model, self._data)

        x, y = self._qpos.tolist()
        vx, vy = self._velocity = self._qvel.tolist()
        observation = np.array((x, y, vx, vy), np.float32)
        tx, ty = self._target_xy
        if (x - tx) * (x - tx) + (y - ty) * (y - ty) <= self._squared_radius:
            self._steps_left = 0
            return observation, self.goal_reward, True, False, {"subtasks_solved": 1}
        return observation, 0.0, False, self._steps_left == 0, {"subtasks_solved": 0}

    @property
    def subtask_reward(self) -> float | None:
        """What the goal pays in any episode; None where episodes have different ones."""
        return self.goal_reward if self.task == "target" else None

    def solved(self, observations: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        """Whether the point is within `target_radius` of the target in the observations [N, 4]: bool [N].

        Nothing is said where every episode has a target of its own, which observations do not tell.
        """
        if self.task != "target":
            return {}
        offset = np.asarray(observations, np.float64)[:, :2] - self._target_xy
        return {"goal": (offset**2).sum(1) <= self._squared_radius}

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The map from above, uint8 [420, 420, 3]: walls dark, the target's circle green, the point red."""
        if self.render_mode is None:
            return None
        scale = PIXELS_PER_CELL
        image = np.where(np.kron(self.walls, np.ones((scale, scale), bool))[..., None], 60, 235) + np.zeros(3, int)
        # World coordinates of the pixels' centres.
        xs, ys = ((np.arange(cells * scale) + 0.5) / scale + CENTRE_OFFSET - 0.5 for cells in self.walls.shape)
        for centre, radius, colour in (
            (self.target, self.target_radius, (90, 180, 90)),
            (self._qpos, 0.5, (200, 40, 40)),
        ):
            disc = (xs[:, None] - centre[0]) ** 2 + (ys[None, :] - centre[1]) ** 2 <= radius**2
            image[disc] = colour
        return image.astype(np.uint8)

    def _draw_fixed(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        while True:
            start = np.array(START) + self.np_random.uniform(-START_RANGE, START_RANGE, 2)
            if not touches_wall(self.walls, start[0], start[1], POINT_RADIUS + CONTACT_MARGIN):
                return start, np.array(TARGET)

    def _draw_random(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        while True:
            cells = self._cells[self.np_random.integers(len(self._cells), size=2)]
            start, target = cells + self.np_random.uniform(-CELL_JITTER, CELL_JITTER, (2, 2))
            if math.dist(start, target) > self.target_radius + CELL_JITTER:
                return start, target


@cache
def _maze_model() -> mujoco.MjModel:
    """The physics, shared by all mazes of a process: gymnasium-robotics' point with walls around it."""
    package = find_spec("gymnasium_robotics")
    assert package is not None and package.origin is not None
    spec = mujoco.MjSpec.from_file(str(Path(package.origin).parent / "envs/assets/point/point.xml"))
    # The point moves in the plane: contact with the ground costs time and changes nothing.
    ground = spec.geom("ground")
    ground.contype = ground.conaffinity = 0
    for i, j, i_end, j_end in wall_boxes(maze_walls()):
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[(i + i_end - 1) / 2 + CENTRE_OFFSET, (j + j_end - 1) / 2 + CENTRE_OFFSET, 0.0],
            size=[(i_end - i) / 2, (j_end - j) / 2, 0.2],
            contype=1,
        )
    return spec.compile()
