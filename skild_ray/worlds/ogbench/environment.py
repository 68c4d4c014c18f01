"""OGBench's single tasks with named sub-tasks, and its scenes without a task for play."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from skild_ray.worlds.ogbench import judge
from skild_ray.worlds.ogbench.goals import State, Task, ends_of, task_of
from skild_ray.worlds.ogbench.package import GlobalRandom, environment_names, is_manipulation, make

Reward = Literal["subtasks", "dense", "sparse"]

PLAY = "play"
TASKS = tuple(f"task{number}" for number in range(1, 6))
PICTURE = 480
P_STACK = 0.2
"""Share of the cubes that are put onto another one in play, where there are several."""


class OGBenchEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A single task of an OGBench environment: OGBench's observations, actions, starts and success.

    With the same seed and actions a trajectory is the same, bit for bit, in any process. OGBench's single tasks report
    success, reward and end one step late (`success_timing: pre`); here they belong to the state that a step leads to.

    Sub-tasks are those of the plan from the task's first state to its goal (see `goals`), such as "unlock drawer",
    "open drawer", "cube in drawer", "close drawer". The first that remains is looked at, and credited when it is
    solved. OGBench's success credits all that remain, and nothing else credits the last one; then the episode
    terminates. Mazes have one sub-task, the goal. Play has none, and only the step limit ends it.

    Reward, in each step:
        "subtasks": 1 for each sub-task credited.
        "dense": OGBench's own: minus the number of unmet conditions (cube, drawer, each button, ... of the goal state);
            in mazes -1, or 0 at the goal.
        "sparse": -1, or 0 on success, as methods are compared on scene and puzzle-3x3.

    Args:
        name: OGBench's name of the environment, such as scene, cube-double, puzzle-3x3 or antmaze-large.
        task: "task1" to "task5"; or, where an arm acts, "play": a random scene in which one random target follows the
            other, see `next_target`.
        reward: see above. Play has none, its rewards are 0.
        max_episode_steps: steps after which an episode is truncated; default: OGBench's own limit.
        render_mode: None or "rgb_array".

    Attributes:
        ogbench: the environment of OGBench, which only reads are good for.
        state: its info of the last reset or step.
        task: what is to be done; None in play.
        credited: sub-tasks credited so far in the episode.

    Raises:
        ValueError: on an unknown name, task, reward or render mode, or an action that is not finite.
        gymnasium.error.ResetNeeded: if `step` is called before `reset` or after the end of an episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(
        self,
        name: str,
        task: str,
        reward: Reward = "subtasks",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ):
        self.task: Task | None = None
        _check(name, task, reward, render_mode)
        self.has_arm = is_manipulation(name)
        kwargs = {} if render_mode is None else {"width": PICTURE, "height": PICTURE}
        if task == PLAY:
            self.ogbench, limit = make(f"{name}-v0", kwargs | {"mode": "data_collection", "terminate_at_goal": False})
        else:
            self.ogbench, limit = make(f"{name}-singletask-{task}-v0", kwargs | {"success_timing": "post"})
            info = self.ogbench.task_infos[int(task[-1]) - 1]
            self.task = task_of(name, info)
            self._goal: State = ends_of(name, info)[1] if self.has_arm else {}
        self.subtasks = self.task.subtasks if self.task else ()
        self.reward, self.render_mode = reward, render_mode
        self.max_episode_steps = limit if max_episode_steps is None else max_episode_steps
        self._random = GlobalRandom()
        self.state: Mapping[str, Any] = {}
        self.credited = self._steps_left = 0
        self.observation_space = spaces.Box(-np.inf, np.inf, self.ogbench.observation_space.shape, np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, self.ogbench.action_space.shape, np.float32)

    @property
    def return_range(self) -> tuple[float, float]:
        """Smallest and largest return of an episode."""
        if self.task is None:
            return 0.0, 0.0
        if self.reward == "subtasks":
            return 0.0, float(len(self.subtasks))
        return -float(self.max_episode_steps * (self.task.conditions if self.reward == "dense" else 1)), 0.0

    @property
    def subtask_reward(self) -> float | None:
        """What each sub-task pays, where that is the reward and observations tell what is solved, see `solved`."""
        told = self.task is not None and self.has_arm and len(set(self.subtasks)) == len(self.subtasks)
        return 1.0 if told and self.reward == "subtasks" else None

    def solved(self, observations: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        """Whether each sub-task is solved in the observations [T, d]: bool [T]; of an arm's tasks only."""
        return judge.solved(self.task, self._goal, observations) if self.task and self.has_arm else {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode at the task's start, which differs by a centimetre and in the arm's pose."""
        super().reset(seed=seed)
        if seed is not None:
            self._random = GlobalRandom(seed % 2**32)
            if not self.has_arm:
                self.ogbench.action_space.seed(seed)  # mazes act at random before an episode
        with self._random:
            observation, self.state = self.ogbench.reset(seed=seed)
        if self.has_arm:
            observation = self._observe_afresh()
        self.credited, self._steps_left = 0, self.max_episode_steps
        return np.asarray(observation, np.float32), {"subtasks_solved": 0}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Act for one of OGBench's steps: 50 ms of an arm."""
        if self._steps_left <= 0:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        wanted = np.asarray(action, np.float64)
        if not np.isfinite(wanted).all():
            raise ValueError(f"the action must be finite, got {action}")
        self._steps_left -= 1
        with self._random:
            observation, dense, success, _, self.state = self.ogbench.step(np.minimum(np.maximum(wanted, -1.0), 1.0))
        credited = self._credit(bool(success))
        truncated = self._steps_left == 0 and not success
        if success:
            self._steps_left = 0
        reward = 0.0
        if self.task is not None:
            rewards = {"subtasks": float(credited), "dense": float(dense), "sparse": float(success) - 1.0}
            reward = rewards[self.reward]
        info = {"subtasks_solved": self.credited}
        return np.asarray(observation, np.float32), reward, bool(success), truncated, info

    def next_target(self) -> Mapping[str, Any]:
        """Draw what to do next in play, as OGBench does when it records; the state with it."""
        _, self.state = self.ogbench.set_new_target(p_stack=P_STACK)
        return self.state

    def render(self) -> Any:
        """A picture from OGBench's camera, uint8 [480, 480, 3]."""
        return None if self.render_mode is None else self.ogbench.render()

    def close(self) -> None:
        self.ogbench.close()

    def _credit(self, success: bool) -> int:
        """Credit what is solved of the remaining sub-tasks, up to the first that is not; all of them on success."""
        before, last = self.credited, len(self.subtasks) - 1
        if success:
            self.credited = len(self.subtasks)
        while self.task is not None and self.credited < last and self.task.is_solved(self.credited, self.state):
            self.credited += 1
        return self.credited - before

    def _observe_afresh(self) -> NDArray[np.float64]:
        """The first observation, in which nothing is left of the actions that OGBench chooses before an episode.

        They come from a generator that nobody can seed, and stay in the solver's first guess and in the contact forces.
        """
        model, data = self.ogbench.model, self.ogbench.data
        data.ctrl[:] = 0.0
        data.qacc_warmstart[:] = 0.0
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        self.state = self.ogbench.get_reset_info()
        observation: NDArray[np.float64] = self.ogbench.compute_observation()
        return observation


def _check(name: str, task: str, reward: str, render_mode: str | None) -> None:
    if name not in environment_names():
        raise ValueError(f"unknown OGBench environment {name!r}: it is one of {', '.join(environment_names())}")
    if task not in (*TASKS, PLAY):
        raise ValueError(f"unknown OGBench task {task!r}: it is one of {', '.join(TASKS)}, or {PLAY}")
    if task == PLAY and not is_manipulation(name):
        raise ValueError(f"OGBench's {name} has no {PLAY}, only {', '.join(TASKS)}")
    if reward not in get_args(Reward):
        raise ValueError(f"unknown reward {reward!r}: it is one of {', '.join(get_args(Reward))}")
    if render_mode not in (None, *OGBenchEnv.metadata["render_modes"]):
        raise ValueError(f"unknown render mode {render_mode!r}: it is None or rgb_array")
