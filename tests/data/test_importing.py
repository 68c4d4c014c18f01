"""Imports: what they say, and how they resume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from line_world import LineEnv

from skild_ray.data import importing
from skild_ray.data.episode import Episode
from skild_ray.data.formats import load_dataset
from skild_ray.data.importing import import_dataset
from skild_ray.data.minari_store import MinariWriter, read_minari
from skild_ray.interruption import Interrupted

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

COUNT = 12


def walks(seed: int = 0) -> list[Episode]:
    rng = np.random.default_rng(seed)
    return [
        Episode(rng.normal(size=(4, 2)), rng.uniform(-1, 1, (3, 1)), np.ones(3), terminated=True, subtasks=("goal",))
        for _ in range(COUNT)
    ]


@pytest.fixture
def stopped_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets after how many episodes an import is interrupted; what was appended since is in its `written`."""
    append = MinariWriter.append
    monkeypatch.setattr(importing, "BATCH", 2)

    class Stop:
        limit, written = COUNT, 0

    def appending(self: MinariWriter, episodes: Sequence[Episode]) -> None:
        if Stop.written >= Stop.limit:
            raise Interrupted(2, "stopped")
        append(self, episodes)
        Stop.written += len(episodes)

    monkeypatch.setattr(MinariWriter, "append", appending)
    return Stop


def draft(root: Path) -> Path:
    (found,) = root.glob("line/.walk-v0.*")
    return found


def test_an_import_resumes_where_it_was_stopped(minari_root: Path, stopped_after: Any) -> None:
    stopped_after.limit = 6
    with pytest.raises(Interrupted, match="line/walk-v0: stopped at 6 of 12 episodes; the same command resumes"):
        import_dataset(walks(), "line/walk-v0", LineEnv())
    with h5py.File(draft(minari_root) / "data/main_data.hdf5", "a") as file:
        file["episode_6/observations"] = np.zeros((1, 2))  # of an episode that was being written
    stopped_after.limit, stopped_after.written = COUNT, 0
    assert import_dataset(walks(), "line/walk-v0", LineEnv()) == COUNT
    assert stopped_after.written == 6
    assert not list(minari_root.glob("line/.walk-v0.*"))
    assert load_dataset("line/walk-v0").fingerprint() == load_dataset(walks()).fingerprint()
    assert [episode.subtasks for episode in read_minari("line/walk-v0")] == [("goal",)] * COUNT


@pytest.mark.parametrize("damage", ["other data", "truncated", "a missing episode"])
def test_a_draft_that_does_not_fit_is_begun_again(minari_root: Path, stopped_after: Any, damage: str) -> None:
    stopped_after.limit = 6
    with pytest.raises(Interrupted):
        import_dataset(walks(), "line/walk-v0", LineEnv())
    path = draft(minari_root) / "data/main_data.hdf5"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    if damage == "a missing episode":
        with h5py.File(path, "a") as file:
            del file["episode_3"]
    data = walks(seed=1 if damage == "other data" else 0)
    stopped_after.limit, stopped_after.written = COUNT, 0
    assert import_dataset(data, "line/walk-v0", LineEnv()) == COUNT
    assert stopped_after.written == COUNT
    assert load_dataset("line/walk-v0").fingerprint() == load_dataset(data).fingerprint()


def test_what_is_dropped_is_said(minari_root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(tmp_path / "demo.hdf5")
    with h5py.File(path, "w") as file:
        for index, length in enumerate((3, 1, 4)):
            group = file.create_group(f"data/demo_{index}")
            group["actions"], group["obs/object"] = np.zeros((length, 1)), np.zeros((length, 2))
            group["obs/camera"] = np.zeros((length, 4, 4, 3), np.uint8)
    assert import_dataset(path, "line/walk-v0", LineEnv()) == 2
    said = capsys.readouterr().out
    assert "1 of 3 episodes have no transition, left out" in said
    assert "the last action of 3 of 3 episodes is dropped, since the state after it is not stored" in said
    assert "observations that are not taken: camera" in said
    assert "2 of 3 episodes have no rewards, which become 0" in said
    assert "import line/walk-v0: 2/2 episodes" in said
