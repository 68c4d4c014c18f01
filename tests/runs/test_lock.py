"""One process at a time on a run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skild_ray.errors import SkildError
from skild_ray.runs import lock
from skild_ray.runs.lock import LOCK_FILE, locked

HOLDER = """
import sys
from pathlib import Path
from skild_ray.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.fspath(Path(__file__).parents[1])},
    )
    assert process.stdout and process.stdout.readline() == "locked\n"
    return process


def _elsewhere(folder: Path, **changes: Any) -> Path:
    """A lock that a process on another host has left."""
    with locked(folder):
        holder = json.loads((folder / LOCK_FILE).read_text())
    path = folder / LOCK_FILE
    path.write_text(json.dumps(holder | {"host": "elsewhere"} | changes))
    return path


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of another host is silent for too long at once."""
    monkeypatch.setattr(lock, "WATCH_INTERVAL_S", 0.01)
    monkeypatch.setattr(lock, "SILENCE_S", 0.0)


def test_a_second_process_is_told_who_has_it(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    process = _holder(run)
    with pytest.raises(SkildError) as caught, locked(run):
        pass
    message = str(caught.value)
    assert "\n" not in message
    assert f"{run} is in use by process {process.pid} on host " in message
    assert "--set name=" in message
    process.communicate()
    with locked(run):
        pass
    assert not (run / LOCK_FILE).exists()


def test_a_killed_process_loses_it_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = _holder(tmp_path)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, as nobody has taken its status
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{tmp_path} was in use by process {process.pid} on host ")
    assert said.endswith("which has ended; taken over")
    process.communicate()


def test_a_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    path = _elsewhere(tmp_path)
    holder = json.loads(path.read_text())
    with locked(tmp_path / "other"):
        here = json.loads((tmp_path / "other" / LOCK_FILE).read_text())["host"]
    path.write_text(json.dumps(holder | {"host": here, "process_started": holder["process_started"] - 100}))
    with locked(tmp_path):
        pass
    path.write_text(json.dumps(holder | {"host": here}))
    with pytest.raises(SkildError, match="in use"), locked(tmp_path):
        pass


def test_it_may_be_held_twice_in_one_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        with locked(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).exists()
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_failure_releases_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_another_host_that_is_silent_loses_it(
    tmp_path: Path, soon: None, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = _elsewhere(tmp_path)
    if content is not None:  # its writer ended before it had written it
        path.write_text(content)
    with locked(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    waits, takes = capsys.readouterr().out.splitlines()
    assert "waiting for a sign of life" in waits
    assert "taken over" in takes


def test_another_host_that_renews_it_keeps_it(tmp_path: Path, soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _elsewhere(tmp_path)
    monkeypatch.setattr(lock, "SILENCE_S", 1e9)
    times = iter(range(1, 1000))
    monkeypatch.setattr("time.sleep", lambda _: os.utime(path, (next(times),) * 2))  # the other host's heartbeat
    with pytest.raises(SkildError, match="on host elsewhere"), locked(tmp_path):
        pass
    assert path.exists()


def test_only_the_stale_one_is_removed(tmp_path: Path) -> None:
    """A process that was slower to find a lock stale leaves alone what a faster one has made since."""
    path = tmp_path / LOCK_FILE
    path.write_text("of the faster one")
    lock._remove(path, "stale")
    assert path.read_text() == "of the faster one"
    lock._remove(path, "of the faster one")
    lock._remove(path, "gone")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_needs_none(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder belongs")
    with locked(tmp_path / "runs" / "tiny"):
        pass
