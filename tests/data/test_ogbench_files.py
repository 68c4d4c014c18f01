"""OGBench's npz files, as its own package reads them, and files that are not as they should be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from line_world import LineEnv

from skild_ray.data.formats import load_dataset, load_rewarded_episodes
from skild_ray.errors import DataError

LENGTHS = (5, 3)
"""Transitions of each episode."""


def write(path: Path, **changes: np.ndarray | None) -> str:
    rows = sum(LENGTHS) + len(LENGTHS)
    rng = np.random.default_rng(0)
    contents = {
        "observations": rng.normal(size=(rows, 2)),
        "actions": rng.uniform(-1, 1, (rows, 1)),
        "terminals": np.isin(np.arange(rows), (5, 9)),
        "qpos": np.zeros((rows, 3)),
    } | changes
    np.savez_compressed(path, **{name: array for name, array in contents.items() if array is not None})
    return str(path)


def test_transitions_are_those_of_the_package(tmp_path: Path) -> None:
    utils = pytest.importorskip("ogbench.utils")
    path = write(tmp_path / "line-play-v0.npz")
    theirs = utils.load_dataset(path)
    ours = load_dataset(path, LineEnv())
    assert np.array_equal(ours.observations, theirs["observations"])
    assert np.array_equal(ours.actions, theirs["actions"])
    assert np.array_equal(ours.ends, np.flatnonzero(theirs["terminals"]) + 1)
    (first, _) = load_rewarded_episodes(path, LineEnv(), needed=False)
    assert np.array_equal(first.observations[1:], theirs["next_observations"][:5])
    assert not first.terminated


def test_rewards_belong_to_the_action_of_their_row(tmp_path: Path) -> None:
    path = write(tmp_path / "paid.npz", rewards=np.arange(10.0))
    assert [e.rewards.tolist() for e in load_rewarded_episodes(path, LineEnv())] == [[0, 1, 2, 3, 4], [6, 7, 8]]


@pytest.mark.parametrize(
    ("name", "new", "message"),
    [
        ("actions", lambda rows: None, "lacks 'actions'; it has observations, terminals, qpos"),
        ("observations", lambda rows: np.zeros((rows, 64, 64, 3), np.uint8), "images are not read yet"),
        ("observations", lambda rows: np.full((rows, 2), np.nan), "episode 0: observations must be finite: row 0"),
        ("observations", lambda rows: np.zeros((rows - 1, 2)), "'observations' has 9 rows, .* 10 of 'terminals'"),
        ("actions", lambda rows: np.zeros(rows, int), "'actions' has shape .* discrete actions"),
        ("actions", lambda rows: np.array([["x"]] * rows), "'actions' is text"),
        ("actions", lambda rows: np.array([[1.0], "x"] * (rows // 2), object), "'actions' is object, not real numbers"),
        ("terminals", np.zeros, "'terminals' never mark the end"),
        ("terminals", lambda rows: np.full(rows, 0.5), "'terminals' must be 0 or 1"),
        ("terminals", lambda rows: np.arange(rows) < 2, "episode 0: 'actions' is empty"),
    ],
)
def test_malformed_files_are_one_line(tmp_path: Path, name: str, new: Callable, message: str) -> None:
    path = write(tmp_path / "line.npz", **{name: new(10)})
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value) and path in str(caught.value)


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "line.npz"
    sound = Path(write(path)).read_bytes()
    inside = bytearray(sound)
    inside[80:120] = bytes(40)
    for content in (b"", sound[:100], sound[:-1], bytes(inside), b"not npz"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"line\.npz: cannot be read as \.npz \(") as caught:
            load_dataset(str(path))
        assert "\n" not in str(caught.value)


def test_a_format_by_name(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "line.npz"))
    other = path.rename(tmp_path / "line.data")
    assert load_dataset(f"ogbench:{other}").lengths.tolist() == list(LENGTHS)
    with pytest.raises(DataError, match=r"has none of the formats; .* 'format:path' with one of minari, "):
        load_dataset(str(other))
