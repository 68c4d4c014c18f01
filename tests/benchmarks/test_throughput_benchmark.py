"""`python -m benchmarks.throughput`, with networks and budgets small enough for a test."""

import json
from pathlib import Path

import pytest

from benchmarks.measure import alternate, medians, write_json
from benchmarks.simulators import World, simulator_measurements
from benchmarks.throughput import measure, measured_experiment
from benchmarks.training_loop import TrainingLoop
from benchmarks.untrained import publish_untrained
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.config import Experiment, SkillModelSettings

KEYS = {
    "raw_env_steps_per_s",
    "gym_env_steps_per_s",
    "skill_env_steps_per_s",
    "sampling_only_env_steps_per_s",
    "learning_only_env_steps_per_s",
    "loop_env_steps_per_s",
    "loop_updates_per_s",
    "bare_updates_per_s",
    "rllib_updates_per_s",
    "samples_per_skill_step",
    "cores",
}
SECONDS = 0.05


def small_experiment(world: World, runs: Path, runners: int) -> Experiment:
    experiment = measured_experiment(world, str(runs), runners, 2, SECONDS)
    small = {"hidden": 16, "decoder_layers": 1, "head_layers": 1}
    return experiment.model_copy(
        update={
            "skill": experiment.skill.model_copy(update=small),
            "rollout": experiment.rollout.model_copy(update={"decisions_per_fragment": 4}),
        }
    )


@pytest.mark.parametrize(("world", "runners"), [("maze", 1), ("kitchen", 0)])
def test_every_rate_is_measured(tmp_path: Path, ray_session: None, world: World, runners: int) -> None:
    experiment = small_experiment(world, tmp_path, runners)
    results = measure(world, experiment, SECONDS, rounds=1)
    write_json(tmp_path / "results.json", results)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written.keys() >= KEYS
    assert all(written[name] > 0 for name in KEYS)
    assert written["samples_per_skill_step"] == pytest.approx(128, rel=0.05)
    assert all(ratio > 0 for ratio in written["ratios"].values())


def test_sampling_alone_learns_nothing(tmp_path: Path, ray_session: None) -> None:
    experiment = small_experiment("maze", tmp_path, 0)
    publish_untrained(experiment)
    loop = TrainingLoop(experiment)
    try:
        loop.sampling_only(SECONDS)
        assert loop._algo.counts["decisions"] > 0
        assert loop._algo.counts["updates"] == 0
    finally:
        loop.close()


@pytest.mark.parametrize("world", ["office", "cube-double"])
def test_a_world_without_an_original_is_measured(tmp_path: Path, world: World) -> None:
    experiment = small_experiment(world, tmp_path, 0)
    publish_untrained(experiment)
    rates = [measurement(SECONDS) for measurement in simulator_measurements(world, experiment, 2)]
    assert [*map(list, rates)] == [["raw_env_steps_per_s"], ["gym_env_steps_per_s"], ["skill_env_steps_per_s"]]
    assert all(value > 0 for rate in rates for value in rate.values())


@pytest.mark.parametrize("world", ["maze", "kitchen", "office", "scene"])
def test_networks_are_the_default_and_sample_reuse_is_the_papers(world: World) -> None:
    experiment = measured_experiment(world, "runs", 3, 4, 1.0)
    assert experiment.skill == SkillModelSettings()
    assert experiment.algorithm.critic_hidden == SkiLDSettings().critic_hidden
    assert experiment.algorithm.samples_per_skill_step == 128
    assert (experiment.rollout.num_env_runners, experiment.rollout.num_envs_per_env_runner) == (3, 4)


def test_rounds_alternate_and_the_first_is_not_counted() -> None:
    calls: list[str] = []

    def one(seconds: float) -> dict[str, float]:
        calls.append("one")
        return {"one": float(len(calls))}

    def two(seconds: float) -> dict[str, float]:
        calls.append("two")
        return {"two": 0.0, "more": 1.0}

    rates = alternate([one, two], 1.0, rounds=3)
    assert calls == ["one", "two"] * 4
    assert rates == {"one": [3.0, 5.0, 7.0], "two": [0.0] * 3, "more": [1.0] * 3}
    assert medians(rates) == {"one": 5.0, "two": 0.0, "more": 1.0}
