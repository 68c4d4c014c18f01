"""What the loop of stage 4 survives: lost runners, environments that raise or hang."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from short_runs import VARIED, Build, finish, num_updates

from skild_ray.algorithms.skild.skild import SkiLD
from skild_ray.algorithms.train import metrics_row
from skild_ray.errors import SkildError


def test_a_lost_runner_needs_nothing_of_the_object_store(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    """What its node held is lost with it, and Ray warns of it at every start."""
    build(1)
    assert "constructor arguments in the object store" not in capfd.readouterr().err


@pytest.mark.parametrize("resumed", [False, True])
def test_a_result_without_updates_reports_no_losses(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    algo = build(1)
    finish(algo, until=1_000)
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    assert "critic_loss" in metrics_row(algo.train(), algo, [], 0.0)
    if resumed:
        algo.restore_from_path(path)
    monkeypatch.setattr(algo._runners, "fetch", list)  # runners that are slow, or lost
    row = metrics_row(algo.train(), algo, [], 0.0)
    assert row["updates"] > 0
    assert "critic_loss" not in row
    assert all(np.isfinite(list(row.values())))


def _env_runner_processes(algo: SkiLD) -> list[int]:
    return algo.env_runner_group.foreach_env_runner(lambda _: os.getpid(), local_env_runner=False)


def test_killed_env_runners_are_replaced(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    algo = build(2, total_env_steps=10**6)
    finish(algo, until=500)
    first, second = _env_runner_processes(algo)
    os.kill(first, signal.SIGKILL)
    finish(algo, until=algo.counts["env_steps"] + 1_000)
    assert second in _env_runner_processes(algo), "the other one goes on"
    os.kill(second, signal.SIGKILL)
    finish(algo, until=algo.counts["env_steps"] + 2_000)
    replacements = _env_runner_processes(algo)
    assert replacements
    assert not {first, second} & set(replacements)
    assert algo.counts["updates"] == num_updates(algo)
    assert algo.faults["lost_runners"] == 2
    assert algo.faults["lost_fragments"] <= 2
    said = [line for line in capsys.readouterr().out.splitlines() if "lost" in line]
    assert len(said) == 2, "one line each"
    assert "1 of 2 go on" in said[0]


def test_environment_that_hangs(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    hangs = VARIED | {"kwargs": {"hang_at": 200}}
    algo = build(1, environment=hangs, rollout={"answer_timeout_s": 0.5}, total_env_steps=10**6)
    finish(algo, until=1_000)
    assert algo.faults["silent_runners"] == algo.faults["lost_runners"] == algo.faults["lost_fragments"] >= 1
    assert "did not answer for" in capsys.readouterr().out


def _seeds(algo: SkiLD, first: int = 0, last: int | None = None) -> list[float]:
    """The environments' seeds, which they observe at the beginning of an episode, in rows of the replay."""
    observations = algo.replay.recent()["obs"][first:last]
    return [seed for seed in observations[observations[:, 0] == 0, 1] if seed]


def test_environment_that_raises(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    algo = build(environment=VARIED | {"kwargs": {"fail_at": 120}}, total_env_steps=2_000)
    result = finish(algo)
    assert algo.counts["env_steps"] > 1_500
    drawn = algo.replay.sample(1_000)
    assert (drawn["next_obs"][:, 0] > drawn["obs"][:, 0]).all(), "no transition leads from one episode into another"
    assert result["environment_rebuilds"] == algo.faults["environment_rebuilds"] >= 3
    assert len(set(_seeds(algo))) == len(_seeds(algo)) > 8, "no episode is played twice"
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "RuntimeError: the counter broke" in line]
    assert "environment_rebuilds" in said


@pytest.mark.parametrize("fail_at", [12, 50])
def test_environment_that_raises_all_the_time(build: Build, fail_at: int) -> None:
    algo = build(environment=VARIED | {"kwargs": {"fail_at": fail_at}}, total_env_steps=10**6)
    with pytest.raises(SkildError, match=r"fails too often: .*; last: environment '.*': RuntimeError: the counter"):
        finish(algo)


def test_what_was_restored_begins_episodes_nobody_has_seen(build: Build, tmp_path: Path) -> None:
    algo = build(environment=VARIED, synchronous=True, total_env_steps=2_000)
    finish(algo, until=800)
    before = algo.replay.added
    assert _seeds(algo)
    algo.restore_from_path(algo.save_to_path(tmp_path / "checkpoint"))
    finish(algo)
    assert _seeds(algo, before)
    assert not set(_seeds(algo, before)) & set(_seeds(algo, 0, before))
