"""Actions in raw units: scaled to [-1, 1] when they are read, and back where they are executed."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from line_world import LineEnv
from numpy.typing import NDArray
from pretrained import publish_pretrained, tiny_experiment

from skild_ray.algorithms.pretrained import load_decoder, load_raw_decoder
from skild_ray.algorithms.train import algorithm_config
from skild_ray.config import Environment, Experiment, Generate
from skild_ray.data.episode import Episode
from skild_ray.data.formats import load_dataset, load_rewarded_episodes
from skild_ray.data.importing import import_dataset
from skild_ray.data.minari_store import MinariWriter
from skild_ray.data.trajectories import Trajectories
from skild_ray.envs import make_env
from skild_ray.envs.scaled_actions import ActionMap
from skild_ray.envs.skill_env import SkillVectorEnv
from skild_ray.errors import ConfigError, DataError
from skild_ray.generation.sources import load_sources, with_action_bounds
from skild_ray.pipeline import Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

ARM = f"{__name__}:ArmEnv"
LOW, HIGH = [-90.0, 0.0], [90.0, 50.0]
"""Degrees of a joint and millimetres of a gripper."""


class ArmEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Its observation is what it was told to do, in raw units."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, bounded: bool = True) -> None:
        low, high = (LOW, HIGH) if bounded else ([-np.inf] * 2, [np.inf] * 2)
        self.action_space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.steps += 1
        return action, 0.0, False, self.steps == 10, {}


def arm(**actions: Any) -> gym.Env:
    environment = Environment(id=ARM, actions={"scale": "bounds"} | actions)
    return make_env(environment.id, environment.arguments)


def raw_episodes(seed: int = 0, count: int = 3, length: int = 8) -> list[Episode]:
    rng = np.random.default_rng(seed)
    return [
        Episode(rng.normal(size=(length + 1, 2)), rng.uniform(LOW, HIGH, (length, 2)), np.ones(length))
        for _ in range(count)
    ]


def experiment_of(runs: Path, scale: dict[str, Any], dataset: str = "arm/play-v0", **environment: Any) -> Experiment:
    source = {"dataset": dataset}
    return tiny_experiment(
        runs,
        environment={"id": ARM, "actions": scale} | environment,
        data={"task_agnostic": {"play": source}, "demonstrations": {"human": source}},
    )


@pytest.fixture
def stored(minari_root: Path) -> list[Episode]:
    """`arm/play-v0`, in raw units."""
    episodes, env = raw_episodes(), ArmEnv()
    with MinariWriter("arm/play-v0", env.observation_space, env.action_space, {}) as writer:
        writer.append(episodes)
    return episodes


def test_the_map() -> None:
    action_map = ActionMap(np.array(LOW), np.array(HIGH))
    raw = np.array([[-90, 50], [45, 25]])
    assert action_map.scale(raw).tolist() == [[-1, 1], [0.5, 0]]
    assert np.array_equal(action_map.unscale(action_map.scale(raw)), raw)


def test_environments_are_given_raw_units() -> None:
    env = arm()
    assert env.action_space == spaces.Box(-1, 1, (2,), np.float32)
    env.reset()
    for action, raw in (([-1, -1], LOW), ([1, 1], HIGH), ([0.5, 0], [45, 25])):
        assert env.step(np.array(action, np.float32))[0].tolist() == raw
    narrow = arm(low=[-10, 10], high=[10, 20])
    narrow.reset()
    assert narrow.step(np.zeros(2, np.float32))[0].tolist() == [0, 15]


@pytest.mark.parametrize(
    ("kwargs", "actions", "message"),
    [
        ({}, {"low": [0], "high": [1]}, r"environment\.actions: 1 bounds for the 2 of Box"),
        ({"bounded": False}, {}, r"environment\.actions: Box\(-inf, inf, \(2,\), float32\) has no bounds: give 'low'"),
    ],
)
def test_unsuitable_bounds_are_one_line(kwargs: dict, actions: dict, message: str) -> None:
    environment = Environment(id=ARM, kwargs=kwargs, actions={"scale": "bounds"} | actions)
    with pytest.raises(ConfigError, match=message):
        make_env(environment.id, environment.arguments)
    with pytest.raises(ConfigError, match=r"not in \[-1, 1\]; environment\.actions: \{scale: bounds\} makes them so"):
        make_env(ARM, {})


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"scale": "minmax", "low": [0], "high": [1]}, "are for 'scale: bounds'"),
        ({"scale": "bounds", "low": [0]}, "give both 'low' and 'high'"),
        ({"scale": "bounds", "low": [0, 1], "high": [1, 1]}, "'low' must be below 'high'"),
    ],
)
def test_unsuitable_settings_are_refused(scale: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Environment(id=ARM, actions=scale)


def test_data_are_scaled_as_they_are_read(stored: list[Episode]) -> None:
    expected = [
        ActionMap(np.array(LOW), np.array(HIGH)).scale(episode.actions.astype(np.float32)) for episode in stored
    ]
    data = load_dataset("arm/play-v0", arm())
    np.testing.assert_allclose(data.actions, np.concatenate(expected), atol=1e-6)
    assert np.abs(data.actions).max() <= 1
    (first, *_) = load_rewarded_episodes("arm/play-v0", arm())
    assert np.array_equal(first.actions, data.episode(0)[1])
    # Arrays in memory are in raw units, too; without bounds they are refused.
    given = Trajectories.from_episodes([e.observations for e in stored], [e.actions for e in stored])
    assert load_dataset(given, arm()).fingerprint() == data.fingerprint()
    with pytest.raises(DataError, match=r"actions must be in \[-1, 1\]: .*; scale them: environment\.actions: \{scale"):
        load_dataset([Episode(np.zeros((2, 2)), np.array([[5.0]]))], LineEnv())
    with pytest.raises(DataError, match=r"'arm/play-v0': episode 0: .* beyond the bounds of environment\.actions"):
        load_dataset("arm/play-v0", arm(low=[-1, 0], high=[1, 1]))
    with pytest.raises(DataError, match=r"actions have 1 dimensions, environment\.actions has 2 bounds"):
        load_dataset([Episode(np.zeros((2, 2)), np.array([[5.0]]))], arm())


def test_an_import_keeps_raw_units(stored: list[Episode]) -> None:
    assert import_dataset("arm/play-v0", "arm/imported-v0", arm()) == 3
    assert minari.load_dataset("arm/imported-v0").action_space == ArmEnv().action_space
    assert load_dataset("arm/imported-v0", arm()).fingerprint() == load_dataset("arm/play-v0", arm()).fingerprint()


def test_generated_actions_are_in_the_wrapped_environments_units(minari_root: Path) -> None:
    request = {"skild_ray": {"request": {}}}
    with MinariWriter("arm/made-v0", ArmEnv.observation_space, spaces.Box(-1, 1, (2,)), request) as writer:
        writer.append([Episode(np.zeros((3, 2)), np.full((2, 2), 0.5), np.ones(2))])
    assert (load_dataset("arm/made-v0", arm()).actions == 0.5).all()


def test_minmax_measures_all_data_sets(stored: list[Episode], tmp_path: Path) -> None:
    human = np.zeros((1, 4, 2))
    human[0, :, 1] = [1, 2, 200, 3]
    given = {"human": Trajectories.from_episodes([np.zeros((4, 2))], list(human))}
    experiment = experiment_of(tmp_path, {"scale": "minmax"}, kwargs={"bounded": False})
    run = Run(experiment, data=given)
    bounds = run.experiment.environment.actions
    actions = np.concatenate([episode.actions for episode in stored]).astype(np.float32)
    assert bounds.scale == "bounds"
    assert bounds.low == [actions[:, 0].min(), 1.0]
    assert bounds.high == [actions[:, 0].max(), 200.0]
    (data,) = load_sources(experiment.data.task_agnostic, run.experiment, "task_agnostic")
    assert data.actions[:, 0].min() == -1 and data.actions[:, 0].max() == 1
    low_level = algorithm_config(run.experiment).low_level
    assert np.array_equal(make_env(low_level.id, low_level.arguments).action_map.high, bounds.high)
    still = {name: Trajectories.from_episodes([np.zeros((4, 2))], [np.full((4, 2), 7.0)]) for name in ("play", "human")}
    assert with_action_bounds(experiment, still).environment.actions.low == [6, 6]


def test_what_cannot_be_measured_is_one_line(stored: list[Episode], tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path, {"scale": "minmax"}, dataset="arm/gone-v0")
    with pytest.raises(DataError, match=r"data\.task_agnostic\.play: data set 'arm/gone-v0' is not in"):
        Run(experiment)
    made = {"generate": Generate(expert="line_world:LineExpert", episodes=2)}
    data = experiment.data.model_copy(
        update={
            "task_agnostic": {"play": experiment.data.task_agnostic["play"].model_copy(update=made | {"dataset": None})}
        }
    )
    with pytest.raises(ConfigError, match=r"data\.task_agnostic\.play: its actions are generated in \[-1, 1\]"):
        Run(experiment.model_copy(update={"data": data}))
    with pytest.raises(ConfigError, match="minmax is measured when an experiment's data sets are read"):
        make_env(ARM, experiment.environment.arguments)


def test_decoders_of_artifacts_give_raw_units(stored: list[Episode], tmp_path: Path) -> None:
    """The raw decoder does in the bare environment what the skill environment does in the wrapped one."""
    experiment = Run(experiment_of(tmp_path, {"scale": "bounds"})).experiment
    assert experiment.environment.actions.low == LOW, "the environment's own bounds, in numbers"
    artifact = publish_pretrained(experiment, action_dim=2).skill_prior
    assert ActionMap.of(artifact.experiment.environment).high.tolist() == HIGH
    skills = SkillVectorEnv([arm], load_decoder(artifact), latent_dim=3, horizon=1)
    observation = skills.reset(seed=0)[0]
    raw = load_raw_decoder(artifact)
    for seed in range(5):
        z = 3 * torch.randn((1, 3), generator=torch.Generator().manual_seed(seed))
        expected = raw(torch.cat([torch.from_numpy(observation), z], dim=1)).numpy()
        observation = skills.step(z.numpy())[0]
        np.testing.assert_allclose(observation, expected, rtol=1e-4, atol=1e-3)
    plain = publish_pretrained(tiny_experiment(tmp_path / "plain")).skill_prior
    assert load_raw_decoder(plain)(torch.randn(50, 5) * 9).abs().max() <= 1


def test_other_bounds_make_another_stage(stored: list[Episode], tmp_path: Path) -> None:
    """Also where the scaled data are the same, since an artifact says in which units it acts."""
    doubled = {
        name: Trajectories.from_episodes([e.observations for e in stored], [2 * e.actions for e in stored])
        for name in ("play", "human")
    }
    wide = {"scale": "bounds", "low": [2 * low for low in LOW], "high": [2 * high for high in HIGH]}
    runs = (
        Run(experiment_of(tmp_path, {"scale": "bounds"})),
        Run(experiment_of(tmp_path, wide, kwargs={"bounded": False}), data=doubled),
    )
    assert len({run.fingerprint("skill_prior") for run in runs}) == 2
