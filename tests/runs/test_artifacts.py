"""Artifacts: complete or absent, verified, and tied to what they were made from."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from skild_ray.config import Data, Environment, Experiment, Source, load_experiment
from skild_ray.errors import ArtifactError
from skild_ray.runs import artifacts
from skild_ray.runs.artifacts import SCHEMA, Artifact, open_artifact, publish, require_input
from skild_ray.runs.folder import run_folder

SOURCE = Source(dataset="anything")
WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    data = Data(task_agnostic={"play": SOURCE}, demonstrations={"human": SOURCE})
    return Experiment(name="tiny", seed=7, runs=str(tmp_path / "runs"), environment=Environment(id="any"), data=data)


def _publish(experiment: Experiment, stage: str = "skill_prior", weights: Any = None, **changes: Any) -> Artifact:
    arguments: dict[str, Any] = {
        "fingerprint": "f1",
        "data": {"task_agnostic": "d1"},
        "inputs": [],
        "facts": {"action_dim": 2},
    }
    rows = [{"iteration": 10, "loss": 2.0}, {"iteration": 20, "loss": 1.0, "accuracy": 0.5}]
    return publish(experiment, stage, WEIGHTS if weights is None else weights, rows, **(arguments | changes))


def _error(run_dir: Path, stage: str = "skill_prior") -> str:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(run_dir, stage)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_published_is_found(experiment: Experiment) -> None:
    published = _publish(experiment)
    found = open_artifact(run_folder(experiment), "skill_prior")
    assert (found.stage, found.fingerprint, dict(found.facts)) == ("skill_prior", "f1", {"action_dim": 2})
    assert (found.path, found.model_hash) == (published.path, published.model_hash)
    assert found.record["seed"] == 7
    assert found.record["data"] == {"task_agnostic": "d1"}
    assert {"python", "torch", "ray"} <= found.record["versions"].keys()
    weights = found.weights()
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in weights)
    assert load_experiment(found.path / "config.yaml") == experiment


def test_metrics_are_a_table_and_events(experiment: Experiment) -> None:
    path = _publish(experiment).path
    with (path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["10", "20"]
    assert [row["accuracy"] for row in rows] == ["", "0.5"]
    assert list(path.glob("events.out.tfevents.*"))


def test_extra_files_move_in(experiment: Experiment, tmp_path: Path) -> None:
    extra = tmp_path / "extra.npz"
    extra.write_text("content")
    artifact = _publish(experiment, extra=[extra])
    assert (artifact.path / "extra.npz").read_text() == "content"
    assert not extra.exists()


def test_views_of_one_tensor_can_be_published(experiment: Experiment) -> None:
    whole = torch.arange(4.0)
    weights: dict[str, Tensor] = {"first": whole[:2], "transposed": whole.reshape(2, 2).T}
    found = _publish(experiment, weights=weights).weights()
    assert found["transposed"].tolist() == [[0.0, 2.0], [1.0, 3.0]]


def test_missing_artifact_names_the_command(experiment: Experiment) -> None:
    message = _error(run_folder(experiment), "skill_posterior")
    assert "no such artifact" in message
    assert "skild-ray train skill-posterior" in message


@pytest.mark.parametrize("size", [0, 20, -1])
def test_truncated_model(experiment: Experiment, size: int) -> None:
    model = _publish(experiment).path / "model.safetensors"
    model.write_bytes(model.read_bytes()[:size])
    message = _error(run_folder(experiment))
    assert "truncated or altered" in message
    assert str(model) in message
    assert "skild-ray train skill-prior" in message


def test_altered_model(experiment: Experiment) -> None:
    model = _publish(experiment).path / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    assert "altered" in _error(run_folder(experiment))


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null", f'{{"schema": {SCHEMA}}}'])
def test_damaged_record(experiment: Experiment, content: str) -> None:
    (_publish(experiment).path / "artifact.json").write_text(content)
    assert "damaged artifact" in _error(run_folder(experiment))


@pytest.mark.parametrize("name", ["artifact.json", "model.safetensors"])
def test_file_missing_inside(experiment: Experiment, name: str) -> None:
    (_publish(experiment).path / name).unlink()
    assert "damaged artifact" in _error(run_folder(experiment))


def test_other_schema(experiment: Experiment) -> None:
    record = _publish(experiment).path / "artifact.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"schema": SCHEMA + 1}))
    assert f"schema {SCHEMA + 1}" in _error(run_folder(experiment))


def test_inputs_must_match(experiment: Experiment) -> None:
    prior = _publish(experiment)
    posterior = _publish(experiment, "skill_posterior", inputs=[prior])
    require_input(posterior, prior)
    other = _publish(experiment, weights={"layer.weight": torch.zeros(2, 3)})
    with pytest.raises(ArtifactError) as caught:
        require_input(posterior, other)
    message = str(caught.value)
    assert "another skill_prior" in message
    assert prior.model_hash[:12] in message
    assert other.model_hash[:12] in message
    assert "skild-ray train skill-posterior" in message


def test_an_input_that_was_never_used_does_not_match(experiment: Experiment) -> None:
    prior, discriminator = _publish(experiment), _publish(experiment, "demo_discriminator")
    with pytest.raises(ArtifactError, match="another skill_prior"):
        require_input(discriminator, prior)


def test_replacing(experiment: Experiment) -> None:
    first = _publish(experiment)
    (first.path / "evaluation.json").write_text("{}")
    second = _publish(experiment, weights={"only": torch.ones(1)}, fingerprint="f2")
    assert open_artifact(run_folder(experiment), "skill_prior").fingerprint == "f2"
    assert set(second.weights()) == {"only"}
    assert not (second.path / "evaluation.json").exists(), "nothing of the older one is left"
    assert [path.name for path in run_folder(experiment).iterdir()] == ["skill_prior"]


def test_failing_to_write_keeps_the_older_one(experiment: Experiment, tmp_path: Path) -> None:
    _publish(experiment)
    with pytest.raises(ArtifactError):
        _publish(experiment, fingerprint="f2", extra=[tmp_path / "absent"])
    found = open_artifact(run_folder(experiment), "skill_prior")
    assert found.fingerprint == "f1"
    assert _publish(experiment, fingerprint="f3").fingerprint == "f3", "what a failure left behind is no obstacle"


@pytest.mark.parametrize("where", ["runs", "runs/tiny"])
def test_unwritable_run_directory(experiment: Experiment, tmp_path: Path, where: str) -> None:
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text("a file where a folder belongs")
    with pytest.raises(ArtifactError) as caught:
        _publish(experiment)
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot write" in message
    assert "--set runs=DIR" in message


def test_model_hash_tells_weights_apart(experiment: Experiment) -> None:
    first, same = _publish(experiment).model_hash, _publish(experiment, fingerprint="f2").model_hash
    assert first == same, "whatever else changes"
    assert _publish(experiment, weights=WEIGHTS | {"count": torch.tensor(4)}).model_hash != first


def test_versions_name_what_can_change_a_result() -> None:
    assert {"python", "ray", "torch", "numpy", "gymnasium", "mujoco", "minari"} <= artifacts.versions().keys()


def test_an_artifact_whose_push_broke_off_stays(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    copied = experiment.model_copy(update={"runs": f"file://{tmp_path}/there"})
    published, stored = _publish(copied), tmp_path / "there" / "tiny" / "skill_prior"
    (stored / "artifact.json").unlink()
    assert open_artifact(run_folder(copied), "skill_prior").model_hash == published.model_hash
    assert (stored / "artifact.json").exists(), "it is stored again"
