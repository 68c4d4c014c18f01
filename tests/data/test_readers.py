"""Data sets of other packages' formats, and in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from line_world import ConvertingLineEnv, LineEnv
from typer.testing import CliRunner

from skild_ray.cli import app
from skild_ray.data.episode import Episode
from skild_ray.data.formats import load_dataset, load_rewarded_episodes
from skild_ray.data.importing import import_dataset
from skild_ray.data.reader import Reader
from skild_ray.data.trajectories import Trajectories
from skild_ray.errors import ConfigError, DataError
from skild_ray.generation.describe import describe_dataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

READS: list[str] = []


def read_text(path: str, max_episodes: int | None, rewards: bool) -> Iterator[Episode]:
    """A line an episode: positions, the goal 1, and a reward of 1 for the last action."""
    READS.append(path)
    for line in Path(path).read_text().splitlines():
        positions = np.array(line.split(), np.float32)
        states = np.stack([positions, np.ones_like(positions)], 1)
        actions = np.diff(positions)[:, None]
        paid = np.eye(len(actions))[-1] if rewards else None
        yield Episode(states, actions, paid, terminated=True, subtasks=("goal",))


TEXT = Reader("a .txt file with an episode a line", lambda name: name.endswith(".txt"), read_text)
TUPLES = Reader("a file of tuples", lambda name: True, lambda name, episodes, rewards: [(1, 2)])


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "walk.txt").write_text("0 0.5 1\n0 0.25 0.5 1\n")
    READS.clear()
    return f"test_readers:TEXT:{tmp_path}/walk.txt"


def test_a_reader_of_another_package_is_used_by_name(text: str) -> None:
    data = load_dataset(text, LineEnv())
    assert data.lengths.tolist() == [2, 3]
    assert data.observations[:, 0].tolist() == [0, 0.5, 0, 0.25, 0.5]
    assert load_dataset(text, max_episodes=1).lengths.tolist() == [2]
    assert load_dataset(text, select=["goal"], max_episodes=1).lengths.tolist() == [2]
    assert [e.rewards.tolist() for e in load_rewarded_episodes(text, LineEnv())] == [[0, 1], [0, 0, 1]]


def test_a_data_set_is_read_once(text: str, minari_root: Path) -> None:
    for use in (
        lambda: load_dataset(text, LineEnv()),
        lambda: load_dataset(text, LineEnv(), select=["goal"]),
        lambda: load_rewarded_episodes(text, LineEnv()),
        lambda: import_dataset(text, "line/text-v0", LineEnv()),
        lambda: describe_dataset(text),
    ):
        READS.clear()
        use()
        assert len(READS) == 1


def test_another_format_on_the_command_line(text: str, minari_root: Path, tmp_path: Path) -> None:
    experiment = tmp_path / "line.yaml"
    experiment.write_text(
        "name: line\nenvironment: {id: line_world:LineEnv}\n"
        f"data: {{task_agnostic: [{{dataset: '{text}'}}], demonstrations: [{{dataset: '{text}'}}]}}\n"
    )
    run = CliRunner()
    for arguments in (["info", text], ["import", text, "line/text-v0", str(experiment)], ["generate", str(experiment)]):
        done = run.invoke(app, ["data", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert [e.actions.shape for e in minari.load_dataset("line/text-v0")] == [(2, 1), (3, 1)]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("gone_module:TEXT:a.txt", ConfigError, "'gone_module:TEXT:a.txt': cannot import 'gone_module': .*PYTHONPATH"),
        ("test_readers:GONE:a.txt", DataError, "module 'test_readers' has no skild_ray.data.reader.Reader 'GONE'"),
        ("test_readers:READS:a.txt", DataError, "module 'test_readers' has no skild_ray.data.reader.Reader 'READS'"),
        ("test_readers:TEXT:a.csv", DataError, "'test_readers:TEXT:a.csv': 'a.csv' is not a .txt file with an episode"),
        ("test_readers:TEXT:a.txt", DataError, "a.txt' cannot be read as a .txt file .*: FileNotFoundError: .*a.txt"),
        ("test_readers:TUPLES:a", DataError, "a file of tuples: TypeError: .* tuple, not skild_ray.data.episode.Epi"),
    ],
)
def test_readers_that_fail_are_one_line(name: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((5, 2))}, "episode 1: 5 observations do not go with 3 actions"),
        ({"observations": np.zeros(4)}, r"episode 1: 'observations' has shape \[4\], not \[N, d\]"),
        (
            {"observations": np.array([[0, 0], [0, 0], [0, 0], [0, np.inf]])},
            "episode 1: observations must be finite: row 3",
        ),
        ({"executed_actions": np.zeros((2, 1))}, "episode 1: 'executed_actions' has 2 rows, .* 3 of 'actions'"),
        ({"rewards": np.zeros((3, 2))}, r"episode 1: 'rewards' has shape \[3, 2\], not \[N\]"),
        ({"rewards": np.zeros(4)}, "episode 1: 'rewards' has 4 rows"),
    ],
)
def test_what_a_reader_gives_is_checked(changes: dict[str, Any], message: str) -> None:
    sound = {"observations": np.zeros((4, 2)), "actions": np.zeros((3, 1)), "rewards": np.ones(3)}
    with pytest.raises(DataError, match=f"data set in memory: {message}"):
        load_rewarded_episodes([Episode(**sound), Episode(**sound | changes)], LineEnv())


def test_arrays_in_memory_are_a_data_set(minari_root: Path) -> None:
    positions = np.linspace(0, 1, 8)[:, None]
    data = Trajectories.from_arrays(positions, positions / 2, lengths=[3, 5])
    loaded = load_dataset(data, ConvertingLineEnv(), max_episodes=1)
    assert loaded.observation_dim == 2 and loaded.lengths.tolist() == [3]
    assert dict(describe_dataset(data))["episodes"] == "2"
    with pytest.raises(DataError, match="data set in memory: episode 0: observations have 1 dim"):
        load_dataset(data, LineEnv())
    with pytest.raises(DataError, match="data set in memory: it has no rewards for this task"):
        load_rewarded_episodes(data, ConvertingLineEnv())
    assert import_dataset(data, "line/memory-v0", ConvertingLineEnv()) == 2
    assert load_dataset("line/memory-v0").lengths.tolist() == [2, 4]
    episodes = [Episode(positions, positions[1:], np.ones((7, 1)), terminated=True)]
    (episode,) = load_rewarded_episodes(episodes, ConvertingLineEnv())
    assert episode.rewards.tolist() == [1] * 7 and episode.observations.shape == (8, 2)
