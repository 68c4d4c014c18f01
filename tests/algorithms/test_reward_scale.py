"""Rewards on one scale, whatever the environment counts."""

from pathlib import Path

import numpy as np
import pytest
from short_runs import VARIED, Build, equal, finish

from skild_ray.algorithms.replay import Replay
from skild_ray.algorithms.reward_scale import RewardScale
from skild_ray.algorithms.train import module_weights


def _replay(*rewards: float) -> Replay:
    replay = Replay(100, 1, 1, n_step=1, discount=0.5, horizon=1, seed=0, columns={})
    for index, reward in enumerate(rewards):
        _add(replay, str(index), reward)
    return replay


def _add(replay: Replay, episode_id: str, reward: float) -> None:
    one = np.zeros((1, 1), np.float32)
    rows = {"obs": one, "next_obs": one, "actions": one, "rewards": np.array([reward]), "k": np.array([1])}
    replay.add(episode_id, rows | {"terminated": np.ones(1)}, ended=True)


def test_it_is_measured_when_the_warm_up_ends_and_kept() -> None:
    scale, own = RewardScale(warmup=2), _replay(-4.0)
    scale.measure(own)
    assert scale.value == 1, "too early"
    _add(own, "next", 2.0)
    scale.measure(own, _replay(8.0, 1.0))
    assert scale.value == 1 / 8
    _add(own, "last", 100.0)
    scale.measure(own)
    assert scale.value == 1 / 8


def test_it_waits_for_the_first_reward() -> None:
    scale, own = RewardScale(warmup=1), _replay(0.0)
    scale.measure(own)
    assert scale.value == 1
    _add(own, "next", -0.5)
    scale.measure(own)
    assert scale.value == 2


def test_rewards_stay_as_they_are_if_it_is_not_wanted() -> None:
    scale = RewardScale(None)
    scale.measure(_replay(100.0))
    assert scale.value == 1


@pytest.mark.parametrize("factor", [1024.0, 2.0**-10])
def test_the_unit_of_the_rewards_does_not_matter(build: Build, factor: float) -> None:
    scales, weights = [], []
    for unit in (1.0, factor):
        environment = {"id": "counting_env:RandomLengthEnv", "kwargs": {"unit": unit}}
        algo = build(environment=environment, total_env_steps=2_000, synchronous=True, normalize_rewards=True)
        finish(algo)
        scales.append(algo.experience.reward_scale.value)
        weights.append(module_weights(algo))
    assert scales[1] * factor == scales[0] < 1
    assert equal(*weights)


def test_a_checkpoint_keeps_it(build: Build, tmp_path: Path) -> None:
    first = build(environment=VARIED, normalize_rewards=True)
    finish(first, until=600)
    first.save_to_path(str(tmp_path / "checkpoint"))
    other = build(environment=VARIED, normalize_rewards=True)
    other.restore_from_path(str(tmp_path / "checkpoint"))
    assert other.experience.reward_scale.value == first.experience.reward_scale.value != 1
