from typing import Any

import numpy as np
import pytest

from skild_ray.data.trajectories import Trajectories
from skild_ray.errors import DataError


def trajectories(*lengths: int, offset: float = 0.0) -> Trajectories:
    """Row i has observations (i, i + 0.5) and action -i."""
    rows = np.arange(sum(lengths), dtype=np.float32)[:, None] + np.float32(offset)
    return Trajectories(np.hstack((rows, rows + 0.5)), -rows, np.cumsum(lengths))


def test_sizes() -> None:
    data = trajectories(3, 5, 2)
    assert (data.num_episodes, len(data), data.observation_dim, data.action_dim) == (3, 10, 2, 1)
    assert data.lengths.tolist() == [3, 5, 2]
    observations, actions = data.episode(1)
    assert observations[:, 0].tolist() == [3, 4, 5, 6, 7]
    assert actions[:, 0].tolist() == [-3, -4, -5, -6, -7]
    with pytest.raises(IndexError, match="episode 3 of 3"):
        data.episode(3)


@pytest.mark.parametrize(("name", "column"), [("observations", 1), ("actions", 0)])
def test_a_value_that_is_not_finite_is_located(name: str, column: int) -> None:
    data = trajectories(3, 5)
    arrays = {"observations": data.observations.copy(), "actions": data.actions.copy()}
    arrays[name][5, column] = np.nan
    with pytest.raises(DataError, match=f"episode 1: {name} must be finite: row 2, column {column} is nan"):
        Trajectories(**arrays, ends=data.ends)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": np.zeros((8, 2))}, "observations must be float32"),
        ({"actions": np.zeros(8, np.float32)}, "actions must be float32"),
        ({"actions": np.zeros((7, 1), np.float32)}, "8 observations but 7 actions"),
        ({"ends": np.array([3, 8], np.int32)}, "ends must be int64"),
        ({"ends": np.array([], np.int64)}, "no episodes"),
        ({"ends": np.array([3, 3, 8])}, "episode 1 has no transitions"),
        ({"ends": np.array([3, 7])}, "ends at row 7 of 8"),
    ],
)
def test_inconsistent_arrays_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    data = trajectories(3, 5)
    arrays = {"observations": data.observations, "actions": data.actions, "ends": data.ends, **change}
    with pytest.raises(DataError, match=message):
        Trajectories(**arrays)


def test_from_episodes_drops_the_state_after_the_last_action() -> None:
    states = [np.arange(4.0)[:, None], np.arange(2.0)[:, None]]
    data = Trajectories.from_episodes(states, [np.zeros((3, 1)), np.ones((2, 1))])
    assert data.observations[:, 0].tolist() == [0, 1, 2, 0, 1]
    assert data.ends.tolist() == [3, 5]


def test_from_episodes_names_the_one_that_does_not_fit() -> None:
    with pytest.raises(DataError, match="episode 1: 5 observations do not go with 3 actions"):
        Trajectories.from_episodes([np.zeros((4, 1)), np.zeros((5, 1))], [np.zeros((3, 1))] * 2)
    with pytest.raises(DataError, match=r"episode 1: 'actions' has shape \[3, 2\], expected \[T, 1\]"):
        Trajectories.from_episodes([np.zeros((4, 1))] * 2, [np.zeros((3, 1)), np.zeros((3, 2))])


@pytest.mark.parametrize(
    "where", [{"lengths": [3, 5]}, {"terminals": np.arange(8) == 2}, {"terminals": [0.0] * 2 + [1] * 1 + [0] * 4 + [1]}]
)
def test_from_arrays(where: dict[str, Any]) -> None:
    expected = trajectories(3, 5)
    data = Trajectories.from_arrays(expected.observations.astype(np.float64), expected.actions.tolist(), **where)
    assert data.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "give either 'lengths' or 'terminals'"),
        ({"lengths": [8], "terminals": np.ones(8)}, "give either 'lengths' or 'terminals'"),
        ({"lengths": [3, 4]}, "the last episode ends at row 7 of 8"),
        ({"lengths": [8, 0]}, "episode 1 has no transitions"),
        ({"lengths": [3.5, 4.5]}, "'lengths' must be whole numbers"),
        ({"lengths": 8}, "'lengths' must be whole numbers"),
        ({"terminals": np.zeros(8)}, "'terminals' never mark"),
        ({"terminals": np.full(8, 2)}, "'terminals' must be 0 or 1 in every row: row 0 is 2"),
        ({"terminals": np.ones(7)}, "'terminals' has 7 rows"),
        ({"lengths": [8], "observations": np.zeros(8)}, r"'observations' has shape \[8\], not \[N, d\]"),
        (
            {"lengths": [8], "observations": np.full((8, 2), 1e300)},
            "episode 0: observations must be finite: row 0, column 0",
        ),
    ],
)
def test_from_arrays_says_what_does_not_fit(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Trajectories.from_arrays(**{"observations": np.zeros((8, 2)), "actions": np.zeros((8, 1))} | arrays)
    assert "\n" not in str(caught.value)


def test_select_and_concatenate() -> None:
    data = trajectories(3, 5, 2)
    picked = data.select([2, 0])
    assert picked.lengths.tolist() == [2, 3]
    assert picked.actions[:, 0].tolist() == [-8, -9, 0, -1, -2]
    joined = Trajectories.concatenate([picked, data])
    assert joined.lengths.tolist() == [2, 3, 3, 5, 2]
    assert np.array_equal(joined.episode(3)[0], data.episode(1)[0])
    with pytest.raises(DataError, match="action_dim differs: 1, 3"):
        Trajectories.concatenate([data, Trajectories(data.observations, np.zeros((10, 3), np.float32), data.ends)])


def test_split_is_by_episode_and_depends_on_the_seed_only() -> None:
    data = trajectories(*range(1, 21))
    train, held_out = data.split(0.2, seed=3)
    assert (train.num_episodes, held_out.num_episodes) == (16, 4)
    assert sorted([*train.lengths, *held_out.lengths]) == list(range(1, 21))
    assert data.split(0.2, seed=3)[1].fingerprint() == held_out.fingerprint()
    assert data.split(0.2, seed=4)[1].fingerprint() != held_out.fingerprint()


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_split_leaves_an_episode_on_both_sides(fraction: float) -> None:
    assert {part.num_episodes for part in trajectories(4, 4).split(fraction, seed=0)} == {1}
    with pytest.raises(DataError, match="single episode"):
        trajectories(4).split(fraction, seed=0)


def test_window_starts_are_all_that_fit_into_an_episode() -> None:
    assert trajectories(3, 2, 5).window_starts(3).tolist() == [0, 5, 6, 7]
    assert trajectories(3, 2, 5).window_starts(1).tolist() == list(range(10))
    with pytest.raises(DataError, match="horizon of 6 transitions: the longest has 5"):
        trajectories(3, 2, 5).window_starts(6)


def test_fingerprint_tells_contents_apart() -> None:
    data = trajectories(3, 5)
    assert data.fingerprint() == trajectories(3, 5).fingerprint()
    others = [trajectories(5, 3), trajectories(3, 5, offset=1), trajectories(3, 4)]
    assert len({data.fingerprint(), *(other.fingerprint() for other in others)}) == 4
    assert len(data.fingerprint()) == 16


def test_lists_of_episodes_may_be_nested_lists() -> None:
    data = Trajectories.from_episodes([[[0, 1], [2, 3]], np.ones((4, 2))], [[[0.5]], np.zeros((3, 1))])
    assert data.lengths.tolist() == [1, 3]
    assert data.observations[0].tolist() == [0, 1]
    assert data.observations.dtype == data.actions.dtype == np.float32


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        ([np.zeros((2, 1))], [np.zeros((2, 1))] * 2, "observations are of 1 episodes, actions of 2"),
        (
            [np.zeros((2, 1)), [[0, 1], [2]]],
            [np.zeros((2, 1))] * 2,
            "episode 1: 'observations' cannot be made an array",
        ),
        ([[0, 1]], [[[0], [1]]], r"episode 0: 'observations' has shape \[2\], not \[N, d\]"),
        ([[["x"]]], [[[0]]], "episode 0: 'observations' is text"),
        ([], [], "there are no episodes"),
    ],
)
def test_unsuitable_lists_of_episodes_are_one_line(observations: list, actions: list, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Trajectories.from_episodes(observations, actions)
    assert "\n" not in str(caught.value)
