"""The expert that repeats recorded episodes of the kitchen."""

from pathlib import Path

import numpy as np
import pytest

from skild_ray.config import Environment, Generate
from skild_ray.data.minari_store import read_minari
from skild_ray.errors import ConfigError, DataError
from skild_ray.generation.generate import generate
from skild_ray.worlds.kitchen.environment import KitchenEnv
from skild_ray.worlds.kitchen.tracker import KitchenTracker
from skild_ray.worlds.maze.environment import MazeEnv

LIGHT = Environment(
    id="skild_ray/Kitchen-v0",
    kwargs={"task": ["light switch"], "observation": "franka", "max_episode_steps": 80, "noise": "precise"},
)


def _tracking(recorded: str, noise: float) -> Generate:
    kwargs = {"dataset": recorded}
    return Generate(expert="kitchen_tracker", expert_kwargs=kwargs, episodes=4, action_noise=noise)


def test_leads_back_to_what_was_recorded(ray_session: None, minari_root: Path) -> None:
    recorded = generate(Generate(expert="kitchen", episodes=2), LIGHT, seed=0)
    recordings = [episode.observations[:, :9] for episode in read_minari(recorded)]
    for noise, largest in ((0.0, 0.005), (0.1, 0.03)):
        tracked = list(read_minari(generate(_tracking(recorded, noise), LIGHT, seed=1)))
        assert len(tracked) == 4, "episodes that do not solve the task are no demonstrations"
        followed = set()
        for episode in tracked:
            offsets = [
                np.abs(episode.observations[:steps, :9] - recording[:steps]).mean()
                for recording in recordings
                for steps in [min(len(recording), len(episode.observations))]
            ]
            assert min(offsets) < largest
            followed.add(np.argmin(offsets))
        assert len(followed) == 2


def test_corrects_a_reading_beside_the_path(ray_session: None, minari_root: Path) -> None:
    recorded = generate(Generate(expert="kitchen", episodes=1), LIGHT, seed=0)
    (episode,) = read_minari(recorded)
    tracker = KitchenTracker(KitchenEnv(["light switch"]), np.random.default_rng(0), **KitchenTracker.prepare(recorded))
    tracker.reset(episode.observations[0])
    assert tracker.act(episode.observations[0]) == pytest.approx(episode.actions[0], abs=1e-4)
    beside = episode.observations[1].copy()
    beside[1] += 0.008
    wanted = episode.actions[1].copy()
    wanted[1] -= 0.05
    assert tracker.act(beside) == pytest.approx(wanted.clip(-1, 1), abs=1e-4)
    for _ in range(len(episode.actions)):
        action = tracker.act(episode.observations[-1])
    assert np.isfinite(action).all(), "it holds after the recording's end"


def test_needs_a_kitchen_and_a_recording(minari_root: Path) -> None:
    with pytest.raises(TypeError, match="acts in a KitchenEnv, not in a MazeEnv"):
        KitchenTracker(MazeEnv(), np.random.default_rng(0), [])
    with pytest.raises(DataError, match="skild/none-v0"):
        generate(_tracking("skild/none-v0", 0.0), LIGHT, seed=0)
    with pytest.raises(ConfigError, match="expert 'kitchen_tracker': missing a required argument: 'dataset'"):
        generate(Generate(expert="kitchen_tracker", episodes=1), LIGHT, seed=0)
