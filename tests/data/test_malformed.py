"""Data sets that are not as they should be: each is one line that names the file, the array and what is wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from line_world import LineEnv

from skild_ray.data import arrays
from skild_ray.data.episode import Episode
from skild_ray.data.formats import load_dataset, load_rewarded_episodes
from skild_ray.data.importing import import_dataset
from skild_ray.data.minari_store import MinariWriter
from skild_ray.data.trajectories import Trajectories
from skild_ray.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

EPISODES, STEPS = 3, 6
FORMATS = ("d4rl", "spirl", "minari")
PATHS = {  # of the arrays of one episode, or of all, by their role
    "d4rl": dict(states="observations", actions="actions", ends="timeouts", rewards="rewards"),
    "spirl": dict(states="traj0/states", actions="traj0/actions", ends="traj0/pad_mask", rewards="traj0/rewards"),
    "minari": {
        role: f"episode_0/{name}"
        for role, name in dict(states="observations", actions="actions", ends="terminations", rewards="rewards").items()
    },
}


def write(kind: str, folder: Path) -> tuple[str, Path]:
    """A sound data set, of the same episodes in each format: its name, and the file that holds it."""
    rng = np.random.default_rng(0)
    states = rng.uniform(size=(EPISODES, STEPS + 1, 2)).astype(np.float32)
    actions = rng.uniform(-1, 1, (EPISODES, STEPS, 1)).astype(np.float32)
    rewards = np.ones((EPISODES, STEPS), np.float32)
    if kind == "minari":
        env = LineEnv()
        with MinariWriter("line/walk-v0", env.observation_space, env.action_space, {"author": {"us"}}) as writer:
            writer.append([Episode(*parts, terminated=True) for parts in zip(states, actions, rewards, strict=True)])
        return "line/walk-v0", folder / "minari/line/walk-v0/data/main_data.hdf5"
    path = folder / "spirl/rollout.h5" if kind == "spirl" else folder / "flat.hdf5"
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        if kind == "d4rl":
            for name, array in (("observations", states[:, :-1]), ("actions", actions), ("rewards", rewards)):
                file[name] = array.reshape(-1, *array.shape[2:])
            file["timeouts"] = np.arange(EPISODES * STEPS) % STEPS == STEPS - 1
            return str(path), path
        for index in range(EPISODES):
            group = file.create_group(f"traj{index}")
            group["states"], group["actions"], group["rewards"] = states[index, :-1], actions[index], rewards[index]
            group["pad_mask"] = np.ones(STEPS)
    return str(path.parent), path


def change(path: Path, array: str, replacement: Callable[[np.ndarray], Any] | None) -> None:
    """Put something else in the place of an array, nothing if there is no replacement."""
    with h5py.File(path, "a") as file:
        content = file[array][()]
        del file[array]
        if replacement is not None:
            new = replacement(content)
            if isinstance(new, dict):
                for name, part in new.items():
                    file[f"{array}/{name}"] = part
            else:
                file[array] = new


ANY = {
    "shorter": lambda a: a[:-2],
    "longer": lambda a: np.concatenate([a, a[:2]]),
    "empty": lambda a: a[:0],
    "scalar": lambda a: np.float32(1),
    "null": lambda a: h5py.Empty("f4"),
    "complex": lambda a: a.astype(np.complex64),
    "bytes": lambda a: a.astype("S8"),
    "text": lambda a: np.array([["x"] * max(a.ndim, 1)] * len(a), object),
    "records": lambda a: np.zeros(len(a), [("x", "f4"), ("y", "i4")]),
    "references": lambda a: np.full(len(a), None, h5py.ref_dtype),
    "group": lambda a: {"observation": a, "achieved_goal": a},
    "dangling link": lambda a: h5py.SoftLink("/elsewhere"),
    "dangling link to a file": lambda a: h5py.ExternalLink("gone.hdf5", "/x"),
    "images": lambda a: np.zeros((len(a), 4, 4, 3), np.uint8),
}
VECTORS = ANY | {
    "missing": None,
    "one integer a row": lambda a: np.zeros(len(a), int),
    "one number a row": lambda a: np.zeros(len(a)),
    "no columns": lambda a: a[:, :0],
    "NaN": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 3, np.nan, a),
    "beyond float32": lambda a: np.full(a.shape, 1e300),
}
REWARDS = {name: new for name, new in ANY.items() if "link" not in name} | {
    "two columns": lambda a: np.stack([a, a], 1)
}
MARKS = REWARDS | {
    "NaN": lambda a: np.where(a, np.nan, 0.0),
    "other numbers": lambda a: np.full(len(a), 7),
}
CASES = [
    (role, name)
    for role, changes in (("states", VECTORS), ("actions", VECTORS), ("rewards", REWARDS), ("ends", MARKS))
    for name in changes
]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("role", "name"), CASES)
def test_a_malformed_array_is_one_line(minari_root: Path, kind: str, role: str, name: str) -> None:
    dataset, path = write(kind, minari_root.parent)
    array = PATHS[kind][role]
    change(path, array, {"rewards": REWARDS, "ends": MARKS}.get(role, VECTORS)[name])
    with pytest.raises(DataError) as caught:
        load_rewarded_episodes(dataset, LineEnv())
    message = str(caught.value)
    assert "\n" not in message
    assert dataset in message or str(path) in message
    assert array.split("/")[-1] in message or {"states": "observations"}.get(role, role) in message


HARMLESS = {
    "rewards [N, 1]": ("rewards", lambda a: a[:, None]),
    "marks [N, 1]": ("ends", lambda a: a[:, None]),
    "marks as numbers": ("ends", lambda a: a.astype(np.float64)),
    "states in float64": ("states", lambda a: a.astype(np.float64)),
    "states in float16": ("states", lambda a: a.astype(np.float16)),
    "states in bytes": ("states", lambda a: (a * 200).astype(np.uint8)),
    "actions as integers": ("actions", lambda a: np.sign(a).astype(int)),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_variants_are_read(minari_root: Path, kind: str, name: str) -> None:
    dataset, path = write(kind, minari_root.parent)
    role, new = HARMLESS[name]
    expected = load_rewarded_episodes(dataset, LineEnv())
    with h5py.File(path) as file:
        old = file[PATHS[kind][role]][()]
    change(path, PATHS[kind][role], new)
    episodes = load_rewarded_episodes(dataset, LineEnv())
    assert [len(episode.actions) for episode in episodes] == [STEPS] * EPISODES
    for episode, before in zip(episodes, expected, strict=True):
        assert episode.rewards is not None and episode.rewards.shape == (STEPS,)
        assert episode.terminated == before.terminated
        if role not in ("states", "actions"):
            assert np.array_equal(episode.observations, before.observations)
    first = {"states": episodes[0].observations, "actions": episodes[0].actions}.get(role)
    if first is not None:
        assert np.array_equal(first, new(old)[: len(first)].astype(np.float32))


def test_arrays_larger_than_memory_are_refused_unread(minari_root: Path, tmp_path: Path) -> None:
    path, rows = tmp_path / "huge.hdf5", 40_000_000_000
    with h5py.File(path, "w") as file:  # nothing of it is stored
        for name, shape, dtype in (("observations", (rows, 3), "f4"), ("actions", (rows, 2), "f4")):
            file.create_dataset(name, shape, dtype, chunks=True)
        file.create_dataset("terminals", (rows,), "?", chunks=True)
    with pytest.raises(
        DataError, match=r"huge\.hdf5: needs [\d,]+ GB of memory to be read, and .* GB are free"
    ) as caught:
        load_dataset(str(path))
    assert "\n" not in str(caught.value)
    dataset, path = write("minari", tmp_path)
    with h5py.File(path, "a") as file:
        del file["episode_1/actions"]
        file.create_dataset("episode_1/actions", (rows, 1), "f4", chunks=True)
    with pytest.raises(DataError, match=r"'line/walk-v0' in .*: needs 320 GB of memory to be read"):
        load_dataset(dataset)
    facts = json.loads((path.parent / "metadata.json").read_text())
    (path.parent / "metadata.json").write_text(json.dumps(facts | {"total_steps": rows}))
    with pytest.raises(DataError, match=r"'line/walk-v0' in .*: needs 960 GB of memory to be read"):
        load_dataset(dataset)
    assert 0 < arrays.free_memory() < 10**13


def test_a_group_of_arrays_is_wanted(tmp_path: Path) -> None:
    dataset, path = write("spirl", tmp_path)
    with h5py.File(path, "a") as file:
        del file["traj1"]
        file["traj1"] = np.zeros((3, 2))
    with pytest.raises(DataError, match=r"rollout\.h5: 'traj1' is an array, not a group"):
        load_dataset(dataset)


def test_executed_actions_are_numbers(minari_root: Path) -> None:
    dataset, path = write("minari", minari_root.parent)
    with h5py.File(path, "a") as file:
        file["episode_1/infos/executed_actions"] = np.full((STEPS, 1), b"x")
    with pytest.raises(DataError, match=r"'executed_actions' in the infos of episode 1 is text, not real numbers"):
        load_rewarded_episodes(dataset, LineEnv())


def test_a_flat_file_whose_marks_never_end_an_episode(tmp_path: Path) -> None:
    dataset, path = write("d4rl", tmp_path)
    change(path, "timeouts", np.zeros_like)
    with pytest.raises(DataError, match=r"flat\.hdf5: 'timeouts' never mark.* its 18 rows cannot be told apart"):
        load_dataset(dataset)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_one_line(minari_root: Path, kind: str) -> None:
    """Cut off anywhere, or overwritten; HDF5 notices some of it only where it reads."""
    dataset, path = write(kind, minari_root.parent)
    sound = path.read_bytes()
    for length in (0, 10, 100, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:length])
        with pytest.raises(DataError) as caught:
            load_dataset(dataset)
        assert "\n" not in str(caught.value) and dataset in str(caught.value)


def test_paths_that_are_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").touch()
    (tmp_path / "folder.hdf5").mkdir()
    (tmp_path / "group.hdf5").symlink_to(tmp_path / "gone.hdf5")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/one.h5").symlink_to(tmp_path / "gone.h5")
    for name, message in {
        "data.csv": "data.csv: has none of the formats; a data set is a Minari id",
        "./data.csv": "data.csv: has none of the formats; a data set is a Minari id",
        "./data.zip": "data.zip: there is no such file or folder; ",
        "data.zip": "data.zip: there is no such file or folder; a data set is a Minari id like 'namespace/name-v0'",
        "gone.hdf5": r"gone.hdf5: there is no such file",
        "folder.hdf5": r"folder.hdf5: there is no \*.h5 file in this folder; a D4RL-style",
        "group.hdf5": r"group.hdf5: is a link to .*gone.hdf5, which is not there",
        "broken": r"one.h5: is a link to .*gone.h5, which is not there",
        "x" * 300: "there is no such file or folder",
        "~nobody_of_this_name/data.hdf5": "data.hdf5: there is no such file",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            load_dataset(name)
        assert "\n" not in str(caught.value)


def test_unreadable_places_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, path = write("spirl", tmp_path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("permissions do not bind this user")
    with pytest.raises(DataError, match=r"rollout.h5: cannot be read as HDF5 \(Permission denied\)"):
        load_dataset(dataset)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    dataset, path = write("spirl", tmp_path)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "part1").symlink_to(path.parent)
    (linked / "part2").symlink_to(path.parent)
    (linked / "itself").symlink_to(linked)
    assert load_dataset(str(linked)).fingerprint() == load_dataset(dataset).fingerprint()


def test_nothing_is_imported_where_no_episode_has_a_transition(
    minari_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, path = write("d4rl", tmp_path)
    change(path, "timeouts", np.ones_like)
    with pytest.raises(DataError, match=r"flat\.hdf5': none of its 18 episodes has a transition: that takes"):
        import_dataset(dataset, "line/short-v0", LineEnv())
    assert not (minari_root / "line").exists()
    change(path, "timeouts", lambda a: np.arange(len(a)) < 2)
    assert import_dataset(dataset, "line/short-v0", LineEnv()) == 1
    assert "2 of 3 episodes have no transition, left out" in capsys.readouterr().out


def convert(result: Callable[[np.ndarray], Any]) -> LineEnv:
    env = LineEnv()
    env.convert_observations = result  # type: ignore[attr-defined]
    return env


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda states: states[0], r"convert_observations gives shape \[2\] for 6 observations"),
        (lambda states: states[1:], r"convert_observations gives shape \[5, 2\] for 6 observations"),
        (lambda states: None, "convert_observations (fails|gives shape)"),
        (lambda states: states.gone, "convert_observations fails: AttributeError: "),
        (lambda states: states * np.nan, "observations from the environment's convert_observations must be finite"),
    ],
)
def test_what_conversion_returns_is_checked(tmp_path: Path, result: Callable, message: str) -> None:
    dataset, _ = write("d4rl", tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(dataset, convert(result))
    assert dataset in str(caught.value)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda states: {"goal": True}, r"solved gives shape \[\] for 'goal' and 6 states"),
        (lambda states: [True] * len(states), "solved fails: AttributeError"),
        (lambda states: {"goal": states[:3, 0] > 0}, r"solved gives shape \[3\] for 'goal' and 6 states"),
    ],
)
def test_what_solved_returns_is_checked(tmp_path: Path, result: Callable, message: str) -> None:
    dataset, _ = write("d4rl", tmp_path)
    env = LineEnv()
    env.solved = result  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(dataset, env, select=["goal"])
    assert dataset in str(caught.value)


def test_arrays_in_memory_are_checked_as_those_in_files() -> None:
    for states in (np.zeros((4, 1), complex), np.array([["x"]] * 4), np.zeros(4), np.zeros((4, 2, 2))):
        with pytest.raises(DataError, match=r"episode 1: 'observations' (is|has)"):
            Trajectories.from_episodes([np.zeros((4, 1)), states], [np.zeros((4, 1))] * 2)
