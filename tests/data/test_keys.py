"""Observations chosen by key, the same from data and environment."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray
from pretrained import tiny_experiment

from skild_ray.algorithms.train import algorithm_config
from skild_ray.config import Environment, Source
from skild_ray.data.formats import Stored, load_dataset, load_rewarded_episodes
from skild_ray.envs import make_env
from skild_ray.errors import ConfigError, DataError
from skild_ray.generation.describe import describe_dataset
from skild_ray.generation.sources import load_sources

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

KEYS = ("arm/velocity", "object", "arm/position")
LENGTHS = (4, 6)
SPACE = spaces.Dict(
    {
        "arm": spaces.Dict({"position": spaces.Box(-1, 1, (2,)), "velocity": spaces.Box(-9, 9, ())}),
        "camera": spaces.Box(0, 255, (4, 4, 3), np.uint8),
        "object": spaces.Box(-1, 1, (3,), np.float64),
        "instruction": spaces.Text(10),
    }
)


class ArmEnv(gym.Env[dict[str, Any], NDArray[np.float32]]):
    """Draws its observations."""

    observation_space = SPACE
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict]:
        return self._draw(), 0.0, False, False, {}

    def _draw(self) -> dict[str, Any]:
        rng = self.np_random
        return {
            "arm": {"position": rng.normal(size=2).astype(np.float32), "velocity": np.float32(rng.normal())},
            "camera": np.zeros((4, 4, 3), np.uint8),
            "object": rng.normal(size=3),
            "instruction": "x",
        }


def chosen(states: list[dict[str, Any]]) -> NDArray[np.float32]:
    rows = [[state["arm"]["velocity"], *state["object"], *state["arm"]["position"]] for state in states]
    return np.array(rows, np.float32)


@pytest.fixture(params=["hdf5", "arrow"])
def recorded(request: pytest.FixtureRequest, minari_root: Path) -> list[list[dict[str, Any]]]:
    """The observations of each episode of `arm/play-v0`."""
    env, episodes, buffers = ArmEnv(), [], []
    kept = spaces.Dict({key: part for key, part in SPACE.spaces.items() if key != "instruction"})
    for seed, length in enumerate(LENGTHS):
        states = [env.reset(seed=seed)[0], *(env.step(np.zeros(1))[0] for _ in range(length))]
        episodes.append(states)
        arm = {name: np.array([s["arm"][name] for s in states]) for name in ("position", "velocity")}
        observations = {"arm": arm} | {name: np.array([s[name] for s in states]) for name in ("camera", "object")}
        over = np.arange(length) == length - 1
        actions = np.full((length, 1), seed, np.float32)
        buffers.append(EpisodeBuffer(None, seed, None, observations, actions, np.ones(length), over, ~over, {}))
    minari.create_dataset_from_buffers(
        "arm/play-v0",
        buffers,
        observation_space=kept,
        action_space=env.action_space,
        data_format=request.param,
    )
    return episodes


def arm_env(keys: tuple[str, ...] = KEYS) -> gym.Env:
    environment = Environment(id=f"{__name__}:ArmEnv", observations=list(keys))
    return make_env(environment.id, environment.arguments)


def test_nested_dictionaries_are_read_as_the_environment_gives_them(recorded: list[list[dict[str, Any]]]) -> None:
    env = arm_env()
    data = load_dataset("arm/play-v0", env)
    assert data.lengths.tolist() == list(LENGTHS)
    for index, states in enumerate(recorded):
        assert np.array_equal(data.episode(index)[0], chosen(states)[:-1])
        assert np.array_equal(env.reset(seed=index)[0], data.episode(index)[0][0])
    (_, last) = load_rewarded_episodes("arm/play-v0", env)
    assert np.array_equal(last.observations, chosen(recorded[1]))
    assert last.rewards.tolist() == [1] * LENGTHS[1] and last.terminated
    # The data set's own names, where they are others; without any choice the alphabet.
    assert np.array_equal(
        load_dataset(Stored("arm/play-v0", ("object", "arm/position", "arm/velocity")), env).observations,
        data.observations[:, [1, 2, 3, 4, 5, 0]],
    )
    assert np.array_equal(load_dataset("arm/play-v0").observations, data.observations[:, [4, 5, 0, 1, 2, 3]])
    keys = dict(describe_dataset("arm/play-v0"))["observation keys"]
    assert keys == "arm/position (2), arm/velocity (1), camera (4 x 4 x 3), object (3)"


def test_keys_that_are_not_there_are_one_line(recorded: list[list[dict[str, Any]]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'arm/play-v0': episode 0: there are no observations 'gone'; there are arm/"):
        load_dataset(Stored("arm/play-v0", ("gone",)))
    with pytest.raises(DataError, match=r"observations 'camera' are 4 x 4 x 3, and images are not read yet"):
        load_dataset(Stored("arm/play-v0", ("object", "camera")))
    np.savez(tmp_path / "flat.npz", observations=np.zeros((3, 1)), actions=np.zeros((3, 1)), terminals=[0, 0, 1])
    with pytest.raises(DataError, match=r"flat\.npz': its observations have no keys, so that none can be chosen"):
        load_dataset(Stored(str(tmp_path / "flat.npz"), ("object",)))
    with pytest.raises(ConfigError, match=r"no vectors 'camera'; there are arm/position, arm/velocity, object"):
        arm_env(("camera",))
    with pytest.raises(ConfigError, match=r"environment\.observations: observations are Box.*, and have no keys"):
        make_env("line_world:LineEnv", {"observation_keys": ["x"]})
    with pytest.raises(ValueError, match="'observations' and 'filter' choose from a stored data set"):
        Source(generate={"expert": "x", "episodes": 1}, filter="train")


def test_an_experiment_chooses_for_environment_and_data(recorded: list[list[dict[str, Any]]], tmp_path: Path) -> None:
    experiment = tiny_experiment(
        tmp_path,
        environment={"id": f"{__name__}:ArmEnv", "observations": ["object"]},
        data={"task_agnostic": {"play": {"dataset": "arm/play-v0"}}, "demonstrations": {"a": {"dataset": "x"}}},
    )
    (data,) = load_sources(experiment.data.task_agnostic, experiment, "task_agnostic")
    low_level = algorithm_config(experiment).low_level
    assert data.observation_dim == 3
    assert make_env(low_level.id, low_level.arguments).observation_space.shape == (3,)
