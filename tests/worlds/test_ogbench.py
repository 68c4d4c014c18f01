"""OGBench's single tasks as worlds: sub-tasks in order, OGBench's own success, trajectories that a seed fixes."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from PIL import Image

from benchmarks.demonstrator import play
from skild_ray.config import Environment, Generate
from skild_ray.data.episode import Episode
from skild_ray.data.rewards import credit, judges
from skild_ray.envs import make_env
from skild_ray.envs.try_out import try_out
from skild_ray.generation.collect import Request, collect
from skild_ray.video.film import film, key_frame
from skild_ray.video.recording import Recording

pytest.importorskip("ogbench", reason="the extra 'ogbench' is not installed")

from skild_ray.worlds.ogbench.demonstrator import OGBenchExpert
from skild_ray.worlds.ogbench.environment import OGBenchEnv

pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered")  # pytest forgets the filter of the package

SCENE = "skild_ray/Scene-v0"
REST = np.zeros(5, np.float32)
CUBE, IN_DRAWER, IN_CLOSED_DRAWER = (0.35, 0.05, 0.02), (0.33, -0.24, 0.066), (0.33, -0.356, 0.066)


def request_of(task: str, world: str = "Scene", noise: float = 0.1, **kwargs: Any) -> Request:
    source = Generate(expert="ogbench", episodes=1, action_noise=noise, expert_kwargs=kwargs.pop("expert", {}))
    return Request.of(source, Environment(id=f"skild_ray/{world}-v0", kwargs={"task": task, **kwargs}), seed=0)


def put(
    env: OGBenchEnv,
    cube: tuple[float, float, float] = CUBE,
    buttons: tuple[int, int] = (0, 0),
    drawer: float = 0.0,
    window: float = 0.0,
) -> None:
    """Bring the scene's objects into a state."""
    data = env.ogbench.data
    data.joint("object_joint_0").qpos[:3] = cube
    data.joint("drawer_slide").qpos[0] = drawer
    data.joint("window_slide").qpos[0] = window
    env.ogbench.set_state(data.qpos.copy(), np.zeros_like(data.qvel), np.array(buttons))


def trajectory(env: OGBenchEnv, seed: int, steps: int = 25) -> bytes:
    rng = np.random.default_rng(seed)
    observations = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observations.append(env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))[0])
    return np.array(observations).tobytes()


def teleported() -> OGBenchEnv:
    """A maze whose starts and teleports are drawn from NumPy's global generator."""
    return OGBenchEnv("pointmaze-teleport", "task1")


@pytest.mark.filterwarnings("ignore:.*infinity.*")
@pytest.mark.parametrize(
    ("name", "task"), [("scene", "task4"), ("scene", "play"), ("puzzle-3x3", "task1"), ("antmaze-medium", "task1")]
)
def test_gymnasium_and_the_trial_accept_it(name: str, task: str) -> None:
    env = OGBenchEnv(name, task)
    check_env(env, skip_render_check=True)
    try_out(env, name)


def test_a_seed_fixes_the_trajectory_in_every_process() -> None:
    program = (
        "import sys, test_ogbench as t; "
        "[print(t.hashlib.sha256(t.trajectory(env, 7)).hexdigest()) for env in (t.OGBenchEnv('scene', 'task5'), "
        "t.OGBenchEnv('scene', 'play'), t.teleported())]"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[*sys.path, str(Path(__file__).parent)]}; {program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    np.random.seed(3)  # noqa: NPY002 (what others draw has no influence)
    hashes = []
    for env in (OGBenchEnv("scene", "task5"), OGBenchEnv("scene", "play"), teleported()):
        other = trajectory(env, 8)
        first = trajectory(env, 7)  # not the first episode of this environment
        assert first != other
        hashes.append(hashlib.sha256(first).hexdigest())
    assert done.stdout.split() == hashes
    assert done.stderr == "", "and nothing is said about screens or precision"


def test_what_ogbench_does_before_an_episode_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a few random actions, which nobody can seed, for a picture of the goal."""

    class Always:
        def __init__(self, height: float):
            self.action = np.array([0.0, 0.0, height, 0.0, 1.0])

        def sample(self) -> Any:
            return self.action.copy()

    env = OGBenchEnv("puzzle-3x3", "task1")
    trajectories = []
    for height in (1.0, -1.0):  # up, and down onto the buttons
        monkeypatch.setattr(type(env.ogbench), "action_space", property(lambda self, height=height: Always(height)))
        trajectories += [trajectory(env, 33, 3)]
    assert trajectories[0] == trajectories[1]


def test_environments_in_one_process_do_not_disturb_each_other() -> None:
    alone, beside = teleported(), teleported()
    before = np.random.get_state()[1].tolist()  # type: ignore[union-attr, index] # noqa: NPY002
    wanted = trajectory(alone, 7, 200)
    rng = np.random.default_rng(7)
    observations = [alone.reset(seed=7)[0]]
    beside.reset(seed=5)
    for _ in range(200):
        beside.step(np.ones(2, np.float32))
        observations.append(alone.step(rng.uniform(-1, 1, 2).astype(np.float32))[0])
    assert np.array(observations).tobytes() == wanted
    assert np.random.get_state()[1].tolist() == before  # type: ignore[union-attr, index] # noqa: NPY002


def test_sub_tasks_are_credited_in_their_order() -> None:
    env = OGBenchEnv("scene", "task4")
    assert env.subtasks == ("unlock drawer", "open drawer", "cube in drawer", "close drawer")
    assert env.reset(seed=0)[1] == {"subtasks_solved": 0}
    assert env.step(REST)[1:] == (0.0, False, False, {"subtasks_solved": 0})
    put(env, drawer=-0.16)
    assert env.step(REST)[1] == 0.0, "it is still locked"
    put(env, buttons=(1, 0))
    assert env.step(REST)[1:] == (1.0, False, False, {"subtasks_solved": 1})
    put(env, IN_DRAWER, buttons=(1, 0), drawer=-0.16)
    assert env.step(REST)[1:] == (2.0, False, False, {"subtasks_solved": 3}), "two at once"
    put(env, CUBE, buttons=(1, 0))
    assert env.step(REST)[1] == 0.0, "it is closed, but the cube is not in it"
    put(env, IN_CLOSED_DRAWER, buttons=(1, 0))
    assert env.step(REST)[1:] == (1.0, True, False, {"subtasks_solved": 4})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(REST)


def test_success_is_ogbenchs_and_credits_what_remains() -> None:
    env = OGBenchEnv("scene", "task4")
    env.reset(seed=0)
    put(env, IN_CLOSED_DRAWER, buttons=(1, 0))
    assert env.step(REST)[1:] == (4.0, True, False, {"subtasks_solved": 4})


@pytest.mark.parametrize(
    ("reward", "before", "after", "lowest"), [("dense", -2.0, 0.0, -500.0), ("sparse", -1.0, 0.0, -100.0)]
)
def test_published_rewards(reward: Any, before: float, after: float, lowest: float) -> None:
    env = OGBenchEnv("scene", "task4", reward=reward, max_episode_steps=100)
    assert env.return_range == (lowest, 0.0)
    env.reset(seed=0)
    assert env.step(REST)[1] == before, "cube and button are not where they belong"
    put(env, IN_CLOSED_DRAWER, buttons=(1, 0))
    assert env.step(REST)[1:3] == (after, True)


@pytest.mark.parametrize(
    ("world", "task"),
    [("Scene", "task2"), ("Scene", "task5"), ("CubeSingle", "task4"), ("CubeDouble", "task4"), ("Puzzle3x3", "task1")],
)
def test_the_demonstrator_succeeds_by_ogbenchs_criterion(world: str, task: str) -> None:
    (episode,) = collect(request_of(task, world), 0, 1)
    assert isinstance(episode, Episode) and episode.executed_actions is not None
    assert episode.terminated and episode.rewards is not None
    assert episode.rewards.sum() == len(episode.subtasks)
    assert not np.array_equal(episode.executed_actions, episode.actions), "what was meant is recorded, too"
    asked = make_env(f"skild_ray/{world}-v0", {"task": task})
    assert np.array_equal(credit(episode.observations, asked), episode.rewards), "so would other data be judged"
    # The same again, judged by OGBench after every step.
    env = make_env(f"skild_ray/{world}-v0", {"task": task, "reward": "dense"})
    observation, _ = env.reset(seed=episode.seed)
    judge: Any = env.unwrapped
    for step, action in enumerate(episode.executed_actions):
        assert np.array_equal(observation, episode.observations[step])
        observation, reward, terminated, _, _ = env.step(action)
        assert reward == judge.ogbench.compute_reward() and terminated == (reward == 0)
    assert terminated


def test_a_carried_cube_does_not_push_the_drawer_shut() -> None:
    """Where the way from the cube to the drawer is long, OGBench's own heights let it."""
    _, solved = play(make_env(SCENE, {"task": "task5", "max_episode_steps": 320}), OGBenchExpert, 100031, 0.1)
    assert solved


def test_closed_loop_oracles_demonstrate_too() -> None:
    (episode,) = collect(request_of("task2", "CubeDouble", noise=0.2, expert={"oracle": "markov"}), 0, 1)
    assert isinstance(episode, Episode) and episode.terminated


@pytest.mark.parametrize("oracle", ["plan", "markov"])
def test_play_depends_on_its_seed_only(oracle: str) -> None:
    request = request_of("play", max_episode_steps=120, expert={"oracle": oracle, "plan_noise": 0.1})
    first, second = collect(request, 0, 2)
    (again,) = collect(request, 1, 1)
    assert isinstance(first, Episode) and isinstance(second, Episode) and isinstance(again, Episode)
    assert np.array_equal(second.observations, again.observations) and np.array_equal(second.actions, again.actions)
    assert not np.array_equal(first.actions, second.actions)
    assert len(first.actions) == 120 and first.subtasks == () and not first.terminated
    moved = np.abs(first.observations - first.observations[0]).max(0)[19:]
    assert moved.max() > 0.5, "an object, not the arm alone"


def test_play_goes_from_target_to_target() -> None:
    env = OGBenchEnv("puzzle-3x3", "play")
    observation, _ = env.reset(seed=1)
    expert = OGBenchExpert(env, np.random.default_rng(0))
    expert.reset(observation)
    boards = set()
    for _ in range(150):
        observation = env.step(expert.act(observation))[0]
        boards.add(tuple(env.state["button_states"]))
    assert len(boards) >= 4


@pytest.mark.parametrize(
    ("id", "kwargs", "told"),
    [
        (SCENE, {"task": "task4"}, True),
        (SCENE, {"task": "task4", "reward": "sparse"}, False),
        (SCENE, {"task": "play"}, False),
    ],
)
def test_rewards_of_other_data_are_told_where_sub_tasks_pay(id: str, kwargs: dict[str, Any], told: bool) -> None:
    assert judges(make_env(id, kwargs)) == told


def test_the_demonstrator_needs_an_arm() -> None:
    with pytest.raises(TypeError, match="not in OGBench's mazes"):
        OGBenchExpert(OGBenchEnv("pointmaze-medium", "task1"), np.random.default_rng(0))


def test_a_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = Environment(id=SCENE, kwargs={"task": "task4", "max_episode_steps": 3})
    env = make_env(environment.id, environment.kwargs)
    env.reset(seed=5)
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 5)).astype(np.float32)
    for action in actions:
        observation = env.step(action)[0]
    path = tmp_path / "x.npz"
    Recording(environment, 5, actions, observation, ("unlock drawer",), ()).save(path)
    film([path])
    output = capsys.readouterr().out
    if output.startswith("no video: nothing renders here"):
        pytest.skip(output.strip())
    assert output == f"video: {path.with_suffix('.mp4')}\n"
    assert np.asarray(Image.open(key_frame(path, 3))).std() > 20


def test_truncates_at_the_step_limit() -> None:
    assert OGBenchEnv("scene", "task1").max_episode_steps == 750, "OGBench's"
    env = OGBenchEnv("scene", "task1", max_episode_steps=2)
    env.reset(seed=0)
    assert [env.step(REST)[3] for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "scne"}, "'scne'.*antmaze-large.*scene"),
        ({"task": "task6"}, "'task6'.*task5, or play"),
        ({"name": "antmaze-medium", "task": "play"}, "antmaze-medium has no play"),
        ({"reward": "shaped"}, "'shaped'.*subtasks, dense, sparse"),
        ({"render_mode": "human"}, "'human'.*rgb_array"),
    ],
)
def test_unknown_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OGBenchEnv(**({"name": "scene", "task": "task1"} | kwargs))


def test_actions_that_are_not_finite_are_errors() -> None:
    env = OGBenchEnv("scene", "task1")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.full(5, np.nan, np.float32))
