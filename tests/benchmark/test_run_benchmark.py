"""A small benchmark that runs: what cells share, what stays when one fails or is cut off, and what is written."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretrained import tiny_experiment

from skild_ray.benchmark.cell import run_cell
from skild_ray.benchmark.results import finished, state, unfinished
from skild_ray.benchmark.run import run_benchmark
from skild_ray.benchmark.suite import Benchmark, load_benchmark, read_only
from skild_ray.cli import main
from skild_ray.config import to_yaml
from skild_ray.errors import ConfigError
from skild_ray.runs.artifacts import open_artifact
from skild_ray.stages import SKILD_INPUTS

SHORT = {"iterations": 4, "validation_interval": 4, "warmup_iterations": 1}
METHODS: dict[str, Any] = {
    "SkiLD": {},
    "skill-BC": {"set": {"algorithm.type": "skill_bc"}},
    "broken": {"set": {"data.demonstrations": {"scripted": None, "absent": {"dataset": "tiny/absent-v0"}}}},
    "tape": {"tapes": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "minari").mkdir()
    experiment = tiny_experiment(folder, **dict.fromkeys(SKILD_INPUTS, SHORT))
    (folder / "line.yaml").write_text(to_yaml(experiment))
    content = {
        "name": "tiny",
        "runs": str(folder / "runs"),
        "experiment": "{world}.yaml",
        "worlds": {"line": {"env_steps": 800}},
        "methods": METHODS,
        "seeds": [10],
        "episodes": 4,
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


@pytest.fixture
def benchmark(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    return load_benchmark(folder / "tiny.yaml")


def _program(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["skild-ray", "benchmark", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_benchmark_in_parts(
    benchmark: Benchmark,
    folder: Path,
    ray_session: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cells = {cell.method: cell for cell in benchmark.cells()}
    assert run_benchmark(benchmark, benchmark.cells(read_only(["method=skill-BC"]))) == {}
    said = capsys.readouterr().out
    assert "line/skill-BC/10: skill_prior: done" in said and "[1/1] line/skill-BC/10: score" in said
    assert [cell.method for cell in unfinished(benchmark.cells())] == ["SkiLD", "broken", "tape"]
    kept = cells["skill-BC"].file.stat().st_mtime_ns

    # The program runs what is left: one cell fails, and the others are finished all the same.
    code = _program(monkeypatch, folder / "tiny.yaml", "--out", folder / "results")
    said, error = capsys.readouterr()
    assert code == 1
    assert error.splitlines()[-1].startswith(
        "error: 1 of 4 cells failed, line/broken/10 first: data.demonstrations.absent: "
    )
    assert "1 of 4 cells are finished already" in said
    assert cells["skill-BC"].file.stat().st_mtime_ns == kept
    assert "Traceback" in (cells["broken"].folder / "failure.txt").read_text()

    # Stages that another cell has made are links to what it made.
    assert "skill_prior: done" not in said and "skill_posterior: done" not in said
    assert said.count("demo_discriminator: done") == 1
    shared = {method: (cells[method].folder / "skill_prior").resolve() for method in ("SkiLD", "skill-BC")}
    assert len({*shared.values()}) == 1 and shared["SkiLD"].parent == benchmark.folder / "offline"

    results = {result.method: result for result in finished(benchmark)}
    assert [*results] == ["SkiLD", "skill-BC", "tape"]
    assert 0 < results["SkiLD"].env_steps <= 800 and results["SkiLD"].curve.env_steps
    assert results["skill-BC"].env_steps == 0 and not results["skill-BC"].curve.env_steps
    assert results["tape"].env_steps == 0 and results["tape"].score_sampled is None
    assert {(result.episodes, result.evaluation_seed) for result in results.values()} == {(4, 2000)}
    content = json.loads(cells["SkiLD"].file.read_text())
    assert content["evaluation"]["success_rate"] == results["SkiLD"].success_deterministic
    listed = json.loads((folder / "results" / "tiny.json").read_text())
    assert [cell["method"] for cell in listed] == ["SkiLD", "skill-BC", "tape"]
    assert "## line" in (folder / "results" / "tiny.md").read_text()

    # Cut off between training and the end of its evaluation, a cell is not trained again.
    made = open_artifact(cells["SkiLD"].folder, "demo_rl").record
    cells["SkiLD"].file.unlink()
    assert state(cells["SkiLD"]) == "begun"
    assert run_cell(cells["SkiLD"]) == results["SkiLD"]
    assert open_artifact(cells["SkiLD"].folder, "demo_rl").record == made
    capsys.readouterr()
    _lists_and_draws_without_running(monkeypatch, capsys, folder)

    with pytest.raises(ConfigError, match=r"line/SkiLD/10: is finished, with demo_rl.algorithm.alpha 0.0025, not 3.0"):
        unfinished(load_benchmark(folder / "tiny.yaml", ["algorithm.alpha=3.0"]).cells(read_only(["method=SkiLD"])))


def _lists_and_draws_without_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert _program(monkeypatch, folder / "tiny.yaml", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("line/SkiLD/10: finished, score ") and lines[2] == "line/broken/10: begun"
    assert lines[-1] == "3 of 4 cells are finished"
    page = folder / "results" / "tiny.md"
    before = page.read_bytes()
    page.unlink()
    assert _program(monkeypatch, folder / "results" / "tiny.json") == 0
    assert page.read_bytes() == before
