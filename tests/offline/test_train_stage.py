"""The offline stages as Ray Train jobs."""

import contextlib
import csv
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pretrained import tiny_experiment

from skild_ray.algorithms.pretrained import Pretrained, load_demonstration_states, load_discriminator
from skild_ray.config import Experiment
from skild_ray.data.trajectories import Trajectories
from skild_ray.errors import SkildError
from skild_ray.interruption import Stopped
from skild_ray.offline.channel import Channel
from skild_ray.offline.loop import train_stage
from skild_ray.runs.artifacts import Artifact
from skild_ray.runs.folder import run_folder

MakeTrajectories = Callable[..., Trajectories]
Stages = dict[str, Artifact]

pytestmark = pytest.mark.usefixtures("ray_session")


def _experiment(runs: object, **sections: Any) -> Experiment:
    training = {"iterations": 120, "validation_interval": 20, "warmup_iterations": 20, "learning_rate": 1e-2}
    source = {"dataset": "synthetic"}
    settings: dict[str, Any] = {
        "data": {"task_agnostic": {"play": source}, "demonstrations": {"scripted": source}},
        "skill_prior": training,
        "skill_posterior": training | {"patience": None},
        "demo_discriminator": training | {"hidden": 8, "layers": 1},
        "resources": {"cpus_per_train_worker": 1},
    }
    return tiny_experiment(runs, **(settings | sections))


@pytest.fixture(scope="module")
def task_agnostic(make_trajectories: MakeTrajectories) -> Trajectories:
    return make_trajectories(20)


@pytest.fixture(scope="module")
def demonstrations(make_trajectories: MakeTrajectories) -> Trajectories:
    return make_trajectories(5, seed=1, centre=3.0)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return _experiment(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def stages(
    experiment: Experiment, task_agnostic: Trajectories, demonstrations: Trajectories, ray_session: None
) -> Stages:
    """All three, trained one after the other."""
    data = ([task_agnostic], [demonstrations])
    prior = train_stage(experiment, "skill_prior", *data, [], "f1")
    posterior = train_stage(experiment, "skill_posterior", *data, [prior], "f2")
    discriminator = train_stage(experiment, "demo_discriminator", *data, [], "f3")
    return {artifact.stage: artifact for artifact in (prior, posterior, discriminator)}


def _rows(artifact: Artifact) -> list[dict[str, str]]:
    with (artifact.path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def _iterations(artifact: Artifact) -> list[float]:
    return [float(row["iteration"]) for row in _rows(artifact)]


def test_artifacts_belong_together(experiment: Experiment, stages: Stages) -> None:
    opened = Pretrained.open(run_folder(experiment))
    assert [artifact.fingerprint for artifact in opened.artifacts] == ["f1", "f2", "f3"]
    for artifact in opened.artifacts:
        assert artifact.facts["observation_dim"] == artifact.facts["action_dim"] == 2
        assert artifact.facts["iterations"] == 120


def test_the_data_a_stage_uses_are_recorded(
    stages: Stages, task_agnostic: Trajectories, demonstrations: Trajectories
) -> None:
    play, demos = {"task_agnostic": task_agnostic.fingerprint()}, {"demonstrations": demonstrations.fingerprint()}
    assert stages["skill_prior"].record["data"] == play
    assert stages["skill_posterior"].record["data"] == demos
    assert stages["demo_discriminator"].record["data"] == play | demos


def test_held_out_losses_fall(stages: Stages) -> None:
    for artifact in stages.values():
        assert _iterations(artifact) == [20, 40, 60, 80, 100, 120]
        losses = [float(row["val_total"]) for row in _rows(artifact)]
        assert min(losses[1:]) < losses[0]


def test_kept_weights_have_the_best_criterion(stages: Stages) -> None:
    for stage, criterion in (
        ("skill_prior", "action_mse"),
        ("skill_posterior", "action_mse"),
        ("demo_discriminator", "total"),
    ):
        rows = _rows(stages[stage])
        last_kept = [row for row in rows if float(row["kept"])][-1]
        assert float(last_kept[f"val_{criterion}"]) == min(float(row[f"val_{criterion}"]) for row in rows)
        assert stages[stage].facts["best_validation_loss"] == pytest.approx(float(last_kept[f"val_{criterion}"]))
        assert float(rows[-1][f"kept_{criterion}"]) == pytest.approx(float(last_kept[f"val_{criterion}"]))


def test_learning_rate_warms_up_and_falls(stages: Stages) -> None:
    rates = [float(row["learning_rate"]) for row in _rows(stages["skill_prior"])]
    assert rates[0] == max(rates)
    assert rates[-1] == pytest.approx(1e-4, rel=0.05), "down to 1 %"


def test_posterior_holds_nothing_but_its_head(experiment: Experiment, stages: Stages) -> None:
    """Encoder and decoder stay as stage 1 left them: stage 2 does not even carry them."""
    prior, posterior = stages["skill_prior"].weights(), stages["skill_posterior"].weights()
    assert {f"prior.{name}" for name in posterior} == {name for name in prior if name.startswith("prior.")}
    assert not torch.equal(posterior["net.0.weight"], prior["prior.net.0.weight"])
    assert Pretrained.open(run_folder(experiment)).skill_prior.model_hash == stages["skill_prior"].model_hash


def test_discriminator_tells_the_classes_apart(
    stages: Stages, task_agnostic: Trajectories, demonstrations: Trajectories
) -> None:
    discriminator = load_discriminator(stages["demo_discriminator"])
    inside, outside = (
        torch.sigmoid(discriminator(torch.from_numpy(data.observations))).mean().item()
        for data in (demonstrations, task_agnostic)
    )
    assert inside > 0.7
    assert outside < 0.3


def test_demonstrations_go_with_the_discriminator(stages: Stages, demonstrations: Trajectories) -> None:
    states = load_demonstration_states(stages["demo_discriminator"])
    assert states.tobytes() == demonstrations.observations.tobytes()


def test_nothing_is_left_behind(experiment: Experiment, stages: Stages) -> None:
    assert list((run_folder(experiment) / ".work").iterdir()) == []


def _processes(name: str) -> list[psutil.Process]:
    """Ray's processes of this name among those that this one has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if name in " ".join(process.cmdline()):
                found.append(process)
    return found


def _checkpoints(work: Path) -> list[Path]:
    return sorted(work.glob("*/checkpoint_*/state.pt"))


def test_killed_worker_costs_nothing_but_time(
    tmp_path: Path, task_agnostic: Trajectories, demonstrations: Trajectories, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"iterations": 1_000, "validation_interval": 20, "checkpoint_interval_s": 0.1}
    experiment = _experiment(tmp_path, skill_prior=settings)
    work, killed, finished = run_folder(experiment) / ".work", [], threading.Event()

    def kill() -> None:
        while not finished.wait(0.02):
            workers = _processes("RayTrainWorker")
            if workers and _checkpoints(work):
                workers[0].send_signal(signal.SIGKILL)
                killed.append(workers[0].pid)
                return

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        artifact = train_stage(experiment, "skill_prior", [task_agnostic], [demonstrations], [], "f")
    finally:
        finished.set()
        thread.join()
    assert killed
    assert not psutil.pid_exists(killed[0])
    assert _iterations(artifact) == list(range(20, 1_001, 20)), "no row twice, none lost"
    assert artifact.facts["worker_restarts"] == 1
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "worker was lost" in line]
    assert said.startswith("skill prior: ")


def test_what_is_said_survives_the_process_that_carries_it() -> None:
    """A machine that is short of memory may kill it, and training goes on."""
    channel = Channel.here()
    channel.say({"iteration": 1.0})
    assert channel.events() == [{"iteration": 1.0}]
    assert channel.events() == []
    (carrier,) = _processes("_Mailbox")
    carrier.kill()
    carrier.wait()
    channel.say("again")
    assert channel.events() == ["again"]
    assert not channel.stop_is_wanted()
    channel.stop()
    assert channel.stop_is_wanted()
    channel.close()


def test_two_workers_stopped_by_a_signal(
    tmp_path: Path,
    task_agnostic: Trajectories,
    demonstrations: Trajectories,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both stop at the same iteration, with a checkpoint at a URI; the same call resumes from it.

    Their clocks differ, so do their losses; they must still agree on checkpoints and on the end.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = {"iterations": 1_000, "validation_interval": 20, "checkpoint_interval_s": 0.05, "patience": 10}
    resources = {"train_workers": 2, "cpus_per_train_worker": 1}
    experiment = _experiment(f"file://{tmp_path}/there", skill_prior=settings, resources=resources)
    stored, finished = tmp_path / "there" / experiment.name, threading.Event()

    def interrupt() -> None:
        while not finished.wait(0.02):
            if _checkpoints(stored / ".work"):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Stopped, match="the same command resumes from there") as caught:
            train_stage(experiment, "skill_prior", [task_agnostic], [demonstrations], [], "f")
    finally:
        finished.set()
        thread.join()
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler
    assert "took" not in capsys.readouterr().out
    state = torch.load(_checkpoints(stored / ".work")[-1], weights_only=True)
    assert f"skill_prior: stopped at {state['iteration']} iterations;" in str(caught.value)
    assert 20 <= state["iteration"] < 1_000

    artifact = train_stage(experiment, "skill_prior", [task_agnostic], [demonstrations], [], "f")
    iterations = _iterations(artifact)
    assert iterations == list(range(20, int(iterations[-1]) + 1, 20))
    assert iterations[-1] > state["iteration"]
    assert float(_rows(artifact)[0]["train_total"]) == state["rows"][0]["train_total"]
    assert artifact.facts["worker_restarts"] == 0
    assert sorted(path.name for path in stored.iterdir()) == [".work", "skill_prior"]
    assert list((stored / ".work").iterdir()) == []


def test_a_loss_that_is_not_finite_is_one_line_at_once(
    tmp_path: Path,
    task_agnostic: Trajectories,
    demonstrations: Trajectories,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = _experiment(
        tmp_path,
        skill_prior={"iterations": 50, "learning_rate": 1e30, "validation_interval": 10},
        resources={"train_workers": 2, "cpus_per_train_worker": 1},
    )
    with pytest.raises(SkildError) as caught:
        train_stage(experiment, "skill_prior", [task_agnostic], [demonstrations], [], "f")
    message = str(caught.value)
    assert "\n" not in message
    assert "not finite" in message
    assert "learning_rate" in message
    assert "lost or failed" not in capsys.readouterr().out, "it would come again"
