"""`python -m benchmarks.scaling` and `python -m benchmarks.soak`, each with one small training."""

import json
from pathlib import Path

import pytest
from pretrained import publish_pretrained, tiny_experiment

from benchmarks import scaling, soak
from benchmarks.measure import write_json


def test_env_runners_are_measured(tmp_path: Path, ray_session: None) -> None:
    results = scaling.measure_runners(str(tmp_path), [1], step_s=0.0, seconds=0.3, rounds=1)
    (found,) = results.values()
    assert found["of_linear"] == 1.0
    assert found["env_steps_per_s"] == pytest.approx(found["rounds"][0], abs=0.1)
    assert found["runner_works_s"] > 0
    assert found["memory_of_a_runner"]["rss_mib"] > found["memory_of_a_runner"]["uss_mib"] > 10
    write_json(tmp_path / "results.json", results)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    scaling.show({"runners": results})


def test_the_learner_does_not_bound_what_sleeps(tmp_path: Path) -> None:
    experiment = scaling.sleeping_experiment(str(tmp_path), 3, place="somewhere")
    assert experiment.environment.kwargs == {"step_s": scaling.STEP_S}
    assert experiment.rollout.num_env_runners == 3
    assert experiment.rollout.env_runner_resources == {"somewhere": 1.0}
    assert experiment.algorithm.samples_per_skill_step < 10


def test_training_goes_on_while_its_env_runner_is_killed(
    tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = soak.soaked_experiment(tiny_experiment(tmp_path), runners=1)
    publish_pretrained(experiment)
    results = soak.soak(experiment, minutes=0.05, kill_every_s=1.6, sample_every_s=0.1)
    assert results["kills"] == results["lost_runners"] == 1
    assert results["longest_stall_s"] > 0.1, "the only runner was lost"
    assert results["longest_stall_s"] < 60 * results["minutes"]
    samples = results["samples"]
    assert len(samples) > 3 and samples[-1]["env_steps"] > samples[0]["env_steps"]
    assert samples[-1]["replay_mib"] > samples[0]["replay_mib"]
    write_json(tmp_path / "results.json", results)
    soak.show(results)
    assert "longest stall s" in capsys.readouterr().out
