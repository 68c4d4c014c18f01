"""The kitchen: the original's physics, sub-tasks in order, observation layouts."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import gymnasium_robotics  # noqa: F401 (registers the original)
import minari
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES

from skild_ray.envs import make_env
from skild_ray.worlds.kitchen.environment import SUBTASKS, TASKS, KitchenEnv
from skild_ray.worlds.kitchen.start import RANGES

REST = np.zeros(9, np.float32)


def put(env: KitchenEnv, *subtasks: str) -> None:
    """Move the elements of sub-tasks to their goals, at rest."""
    for name in subtasks:
        env.data.qpos[OBS_ELEMENT_INDICES[name]] = OBS_ELEMENT_GOALS[name]
    env.data.qvel[:] = 0


def take_away(env: KitchenEnv, subtask: str) -> None:
    env.data.qpos[OBS_ELEMENT_INDICES[subtask]] = 0


@pytest.mark.filterwarnings("ignore:.*infinity.*")
def test_gymnasium_accepts_it() -> None:
    check_env(KitchenEnv(), skip_render_check=True)
    other = gym.make("skild_ray/Kitchen-v0", task="mlsh", observation="qpos", reward="d4rl", start="varied")
    check_env(other.unwrapped, skip_render_check=True)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {"robot_noise_ratio": 0.1, "object_noise_ratio": 0.1}),
        ({"noise": "precise"}, {}),
        ({"noise": "precise", "robot_noise_ratio": 0.05}, {"robot_noise_ratio": 0.05}),
    ],
)
def test_observations_are_those_of_the_original_bit_for_bit(ours: dict[str, Any], theirs: dict[str, float]) -> None:
    original = gym.make("FrankaKitchen-v1", terminate_on_tasks_completed=False, **theirs)
    env = make_env("skild_ray/Kitchen-v0", {"observation": "franka", **ours})
    actions = np.random.default_rng(0).uniform(-1.3, 1.3, (60, 9)).astype(np.float32)
    for seed in (7, None):  # the second episode goes on with the generator of the first
        expected, found = original.reset(seed=seed)[0], env.reset(seed=seed)[0]
        for action in actions:
            np.testing.assert_array_equal(found, expected["observation"].astype(np.float32))
            expected, found = original.step(action)[0], env.step(action)[0]
    original.close()


def test_layouts_show_the_same_readings() -> None:
    observations = {}
    for layout in ("franka", "qpos", "d4rl"):
        env = KitchenEnv(observation=layout)  # type: ignore[arg-type]
        env.reset(seed=1)
        observations[layout] = env.step(np.full(9, 0.5, np.float32))[0]
        assert env.observation_space.contains(observations[layout])
    franka, qpos, d4rl = observations["franka"], observations["qpos"], observations["d4rl"]
    np.testing.assert_array_equal(qpos, np.concatenate((franka[:9], franka[18:39])))
    np.testing.assert_array_equal(d4rl[:30], qpos)
    goal = np.zeros(30, np.float32)
    goal[[11, 12, 17, 18, 22]] = -0.88, -0.01, -0.69, -0.05, -0.75
    goal[23:] = -0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06
    np.testing.assert_array_equal(d4rl[30:], goal)


def test_same_seed_same_trajectory_and_independent_copies() -> None:
    actions = np.random.default_rng(1).uniform(-1, 1, (10, 9)).astype(np.float32)

    def rollout(env: KitchenEnv, seed: int) -> np.ndarray:
        return np.array([env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)])

    env = KitchenEnv(task="mlsh")
    twin = copy.deepcopy(env)
    assert twin.subtasks == TASKS["mlsh"]
    first = rollout(env, 3)
    np.testing.assert_array_equal(first, rollout(twin, 3))
    assert (first != rollout(env, 4)).any()


def test_sub_tasks_count_in_their_order_only() -> None:
    env = KitchenEnv(task="kbts")
    assert env.reset(seed=0)[1] == {"subtasks_solved": 0}
    assert env.step(REST)[1:] == (0.0, False, False, {"subtasks_solved": 0})
    put(env, "kettle")
    assert env.step(REST)[1:] == (1.0, False, False, {"subtasks_solved": 1})
    put(env, "top burner")
    assert env.step(REST)[1:] == (0.0, False, False, {"subtasks_solved": 1})
    put(env, "bottom burner")
    assert env.step(REST)[1:] == (2.0, False, False, {"subtasks_solved": 3})
    # What was credited may be undone.
    take_away(env, "bottom burner")
    put(env, "slide cabinet")
    assert env.step(REST)[1:] == (1.0, True, False, {"subtasks_solved": 4})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(REST)


def test_a_later_sub_task_must_hold_when_its_turn_comes() -> None:
    env = KitchenEnv(task="kbts")
    env.reset(seed=0)
    put(env, "bottom burner")
    assert env.step(REST)[1] == 0.0
    take_away(env, "bottom burner")
    put(env, "kettle")
    assert env.step(REST)[1] == 1.0


def test_all_at_once() -> None:
    env = KitchenEnv(task=["microwave", "light switch"])
    env.reset(seed=0)
    put(env, "light switch", "microwave")
    assert env.step(REST)[1:] == (2.0, True, False, {"subtasks_solved": 2})
    assert env.reset()[1] == {"subtasks_solved": 0}
    assert env.step(REST)[1:] == (0.0, False, False, {"subtasks_solved": 0})


def test_with_d4rls_reward_any_order_counts() -> None:
    env = KitchenEnv(task="kbts", reward="d4rl")
    env.reset(seed=0)
    put(env, "top burner")
    assert env.step(REST)[1:] == (1.0, False, False, {"subtasks_solved": 1})
    take_away(env, "top burner")
    put(env, "slide cabinet", "bottom burner")
    assert env.step(REST)[1:] == (2.0, False, False, {"subtasks_solved": 3})
    assert env.subtasks == ("top burner", "bottom burner", "slide cabinet", "kettle"), "as they were credited"
    put(env, "top burner")
    assert env.step(REST)[1] == 0.0, "credited once"
    put(env, "kettle")
    assert env.step(REST)[1:] == (1.0, True, False, {"subtasks_solved": 4})
    env.reset()
    assert env.subtasks == TASKS["kbts"]


def test_varied_starts_are_drawn_and_solve_nothing() -> None:
    env, twin = KitchenEnv(start="varied"), KitchenEnv(start="varied")
    env.reset(seed=3)
    start = KitchenEnv()
    start.reset(seed=3)
    drawn = []
    for seed in range(40):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], twin.reset(seed=seed)[0])
        drawn.append(env.data.qpos - start.data.qpos)
        assert not any(map(env.is_solved, SUBTASKS))
        assert env.step(REST)[1] == 0.0
    smallest, largest = np.min(drawn, 0), np.max(drawn, 0)
    moved = np.flatnonzero(largest - smallest)
    assert moved.tolist() == sorted(RANGES)
    for place, (low, high) in RANGES.items():
        assert low <= smallest[place] < largest[place] <= high
        assert largest[place] - smallest[place] > 0.8 * (high - low)


def test_play_draws_an_order_at_every_reset() -> None:
    env, twin = KitchenEnv(task="play"), KitchenEnv(task="play")
    assert env.subtasks == SUBTASKS[:4]
    orders = []
    for seed in (3, *[None] * 39):
        _, info = env.reset(seed=seed)
        twin.reset(seed=seed)
        assert env.subtasks == twin.subtasks and info == {"subtasks_solved": 0}
        orders.append(env.subtasks)
    assert all(len(set(order)) == 4 for order in orders)
    assert len(set(orders)) > 30
    for place in range(4):
        assert {order[place] for order in orders} == set(SUBTASKS)


def test_the_draw_of_an_order_is_as_it_was() -> None:
    env = KitchenEnv(task="play")
    env.reset(seed=7)
    drawn = np.random.Generator(np.random.PCG64(np.random.SeedSequence(7))).permutation(7)[:4]
    assert env.subtasks == tuple(SUBTASKS[index] for index in drawn)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_rare_transitions(share: float) -> None:
    env, twin = (KitchenEnv(task="play", rare="mlsh", rare_share=share) for _ in range(2))
    rare = set(pairwise(TASKS["mlsh"]))
    orders = []
    for seed in range(100):
        env.reset(seed=seed)
        twin.reset(seed=seed)
        assert env.subtasks == twin.subtasks and len(set(env.subtasks)) == 4
        orders.append(env.subtasks)
    count = sum(not rare.isdisjoint(pairwise(order)) for order in orders)
    assert 100 * share - 15 * (0 < share < 1) <= count <= 100 * share + 15 * (0 < share < 1)
    assert len(set(orders)) > 50


def test_play_counts_in_the_drawn_order() -> None:
    env = KitchenEnv(task="play")
    env.reset(seed=0)
    first, second, *others = env.subtasks
    put(env, second)
    assert env.step(REST)[1] == 0.0
    put(env, first)
    assert env.step(REST)[1:] == (2.0, False, False, {"subtasks_solved": 2})
    put(env, *others)
    assert env.step(REST)[1:] == (2.0, True, False, {"subtasks_solved": 4})


def test_tells_of_any_sub_task_whether_it_is_solved() -> None:
    env = KitchenEnv(task="kbts")
    env.reset(seed=0)
    assert not any(map(env.is_solved, SUBTASKS))
    put(env, "microwave")
    assert [name for name in SUBTASKS if env.is_solved(name)] == ["microwave"]


@pytest.mark.parametrize("layout", ["d4rl", "franka", "qpos"])
def test_tells_from_observations_what_is_solved(layout: Any) -> None:
    env = KitchenEnv(observation=layout)
    observations = [env.reset(seed=0)[0]]
    for name in SUBTASKS:
        put(env, name)
        observations.append(env.step(REST)[0])
    solved = KitchenEnv().solved(np.array(observations))
    assert tuple(solved) == SUBTASKS
    assert [flags.tolist() for flags in solved.values()] == [[row > index for row in range(8)] for index in range(7)]
    with pytest.raises(ValueError, match="97 dimensions"):
        env.solved(np.zeros((3, 97)))


def test_truncates_at_the_step_limit() -> None:
    env = KitchenEnv(max_episode_steps=2)
    env.reset(seed=0)
    assert [env.step(REST)[3] for _ in range(2)] == [False, True]
    with pytest.raises(gym.error.ResetNeeded):
        env.step(REST)


def test_an_unstable_simulation_ends_the_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log there
    env = KitchenEnv()
    env.reset(seed=0)
    before = env.step(REST)[0]
    env.data.qvel[25] = 1e15
    observation, reward, terminated, truncated, info = env.step(REST)
    np.testing.assert_array_equal(observation, before)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info == {"subtasks_solved": 0, "unstable": True}
    with pytest.raises(gym.error.ResetNeeded):
        env.step(REST)
    np.testing.assert_array_equal(env.reset(seed=0)[0], KitchenEnv().reset(seed=0)[0])
    assert "unstable" not in env.step(REST)[4]


def test_actions_that_are_not_finite_are_errors() -> None:
    env = KitchenEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.full(9, np.nan, np.float32))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "kbtx"}, "'kbtx'.*kbts, mlsh, mkls, mixed, play"),
        ({"task": ["kettle", "fridge"]}, "'fridge'.*kettle"),
        ({"task": []}, "at least one"),
        ({"task": ["kettle", "kettle"]}, "different"),
        ({"task": "kbts", "rare": "mlsh"}, "with the task 'play'"),
        ({"task": "play", "rare": ["kettle"]}, "at least two sub-tasks"),
        ({"task": "play", "rare": "mlsx"}, "unknown kitchen task 'mlsx'"),
        ({"task": "play", "rare": "mlsh", "rare_share": 1.5}, r"\[0, 1\], got 1.5"),
        ({"observation": "pixels"}, "'pixels'.*d4rl, franka, qpos"),
        ({"reward": "sparse"}, "unknown reward 'sparse'.*ordered, d4rl"),
        ({"noise": "none"}, "unknown noise 'none'.*d4rl, precise"),
        ({"start": "random"}, "unknown start 'random'.*fixed, varied"),
        ({"render_mode": "ascii"}, "'ascii'.*rgb_array"),
    ],
)
def test_unknown_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KitchenEnv(**kwargs)


def test_observations_of_other_layouts_are_converted() -> None:
    franka = np.arange(2 * 59, dtype=np.float32).reshape(2, 59)
    positions = np.concatenate((franka[:, :9], franka[:, 18:39]), axis=1)
    env = KitchenEnv(observation="d4rl")
    goal = env.reset(seed=0)[0][30:]
    d4rl = np.concatenate((positions, np.tile(goal, (2, 1))), axis=1)

    for own in (franka, positions, d4rl):
        converted = env.convert_observations(own)
        assert converted.dtype == np.float32
        np.testing.assert_array_equal(converted, d4rl)
        np.testing.assert_array_equal(KitchenEnv(observation="qpos").convert_observations(own), positions)
    np.testing.assert_array_equal(KitchenEnv(observation="franka").convert_observations(franka), franka)


def test_observations_that_cannot_be_converted_are_errors() -> None:
    with pytest.raises(ValueError, match="97 dimensions"):
        KitchenEnv().convert_observations(np.zeros((3, 97), np.float32))
    with pytest.raises(ValueError, match="velocities"):
        KitchenEnv(observation="franka").convert_observations(np.zeros((3, 60), np.float32))


def test_recorded_demonstrations_replay(real_data: Path) -> None:
    demonstrations = minari.load_dataset("kitchen/teleop-complete15-v2").iterate_episodes(range(4))
    env = KitchenEnv(task="mkls", observation="franka", noise="precise")
    for episode in demonstrations:
        recorded = episode.observations["observation"]
        env.reset(seed=0)
        env.data.qpos[:] = np.concatenate((recorded[0, :9], recorded[0, 18:39]))
        env.data.qvel[:] = np.concatenate((recorded[0, 9:18], recorded[0, 39:]))
        mujoco.mj_forward(env.model, env.data)
        total, terminated = 0.0, False
        for action in episode.actions:
            _, reward, terminated, _, info = env.step(action)
            total += reward
            if terminated:
                break
        assert (total, terminated, info) == (4.0, True, {"subtasks_solved": 4})
