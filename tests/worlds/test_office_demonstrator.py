"""The office's demonstrator."""

from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest

from skild_ray.config import Environment, Generate
from skild_ray.data.minari_store import read_minari
from skild_ray.data.rewards import credit, judges
from skild_ray.generation.generate import generate
from skild_ray.worlds.maze.environment import MazeEnv
from skild_ray.worlds.named import load_expert
from skild_ray.worlds.office.demonstrator import OfficeExpert
from skild_ray.worlds.office.environment import OfficeEnv
from skild_ray.worlds.office.scene import OBJECTS

NO_VARIETY = {"jitter": 0.0, "slowest": 1.0, "detours": 0.0, "pauses": 0.0}


def demonstrate(
    env: OfficeEnv, seed: int, noise: float = 0.0, max_steps: int | None = None, **kwargs: Any
) -> tuple[bool, np.ndarray]:
    """Whether the episode solves all sub-tasks, and its observations; which tell what the environment credits."""
    rng = np.random.default_rng(100 + seed)
    observation, _ = env.reset(seed=seed)
    expert = OfficeExpert(env, np.random.default_rng(seed), **kwargs)
    expert.reset(observation)
    observations, rewards = [observation], []
    terminated = truncated = False
    while not (terminated or truncated or len(observations) == max_steps):
        action = expert.act(observation)
        assert action.dtype == np.float32 and env.action_space.contains(action)
        observation, reward, terminated, truncated, _ = env.step(
            action + noise * rng.standard_normal(action.shape, np.float32)
        )
        observations.append(observation)
        rewards.append(reward)
    if judges(env):
        assert credit(np.array(observations), env).tolist() == rewards
    return terminated, np.array(observations)


def test_solves_the_fixed_task() -> None:
    for start in ("varied", "fixed"):
        solved, observations = demonstrate(OfficeEnv(start=start), seed=0)
        assert solved and len(observations) < 250
    assert judges(OfficeEnv()) and not judges(OfficeEnv("random"))


def test_solves_random_tasks_although_its_actions_are_disturbed() -> None:
    env = OfficeEnv("random")
    assert all(demonstrate(env, seed, noise=0.2)[0] for seed in (0, 1))


@pytest.mark.parametrize("name", OBJECTS)
def test_handles_every_object(name: str) -> None:
    assert demonstrate(OfficeEnv(f"{name} to drawer", max_episode_steps=150), seed=1, noise=0.1)[0]


def test_acts_in_the_reference_layouts() -> None:
    env = OfficeEnv("block to bin", observation="reference", action="reference", max_episode_steps=100)
    assert demonstrate(env, seed=2)[0]


def test_tries_again() -> None:
    env = OfficeEnv("cup to bin")
    observation, _ = env.reset(seed=0)
    expert = OfficeExpert(env, np.random.default_rng(0))
    expert.reset(observation)
    terminated, steps = False, 0
    while not terminated:
        action = expert.act(observation)
        if steps < 35:
            action[4] = 1.0  # the first attempt is in vain
        observation, _, terminated, truncated, _ = env.step(action)
        steps += 1
        assert not truncated
    assert steps > 50


def test_opens_a_drawer_that_was_shut_again() -> None:
    env = OfficeEnv("bottle to drawer")
    observation, _ = env.reset(seed=0)
    expert = OfficeExpert(env, np.random.default_rng(0))
    expert.reset(observation)
    terminated, was_shut = False, False
    while not terminated:
        observation, _, terminated, truncated, info = env.step(expert.act(observation))
        if info["subtasks_solved"] == 2 and not was_shut:
            env.scene.client.resetJointState(env.scene.drawer, 0, 0.0)
            was_shut = True
        assert not truncated
    assert was_shut


def test_the_same_generator_state_gives_the_same_demonstration() -> None:
    env = OfficeEnv()
    first, again = (demonstrate(env, 5, noise=0.1, max_steps=50)[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_demonstrations_differ() -> None:
    env = OfficeEnv(start="fixed", position_jitter=0.0)

    def spread(**kwargs: Any) -> float:
        """Largest distance in m of the hand from the nearest place of the other demonstration."""
        one, other = (demonstrate(env, seed, max_steps=90, **kwargs)[1][:, 49:52] for seed in (7, 8))
        return float(np.linalg.norm(one[:, None] - other[None], axis=-1).min(1).max())

    assert spread() > 0.025
    assert spread(**NO_VARIETY) < spread()


def test_needs_an_office() -> None:
    with pytest.raises(TypeError, match="acts in an OfficeEnv, not in a MazeEnv"):
        OfficeExpert(MazeEnv(), np.random.default_rng(0))


def test_is_found_by_name_and_through_wrappers() -> None:
    assert load_expert("office") is OfficeExpert
    env = gym.wrappers.RecordEpisodeStatistics(OfficeEnv())
    observation, _ = env.reset(seed=0)
    expert = OfficeExpert(env, np.random.default_rng(0))
    expert.reset(observation)
    assert expert.act(observation).shape == (5,)


@pytest.mark.usefixtures("ray_session", "minari_root")
def test_play_data_know_their_orders() -> None:
    source = Generate(expert="office", episodes=2, env_kwargs={"task": "random"}, action_noise=0.1)
    name = generate(source, Environment(id="skild_ray/Office-v0"), seed=0)
    orders = [episode.subtasks for episode in read_minari(name)]
    dataset = minari.load_dataset(name)
    env = OfficeEnv("random")
    for episode, metadata, order in zip(dataset, dataset.storage.get_episode_metadata(range(2)), orders, strict=True):
        env.reset(seed=int(metadata["seed"]))
        assert env.subtasks == order
        assert episode.rewards.sum() == 8 and episode.terminations[-1]
        assert len(episode.actions) <= 350
