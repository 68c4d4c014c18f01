"""Stage 4 as a run: what it publishes, and how it stops and goes on."""

import csv
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretrained import publish_pretrained, tiny_experiment

from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.algorithms.train import completion_rates, progress_note, train_downstream
from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError, SkildError
from skild_ray.evaluation.agent import load_agent
from skild_ray.interruption import Stopped
from skild_ray.runs import storage
from skild_ray.runs.artifacts import Artifact, open_artifact
from skild_ray.runs.folder import run_folder

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Experiment]:
    """An experiment with finished stages 1 to 3 in a folder of its own; takes fields of `algorithm` and sections."""
    monkeypatch.setenv("TUNE_RESULT_DIR", str(tmp_path / "ray"))

    def make(progress: dict[str, Any] | None = None, **algorithm: Any) -> Experiment:
        sections = {"progress": {"report_interval_s": 0.01} | (progress or {})}
        environment = {"id": "counting_env:RandomLengthEnv"}
        experiment = tiny_experiment(tmp_path, environment=environment, algorithm=algorithm, **sections)
        publish_pretrained(experiment)
        return experiment

    return make


def _rows(artifact: Artifact) -> list[dict[str, str]]:
    with (artifact.path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def _interrupt(experiment: Experiment, fingerprint: str, checkpoints: int) -> list[Path]:
    """Train until so many checkpoints are there, then ask it to stop by SIGTERM; what is there then."""
    work, finished = run_folder(experiment) / ".work" / f"demo_rl-{fingerprint}", threading.Event()

    def interrupt() -> None:
        while not finished.wait(0.01):
            if len(list(work.glob("checkpoint_*"))) == checkpoints:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Stopped, match=r"stopped at \d+ env steps") as caught:
            train_downstream(experiment, fingerprint)
    finally:
        finished.set()
        thread.join()
    assert caught.value.exit_code == 128 + signal.SIGTERM
    return sorted(work.glob("checkpoint_*"))


def test_published_artifact(
    make_run: Callable[..., Experiment], make_module: Callable[..., SkiLDTorchRLModule]
) -> None:
    experiment = make_run()
    artifact = train_downstream(experiment, "f")
    assert open_artifact(run_folder(experiment), "demo_rl").fingerprint == "f"
    assert set(artifact.record["inputs"]) == {"skill_prior", "skill_posterior", "demo_discriminator"}
    rows = _rows(artifact)
    assert [int(rows[-1][name]) for name in ("env_steps", "decisions", "updates")] == [
        artifact.facts[name] for name in ("env_steps", "decisions", "updates")
    ]
    assert np.all(np.diff([float(row["env_steps"]) for row in rows]) >= 0)
    assert 0 < float(rows[-1]["success"]) < 1
    assert np.isfinite(float(rows[-1]["critic_loss"]))
    assert not any(name.startswith("solved_") for name in rows[-1]), "there are no sub-tasks"
    assert all("nan" not in (row["success"], row.get("episode_return")) for row in rows)
    replay = np.load(artifact.path / "replay.npz")
    assert len(replay["obs"]) == len(replay["rewards"]) == artifact.facts["decisions"]
    assert replay["k"].sum() == artifact.facts["env_steps"]
    make_module(run_dir=run_folder(experiment)).load_state_dict(artifact.weights())
    (checkpoint,) = (run_folder(experiment) / ".work" / "demo_rl-f").iterdir()
    assert int(checkpoint.name.removeprefix("checkpoint_")) == artifact.facts["env_steps"]


def test_completion_rates_of_sub_tasks_in_their_order() -> None:
    rates = completion_rates([0.0, 2.0, 3.0, 3.0], ["1_kettle", "2_top_burner", "3_light_switch"])
    assert rates == {"solved_1_kettle": 0.75, "solved_2_top_burner": 0.75, "solved_3_light_switch": 0.5}
    assert sum(rates.values()) == np.mean([0, 2, 3, 3])
    assert completion_rates([1.0, 0.0], ["1_goal"]) == {}, "that is success"


def test_progress_shows_sub_tasks_where_there_are_several() -> None:
    row = {"success": 0.5, "subtasks_solved": 1.5, "episode_return": 2.0}
    assert progress_note(row | {"solved_1_kettle": 1.0}) == "success 0.50, sub-tasks 1.50, return 2.00"
    assert progress_note(row) == "success 0.50, return 2.00"


def test_imitation_is_a_stage_of_its_own(make_run: Callable[..., Experiment]) -> None:
    experiment = make_run(env_reward_weight=0.0, total_env_steps=800)
    assert train_downstream(experiment, "f").path == run_folder(experiment) / "imitation"


def test_a_signal_stops_it_with_a_checkpoint(
    make_run: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = make_run({"checkpoint_interval_s": 0.01, "keep_checkpoints": 2}, total_env_steps=4_000)
    handler = signal.getsignal(signal.SIGTERM)
    checkpoints = _interrupt(experiment, "f", checkpoints=2)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert len(checkpoints) == 2
    steps = int(checkpoints[-1].name.removeprefix("checkpoint_"))

    artifact = train_downstream(experiment, "f")
    assert f"resumed at {steps} env steps" in capsys.readouterr().out
    assert artifact.facts["env_steps"] > steps
    updates = [float(row["updates"]) for row in _rows(artifact)]
    assert np.all(np.diff(updates) >= 0)
    seconds = [float(row["seconds"]) for row in _rows(artifact)]
    assert np.all(np.diff(seconds) > 0)


def test_a_stopped_synchronous_run_ends_as_if_it_had_not_been(make_run: Callable[..., Experiment]) -> None:
    settings = {"synchronous": True, "total_env_steps": 2_000}
    experiment = make_run({"checkpoint_env_steps": 500}, **settings)
    expected = _rows(train_downstream(experiment, "whole"))
    _interrupt(experiment, "f", checkpoints=2)
    rows = _rows(train_downstream(experiment, "f"))
    for row in (*rows, *expected):
        del row["seconds"]
    assert rows == expected
    assert len(rows) > 20


def test_a_damaged_checkpoint_is_skipped(
    make_run: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = make_run({"checkpoint_env_steps": 500}, synchronous=True, total_env_steps=2_000)
    _interrupt(experiment, "f", checkpoints=2)
    older, newer = sorted((run_folder(experiment) / ".work" / "demo_rl-f").glob("checkpoint_*"))
    state = newer / "algorithm_state.pkl"
    state.write_bytes(state.read_bytes()[:-10])
    train_downstream(experiment, "f")
    said = capsys.readouterr().out
    assert f"{newer}: damaged checkpoint (the hash of algorithm_state.pkl differs), skipped" in said
    assert f"from {older}" in said


def test_a_full_disk_is_one_line_and_costs_no_checkpoint(
    make_run: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files makes the system refuse to write, as a full disk does."""
    experiment = make_run({"checkpoint_env_steps": 500}, synchronous=True, total_env_steps=2_000)
    _interrupt(experiment, "f", checkpoints=1)
    work, limits = run_folder(experiment) / ".work" / "demo_rl-f", resource.getrlimit(resource.RLIMIT_FSIZE)
    (before,) = work.glob("checkpoint_*")
    size = (before / "algorithm_state.pkl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))  # the replay grows
    try:
        with pytest.raises(ArtifactError, match=r"cannot write .*; free space there") as caught:
            train_downstream(experiment, "f")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert [path for path in work.iterdir() if path.is_dir()] == [before]
    train_downstream(experiment, "f")
    assert f"from {before}" in capsys.readouterr().out


def test_another_machine_goes_on_from_a_uri(
    make_run: Callable[..., Experiment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runs = f"file://{tmp_path}/there"
    experiment = make_run({"checkpoint_env_steps": 300}, synchronous=True, total_env_steps=1_200)
    experiment = experiment.model_copy(update={"runs": runs})
    publish_pretrained(experiment)
    checkpoints = _interrupt(experiment, "f", checkpoints=2)
    shutil.rmtree(storage.local_folder(runs))
    artifact = train_downstream(experiment, "f")
    assert f"from {checkpoints[-1]}" in capsys.readouterr().out
    shutil.rmtree(storage.local_folder(runs))
    assert open_artifact(run_folder(experiment), "demo_rl") == artifact
    assert len(storage.names(checkpoints[-1].parent)) == 1, "the last checkpoint stays, for a larger budget"


def test_checkpoints_of_other_settings_are_not_resumed(make_run: Callable[..., Experiment]) -> None:
    experiment = make_run(total_env_steps=800)
    stray = run_folder(experiment) / ".work" / "demo_rl-other" / "checkpoint_000000000500"
    stray.mkdir(parents=True)
    assert float(_rows(train_downstream(experiment, "f"))[0]["env_steps"]) < 200


def test_a_larger_budget_goes_on_and_a_smaller_one_does_not(
    make_run: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    short = make_run(total_env_steps=800)
    first = train_downstream(short, "f")
    longer = train_downstream(make_run(total_env_steps=1_600), "f")
    assert f"resumed at {first.facts['env_steps']} env steps" in capsys.readouterr().out
    assert first.facts["env_steps"] < longer.facts["env_steps"] <= 1_600
    assert _rows(longer)[: len(_rows(first))] == _rows(first)

    again = train_downstream(short, "f")
    assert "resumed" not in capsys.readouterr().out
    assert again.facts["env_steps"] <= 800


def test_an_environment_that_never_works_is_one_line(make_run: Callable[..., Experiment]) -> None:
    experiment = make_run()
    broken = experiment.environment.model_copy(update={"kwargs": {"fail_at": 1}})
    with pytest.raises(SkildError, match="environment 'counting_env:RandomLengthEnv' fails: RuntimeError: the counter"):
        train_downstream(experiment.model_copy(update={"environment": broken}), "f")


def test_what_is_not_finite_is_blamed_on_the_environment(
    make_run: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    """Later than the trial looks, and before it can reach the losses."""
    experiment = make_run()
    kwargs = {"fault": "reward nan", "at": 25, "names": (), "max_episode_steps": 40}
    environment = {"id": "odd_env:OddEnv", "kwargs": kwargs}
    odd = experiment.model_copy(update={"environment": experiment.environment.model_validate(environment)})
    with pytest.raises(SkildError) as caught:
        train_downstream(odd, "f")
    told = "environment 'odd_env:OddEnv': reward nan in step 25 of an episode"
    assert "fails too often" in str(caught.value) and told in str(caught.value) and "\n" not in str(caught.value)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if told in line]
    assert "environment_rebuilds" in said


def test_a_policy_is_not_evaluated_with_other_skills(make_run: Callable[..., Experiment]) -> None:
    experiment = make_run(total_env_steps=800)
    artifact = train_downstream(experiment, "f")
    (checkpoint,) = (run_folder(experiment) / ".work" / "demo_rl-f").iterdir()
    assert load_agent(artifact.path).env_steps == load_agent(checkpoint).env_steps
    assert load_agent(checkpoint).environment == experiment.environment
    publish_pretrained(experiment, seed=1)
    for path in (artifact.path, checkpoint):
        with pytest.raises(ArtifactError, match="trained from another"):
            load_agent(path)


def test_diverging_training_is_one_line(make_run: Callable[..., Experiment]) -> None:
    with pytest.raises(SkildError) as caught:
        train_downstream(make_run(critic_lr=1e30, critic_norm="none"), "f")
    assert "critic_loss is not finite" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unwritable_run_directory(make_run: Callable[..., Experiment]) -> None:
    experiment = make_run()
    (run_folder(experiment) / ".work").write_text("a file where a folder belongs")
    with pytest.raises(ArtifactError, match="cannot write"):
        train_downstream(experiment, "f")
