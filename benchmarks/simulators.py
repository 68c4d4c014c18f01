"""Environment steps of one core without any learning: raw physics, Gymnasium, the skill-level environment."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import gymnasium as gym
import gymnasium_robotics  # noqa: F401 (registers the original environments)
import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Measurement, rate
from skild_ray.algorithms.train import algorithm_config
from skild_ray.config import Experiment
from skild_ray.envs import make_env
from skild_ray.worlds.maze.environment import START
from skild_ray.worlds.maze.layout import cell_of

World = Literal["maze", "kitchen", "office", "scene", "cube-double", "puzzle-3x3"]
ORIGINALS = ("maze", "kitchen")
"""Worlds of which gymnasium-robotics has one, too."""

CONTROL_STEPS = 250


def simulator_measurements(world: World, experiment: Experiment, num_envs: int) -> list[Measurement]:
    """Rates of the simulators on one core, `num_envs` environments in the skill-level one.

    raw_env_steps_per_s: the simulator's steps of our environment's model, one environment step being as many as the
        environment takes; the control signals are those of an episode with random actions.
    raw_original_env_steps_per_s: the same with gymnasium-robotics' own model, of ORIGINALS.
    gym_env_steps_per_s: `step` of the environment with random actions.
    skill_env_steps_per_s: `SkillVectorEnv` with random skills, its decoder on one torch thread.
    """
    env = make_env(experiment.environment.id, experiment.environment.arguments)
    physics = {"raw_env_steps_per_s": _office_physics(experiment)} if world == "office" else _mujoco_physics(world, env)
    gym_steps, skill_steps = _gym_steps(env), _skill_steps(experiment, num_envs)

    def skills(seconds: float) -> dict[str, float]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return {"skill_env_steps_per_s": rate(skill_steps, seconds)}
        finally:
            torch.set_num_threads(threads)

    def raw(name: str, seconds: float) -> dict[str, float]:
        return {name: rate(physics[name], seconds)}

    return [
        *(partial(raw, name) for name in physics),
        lambda seconds: {"gym_env_steps_per_s": rate(gym_steps, seconds)},
        skills,
    ]


def _mujoco_physics(world: World, env: Any) -> dict[str, Callable[[], int]]:
    parts = {"maze": _maze, "kitchen": _kitchen}.get(world, _ogbench)
    model, data, frame_skip = parts(env)
    start, controls = _random_controls(env, data)
    ours = {"raw_env_steps_per_s": _physics(model, start, controls, frame_skip)}
    if world not in ORIGINALS:
        return ours
    original_model, original_start = _original_maze(env) if world == "maze" else _original_kitchen()
    original = _physics(original_model, original_start, controls, frame_skip)
    return ours | {"raw_original_env_steps_per_s": original}


def _office_physics(experiment: Experiment) -> Callable[[], int]:
    """Sends the arm to the set-points of an episode with random actions; returns how many there were."""
    from skild_ray.worlds.office.environment import PHYSICS_STEPS  # needs an extra

    env: Any = make_env(experiment.environment.id, experiment.environment.arguments)
    env.action_space.seed(0)
    env.reset(seed=0)
    client = env.scene.client
    start = client.saveState()
    set_points = []
    for _ in range(CONTROL_STEPS):
        env.step(env.action_space.sample())
        set_points.append((env.arm.set_point, env.arm.is_open))
    scene, arm = env.scene, env.arm

    def play() -> int:
        client.restoreState(start)
        for set_point, is_open in set_points:
            arm.drive(set_point, is_open)
            scene.step(PHYSICS_STEPS)
        return len(set_points)

    return play


def _maze(env: Any) -> tuple[mujoco.MjModel, mujoco.MjData, int]:
    return env._model, env._data, 1


def _kitchen(env: Any) -> tuple[mujoco.MjModel, mujoco.MjData, int]:
    return env.model, env.data, env._frame_skip


def _ogbench(env: Any) -> tuple[mujoco.MjModel, mujoco.MjData, int]:
    env.reset(seed=0)  # compiles the model
    return env.ogbench._model, env.ogbench._data, env.ogbench._n_steps


def _original_maze(env: Any) -> tuple[mujoco.MjModel, NDArray[np.float64]]:
    """gymnasium-robotics' point maze of the same layout, one box a wall cell, and its joints with the point at START.

    Its rows run along -y and its columns along x; the origin is the centre of the map.
    """
    walls = env.walls
    original: Any = gym.make("PointMaze_UMaze-v3", maze_map=walls.T[::-1].astype(int).tolist()).unwrapped
    column, row_from_below = cell_of(*START)
    cell = np.array([walls.shape[1] - 1 - row_from_below, column])
    return original.model, original.maze.cell_rowcol_to_xy(cell)


def _original_kitchen() -> tuple[mujoco.MjModel, NDArray[np.float64]]:
    original: Any = gym.make("FrankaKitchen-v1").unwrapped
    original.reset(seed=0)
    return original.model, original.data.qpos.copy()


def _random_controls(env: gym.Env, data: mujoco.MjData) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Joint positions at the start of an episode, and the control signals [T, nu] of its first steps."""
    env.action_space.seed(0)
    env.reset(seed=0)
    start = data.qpos.copy()
    controls = []
    for _ in range(CONTROL_STEPS):
        env.step(env.action_space.sample())
        controls.append(data.ctrl.copy())
    return start, np.stack(controls)


def _physics(
    model: mujoco.MjModel, start: NDArray[np.float64], controls: NDArray[np.float64], frame_skip: int
) -> Callable[[], int]:
    """Plays the control signals from the start; returns how many there were."""
    data = mujoco.MjData(model)
    ctrl = data.ctrl

    def play() -> int:
        mujoco.mj_resetData(model, data)
        data.qpos[:] = start
        for control in controls:
            ctrl[:] = control
            mujoco.mj_step(model, data, frame_skip)
        return len(controls)

    return play


def _gym_steps(env: gym.Env) -> Callable[[], int]:
    """Takes random actions; returns how many."""
    env.action_space.seed(1)
    actions = [env.action_space.sample() for _ in range(CONTROL_STEPS)]
    env.reset(seed=1)

    def play() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return len(actions)

    return play


def _skill_steps(experiment: Experiment, num_envs: int) -> Callable[[], int]:
    """Takes random skills in the environment of an env runner; returns their environment steps."""
    environment = experiment.environment
    makers = [partial(make_env, environment.id, environment.arguments)] * num_envs
    env = algorithm_config(experiment).make_vector_env(makers)
    skills = np.random.default_rng(0).standard_normal((16, *(env.action_space.shape or ())), np.float32)
    env.reset(seed=0)

    def play() -> int:
        return sum(int(env.step(latents)[4]["k"].sum()) for latents in skills)

    return play
