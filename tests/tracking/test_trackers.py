"""Weights & Biases and MLflow with their own clients, offline."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from pretrained import tiny_experiment

from skild_ray.config import Experiment
from skild_ray.errors import ConfigError
from skild_ray.plugins import import_extra
from skild_ray.runs.folder import run_folder
from skild_ray.tracking import Tracking

RESULTS = {"episodes": 3, "success_rate": 0.75, "success_ci95": [0.5, 1.0], "initial": {"success_rate": 0.25}}


def _experiment(folder: Path, **tracking: Any) -> Experiment:
    return tiny_experiment(folder / "runs", tracking=tracking)


def test_no_tracker_is_needed(tmp_path: Path) -> None:
    with Tracking.of(_experiment(tmp_path, wandb={"mode": "disabled"})) as tracking:
        tracking.finished("skill_prior", "f", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"^tracking.{package}: .*pip install 'skild_ray\[{package}\]'[^\n]*$"):
        Tracking.of(_experiment(tmp_path, **{package: {}}))


def test_a_folder_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B leaves a folder `wandb` behind, which Python takes for a package where none is installed."""
    (tmp_path / "tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"^tracking.tracker: the package is missing; pip install"):
        import_extra("tracker", "tracker", "tracking.tracker")


@pytest.fixture
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B as on a machine where nobody has used it."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.parametrize("mode", ["offline", "dryrun", "disabled"])
def test_the_variable_decides_where_the_experiment_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_login: None, mode: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    Tracking.of(_experiment(tmp_path, wandb={}))  # none of these needs a login
    with pytest.raises(ConfigError, match="no login"):
        Tracking.of(_experiment(tmp_path, wandb={"mode": "online"}))


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [("WANDB_API_KEY", "short", "API key must have 40"), ("WANDB_MODE", "offlin", "Input should be 'online'")],
)
def test_what_wandb_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_login: None, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=rf"^tracking.wandb: [^\n]*{reason}[^\n]*mode=disabled$"):
        Tracking.of(_experiment(tmp_path, wandb={}))


def test_a_missing_login_is_one_line(tmp_path: Path, no_login: None, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"^tracking.wandb: no login; run wandb login[^\n]*mode=offline$"):
        Tracking.of(_experiment(tmp_path, wandb={}))
    assert capfd.readouterr() == ("", "")


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A folder as the store: MLflow warns people off it, but makes it quicker than a database."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri, page = (tmp_path / "store").as_uri(), tmp_path / "report.html"
    page.write_text("<html></html>")
    experiment = _experiment(tmp_path, mlflow={"uri": uri, "experiment": "tiny runs"})
    (run_folder(experiment) / "demo_rl" / "videos").mkdir(parents=True)
    (run_folder(experiment) / "demo_rl" / "videos" / "episode.mp4").write_bytes(b"film")
    for restored, step in (([], 100), ([100], 200)):
        with (
            Tracking.of(experiment) as tracking,
            tracking.stage("demo_rl", "f", run_folder(experiment) / "demo_rl") as series,
        ):
            series.restart([{"env_steps": env_steps, "loss": 9.0} for env_steps in restored])
            series.add({"env_steps": step, "loss": 1.0})
            tracking.outcome(RESULTS, page, run_folder(experiment) / "demo_rl")

    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tiny runs").experiment_id])
    assert run.info.run_name == "tiny"
    assert run.info.status == "FINISHED"
    assert run.data.params["algorithm/n_step"] == "3"
    assert run.data.metrics["evaluation/success_rate"] == 0.75
    history = client.get_metric_history(run.info.run_id, "demo_rl/loss")
    assert [(entry.step, entry.value) for entry in history] == [(100, 1.0), (200, 1.0)]
    files = {file.path for folder in ("", "videos") for file in client.list_artifacts(run.info.run_id, folder)}
    assert {"report.html", "evaluation.json", "videos/episode.mp4"} <= files
    output, errors = capfd.readouterr()
    assert errors == ""
    assert output.count("\n") == 2, "one line a start"
