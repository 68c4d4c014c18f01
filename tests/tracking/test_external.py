"""What every tracker's run gets: each row once, whatever stops, fails or changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from skild_ray.tracking import external
from skild_ray.tracking.external import ExternalRun
from skild_ray.tracking.files import MetricsRow, write_metrics
from skild_ray.tracking.tracking import Tracking


class Notebook(ExternalRun):
    """A tracker in memory: `pages` has what each of its runs, by id, was told."""

    title = "notebook"

    def __init__(self, record: Path, pages: dict[str, list[tuple[str, float]]]) -> None:
        super().__init__(record)
        self.pages, self.reachable = pages, True

    def _open(self) -> None:
        self.id = self.id or f"run {len(self.pages)}"
        self.pages.setdefault(self.id, [])
        self._note(0)

    def _send(self, stage: str, row: MetricsRow) -> None:
        if not self.reachable:
            raise ConnectionError("no route\nto the notebook")
        assert self.id
        self.pages[self.id].append((stage, next(iter(row.values()))))

    def _send_outcome(self, results: Mapping[str, Any], report: Path, videos: list[Path]) -> None: ...

    def _finish(self, succeeded: bool) -> None: ...


Pages = dict[str, list[tuple[str, float]]]


def _train(pages: Pages, folder: Path, fingerprint: str, restored: list[int], steps: list[int]) -> None:
    """One start of the program: stage a was finished before, stage b goes on from `restored`."""
    write_metrics(folder, [{"iteration": 10}, {"iteration": 20}])
    with Tracking([Notebook(folder / "notebook.json", pages)]) as tracking:
        tracking.finished("a", "fa", folder)
        with tracking.stage("b", fingerprint, folder / "work") as series:
            (folder / "work").mkdir(exist_ok=True)
            series.restart([{"env_steps": step} for step in restored])
            for step in steps:
                series.add({"env_steps": step})


def test_what_a_resumed_stage_repeats_is_sent_once(tmp_path: Path) -> None:
    pages: Pages = {}
    _train(pages, tmp_path, "fb", [], [100, 200, 300])
    _train(pages, tmp_path, "fb", [100], [210, 310])
    steps = [("b", step) for step in (100, 200, 300, 310)]
    assert pages == {"run 0": [("a", 10), ("a", 20), *steps]}


def test_rows_that_were_never_sent_follow(tmp_path: Path) -> None:
    pages: Pages = {}
    _train(pages, tmp_path, "fb", [100, 200], [300])
    assert pages["run 0"][2:] == [("b", 100), ("b", 200), ("b", 300)]


def test_a_stage_made_from_something_else_is_another_run(tmp_path: Path) -> None:
    pages: Pages = {}
    _train(pages, tmp_path, "fb", [], [100])
    _train(pages, tmp_path, "other", [], [50])
    assert pages["run 1"] == [("a", 10), ("a", 20), ("b", 50)]
    assert len(pages["run 0"]) == 3


def test_an_unreachable_tracker_is_one_line_and_gets_its_rows_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: Pages = {}
    run = Notebook(tmp_path / "notebook.json", pages)
    with Tracking([run]) as tracking, tracking.stage("b", "fb", tmp_path) as series:
        series.add({"env_steps": 100})
        run.reachable = False
        series.add({"env_steps": 200})
        series.add({"env_steps": 300})
        monkeypatch.setattr(external, "RETRY_INTERVAL_S", 0.0)
        series.add({"env_steps": 400})
        output = capsys.readouterr().out
        assert output.count("\n") == 1
        assert output.startswith("notebook: no route to the notebook;")
        assert pages["run 0"] == [("b", 100)]
        run.reachable = True
        series.add({"env_steps": 500})
        assert pages["run 0"] == [("b", step) for step in (100, 200, 300, 400, 500)]


def test_rows_lost_with_the_connection_are_sent_at_the_next_start(tmp_path: Path) -> None:
    pages: Pages = {}
    run = Notebook(tmp_path / "notebook.json", pages)
    with Tracking([run]) as tracking, tracking.stage("b", "fb", tmp_path) as series:
        run.reachable = False
        series.add({"env_steps": 100})
    _train(pages, tmp_path, "fb", [100], [200])
    assert [step for stage, step in pages["run 0"] if stage == "b"] == [100, 200]


def test_a_folder_that_refuses_files_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages: Pages = {}
    with (
        Tracking([Notebook(tmp_path / "notebook.json", pages)]) as tracking,
        tracking.stage("b", "fb", tmp_path / "absent") as series,
    ):
        series.add({"env_steps": 100})
        series.add({"env_steps": 200})
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert "absent: metrics are not written while training (No such file or directory)" in output
    assert pages["run 0"] == [("b", 100), ("b", 200)]
