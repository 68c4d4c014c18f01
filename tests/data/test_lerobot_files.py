"""LeRobot's data sets of all three versions, local and in the hub's cache, and such as are not as they should be."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from lerobot_files import IMAGE, change, write_lerobot
from line_world import LineEnv
from typer.testing import CliRunner

from skild_ray.cli import app
from skild_ray.data.formats import Stored, load_dataset, load_rewarded_episodes
from skild_ray.errors import DataError

VERSIONS = ("v2.0", "v2.1", "v3.0")
LENGTHS = (4, 3, 5)
STATE = ("observation.state",)


def episodes(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(length + 1, 2)), rng.uniform(-1, 1, (length, 1))) for length in LENGTHS]


@pytest.fixture(params=VERSIONS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(write_lerobot(tmp_path / "robot", request.param, episodes()))


def first_file(folder: Path) -> Path:
    return sorted(folder.glob("data/*/*.parquet"))[0]


def test_all_versions_give_the_same_episodes(folder: Path) -> None:
    data = load_dataset(str(folder), LineEnv())
    assert data.lengths.tolist() == list(LENGTHS)
    for index, (states, actions) in enumerate(episodes()):
        stored_states, stored_actions = data.episode(index)
        assert np.array_equal(stored_states, states[:-1].astype(np.float32))
        assert np.array_equal(stored_actions, actions.astype(np.float32))
    loaded = load_rewarded_episodes(str(folder), LineEnv())
    assert [e.rewards.tolist() for e in loaded] == [[0] * (length - 1) + [1] for length in LENGTHS]
    assert all(e.terminated for e in loaded)
    assert load_dataset(str(folder), max_episodes=2).lengths.tolist() == [4, 3]
    assert load_dataset(Stored(str(folder), STATE, "first")).lengths.tolist() == [4]


def test_success_ends_an_episode_rather_than_done(folder: Path) -> None:
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["next.success"] = {"dtype": "bool", "shape": [1]}
    (folder / "meta/info.json").write_text(json.dumps(info))
    for file in folder.glob("data/*/*.parquet"):
        rows = pyarrow.parquet.read_metadata(file).num_rows
        change(file, {"next.success": np.zeros(rows, bool)})
    assert not any(e.terminated for e in load_rewarded_episodes(str(folder), LineEnv()))


def test_episodes_that_go_over_two_files(tmp_path: Path) -> None:
    """Files of a conversion that cut anywhere, with rows in any order."""
    folder = Path(write_lerobot(tmp_path / "robot", "v3.0", episodes(), per_file=3))
    whole = load_dataset(str(folder))
    whole_file = first_file(folder)
    table = pyarrow.parquet.read_table(whole_file)
    for number, rows in ((0, [3, 1, 0, 2, 4, 5]), (1, [6, 7, 8]), (10, [11, 9, 10])):
        pyarrow.parquet.write_table(table.take(rows), folder / f"data/chunk-000/file-{number}.parquet")
    whole_file.unlink()
    assert load_dataset(str(folder)).fingerprint() == whole.fingerprint()


def test_on_the_command_line(folder: Path, minari_root: Path) -> None:
    done = CliRunner().invoke(app, ["data", "info", str(folder)])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.replace("│", " ").split())
    assert "episodes 3" in text and "observation.images.top (48 x 64 x 3)" in text


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"action": None}, r"\.parquet: lacks 'action'; it has observation\.state"),
        ({"action": ["x"] * 4}, r"\.parquet: 'action' is string, not real numbers"),
        ({"action": [[1.0], [1.0, 2.0], [1.0], [1.0]]}, r"'action' is ragged: its rows have 1 to 2 numbers"),
        ({"action": [1.0, None, 1.0, 1.0]}, r"'action' has rows without a value"),
        ({"action": [[1.0], [None], [1.0], [1.0]]}, r"'action' has rows without a value"),
        ({"action": np.array([0, np.nan, 0, 0])}, r"episode 0: actions must be finite: row 1"),
        ({"observation.state": None}, r"\.parquet: lacks 'observation\.state'"),
        ({"frame_index": [0, 1, 3, 4]}, r"episode 0: 'frame_index' must count 0, 1, 2, \.\.\.: row 2 has 3"),
        ({"frame_index": [0, 1, 1, 2]}, r"row 2 has 1"),
        ({"episode_index": [0, 0, 0, 7]}, r"episode 7: 'frame_index' must count .*: row 0 has 3"),
    ],
)
def test_malformed_columns_are_one_line(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    folder = Path(write_lerobot(tmp_path / "robot", "v2.1", episodes()))
    change(first_file(folder), columns)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(str(folder))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, r"info\.json: is of version v1\.6; those that are read are v2\.0, v2\.1, v3\.0"),
        ({"features": {}}, r"info\.json: there is no feature 'action'"),
        ({"features": {"action": {}}}, r"info\.json: is not a LeRobot data set's \(KeyError: 'shape'\)"),
        (
            {"features": {"action": {"shape": [1]}, IMAGE: {"shape": [4, 4, 3]}}},
            r"only images, .*: observation\.images",
        ),
        ({"features": {"action": {"shape": [1]}}}, "there are no observations"),
        ({"total_episodes": 5}, r"has 3 of the 5 episodes that meta/info\.json tells of; get the rest"),
    ],
)
def test_malformed_descriptions_are_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = Path(write_lerobot(tmp_path / "robot", "v3.0", episodes()))
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps(info | changes))
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(str(folder))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_damaged_and_missing_files_are_one_line(folder: Path) -> None:
    with pytest.raises(DataError, match="has no split 'test'; it has train, first"):
        load_dataset(Stored(str(folder), filter="test"))
    file = first_file(folder)
    sound = file.read_bytes()
    for content in (b"", sound[:-1], sound[: len(sound) // 2], bytes(len(sound))):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"\.parquet: cannot be read as Parquet") as caught:
            load_dataset(str(folder))
        assert "\n" not in str(caught.value)
    for file in folder.glob("data/*/*"):
        file.unlink()
    with pytest.raises(DataError, match=r"robot: has no files data/\*/\*\.parquet"):
        load_dataset(str(folder))
    (folder / "meta/info.json").write_text("{")
    with pytest.raises(DataError, match=r"info\.json: is not a LeRobot data set's \(JSONDecodeError"):
        load_dataset(str(folder))


def test_episodes_of_one_step(tmp_path: Path) -> None:
    short = [(states[:2], actions[:1]) for states, actions in episodes()]
    assert load_dataset(write_lerobot(tmp_path / "robot", "v3.0", short)).lengths.tolist() == [1, 1, 1]


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in its cache is read without a connection; what is not is one line."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    place, revision = tmp_path / "datasets--lerobot--line", "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(revision)
    write_lerobot(place / "snapshots" / revision, "v3.0", episodes())
    assert load_dataset("hf://datasets/lerobot/line").lengths.tolist() == list(LENGTHS)
    with pytest.raises(
        DataError, match=r"hf://datasets/lerobot/gone@v3\.0: cannot be downloaded .* check name"
    ) as caught:
        load_dataset("lerobot:hf://datasets/lerobot/gone@v3.0")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"hf://datasets/lerobot/line: to download it, install 'skild_ray\[lerobot\]'"):
        load_dataset("hf://datasets/lerobot/line")
