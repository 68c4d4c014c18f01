"""The whole of it on a small maze problem: from no data at all to a report, through kills and changes of mind."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_maze import EXPERIMENT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from skild_ray.algorithms.skild.skild import SkiLDConfig
from skild_ray.config import load_experiment
from skild_ray.errors import ArtifactError
from skild_ray.offline.skill_posterior import SkillPosteriorProblem
from skild_ray.pipeline import Run
from skild_ray.runs.artifacts import open_artifact

STAGES = ["skill_prior", "skill_posterior", "demo_discriminator", "demo_rl"]


class Finished(Exception):
    """The program ended before it could be killed."""


def _command(path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "skild_ray.cli", "pipeline", os.fspath(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.fspath(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )


def _interrupted(path: Path, reached: Callable[[], bool], interrupt: Callable[[subprocess.Popen[str]], None]) -> str:
    """Run the pipeline and interrupt it as soon as `reached()`; its output."""
    process, clock = _command(path), threading.Event()
    while not reached():
        if process.poll() is not None:
            raise Finished(process.communicate()[0])
        clock.wait(0.02)
    interrupt(process)
    return process.communicate()[0]


def _terminate(process: subprocess.Popen[str]) -> None:
    """As `timeout` and Slurm do: the process and, at once, its group, of which the local Ray is no part."""
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)


def _rows(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def _wandb_records(folder: Path) -> list[dict[str, Any]]:
    """What is in an offline run of Weights & Biases, by its own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", os.fspath(folder)]
    environment = os.environ | {"WANDB_ERROR_REPORTING": "false"}
    lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "minari").mkdir()
    content = EXPERIMENT | {
        "runs": str(folder / "runs"),
        "evaluation": EXPERIMENT["evaluation"] | {"videos": 1},
        "tracking": {"wandb": {"project": "tiny", "tags": ["small"], "mode": "offline"}},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(autouse=True)
def minari(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))


def test_killed_then_stopped_then_finished(folder: Path) -> None:
    path, run = folder / "small.yaml", folder / "runs" / "small"
    work = run / ".work"
    wanted = ("checkpoint_*/state.pt", "metrics.csv")
    _interrupted(path, lambda: all(list(work.glob(f"skill_prior-*/{name}")) for name in wanted), subprocess.Popen.kill)
    assert not (run / "skill_prior").exists()
    state = sorted(work.glob("skill_prior-*/checkpoint_*/state.pt"))[-1]
    before = torch.load(state, weights_only=True)["rows"]
    assert before
    live = [float(row["train_total"]) for row in _rows(state.parents[1])]
    known = min(len(live), len(before))  # rows go to the driver and to checkpoints on ways of their own
    assert live[:known] == [row["train_total"] for row in before[:known]]
    assert known

    output = _interrupted(path, lambda: bool(list(work.glob("demo_rl-*/checkpoint_*"))), _terminate)
    assert not (run / "demo_rl").exists()
    rows = _rows(run / "skill_prior")
    assert [float(row["train_total"]) for row in rows[: len(before)]] == [row["train_total"] for row in before]
    assert [float(row["iteration"]) for row in rows] == list(range(20, 601, 20))
    checkpoint = sorted(work.glob("demo_rl-*/checkpoint_*"))[-1]
    steps = int(checkpoint.name.removeprefix("checkpoint_"))
    stopped = f"error: demo_rl: stopped at {steps} env steps; the same command resumes from there"
    assert output.splitlines()[-1] == stopped
    before = json.loads((checkpoint / "rows.json").read_text())
    live = _rows(checkpoint.parent)
    assert [float(row["env_steps"]) for row in live[: len(before)]] == [row["env_steps"] for row in before]

    process = _command(path)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    for stage in STAGES[:3]:
        assert f"{stage}: up to date" in output
    assert f"resumed at {steps} env steps" in output
    rows = _rows(run / "demo_rl")
    assert [float(row["env_steps"]) for row in rows[: len(before)]] == [row["env_steps"] for row in before]
    assert 7_000 < float(rows[-1]["env_steps"]) <= 8_000
    results = json.loads((run / "demo_rl" / "evaluation.json").read_text())
    assert results["episodes"] == 3
    assert results["episode_length_mean"] == 100
    (filmed,) = results["videos"]
    assert (run / "demo_rl" / "videos" / f"{filmed['name']}.mp4").exists()
    (report,) = (word for line in output.splitlines() if line.startswith("report: ") for word in line.split()[1:])
    assert Path(report).stat().st_size > 10_000
    (left,) = (entry for entry in work.iterdir() if entry.is_dir())
    (kept,) = left.iterdir()
    assert kept.name.startswith("checkpoint_"), "the last of stage 4, which a larger budget goes on from"
    assert "wandb" not in output.replace(f"wandb sync {run / 'wandb'}", "").replace(str(run / "wandb"), "")


def test_events_are_those_of_the_table(folder: Path) -> None:
    for stage in STAGES:
        path = folder / "runs" / "small" / stage
        step = "env_steps" if stage == "demo_rl" else "iteration"
        rows, events = _rows(path), EventAccumulator(str(path)).Reload()
        assert set(events.Tags()["scalars"]) == rows[0].keys() - {step}
        for name in events.Tags()["scalars"]:
            known = [(int(float(row[step])), pytest.approx(float(row[name]), nan_ok=True)) for row in rows if row[name]]
            assert [(event.step, event.value) for event in events.Scalars(name)] == known


def test_weights_and_biases_got_everything(folder: Path) -> None:
    run = folder / "runs" / "small"
    starts = [_wandb_records(path) for path in sorted((run / "wandb").glob("offline-run-*"))]
    assert len(starts) == 3
    begun = [record["run"] for records in starts for record in records if record["type"] == "run"]
    assert {(start["run_id"], start["project"], *start["tags"]) for start in begun} == {
        (json.loads((run / "wandb.json").read_text())["id"], "tiny", "small")
    }
    settings = load_experiment(folder / "small.yaml").model_dump(mode="json")
    assert begun[-1]["config"]["update"].items() >= settings.items()
    records = [record for records in starts for record in records]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    for stage, step in zip(STAGES, ["iteration"] * 3 + ["env_steps"], strict=True):
        axes = [record["metric"] for record in records if record["type"] == "metric"]
        assert any((m.get("glob_name"), m.get("step_metric")) == (f"{stage}/*", f"{stage}/{step}") for m in axes)
        sent = [row[f"{stage}/{step}"] for row in history if f"{stage}/{step}" in row]
        assert set(sent) >= {float(row[step]) for row in _rows(run / stage)}
    assert sent[-1] == float(_rows(run / "demo_rl")[-1]["env_steps"])
    steps = [row["_step"] for row in history]
    assert steps == sorted(set(steps)), "the offline runs can be sent one after the other"
    (page,) = (run / "wandb").glob("offline-run-*/files/media/html/report_*.html")
    assert page.read_bytes() == (run / "report.html").read_bytes()
    assert history[-1]["report.path"] == f"media/html/{page.name}"
    results = json.loads((run / "demo_rl" / "evaluation.json").read_text())
    (evaluation,) = (r["summary"]["update"] for r in records if "evaluation" in r.get("summary", {}).get("update", {}))
    assert evaluation["evaluation"]["success_rate"] == results["success_rate"]


def _messages(folder: Path, *overrides: str, force: bool = False) -> list[str]:
    messages: list[str] = []
    Run(load_experiment(folder / "small.yaml", overrides), messages.append, force=force).train_all()
    return messages


def test_second_run_reuses_everything(folder: Path) -> None:
    assert [message.split(",")[0] for message in _messages(folder)] == [f"{stage}: up to date" for stage in STAGES]


def test_where_and_how_fast_it_runs_is_said_and_retrains_nothing(folder: Path) -> None:
    messages = _messages(
        folder, "rollout.num_env_runners=0", "resources.train_workers=2", "progress.keep_checkpoints=5"
    )
    assert len(messages) == len(STAGES)
    for message in messages[:3]:
        assert message.endswith("; it was made with resources.train_workers 1, not 2")
    assert messages[3].endswith("; it was made with rollout.num_env_runners 1, not 0")


def test_a_larger_budget_trains_on(folder: Path, ray_session: None, capsys: pytest.CaptureFixture[str]) -> None:
    messages = _messages(folder, "algorithm.total_env_steps=8600")
    assert "demo_rl: was trained for 8000 env steps, 8600 are wanted" in messages
    assert "resumed at 7" in capsys.readouterr().out
    assert open_artifact(folder / "runs" / "small", "demo_rl").facts["env_steps"] > 8_000


def test_a_stage_refuses_inputs_made_with_other_settings(folder: Path) -> None:
    for override in ("skill.latent_dim=3", "skill_prior.kl_weight=0.25"):
        with pytest.raises(ArtifactError, match=f"skill_prior: was made with another {override.split('=')[0]}"):
            Run(load_experiment(folder / "small.yaml", [override])).train("demo_rl")


def test_what_another_version_of_the_code_made_is_not_reused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(load_experiment(folder / "small.yaml"))
    before = {stage: run.fingerprint(stage) for stage in STAGES}
    assert before == {stage: open_artifact(folder / "runs" / "small", stage).fingerprint for stage in STAGES}
    monkeypatch.setattr(SkiLDConfig, "version", SkiLDConfig.version + 1)
    assert [stage for stage in STAGES if run.fingerprint(stage) != before[stage]] == ["demo_rl"]
    monkeypatch.setattr(SkillPosteriorProblem, "version", SkillPosteriorProblem.version + 1)
    assert [stage for stage in STAGES[:3] if run.fingerprint(stage) != before[stage]] == ["skill_posterior"]
    with pytest.raises(ArtifactError, match="skill_posterior: was made by version 2 of this stage, this is 3"):
        run.train("demo_rl")


@pytest.mark.parametrize(
    ("override", "stage", "key"),
    [
        ("skill_prior.kl_weight=0.5", "skill_prior", "skill_prior.kl_weight"),
        ("algorithm.alpha=0.25", "demo_rl", "algorithm.alpha"),
        ("algorithm.total_env_steps=1500", "demo_rl", "algorithm.total_env_steps"),
    ],
)
def test_what_is_finished_is_not_lost(folder: Path, ray_session: None, override: str, stage: str, key: str) -> None:
    before = [open_artifact(folder / "runs" / "small", name).record for name in STAGES]
    with pytest.raises(ArtifactError, match=f"{stage} was made with {key} .*--force"):
        _messages(folder, override)
    assert [open_artifact(folder / "runs" / "small", name).record for name in STAGES] == before


def test_what_changed_or_was_damaged_is_made_again(folder: Path, ray_session: None) -> None:
    run = folder / "runs" / "small"
    old = {stage: open_artifact(run, stage) for stage in STAGES}
    model = run / "demo_discriminator" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:100])
    overrides = ["skill_prior.kl_weight=0.5", "skill_prior.iterations=60", "algorithm.total_env_steps=1500"]
    messages = _messages(folder, *overrides, "rollout.num_env_runners=0", force=True)
    new = {stage: open_artifact(run, stage) for stage in STAGES}
    assert [stage for stage in STAGES if new[stage].model_hash != old[stage].model_hash] == [
        "skill_prior",
        "skill_posterior",
        "demo_rl",
    ], "the discriminator, made again with the same seed and data, is the same"
    assert new["demo_discriminator"].fingerprint == old["demo_discriminator"].fingerprint
    assert any(str(model) in message and "truncated" in message for message in messages)
    assert new["skill_posterior"].record["inputs"] == {"skill_prior": new["skill_prior"].model_hash}
    assert new["demo_rl"].record["inputs"] == {stage: new[stage].model_hash for stage in STAGES[:3]}
