"""The maze environment: physics, episodes, reward."""

import copy
import math
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

import skild_ray.worlds  # noqa: F401 (registers the environments)
from skild_ray.worlds.maze.environment import MazeEnv
from skild_ray.worlds.maze.layout import cell_of, distances_to, touches_wall

MASS = 4 / 3 * math.pi * 0.1**3 * 1000


def rollout(env: MazeEnv, seed: int, steps: int = 300) -> NDArray[np.float32]:
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps // 10, 2)).repeat(10, axis=0).astype(np.float32)
    observations = [env.reset(seed=seed)[0]]
    observations += [env.step(action)[0] for action in actions]
    return np.array(observations)


def drive(env: MazeEnv, action: tuple[float, float], steps: int) -> NDArray[np.float32]:
    for _ in range(steps):
        observation = env.step(np.array(action, np.float32))[0]
    return observation


@pytest.mark.filterwarnings("ignore:.*(infinity|Not able to test).*")
@pytest.mark.parametrize("task", ["target", "random"])
def test_gymnasium_accepts_it(task: str) -> None:
    check_env(MazeEnv(task=task, max_episode_steps=50))  # type: ignore[arg-type]
    check_env(gym.make("skild_ray/Maze-v0", task=task).unwrapped)


def test_same_seed_same_trajectory() -> None:
    env = MazeEnv()
    first = rollout(env, seed=3)
    np.testing.assert_array_equal(first, rollout(env, seed=3))
    np.testing.assert_array_equal(first, rollout(MazeEnv(), seed=3))
    assert (first[0] != rollout(env, seed=4)[0]).any()


def test_episodes_after_a_seeded_one_differ_but_are_reproducible() -> None:
    env, other = MazeEnv(task="random"), MazeEnv(task="random")
    env.reset(seed=0), other.reset(seed=0)
    second, its_twin = env.reset()[0], other.reset()[0]
    np.testing.assert_array_equal(second, its_twin)
    assert (env.reset()[0] != second).any()


def test_fixed_task_starts_around_the_start_clear_of_walls() -> None:
    env = MazeEnv()
    env.reset(seed=0)
    reachable = distances_to((18, 8), env.walls)
    starts = []
    for _ in range(500):
        observation, info = env.reset()
        assert info == {"subtasks_solved": 0}
        assert not touches_wall(env.walls, *env.start, 0.1)
        assert cell_of(*env.start) in reachable
        # Nothing pushes a point that touches nothing.
        np.testing.assert_allclose(observation, [*env.start, 0.0, 0.0], atol=1e-6)
        np.testing.assert_array_equal(env.target, [18.0, 8.0])
        starts.append(env.start)
    assert np.abs(np.array(starts) - [10.0, 24.0]).max() <= 2.0
    assert np.ptp(starts, axis=0).min() > 3.0


def test_random_task_joins_free_cells_all_over_the_maze() -> None:
    env = MazeEnv(task="random")
    env.reset(seed=0)
    starts, targets = [], []
    for _ in range(500):
        env.reset()
        assert not touches_wall(env.walls, *env.start, 0.1)
        assert cell_of(*env.start) in distances_to(cell_of(*env.target), env.walls)
        assert math.dist(env.start, env.target) > env.target_radius
        starts.append(env.start)
        targets.append(env.target)
    assert np.ptp(starts, axis=0).min() > 35
    assert np.ptp(targets, axis=0).min() > 35


def test_force_accelerates_the_point() -> None:
    env = MazeEnv()
    x, y, _, _ = env.reset(seed=0)[0]
    observation, *_ = env.step(np.array([0.5, -0.25], np.float32))
    # Implicit Euler with damping 1: (m + d dt) v' = m v + F dt.
    expected = np.array([50.0, -25.0]) * 0.01 / (MASS + 0.01)
    np.testing.assert_allclose(observation[2:], expected, rtol=1e-4)
    np.testing.assert_allclose(observation[:2], [x, y] + expected * 0.01, atol=1e-6)


def test_actions_are_limited() -> None:
    one, other = MazeEnv(), MazeEnv()
    one.reset(seed=0), other.reset(seed=0)
    np.testing.assert_array_equal(drive(one, (1.0, -1.0), 5), drive(other, (7.0, -3.0), 5))


def test_speed_is_limited() -> None:
    env = MazeEnv()
    env.reset(seed=0)
    # Back and forth along y in the room of the start, faster than the limit without it.
    speeds = [abs(drive(env, (0.0, math.copysign(1.0, k % 80 - 40)), 1)[3]) for k in range(400)]
    one_step = 100 * 0.01 / MASS
    assert max(speeds) <= 5.0 + one_step
    assert max(speeds) > 4.9


def test_walls_stop_the_point() -> None:
    env = MazeEnv(task="random")
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(10):
        env.reset()
        for _ in range(40):
            x, y, _, _ = drive(env, tuple(rng.choice([-1.0, 1.0], 2)), 25)
            # Contacts are soft: a hit at full speed dents a wall by less than half the point's radius.
            assert not touches_wall(env.walls, x, y, 0.05)
            if math.dist((x, y), env.target) < 5:
                break


def test_reaching_the_target_ends_the_episode_with_a_reward() -> None:
    env = MazeEnv(goal_reward=7.0, target_radius=25.0)
    env.reset(seed=0)
    assert env.target_radius == 25.0
    *_, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, truncated, info) == (7.0, True, False, {"subtasks_solved": 1})
    with pytest.raises(gym.error.ResetNeeded, match=r"reset\(\)"):
        env.step(np.zeros(2, np.float32))
    env.reset()
    env.step(np.zeros(2, np.float32))


def test_truncates_at_the_step_limit_without_reward() -> None:
    env = MazeEnv(max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[1:] for _ in range(3)]
    assert ends == [
        (0.0, False, False, {"subtasks_solved": 0}),
        (0.0, False, False, {"subtasks_solved": 0}),
        (0.0, False, True, {"subtasks_solved": 0}),
    ]
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(2, np.float32))


def test_step_before_reset_is_an_error() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        MazeEnv().step(np.zeros(2, np.float32))


@pytest.mark.parametrize("action", [(math.nan, 0.0), (0.0, math.inf)])
def test_actions_that_are_not_finite_are_errors(action: tuple[float, float]) -> None:
    env = MazeEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.array(action, np.float32))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_are_independent(duplicate) -> None:  # type: ignore[no-untyped-def]
    env = MazeEnv(max_episode_steps=400)
    expected = rollout(env, seed=5)
    twin = duplicate(env)
    assert twin.max_episode_steps == 400
    np.testing.assert_array_equal(rollout(twin, seed=5), expected)


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'goal'.*target, random"):
        MazeEnv(task="goal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'human'"):
        MazeEnv(render_mode="human")


def test_map_shows_walls_target_and_point() -> None:
    env = MazeEnv(render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render()
    assert image is not None
    assert image.shape == (420, 420, 3)
    corner, target, point = image[0, 0], image[187, 87], image[tuple(((env.start + 0.7) * 10).astype(int))]
    assert (corner == 60).all()
    assert target.argmax() == 1
    assert point.argmax() == 0
