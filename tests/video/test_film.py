"""Recordings and videos: what is filmed is the episode that was counted, and where nothing renders one line says so."""

from pathlib import Path

import av
import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from pretrained import publish_pretrained, tiny_experiment

from skild_ray.algorithms.train import algorithm_config
from skild_ray.config import Environment
from skild_ray.envs import make_env
from skild_ray.evaluation.agent import Agent
from skild_ray.evaluation.rollouts import play
from skild_ray.video.captions import Captions
from skild_ray.video.film import FRAMES_PER_S, film, key_frame
from skild_ray.video.recording import Recorder, Recording, key_steps

MAZE = Environment(id="skild_ray/Maze-v0", kwargs={"max_episode_steps": 30})
KITCHEN = Environment(id="skild_ray/Kitchen-v0", kwargs={"max_episode_steps": 3})
OFFICE = Environment(id="skild_ray/Office-v0", kwargs={"max_episode_steps": 3})


def record(environment: Environment, steps: int) -> Recording:
    """Random actions."""
    env = Recorder(make_env(environment.id, environment.kwargs))
    env.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        observation = env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))[0]
    names = tuple(env.unwrapped.subtasks)  # type: ignore[attr-defined]
    return Recording(environment, 5, np.stack(env.actions), observation, names, tuple(env.credited_at))


class TwoTasks(gym.Env):
    """Credits two sub-tasks at step 2, one at step 4."""

    subtasks = ("a", "b", "c")

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        self.steps = 0
        return np.zeros(1, np.float32), {"subtasks_solved": 0}

    def step(self, action):  # type: ignore[no-untyped-def]
        self.steps += 1
        solved = 2 * (self.steps >= 2) + (self.steps >= 4)
        return np.zeros(1, np.float32), 0.0, solved == 3, False, {"subtasks_solved": solved}


def test_credits_are_noted_by_the_env_step() -> None:
    env = Recorder(TwoTasks())
    action = np.zeros(1, np.float32)
    for _ in range(2):
        env.reset()
        for _ in range(4):
            env.step(action)
            action += 1
        assert env.credited_at == [2, 2, 4]
        assert len(env.actions) == 4
    assert [float(noted[0]) for noted in env.actions] == [4, 5, 6, 7], "copies, of this episode only"


def test_key_steps() -> None:
    assert key_steps(("a", "b", "c"), (2, 2, 4), 9) == {0: "start", 2: "a, b", 4: "c", 9: "end"}
    assert key_steps(("a", "b"), (3,), 3) == {0: "start", 3: "a"}


def test_captions_fit_and_follow_the_credits() -> None:
    picture = Image.new("RGB", (151, 80))
    few, many = (Captions(["turn the knob"] * count, 9, picture.size) for count in (1, 5))
    before, after = (np.asarray(few.above(picture, step, (4,))) for step in (3, 4))
    assert before.shape == after.shape
    assert before.shape[0] % 2 == before.shape[1] % 2 == 0
    assert (before != after).any()
    assert many.above(picture, 0, ()).height > few.above(picture, 0, ()).height + 80 - picture.height


def test_evaluation_episodes_play_again_from_their_seeds_and_actions(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    publish_pretrained(experiment)
    config = algorithm_config(experiment)
    agent = Agent(config, config.build_module())
    first, second = play(agent, 2, 3, deterministic=True)
    assert first.seed != second.seed
    env = make_env(experiment.environment.id, experiment.environment.kwargs)
    for episode in (first, second):
        env.reset(seed=episode.seed)
        for action in episode.actions:
            observation = env.step(action)[0]
        np.testing.assert_array_equal(observation, episode.states[-1])
        assert len(episode.actions) == episode.env_steps
        assert len(episode.credited_at) == episode.subtasks_solved
        assert episode.subtasks == ("goal",)


def test_film_of_an_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "episode_001.npz"
    record(MAZE, 30).save(path)
    film([path])
    assert capsys.readouterr().out == f"video: {path.with_suffix('.mp4')}\n"
    with av.open(str(path.with_suffix(".mp4"))) as file:
        frames = [frame.to_image() for frame in file.decode(video=0)]
    assert len(frames) == 31 + FRAMES_PER_S
    assert frames[0].width == 420 and frames[0].height > 420
    for step in (0, 30):
        assert Image.open(key_frame(path, step)).size == (320, 320)
    film([path])
    assert capsys.readouterr().out == "", "once is enough"


def test_an_environment_that_goes_another_way_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = record(MAZE, 3)
    recording.last_observation[0] += 1
    recording.save(tmp_path / "x.npz")
    film([tmp_path / "x.npz"])
    assert capsys.readouterr().out.startswith("no video: environment 'skild_ray/Maze-v0' goes another way")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_without_opengl_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(KITCHEN, 3).save(tmp_path / "x.npz")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "1000")  # which no machine has
    film([tmp_path / "x.npz"])
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    for part in (
        "no video",
        "egl: RuntimeError: ",
        "MUJOCO_EGL_DEVICE_ID",
        "libEGL",
        "libegl1",
        "libOSMesa",
        "libosmesa6",
    ):
        assert part in output
    assert "opengl_context" not in output, "that is what clearing away says, not what is wrong"
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_film_of_the_kitchen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.npz"
    record(KITCHEN, 3).save(path)
    film([path])
    output = capsys.readouterr().out
    if output.startswith("no video"):
        pytest.skip(output.strip())
    assert path.with_suffix(".mp4").stat().st_size > 1_000
    assert np.asarray(Image.open(key_frame(path, 3))).std() > 20


def test_film_of_the_office(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.npz"
    record(OFFICE, 3).save(path)
    film([path])
    assert capsys.readouterr().out == f"video: {path.with_suffix('.mp4')}\n", "it can be seen wherever it can be played"
    assert np.asarray(Image.open(key_frame(path, 3))).std() > 20
