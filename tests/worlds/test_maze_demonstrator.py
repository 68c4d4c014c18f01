"""The maze's demonstrator."""

import numpy as np
import pytest
from numpy.typing import NDArray

from skild_ray.errors import ConfigError
from skild_ray.worlds.maze.demonstrator import MazeExpert
from skild_ray.worlds.maze.environment import MazeEnv
from skild_ray.worlds.named import load_expert


def demonstrate(env: MazeEnv, expert: MazeExpert, seed: int | None = None) -> tuple[bool, NDArray[np.float32]]:
    """Whether the episode reaches the target, and its observations."""
    observation, _ = env.reset(seed=seed)
    expert.reset(observation)
    observations = [observation]
    while True:
        action = expert.act(observation)
        assert action.dtype == np.float32
        assert np.abs(action).max() <= 1.0
        observation, _, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        if terminated or truncated:
            return terminated, np.array(observations)


@pytest.mark.parametrize(("task", "episodes", "mean_steps"), [("target", 20, (800, 1000)), ("random", 60, (800, 1100))])
def test_reaches_the_target(task: str, episodes: int, mean_steps: tuple[int, int]) -> None:
    env = MazeEnv(task=task)  # type: ignore[arg-type]
    expert = MazeExpert(env, np.random.default_rng(0))
    outcomes = [demonstrate(env, expert, seed) for seed in range(episodes)]
    assert sum(reached for reached, _ in outcomes) >= 0.99 * episodes
    assert mean_steps[0] < np.mean([len(observations) for _, observations in outcomes]) < mean_steps[1]


def test_reaches_the_target_through_action_noise() -> None:
    env = MazeEnv(task="random")
    rng = np.random.default_rng(1)
    expert = MazeExpert(env, np.random.default_rng(0))
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        expert.reset(observation)
        terminated = truncated = False
        while not (terminated or truncated):
            action = expert.act(observation) + rng.normal(0.0, 0.5, 2)
            observation, _, terminated, truncated, _ = env.step(action)
        assert terminated


def test_generator_decides_the_path() -> None:
    env = MazeEnv()
    paths = [demonstrate(env, MazeExpert(env, np.random.default_rng(seed)), seed=0)[1] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(paths[0], paths[1])
    shorter = min(len(paths[0]), len(paths[2]))
    assert np.abs(paths[0][:shorter, :2] - paths[2][:shorter, :2]).max() > 0.5


def test_plans_for_the_target_of_each_episode() -> None:
    env = MazeEnv(task="random")
    expert = MazeExpert(env, np.random.default_rng(0))
    for seed in (7, 8):
        reached, observations = demonstrate(env, expert, seed)
        assert reached
        assert np.linalg.norm(observations[-1, :2] - env.target) <= env.target_radius


def test_experts_by_name() -> None:
    assert load_expert("maze") is MazeExpert
    assert load_expert("skild_ray.worlds.maze.demonstrator:MazeExpert") is MazeExpert


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maize", "unknown expert 'maize': it is one of maze"),
        ("no_such_module:Expert", "cannot import 'no_such_module'"),
        ("skild_ray.worlds.maze.demonstrator:Nobody", "has no class 'Nobody'"),
        ("skild_ray.worlds.maze.demonstrator:cell_of", "has no class 'cell_of'"),
    ],
)
def test_errors_name_the_expert(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_expert(name)
