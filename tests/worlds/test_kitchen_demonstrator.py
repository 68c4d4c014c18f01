"""The kitchen's demonstrator."""

from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES

from skild_ray.config import Environment, Generate
from skild_ray.data.minari_store import read_minari
from skild_ray.generation.generate import generate
from skild_ray.worlds.kitchen.demonstrator import KitchenExpert
from skild_ray.worlds.kitchen.environment import SUBTASKS, TASKS, KitchenEnv
from skild_ray.worlds.kitchen.motion import Arm
from skild_ray.worlds.maze.environment import MazeEnv
from skild_ray.worlds.named import load_expert

NO_VARIETY = {"jitter": 0.0, "slowest": 1.0, "detours": 0.0, "pauses": 0.0, "holds": 0.0}


def demonstrate(
    env: KitchenEnv, seed: int, noise: float = 0.0, max_steps: int | None = None, **kwargs: Any
) -> tuple[bool, np.ndarray, np.ndarray]:
    """Whether the episode solves all sub-tasks, its observations and its clean actions."""
    rng = np.random.default_rng(100 + seed)
    observation, _ = env.reset(seed=seed)
    expert = KitchenExpert(env, np.random.default_rng(seed), **kwargs)
    expert.reset(observation)
    observations, actions = [observation], []
    terminated = truncated = False
    while not (terminated or truncated or len(actions) == max_steps):
        action = expert.act(observation)
        assert action.dtype == np.float32 and action.shape == (9,)
        assert np.isfinite(action).all() and np.abs(action).max() <= 1.0
        actions.append(action)
        observation, _, terminated, truncated, _ = env.step(action + noise * rng.standard_normal(9, np.float32))
        observations.append(observation)
    return terminated, np.array(observations), np.array(actions)


@pytest.mark.parametrize("task", TASKS)
def test_solves_the_named_tasks(task: str) -> None:
    env = KitchenEnv(task)
    assert all(demonstrate(env, seed)[0] for seed in (0, 1))


@pytest.mark.parametrize("task", ["kbts", "mlsh"])
def test_solves_them_from_varied_starts(task: str) -> None:
    env = KitchenEnv(task, start="varied")
    assert all(demonstrate(env, seed)[0] for seed in (2, 3))


@pytest.mark.parametrize("subtask", SUBTASKS)
def test_solves_every_sub_task_alone(subtask: str) -> None:
    assert demonstrate(KitchenEnv([subtask], max_episode_steps=120), seed=2)[0]


@pytest.mark.parametrize("offset", [-0.008, 0.008])
@pytest.mark.parametrize("knob", ["bottom burner", "top burner"])
def test_a_knob_need_not_be_met_exactly(knob: str, offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that learn from the demonstrations will miss by so much."""
    position = Arm.position.fget
    assert position is not None
    monkeypatch.setattr(Arm, "position", property(lambda arm: position(arm) - [0.0, 0.0, offset]))
    env = KitchenEnv([knob], max_episode_steps=55)
    assert all(demonstrate(env, seed, noise=0.05, **NO_VARIETY)[0] for seed in range(4))


def test_solves_random_orders() -> None:
    env = KitchenEnv("play", max_episode_steps=400)
    assert all(demonstrate(env, seed)[0] for seed in (0, 1, 2))


def test_reaches_past_the_open_door() -> None:
    env = KitchenEnv(["hinge cabinet", "microwave", "slide cabinet"])
    assert demonstrate(env, seed=0)[0]


def test_solves_a_task_although_its_actions_are_disturbed() -> None:
    assert demonstrate(KitchenEnv("mlsh"), seed=3, noise=0.1)[0]


def test_tries_again() -> None:
    env = KitchenEnv(["light switch"])
    observation, _ = env.reset(seed=0)
    expert = KitchenExpert(env, np.random.default_rng(0))
    expert.reset(observation)
    terminated, steps = False, 0
    while not terminated:
        action = expert.act(observation)
        is_held_back = steps < 150  # the first attempt is in vain
        observation, _, terminated, truncated, _ = env.step(np.zeros_like(action) if is_held_back else action)
        steps += 1
        assert not truncated
    assert steps > 150


def test_leaves_other_elements_alone() -> None:
    env = KitchenEnv("mixed")
    demonstrate(env, seed=4)
    untouched = [name for name in SUBTASKS if name not in TASKS["mixed"]]
    env_at_start = KitchenEnv()
    env_at_start.reset(seed=0)
    for name in untouched:
        index = OBS_ELEMENT_INDICES[name]
        assert np.linalg.norm(env.data.qpos[index] - env_at_start.data.qpos[index]) < 0.1
        assert np.linalg.norm(env.data.qpos[index] - OBS_ELEMENT_GOALS[name]) > 0.3


def test_holds_still_when_nothing_is_left() -> None:
    env = KitchenEnv(["kettle"])
    observation, _ = env.reset(seed=0)
    expert = KitchenExpert(env, np.random.default_rng(0))
    expert.reset(observation)
    terminated = False
    while not terminated:
        observation, _, terminated, _, _ = env.step(expert.act(observation))
    actions = np.array([expert.act(observation) for _ in range(100)])
    # The arm's weight needs some of the action.
    assert np.abs(actions[50:, :7]).max() < 0.3


def test_generator_decides_everything() -> None:
    env = KitchenEnv("kbts")
    actions = [demonstrate(env, seed, max_steps=60)[2] for seed in (5, 5, 6)]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert (actions[0] != actions[2]).any()


def test_demonstrations_differ() -> None:
    env = KitchenEnv(["microwave"], robot_noise_ratio=0.0, object_noise_ratio=0.0)

    def spread(**kwargs: Any) -> float:
        """Largest distance in rad of the arm from the nearest posture of the other demonstration."""
        one, other = (demonstrate(env, seed, **kwargs)[1][:, :7] for seed in (7, 8))
        return float(np.linalg.norm(one[:, None] - other[None], axis=-1).min(1).max())

    assert spread() > 0.15
    assert spread(**NO_VARIETY) < 0.05


def test_needs_a_kitchen() -> None:
    with pytest.raises(TypeError, match="acts in a KitchenEnv, not in a MazeEnv"):
        KitchenExpert(MazeEnv(), np.random.default_rng(0))


def test_is_found_by_name_and_through_wrappers() -> None:
    assert load_expert("kitchen") is KitchenExpert
    env = gym.wrappers.RecordEpisodeStatistics(KitchenEnv())
    observation, _ = env.reset(seed=0)
    expert = KitchenExpert(env, np.random.default_rng(0))
    expert.reset(observation)
    assert expert.act(observation).shape == (9,)


@pytest.mark.usefixtures("ray_session", "minari_root")
def test_play_data_know_their_orders() -> None:
    source = Generate(
        expert="kitchen", episodes=3, env_kwargs={"task": "play", "max_episode_steps": 400}, action_noise=0.05
    )
    name = generate(source, Environment(id="skild_ray/Kitchen-v0", kwargs={"observation": "qpos"}), seed=0)
    orders = [episode.subtasks for episode in read_minari(name)]
    assert len(set(orders)) == 3
    assert all(len(set(order)) == 4 and set(order) <= set(SUBTASKS) for order in orders)
    dataset = minari.load_dataset(name)
    env = KitchenEnv("play")
    for episode, metadata, order in zip(dataset, dataset.storage.get_episode_metadata(range(3)), orders, strict=True):
        env.reset(seed=int(metadata["seed"]))
        assert env.subtasks == order
        assert episode.rewards.sum() == 4 and episode.terminations[-1]
        assert len(episode.actions) <= 400
