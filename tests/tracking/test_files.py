"""Metrics as files: readable while they are written, one series through restarts."""

import csv
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from skild_ray.tracking.files import MetricFiles, read_rows

ROWS = [
    {"env_steps": 100, "seconds": 1.5, "loss": 2.0},
    {"env_steps": 200, "seconds": 3.0, "loss": 1.0, "success": 0.5},
    {"env_steps": 300, "seconds": 4.5, "success": 0.75},
]


def _table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _events(folder: Path, name: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in reader.Scalars(name)]


def test_every_row_is_there_at_once(tmp_path: Path) -> None:
    """Nothing is closed here: that is what a killed process leaves."""
    files = MetricFiles(tmp_path)
    for count, row in enumerate(ROWS, start=1):
        files.add(row)
        assert [int(entry["env_steps"]) for entry in _table(tmp_path)] == [100, 200, 300][:count]
        assert read_rows(tmp_path) == ROWS[:count]
        assert _events(tmp_path, "seconds") == [(100, 1.5), (200, 3.0), (300, 4.5)][:count]
    assert [entry["success"] for entry in _table(tmp_path)] == ["", "0.5", "0.75"]
    assert [entry["loss"] for entry in _table(tmp_path)] == ["2.0", "1.0", ""]
    assert _events(tmp_path, "success") == [(200, 0.5), (300, 0.75)]
    files.close()


def test_a_resumed_series_has_no_row_twice(tmp_path: Path) -> None:
    killed = MetricFiles(tmp_path)
    for row in ROWS:
        killed.add(row)
    resumed = MetricFiles(tmp_path)
    resumed.restart(ROWS[:1])
    resumed.add({"env_steps": 180, "seconds": 2.5, "loss": 1.5})
    assert [int(entry["env_steps"]) for entry in _table(tmp_path)] == [100, 180]
    assert read_rows(tmp_path)[0] == ROWS[0]
    assert _events(tmp_path, "loss") == [(100, 2.0), (180, 1.5)]
    assert _events(tmp_path, "success") == []
    resumed.close()
    killed.close()


def test_a_reader_that_watches_drops_what_was_taken_back(tmp_path: Path) -> None:
    killed = MetricFiles(tmp_path)
    for row in ROWS:
        killed.add(row)
    watching = EventAccumulator(str(tmp_path)).Reload()
    assert len(watching.Scalars("seconds")) == 3
    killed.restart(ROWS[:2])
    killed.add({"env_steps": 260, "seconds": 4.0})
    assert [event.step for event in watching.Reload().Scalars("seconds")] == [100, 200, 260]
    killed.close()


def test_times_of_restored_rows_are_as_far_apart_as_they_were(tmp_path: Path) -> None:
    files = MetricFiles(tmp_path)
    files.restart(ROWS)
    first, *_, last = EventAccumulator(str(tmp_path)).Reload().Scalars("seconds")
    assert last.wall_time - first.wall_time == pytest.approx(3.0)
    files.close()


def test_removed(tmp_path: Path) -> None:
    files = MetricFiles(tmp_path)
    files.add(ROWS[0])
    files.remove()
    assert list(tmp_path.iterdir()) == []
    assert read_rows(tmp_path) == []
    files.add(ROWS[1])
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [ROWS[1]]
    files.close()
