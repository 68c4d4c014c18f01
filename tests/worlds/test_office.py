"""The office: sub-tasks in order, layouts, trajectories that a seed and actions fix."""

import copy
import hashlib
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium.utils.env_checker import check_env

from skild_ray.envs import make_env
from skild_ray.errors import ConfigError
from skild_ray.worlds.named import load_expert
from skild_ray.worlds.office.environment import FIXED_TASK, TARGETS, OfficeEnv, Subtask
from skild_ray.worlds.office.scene import DRAWER_PLACE, DRAWER_TRAVEL, OBJECTS, TRAY_PLACE, Vector
from skild_ray.worlds.office.start import SPACING_M

REST = np.zeros(5, np.float32)
OPEN = np.array([0, 0, 0, 0, 1], np.float32)
CLOSED = -OPEN
FIXED_SUBTASKS = (
    "pick eraser",
    "place eraser in tray",
    "pick can",
    "place can in bin",
    "open drawer",
    "pick bottle",
    "place bottle in drawer",
    "close drawer",
)


def put(env: OfficeEnv, name: str, position: Vector) -> None:
    """Move an object."""
    env.scene.client.resetBasePositionAndOrientation(env.scene.objects[name], position, (0, 0, 0, 1))


def put_in_hand(env: OfficeEnv, name: str) -> None:
    put(env, name, env.arm.position)


def slide(env: OfficeEnv, opening: float) -> None:
    """Move the drawer so that it is open by a share of its travel."""
    env.scene.client.resetJointState(env.scene.drawer, 0, opening * DRAWER_TRAVEL)


def trajectory(env: OfficeEnv, seed: int, steps: int = 40) -> bytes:
    rng = np.random.default_rng(seed)
    observations = [env.reset(seed=seed)[0]]
    observations += [env.step(rng.uniform(-1, 1, 5).astype(np.float32))[0] for _ in range(steps)]
    return np.array(observations).tobytes()


@pytest.mark.filterwarnings("ignore:.*infinity.*")
@pytest.mark.parametrize("layouts", [{}, {"observation": "reference", "action": "reference"}])
def test_gymnasium_accepts_it(layouts: dict[str, Any]) -> None:
    check_env(gym.make("skild_ray/Office-v0", **layouts).unwrapped, skip_render_check=True)


def test_a_seed_fixes_the_trajectory_in_every_process() -> None:
    program = "import sys, test_office as t; print(t.hashlib.sha256(t.trajectory(t.OfficeEnv(), 7)).hexdigest())"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[*sys.path, __file__.rpartition('/')[0]]}; {program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    env = OfficeEnv()
    other = trajectory(env, 8)
    first = trajectory(env, 7)  # not the first episode of this world
    assert first != other
    assert done.stdout.strip() == hashlib.sha256(first).hexdigest()
    assert trajectory(copy.deepcopy(env), 7) == first


def test_random_actions_stay_finite_and_within_reach() -> None:
    env = OfficeEnv("random")
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(350):
        observation, _, _, over, _ = env.step(env.action_space.sample())
        assert np.isfinite(observation).all()
        assert np.abs(env.arm.position).max() < 0.9
    assert over


def test_episodes_leave_no_memory_behind() -> None:
    env, process = OfficeEnv(), psutil.Process()
    for _ in range(3):
        env.reset()
    before = process.memory_info().rss
    for _ in range(20):
        env.reset()
        env.step(REST)
    assert process.memory_info().rss - before < 20e6


def test_layouts_show_the_same_state() -> None:
    compact, reference = OfficeEnv(), OfficeEnv(observation="reference", action="reference")
    one, other = compact.reset(seed=3)[0], reference.reset(seed=3)[0]
    action = np.array([0.5, -0.7, 0.3, 0.4, -1.0], np.float32)
    for _ in range(3):
        one = compact.step(action)[0]
        # Roll, pitch and neutral are without effect.
        other = reference.step(np.array([*action[:3], 0.9, -0.9, *action[3:], 1.0], np.float32))[0]
    assert one.shape == (60,) and other.shape == (97,)
    np.testing.assert_array_equal(one[:49], other[:49])
    np.testing.assert_array_equal(one[49:59], other[73:83])
    np.testing.assert_allclose(other[70:73], np.add(DRAWER_PLACE, (0, 0.158 + one[59], 0.085)), atol=1e-6)
    at_start = reference.reset(seed=4)[0]
    np.testing.assert_array_equal(at_start[49:70], other[49:70])
    np.testing.assert_array_equal(at_start[83:], other[83:])


def test_actions_move_the_hand() -> None:
    env = OfficeEnv()
    env.reset(seed=0)
    start, yaw = env.arm.position, env.arm.yaw
    for _ in range(4):
        observation = env.step(np.array([0.5, -0.5, -0.5, 0.5, -1.0], np.float32))[0]
    np.testing.assert_allclose(env.arm.position - start, [0.06, -0.06, -0.06], atol=0.015)
    assert env.arm.yaw - yaw == pytest.approx(0.3, abs=0.08)
    np.testing.assert_allclose(observation[49:52], env.arm.position, atol=1e-6)
    assert observation[58] == 0 and observation[56:58].max() < 0.01
    assert env.step(REST)[0][58] == 0, "the gripper keeps its command"
    assert env.step(OPEN)[0][58] == 1


def test_sub_tasks_count_in_their_order_only() -> None:
    env = OfficeEnv()
    assert env.subtasks == FIXED_SUBTASKS
    assert env.reset(seed=0)[1] == {"subtasks_solved": 0}
    assert env.step(OPEN)[1:] == (0.0, False, False, {"subtasks_solved": 0})
    put_in_hand(env, "can")
    assert env.step(OPEN)[1] == 0.0, "it is the eraser's turn"
    put(env, "can", (0.56, 0.08, 0.04))
    put_in_hand(env, "eraser")
    assert env.step(OPEN)[1:] == (1.0, False, False, {"subtasks_solved": 1})
    put(env, "eraser", np.add(TRAY_PLACE, (0.0, 0.0, 0.04)))
    assert env.step(OPEN)[1] == 1.0
    put_in_hand(env, "can")
    assert env.step(OPEN)[1] == 1.0
    put(env, "can", np.add(env.target("bin")[0], (0.0, 0.0, 0.06)))
    assert env.step(OPEN)[1] == 1.0
    slide(env, 0.7)
    assert env.step(OPEN)[1] == 0.0
    slide(env, 0.9)
    assert env.step(OPEN)[1] == 1.0
    put_in_hand(env, "bottle")
    assert env.step(OPEN)[1] == 1.0
    put(env, "bottle", np.add(env.target("drawer")[0], (0.0, 0.0, 0.06)))
    assert env.step(OPEN)[1] == 1.0
    slide(env, 0.2)
    assert env.step(OPEN)[1:] == (1.0, True, False, {"subtasks_solved": 8})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(OPEN)


def test_placing_needs_a_gripper_that_has_let_go() -> None:
    env = OfficeEnv(["eraser to tray"])
    env.reset(seed=0)
    place = Subtask("place", "eraser", "tray")
    put(env, "eraser", np.add(TRAY_PLACE, (0.0, 0.0, 0.04)))
    for _ in range(6):
        env.step(CLOSED)
    assert not env.is_solved(place)
    env.step(OPEN)
    assert not env.is_solved(place), "the fingers are on their way"
    for _ in range(4):
        env.step(REST)
    assert env.is_solved(place)
    put(env, "eraser", np.add(TRAY_PLACE, (0.0, 0.0, 0.10)))
    assert not env.is_solved(place), "above the rim"


def test_the_drawer_takes_its_inside_along() -> None:
    env = OfficeEnv(["cup to drawer"])
    env.reset(seed=0)
    place = Subtask("place", "cup", "drawer")
    put(env, "cup", np.add(DRAWER_PLACE, (0.0, DRAWER_TRAVEL, 0.05)))
    assert not env.is_solved(place), "in front of a closed drawer"
    slide(env, 1.0)
    assert env.is_solved(place)


def test_random_tasks_are_drawn_at_every_reset() -> None:
    env, twin = OfficeEnv("random"), OfficeEnv("random")
    assert env.subtasks == FIXED_SUBTASKS
    tasks = []
    for seed in (3, *[None] * 7):
        env.reset(seed=seed)
        twin.reset(seed=seed)
        assert env.subtasks == twin.subtasks and len(env.subtasks) == 8
        placed = [goal for goal in env.goals if goal.verb == "place"]
        assert len({goal.object for goal in placed}) == 3
        assert sorted(goal.target for goal in placed) == sorted(TARGETS)
        tasks.append(env.subtasks)
    assert len(set(tasks)) > 5


def test_tasks_of_ones_own() -> None:
    assert OfficeEnv("cup to bin").subtasks == ("pick cup", "place cup in bin")
    env = OfficeEnv(["cup to drawer", "eraser to bin"])
    assert env.subtasks[0] == "open drawer" and env.subtasks[3:] == (
        "close drawer",
        "pick eraser",
        "place eraser in bin",
    )
    assert OfficeEnv(FIXED_TASK).subtasks == FIXED_SUBTASKS


def test_with_the_fixed_start_objects_stand_about_their_places() -> None:
    env = OfficeEnv(start="fixed", position_jitter=0.02)
    env.reset(seed=0)
    for name, thing in OBJECTS.items():
        position, quaternion = env.scene.object_pose(name)
        assert np.abs(np.subtract(position[:2], thing.place)).max() < 0.021
        assert position[2] == pytest.approx(thing.rest_height, abs=2e-3)
        assert abs(2 * np.arcsin(quaternion[2])) < 0.26
    assert env.scene.drawer_opening() == pytest.approx(0.0, abs=1e-4)


def test_with_the_shifted_start_every_object_stays_about_its_own_place() -> None:
    env = OfficeEnv(start="shifted")
    offsets, openings = [], []
    for seed in range(20):
        env.reset(seed=seed)
        offsets += [np.subtract(env.scene.object_pose(name)[0][:2], thing.place) for name, thing in OBJECTS.items()]
        openings.append(env.scene.drawer_opening())
    assert 0.04 < np.abs(offsets).max() < 0.052
    assert np.ptp(openings) > 0.2 * DRAWER_TRAVEL


def test_varied_starts_are_drawn_at_every_reset() -> None:
    env, twin = OfficeEnv(), OfficeEnv()
    slots = np.array([thing.place for thing in OBJECTS.values()])
    taken, openings, yaws = set(), [], []
    for seed in range(30):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], twin.reset(seed=seed)[0])
        poses = [env.scene.object_pose(name) for name in OBJECTS]
        centres = np.array([position[:2] for position, _ in poses])
        for (position, quaternion), thing in zip(poses, OBJECTS.values(), strict=True):
            assert position[2] == pytest.approx(thing.rest_height, abs=2e-3), "it stands on the desk"
            yaws.append(2 * np.arctan2(quaternion[2], quaternion[3]))
        apart = np.linalg.norm(centres[:, None] - centres, axis=-1) + np.eye(len(centres))
        assert apart.min() > SPACING_M - 2e-3
        near = [np.flatnonzero(np.abs(slots - centre).max(1) < 0.052) for centre in centres]
        assert all(len(places) for places in near)
        taken.update((int(index), int(place)) for index, places in enumerate(near) for place in places)
        openings.append(env.scene.drawer_opening() / DRAWER_TRAVEL)
    assert len(taken) > 40, "of the 49 pairs of object and place"
    assert 0 <= min(openings) < 0.1 and 0.3 < max(openings) < 0.41
    assert np.ptp(np.sin(yaws)) > 1.9 and np.ptp(np.cos(yaws)) > 1.9


def test_truncates_at_the_step_limit() -> None:
    env = OfficeEnv(max_episode_steps=2)
    env.reset(seed=0)
    assert [env.step(REST)[3] for _ in range(2)] == [False, True]
    with pytest.raises(gym.error.ResetNeeded):
        env.step(REST)


def test_actions_that_are_not_finite_are_errors() -> None:
    env = OfficeEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.full(5, np.nan, np.float32))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "tidy"}, "'tidy'.*fixed, random"),
        ({"task": ["mug to tray"]}, "'mug to tray'.*eraser, can"),
        ({"task": ["cup to floor"]}, "'cup to floor'.*tray, bin, drawer"),
        ({"task": ["cup to tray", "can to tray"]}, "different targets"),
        ({"task": []}, "at least one"),
        ({"observation": "pixels"}, "unknown observation layout 'pixels'.*compact, reference"),
        ({"action": "joints"}, "unknown action layout 'joints'.*compact, reference"),
        ({"render_mode": "human"}, "'human'.*rgb_array"),
        ({"start": "random"}, "unknown start 'random'.*varied, shifted, fixed"),
        ({"position_jitter": 0.2}, r"in \[0, 0.08\].*got 0.2"),
    ],
)
def test_unknown_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OfficeEnv(**kwargs)


def test_without_pybullet_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if "office" in name and name.startswith("skild_ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pybullet", None)  # as if it were not there
    for make in (lambda: make_env("skild_ray/Office-v0", {}), lambda: load_expert("office")):
        with pytest.raises(ConfigError, match=r"PyBullet: pip install 'skild_ray\[office\]'$"):
            make()
    make_env("skild_ray/Maze-v0", {})
