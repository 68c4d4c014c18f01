"""RLPD: where its batches come from, and the run as a whole; test_rlpd_losses.py has its losses."""

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pretrained import tiny_experiment
from short_runs import equal
from typer.testing import CliRunner

from skild_ray.algorithms.rlpd.rlpd import RLPD, RLPDConfig
from skild_ray.algorithms.rlpd.settings import RLPDSettings
from skild_ray.algorithms.stored_transitions import load_transitions
from skild_ray.algorithms.train import metrics_row, module_weights
from skild_ray.cli import app
from skild_ray.config import Experiment, Source
from skild_ray.errors import DataError
from skild_ray.evaluation.agent import load_agent
from skild_ray.evaluation.evaluate import evaluate_run
from skild_ray.generation.sources import named_sources
from skild_ray.pipeline import Run
from skild_ray.report.run_page import write_report
from skild_ray.runs.artifacts import open_artifact
from skild_ray.runs.folder import run_folder
from skild_ray.stages import DEMONSTRATIONS
from skild_ray.tracking import MetricsRow

SETTINGS = {
    "hidden": 16,
    "batch_size": 32,
    "warmup_env_steps": 100,
    "updates_per_env_step": 0.5,
    "layers": 2,
    "critics": 3,
}


def _rlpd(runs: Path, **changes: Any) -> Experiment:
    """RLPD on the line for 1500 env steps; fields of ``RLPDSettings`` may be changed, and sections."""
    sections = {name: changes.pop(name) for name in ("seed", "data", "rollout") if name in changes}
    algorithm = SETTINGS | {"type": "rlpd", "total_env_steps": 1_500} | changes
    return tiny_experiment(runs, algorithm=algorithm, **sections)


# --- demonstrations ---


def _d4rl_file(path: Path, **arrays: Any) -> Source:
    with h5py.File(path, "w") as file:
        for name, values in {
            "observations": np.zeros((4, 2)),
            "actions": np.zeros((4, 1)),
            "terminals": [False, False, False, True],
            **arrays,
        }.items():
            file[name] = np.asarray(values)
    return Source(dataset=str(path))


@pytest.mark.parametrize("arrays", [{}, {"rewards": np.zeros(4)}])
def test_demonstrations_without_rewards_are_one_line(tmp_path: Path, arrays: dict[str, Any]) -> None:
    source = _d4rl_file(tmp_path / "old.hdf5", **arrays)
    experiment = _rlpd(tmp_path, data={"task_agnostic": [source], "demonstrations": [source]})
    with pytest.raises(DataError, match=r"old.hdf5.*no rewards") as caught:
        Run(experiment).train_all()
    assert "\n" not in str(caught.value)


# --- the whole ---


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> Iterator[tuple[Experiment, Callable[..., list[str]]]]:
    """A finished run, and a function that runs the experiment again and says what it reported."""
    folder = tmp_path_factory.mktemp("rlpd")
    (folder / "minari").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("TUNE_RESULT_DIR", str(folder / "ray"))

        def run(**changes: Any) -> list[str]:
            messages: list[str] = []
            Run(_rlpd(folder, **changes), messages.append).train_all()
            return messages

        run()
        yield _rlpd(folder), run


def _rows(experiment: Experiment) -> list[dict[str, str]]:
    with (run_folder(experiment) / "rlpd" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_it_needs_no_other_stage(finished: tuple[Experiment, Callable[..., list[str]]]) -> None:
    experiment, _ = finished
    assert {path.name for path in run_folder(experiment).iterdir()} == {"rlpd", ".work"}
    artifact = open_artifact(run_folder(experiment), "rlpd")
    assert not artifact.record["inputs"]
    assert set(artifact.record["data"]) == {"demonstrations"}
    facts = artifact.facts
    assert 1_400 < facts["env_steps"] == facts["decisions"] <= 1_500
    assert facts["updates"] == pytest.approx((facts["env_steps"] - 100) / 2, abs=64)
    last = _rows(experiment)[-1]
    for name in ("success", "subtasks_solved", "critic_loss", "policy_loss", "temperature", "entropy"):
        assert math.isfinite(float(last[name]))
    assert float(last["temperature"]) != 1


def test_evaluation(finished: tuple[Experiment, Callable[..., list[str]]]) -> None:
    experiment, _ = finished
    artifact = run_folder(experiment) / "rlpd"
    evaluation = evaluate_run(artifact, episodes=6, seed=3)
    trained = evaluation.trained
    assert trained.deterministic.env_steps_trained == trained.sampled.env_steps_trained > 1_400
    assert set(evaluation.policies) == {"trained"}
    assert 5 < trained.deterministic.episode_length_mean <= 40
    (checkpoint,) = (run_folder(experiment) / ".work").glob("rlpd-*/checkpoint_*")
    policies = [load_agent(path).policy(deterministic=True, seed=0) for path in (run_folder(experiment), checkpoint)]
    states = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_array_equal(policies[0](states), policies[1](states))
    assert np.abs(policies[0](states)).max() <= 1


def test_report_and_comparison(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    experiment, _ = finished
    evaluate_run(run_folder(experiment) / "rlpd", episodes=2, seed=3)
    page = write_report(run_folder(experiment)).read_text()
    assert "Reinforcement learning with prior data, without skills" in page
    assert "Entropy of the policy" in page
    assert "Not finished" not in page
    arguments = ["compare", f"RLPD={run_folder(experiment)}", "--out", str(tmp_path / "figure.svg")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "| RLPD |" in result.output
    assert (tmp_path / "figure.svg").read_text().startswith("<svg")


def test_reused_and_trained_on(
    finished: tuple[Experiment, Callable[..., list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, run = finished
    assert [message.split(",")[0] for message in run()] == ["rlpd: up to date"]
    before = _rows(experiment)
    run(total_env_steps=1_800)
    assert f"resumed at {before[-1]['env_steps']} env steps" in capsys.readouterr().out
    assert _rows(experiment)[: len(before)] == before
    assert 1_500 < open_artifact(run_folder(experiment), "rlpd").facts["env_steps"] <= 1_800


def _algo(experiment: Experiment) -> RLPD:
    algo = RLPDConfig.from_experiment(experiment).build_algo()
    assert isinstance(algo, RLPD)
    return algo


def test_half_of_every_batch_are_demonstrations(
    finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path
) -> None:
    """The expert always walks to the right, at half speed or more; the random policy also to the left."""
    algo = _algo(_rlpd(tmp_path, total_env_steps=600, warmup_env_steps=600))
    try:
        while not algo.finished:
            algo.train()
        actions = algo.experience.draw(4, 32)["actions"].reshape(4, 32)
        assert (actions[:, :16] >= 0.5).all()
        assert (actions[:, 16:] < 0.5).any(1).all()
        assert algo.counts["updates"] == 0
    finally:
        algo.stop()


def test_a_finished_run_is_prior_data(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    experiment, _ = finished
    changes = {"replays": [str(run_folder(experiment))], "replay_share": 0.25, "demonstration_share": 0.25}
    algo = _algo(_rlpd(tmp_path, total_env_steps=200, warmup_env_steps=200, **changes))
    try:
        while not algo.finished:
            algo.train()
        drawn = algo.experience.draw(4, 32)["obs"].reshape(4, 32, 2)
        with np.load(run_folder(experiment) / "rlpd" / "replay.npz") as file:
            known = {state.tobytes() for state in file["obs"]}
        for batch in drawn:
            from_there = [state.tobytes() in known for state in batch]
            assert all(from_there[8:16]) and not all(from_there[:8]) and not all(from_there[16:])
    finally:
        algo.stop()


def test_targets_of_both_halves_look_n_steps_ahead(
    finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path
) -> None:
    algo = _algo(_rlpd(tmp_path, total_env_steps=600, warmup_env_steps=600, n_step=3))
    try:
        while not algo.finished:
            algo.train()
        bootstrap = algo.experience.draw(4, 32)["bootstrap"].reshape(4, 32)
        for half in (bootstrap[:, :16], bootstrap[:, 16:]):
            assert half.max() < 1
            assert np.isclose(half, 0.99**3).mean() > 0.5, "nearer the end of an episode it is fewer"
    finally:
        algo.stop()


def _finish(algo: RLPD) -> list[MetricsRow]:
    """Train until the budget is spent; the metrics."""
    rows = []
    while not algo.finished:
        rows.append(metrics_row(algo.train(), algo, [], seconds=0.0))
    return rows


def test_a_checkpoint_holds_everything(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    """A synchronous run and what is restored from its checkpoint learn and log the same from there on."""
    algo = _algo(_rlpd(tmp_path, synchronous=True, total_env_steps=500, critic_updates_per_policy_update=30))
    restored = None
    try:
        while algo.counts["env_steps"] < 400:
            algo.train()
        checkpoint = algo.save_to_path(str(tmp_path / "checkpoint"))
        rows = _finish(algo)
        restored = RLPD.from_checkpoint(checkpoint)  # not before: both draw from this process's generator
        assert _finish(restored) == rows
        assert "policy_loss" in rows[0], "also where none of the last updates moved the policy"
        assert equal(module_weights(algo), module_weights(restored))
    finally:
        algo.stop()
        if restored:
            restored.stop()


def test_observations_are_standardised_by_the_demonstrations(
    finished: tuple[Experiment, Callable[..., list[str]]],
) -> None:
    experiment, _ = finished
    weights = open_artifact(run_folder(experiment), "rlpd").weights()
    (source,) = named_sources(experiment, DEMONSTRATIONS)
    observations = torch.cat(
        [torch.from_numpy(rows["obs"]) for rows in load_transitions([source], experiment.environment)]
    )
    torch.testing.assert_close(weights["standardize.mean"], observations.mean(0))
    torch.testing.assert_close(weights["standardize.std"], observations.std(0))


def test_reward_bias(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    """Rewards of the line are 0 or 1 an env step; with n = 1 they are what is drawn."""
    algo = _algo(_rlpd(tmp_path, total_env_steps=600, warmup_env_steps=600, reward_bias=-2.0))
    try:
        while not algo.finished:
            algo.train()
        returns = algo.experience.draw(8, 32)["returns"].reshape(8, 32)
        for half in (returns[:, :16], returns[:, 16:]):
            assert half.min() >= -2 and half.max() <= -1
    finally:
        algo.stop()


def test_configuration_needs_its_data() -> None:
    config = RLPDConfig().environment("line_world:LineEnv")
    with pytest.raises(ValueError, match=r"needs .demonstrations\(DATASET\)"):
        config.validate()
    config.demonstrations("a/b-v0").validate()
    with pytest.raises(ValueError, match=r"needs .task_agnostic\(DATASET\)"):
        config.training(task_agnostic_share=0.25).validate()
    config.task_agnostic("a/play-v0").validate()
    assert config.sources("task_agnostic") == [Source(dataset="a/play-v0")]
    assert RLPDConfig.from_record(config.record).record == config.record


def test_shares_leave_room() -> None:
    with pytest.raises(ValueError, match="must leave room for the policy's transitions"):
        RLPDSettings(demonstration_share=0.5, task_agnostic_share=0.5)
    assert RLPDSettings(demonstration_share=0, task_agnostic_share=0.5).replayed == {"task_agnostic": "with rewards"}
