"""The Franka kitchen: four sub-tasks with appliances, to be solved in a prescribed order."""

import os
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise, takewhile
from typing import Any, Literal, get_args

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer
from gymnasium.utils import EzPickle
from gymnasium_robotics.envs.franka_kitchen import franka_env, kitchen_env
from numpy.typing import NDArray

from skild_ray.worlds.kitchen.start import PRESETS, Preset, draw_start

Layout = Literal["d4rl", "franka", "qpos"]

TASKS: dict[str, tuple[str, ...]] = {
    "kbts": ("kettle", "bottom burner", "top burner", "slide cabinet"),
    "mlsh": ("microwave", "light switch", "slide cabinet", "hinge cabinet"),
    "mkls": ("microwave", "kettle", "light switch", "slide cabinet"),
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
}
SUBTASKS = tuple(kitchen_env.OBS_ELEMENT_GOALS)
PLAY = "play"
PLAY_SUBTASKS = 4

NUM_JOINTS = 9
NUM_POSITIONS = 30
NUM_VELOCITIES = 29
DIMENSIONS: dict[Layout, int] = {"d4rl": 60, "franka": 59, "qpos": 30}

Reward = Literal["ordered", "d4rl"]
Noise = Literal["d4rl", "precise"]
# Ratios of the robot and of the objects.
NOISE: dict[Noise, tuple[float, float]] = {"d4rl": (0.1, 0.1), "precise": (0.01, 0.0005)}

# In the "franka" layout the robot's positions and velocities come first, then those of the objects.
_FRANKA_TO_POSITIONS = np.r_[0:9, 18:39]

# MuJoCo resets the simulation by itself when one of these occurs.
_UNSTABLE = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{name}")) for name in ("QPOS", "QVEL", "QACC")]


class KitchenEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]], EzPickle):
    """`FrankaKitchen-v1` of gymnasium-robotics with a prescribed order of sub-tasks, and faster.

    With the same seed, actions and ratios of noise, and the fixed start, the physics, the noise and the observation (in
    its layout) are those of the original, bit for bit.

    Observation, float32, of noisy readings; angles in rad, lengths in m:
        "d4rl" [60]: positions of the robot's joints (9) and of the objects (21), and a goal (30) that D4RL appends.
            As in SkiLD it is that of the "mixed" task whatever the task is, a constant.
        "qpos" [30]: the same without the goal.
        "franka" [59]: positions and velocities of the robot (9 + 9), then those of the objects (21 + 20).
    Action [9]: joint velocities in units of 2 rad/s, held for 0.08 s, limited to [-1, 1].

    Reward: 1 for each sub-task credited in the step. Those that remain are looked at in order; one is credited if it
    and all before it are solved at that moment: an element is within 0.3 of its goal (Euclidean norm). With the reward
    "d4rl" the order does not count. The episode terminates when all are credited. If the simulation becomes unstable
    the episode is truncated, with the last observation before and `info["unstable"]`: an end that nothing follows would
    be a way out of negative rewards.

    Public attributes: `subtasks`, `subtask_reward`, `is_ordered` (whether the order of sub-tasks counts), `model` and
    `data` (MuJoCo's). A copy, by `copy` or `pickle`, is a new environment with the same arguments.

    Args:
        task: a key of TASKS, names of sub-tasks in order, or "play": every `reset` draws four different sub-tasks in
            random order, all orders with equal probability. They are in `subtasks`, which before the first `reset` has
            the first four of SUBTASKS, and not in the observation.
        rare: a task as above whose transitions, one of its sub-tasks directly followed by the next, are to be rare in
            "play"; None for the equal probability.
        rare_share: with `rare`, the share of the episodes whose order has at least one of these transitions; orders
            with one are equally probable among themselves, as are those without. Without `rare` it would be the share
            of such orders among all 7 * 6 * 5 * 4 = 840, 163 / 840 = 0.194 for "mlsh", and a single transition's
            60 / 840 = 0.071; with it, a transition of "mlsh" is in rare_share * 60 / 163 = 0.37 rare_share of them.
        observation: layout of the observation, see above.
        reward: "ordered", or "d4rl" as in D4RL's benchmark: a sub-task is credited whenever it is solved. Then
            `subtasks` begins with those credited so far, in the order in which they were.
        noise: "d4rl", the ratios 0.1 and 0.1 of robot and objects, as in D4RL; or "precise", 0.01 and 0.0005, as in
            gymnasium-robotics.
        start: "fixed", D4RL's one start state; or "varied": `reset` draws where the kettle stands, and how far knobs,
            slide and doors are turned or open. See `draw_start`.
        max_episode_steps: steps after which an episode is truncated.
        robot_noise_ratio: scale of the uniform noise on readings of the robot, of which set-points are made, too; None:
            as `noise` says.
        object_noise_ratio: scale of the uniform noise on readings of the objects; None: as `noise` says.
        render_mode: None, "rgb_array", "depth_array" or "human", as of the original.

    Raises:
        ValueError: on an unknown task, layout or render mode, or an action that is not finite.
        gymnasium.error.ResetNeeded: if `step` is called before `reset` or after the end of an episode.
    """

    metadata = {"render_modes": ["human", "rgb_array", "depth_array"], "render_fps": 12}  # noqa: RUF012 (as Gymnasium declares it)
    subtask_reward = 1.0

    def __init__(
        self,
        task: str | Sequence[str] = "kbts",
        observation: Layout = "d4rl",
        max_episode_steps: int = 280,
        robot_noise_ratio: float | None = None,
        object_noise_ratio: float | None = None,
        render_mode: str | None = None,
        rare: str | Sequence[str] | None = None,
        rare_share: float = 0.02,
        reward: Reward = "ordered",
        noise: Noise = "d4rl",
        start: Preset = "fixed",
    ):
        if observation not in get_args(Layout):
            raise ValueError(f"unknown observation layout {observation!r}: it is one of {', '.join(DIMENSIONS)}")
        for name, value, known in (
            ("reward", reward, get_args(Reward)),
            ("noise", noise, get_args(Noise)),
            ("start", start, PRESETS),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}: it is one of {', '.join(known)}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(self.metadata["render_modes"])
            raise ValueError(f"unknown render mode {render_mode!r}: it is None or one of {modes}")
        EzPickle.__init__(
            self,
            task,
            observation,
            max_episode_steps,
            robot_noise_ratio,
            object_noise_ratio,
            render_mode,
            rare,
            rare_share,
            reward,
            noise,
            start,
        )
        self.subtasks = self._task = _subtasks(task)
        self.is_ordered = reward == "ordered"
        self._is_start_varied = start == "varied"
        self._is_play = task == PLAY
        self._rare = None if rare is None else _rare_transitions(task, rare, rare_share)
        self._rare_share = rare_share
        self.layout = observation
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-np.inf, np.inf, (DIMENSIONS[observation],), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (NUM_JOINTS,), np.float32)

        original = _original()
        robot = original.robot_env
        self.model = original.model
        self.data = mujoco.MjData(self.model)
        self._renderer: MujocoRenderer | None = None
        self._frame_skip = robot.frame_skip
        self._step_s = robot.dt
        self._initial_qpos = robot.init_qpos
        # Velocities: clip(scale * clip(action, -1, 1), bounds), written as one clip.
        self._action_scale = robot.act_rng
        self._velocity_low = np.maximum(robot.robot_vel_bound[:NUM_JOINTS, 0], -robot.act_rng)
        self._velocity_high = np.minimum(robot.robot_vel_bound[:NUM_JOINTS, 1], robot.act_rng)
        self._position_low, self._position_high = robot.robot_pos_bound[:NUM_JOINTS].T
        # Amplitudes in the order in which the original draws its noise. It reads those of the objects' positions one
        # element early.
        robot_ratio = NOISE[noise][0] if robot_noise_ratio is None else robot_noise_ratio
        object_ratio = NOISE[noise][1] if object_noise_ratio is None else object_noise_ratio
        position_noise, velocity_noise = robot.robot_pos_noise_amp, robot.robot_vel_noise_amp
        self._noise = np.concatenate(
            (
                robot_ratio * position_noise[:NUM_JOINTS],
                robot_ratio * velocity_noise[:NUM_JOINTS],
                object_ratio * position_noise[NUM_JOINTS - 1 :],
                object_ratio * velocity_noise[NUM_JOINTS:],
            )
        )
        self._solved = 0
        self._steps_left = 0
        self._joint_readings = np.zeros(NUM_JOINTS)
        self._last_observation = np.zeros(DIMENSIONS[observation], np.float32)

    @property
    def return_range(self) -> tuple[float, float]:
        """Smallest and largest return of an episode."""
        return 0.0, float(len(self.subtasks))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode from the one start state, or one that is drawn."""
        super().reset(seed=seed)
        self.subtasks = self._draw_order() if self._is_play else self._task
        mujoco.mj_resetData(self.model, self.data)
        start = self._initial_qpos
        self.data.qpos[:] = draw_start(self.np_random, start) if self._is_start_varied else start
        mujoco.mj_forward(self.model, self.data)
        self._solved = 0
        self._steps_left = self.max_episode_steps
        observation = self._observe()
        if self.render_mode == "human":
            self.render()
        return observation, {"subtasks_solved": 0}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Move the joints for 0.08 s."""
        if self._steps_left <= 0:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        velocity = self._action_scale * action
        if not np.isfinite(velocity).all():
            raise ValueError(f"the action must be finite, got {action}")
        self._steps_left -= 1
        velocity = velocity.clip(self._velocity_low, self._velocity_high)
        setpoint = self._joint_readings + velocity * self._step_s
        self.data.ctrl[:] = setpoint.clip(self._position_low, self._position_high)
        mujoco.mj_step(self.model, self.data, self._frame_skip)

        if self.data.warning.number[_UNSTABLE].any():
            self._steps_left = 0
            return self._last_observation.copy(), 0.0, False, True, {"subtasks_solved": self._solved, "unstable": True}
        observation = self._observe()
        credited = self._credit()
        terminated = self._solved == len(self.subtasks)
        truncated = self._steps_left == 0 and not terminated
        if terminated:
            self._steps_left = 0
        if self.render_mode == "human":
            self.render()
        return observation, float(credited), terminated, truncated, {"subtasks_solved": self._solved}

    def is_solved(self, subtask: str) -> bool:
        """Whether the sub-task, any of SUBTASKS, is solved at this moment: its element is within 0.3 of its goal."""
        return bool(_is_at_goal(self.data.qpos, subtask))

    def solved(self, observations: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        """For each of SUBTASKS, whether it is solved in the observations [N, d], of any layout: bool [N].

        As `is_solved`, but from the noisy readings.

        Raises:
            ValueError: if the observations are of no known layout.
        """
        positions = _positions(observations)
        return {subtask: _is_at_goal(positions, subtask) for subtask in SUBTASKS}

    def convert_observations(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Observations [N, d] of a data set in another layout as this environment's [N, D].

        The layout is known by its dimensions; one that is this environment's is returned as it is.

        Raises:
            ValueError: if the observations are of no known layout, or lack what this one has.
        """
        dimensions = observations.shape[-1]
        if dimensions == DIMENSIONS[self.layout]:
            return observations
        positions = _positions(observations)
        if self.layout == "franka":
            raise ValueError(f"{dimensions}-dimensional observations lack the velocities of the 'franka' layout")
        if self.layout == "qpos":
            return positions
        goals = np.broadcast_to(_goal().astype(positions.dtype), positions.shape)
        return np.concatenate((positions, goals), axis=-1)

    def render(self) -> Any:
        """A picture from the original's camera, without shadows, uint8 [480, 480, 3] (or nothing on a screen)."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            if sys.platform == "linux" and not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
                os.environ.setdefault("MUJOCO_GL", "egl")  # the one back end that needs no screen
            self.model.vis.quality.shadowsize = 0  # without a GPU they are nine tenths of the time
            self._renderer = MujocoRenderer(
                self.model, self.data, franka_env.DEFAULT_CAMERA_CONFIG, width=480, height=480
            )
        return self._renderer.render(self.render_mode)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _observe(self) -> NDArray[np.float32]:
        qpos, qvel = self.data.qpos, self.data.qvel
        reading = np.concatenate((qpos[:NUM_JOINTS], qvel[:NUM_JOINTS], qpos[NUM_JOINTS:], qvel[NUM_JOINTS:]))
        reading += self._noise * self.np_random.uniform(-1.0, 1.0, reading.size)
        self._joint_readings = reading[:NUM_JOINTS]
        observation = self._last_observation = np.empty_like(self._last_observation)
        if self.layout == "franka":
            observation[:] = reading
        else:
            observation[:NUM_POSITIONS] = reading[_FRANKA_TO_POSITIONS]
            observation[NUM_POSITIONS:] = _goal()[: observation.size - NUM_POSITIONS]
        return observation

    def _draw_order(self) -> tuple[str, ...]:
        wants_rare = self._rare is not None and bool(self.np_random.uniform() < self._rare_share)
        while True:
            drawn = self.np_random.permutation(len(SUBTASKS))[:PLAY_SUBTASKS]
            order = tuple(SUBTASKS[index] for index in drawn)
            if self._rare is None or wants_rare != self._rare.isdisjoint(pairwise(order)):
                return order

    def _credit(self) -> int:
        """Credit what is solved of the remaining sub-tasks: where the order counts, up to the first that is not."""
        remaining = self.subtasks[self._solved :]
        credited = tuple((takewhile if self.is_ordered else filter)(self.is_solved, remaining))
        if credited and not self.is_ordered:
            others = (name for name in remaining if name not in credited)
            self.subtasks = (*self.subtasks[: self._solved], *credited, *others)
        self._solved += len(credited)
        return len(credited)


def _subtasks(task: str | Sequence[str]) -> tuple[str, ...]:
    if task == PLAY:
        return SUBTASKS[:PLAY_SUBTASKS]
    if isinstance(task, str):
        if task not in TASKS:
            known = ", ".join((*TASKS, PLAY))
            raise ValueError(f"unknown kitchen task {task!r}: it is one of {known}, or a list of sub-tasks")
        return TASKS[task]
    names = tuple(task)
    for name in names:
        if name not in SUBTASKS:
            raise ValueError(f"unknown kitchen sub-task {name!r}: it is one of {', '.join(SUBTASKS)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a kitchen task is a list of different sub-tasks, at least one, got {list(names)}")
    return names


def _rare_transitions(task: str | Sequence[str], rare: str | Sequence[str], share: float) -> frozenset[tuple[str, str]]:
    transitions = frozenset(pairwise(_subtasks(rare)))
    if task != PLAY or rare == PLAY or not transitions:
        raise ValueError(f"rare {rare!r} must be a task of at least two sub-tasks, with the task 'play', not {task!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"rare_share must be in [0, 1], got {share}")
    return transitions


def _positions(observations: NDArray[Any]) -> NDArray[Any]:
    """The 30 positions of observations in any layout."""
    dimensions = observations.shape[-1]
    if dimensions not in DIMENSIONS.values():
        raise ValueError(f"observations have {dimensions} dimensions, kitchen layouts have 30, 59 or 60")
    is_franka = dimensions == DIMENSIONS["franka"]
    return observations[..., _FRANKA_TO_POSITIONS] if is_franka else observations[..., :NUM_POSITIONS]


def _is_at_goal(positions: NDArray[Any], subtask: str) -> NDArray[np.bool_]:
    """Whether the element of the sub-task is within 0.3 of its goal, in positions [..., 30]: bool [...]."""
    offset = positions.take(kitchen_env.OBS_ELEMENT_INDICES[subtask], -1) - kitchen_env.OBS_ELEMENT_GOALS[subtask]
    return np.sqrt(np.einsum("...i,...i", offset, offset)) < kitchen_env.BONUS_THRESH


@cache
def _original() -> kitchen_env.KitchenEnv:
    """The original, made once in a process: its model is 150 MB and constant, so all kitchens share it."""
    return kitchen_env.KitchenEnv()


@cache
def _goal() -> NDArray[np.float64]:
    """D4RL's goal vector [30] of the "mixed" task: zero but for the elements of its sub-tasks."""
    goal = np.zeros(NUM_POSITIONS)
    for name in TASKS["mixed"]:
        goal[kitchen_env.OBS_ELEMENT_INDICES[name]] = kitchen_env.OBS_ELEMENT_GOALS[name]
    return goal
