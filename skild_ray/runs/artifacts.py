"""What a stage leaves behind: one directory, complete or absent, that knows what it was made from.

runs/<experiment>/<stage>/
    config.yaml         the resolved experiment
    model.safetensors   weights
    metrics.csv         one row a report; the same as metrics.jsonl and as TensorBoard events beside it
    artifact.json       schema, fingerprint, seed, versions, hashes of the files, the data and the input artifacts
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from skild_ray.config import Experiment, load_experiment, to_yaml
from skild_ray.errors import ArtifactError
from skild_ray.runs import storage
from skild_ray.runs.folder import run_folder
from skild_ray.stages import OFFLINE, train_command
from skild_ray.tracking.files import MetricsRow, write_metrics

SCHEMA = 3
PACKAGES = ("skild_ray", "ray", "torch", "numpy", "gymnasium", "gymnasium-robotics", "mujoco", "minari")
MODEL_FILE, RECORD_FILE, CONFIG_FILE = "model.safetensors", "artifact.json", "config.yaml"
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a damaged record, or a file that it names, raises."""


@dataclass(frozen=True)
class Artifact:
    """A finished stage on disk, verified when it was opened."""

    path: Path
    record: Mapping[str, Any]

    @property
    def stage(self) -> str:
        return str(self.record["stage"])

    @property
    def fingerprint(self) -> str:
        """What the stage was made from: configuration, data, inputs, seed."""
        return str(self.record["fingerprint"])

    @property
    def model_hash(self) -> str:
        """SHA-256 of the weights: what depending stages record as their input."""
        return str(self.record["sha256"][MODEL_FILE])

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the stage says of its result (dimensions, final metrics)."""
        facts: Mapping[str, Any] = self.record["facts"]
        return facts

    @functools.cached_property
    def experiment(self) -> Experiment:
        """What was run, resolved."""
        return load_experiment(self.path / CONFIG_FILE)

    def weights(self) -> dict[str, Tensor]:
        return safetensors.torch.load_file(self.path / MODEL_FILE)


def open_artifact(run_dir: Path, stage: str) -> Artifact:
    """Open and verify `run_dir/stage`.

    Raises:
        ArtifactError: it is missing, of another schema, truncated or altered; the message names the remedy.
    """
    path = run_dir / stage
    storage.fetch(path, RECORD_FILE, _intact)
    remedy = f"make it with: {train_command(stage)}"
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such artifact; {remedy}")
    try:
        record = json.loads((path / RECORD_FILE).read_text())
        if record["schema"] != SCHEMA:
            raise ArtifactError(f"{path}: artifact of schema {record['schema']}, this version reads {SCHEMA}; {remedy}")
        altered = _altered(path, record)
    except _DAMAGE as error:
        raise ArtifactError(f"{path}: damaged artifact ({error}); delete the folder and {remedy}") from None
    if altered:
        raise ArtifactError(
            f"{path / altered[0]}: truncated or altered (its hash differs); delete the folder and {remedy}"
        )
    return Artifact(path, record)


def open_inputs(run_dir: Path, stages: Sequence[str]) -> list[Artifact]:
    """Open and verify several offline stages of a run, each after those that it was made from.

    Raises:
        ArtifactError: see `open_artifact`; or one was made from another than the one that is there.
    """
    opened: dict[str, Artifact] = {}
    for stage in stages:
        opened[stage] = open_artifact(run_dir, stage)
        for name in OFFLINE[stage].inputs:
            if name in opened:
                require_input(opened[stage], opened[name])
    return list(opened.values())


def stage_names(run_dir: Path) -> list[str]:
    """The stages that a run has folders of, offline ones first; each may still be damaged."""
    here = [path.parent.name for path in run_dir.glob(f"*/{RECORD_FILE}")]
    found = {name for name in (*here, *storage.names(run_dir)) if not name.startswith(".")}
    return [name for name in OFFLINE if name in found] + sorted(found - OFFLINE.keys())


def finished_last_stages(path: Path) -> list[Path]:
    """The folders of finished last stages at `path`: that one, or those of a run; mostly one, maybe none."""
    if (path / RECORD_FILE).exists():
        return [] if path.name in OFFLINE else [path]
    return [path / name for name in stage_names(path) if name not in OFFLINE]


def _altered(path: Path, record: Mapping[str, Any]) -> list[str]:
    """Names of the files that do not have the hash in the record."""
    return [name for name, known in record["sha256"].items() if file_hash(path / name) != known]


def _intact(path: Path) -> bool:
    """Whether the files of an artifact agree with its record."""
    try:
        return not _altered(path, json.loads((path / RECORD_FILE).read_text()))
    except _DAMAGE:
        return False


def require_input(artifact: Artifact, source: Artifact) -> None:
    """Raise ArtifactError unless `artifact` was made from exactly `source`."""
    remedy = f"train it again: {train_command(artifact.stage)}"
    require_hash(str(artifact.path), artifact.record["inputs"], source, remedy)


def require_hash(name: str, hashes: Mapping[str, str], source: Artifact, remedy: str) -> None:
    """Raise ArtifactError unless `hashes`, those of what `name` was made from by stage, have that of `source`."""
    recorded = hashes.get(source.stage)
    if recorded != source.model_hash:
        raise ArtifactError(
            f"{name}: was trained from another {source.stage} ({str(recorded)[:12]}) than {source.path} "
            f"({source.model_hash[:12]}); {remedy}"
        )


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below `path` into one line."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{error.filename or path}: cannot write ({error.strerror}); free space there or choose another folder "
            "with --set runs=DIR"
        ) from None


def publish(
    experiment: Experiment,
    stage: str,
    weights: Mapping[str, Tensor],
    rows: Sequence[MetricsRow],
    *,
    fingerprint: str,
    data: Mapping[str, str],
    inputs: Sequence[Artifact],
    facts: Mapping[str, Any],
    extra: Sequence[Path] = (),
    version: int | None = None,
) -> Artifact:
    """Write a finished stage and put it in place in one step; an older one stays until then.

    Args:
        experiment: what was run.
        stage: name of the directory.
        weights: the model.
        rows: metrics in the order of reports; the first key is their step.
        fingerprint: see `Artifact.fingerprint`.
        data: fingerprint of each data set that was used, by name.
        inputs: artifacts the stage was made from.
        facts: JSON-able results.
        extra: files or folders to move in.
        version: of the code that made it, see `Problem.version` and `OffPolicyConfig.version`.
    """
    final = run_folder(experiment) / stage
    draft = final.with_name(f".{stage}.draft")
    with writable(final):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        safetensors.torch.save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, draft / MODEL_FILE)
        (draft / CONFIG_FILE).write_text(to_yaml(experiment))
        write_metrics(draft, rows)
        for path in extra:
            shutil.move(path, draft / path.name)
        record = {
            "schema": SCHEMA,
            "stage": stage,
            "stage_version": version,
            "fingerprint": fingerprint,
            "seed": experiment.seed,
            "sha256": {path.name: file_hash(path) for path in sorted(draft.iterdir()) if path.is_file()},
            "data": dict(data),
            "inputs": {artifact.stage: artifact.model_hash for artifact in inputs},
            "facts": dict(facts),
            "git_revision": _git_revision(),
            "versions": versions(),
        }
        (draft / RECORD_FILE).write_text(json.dumps(record, indent=2))
        replaced = final.with_name(f".{stage}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():
            final.rename(replaced)
        draft.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
    storage.push(final, RECORD_FILE)
    return Artifact(final, record)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_revision() -> str | None:
    where = Path(__file__).parent
    try:
        command = ["git", "-C", os.fspath(where), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
