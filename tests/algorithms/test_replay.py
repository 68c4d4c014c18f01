"""n-step returns over skill transitions, by hand."""

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from skild_ray.algorithms.replay import Replay

HORIZON, DISCOUNT = 10, 0.9


def _replay(capacity: int = 100, n_step: int = 3, **columns: int) -> Replay:
    return Replay(
        capacity,
        1,
        1,
        n_step=n_step,
        discount=DISCOUNT,
        horizon=HORIZON,
        seed=0,
        columns={"tag": 1} | columns,
        later=True,
    )


def _rows(
    first: int, rewards: list[float], *, k: list[int] | None = None, terminated: bool = False
) -> dict[str, NDArray]:
    """Transitions between the states first, first + 1, ...; actions and tags can be told from the state."""
    count = len(rewards)
    states = np.arange(first, first + count + 1, dtype=np.float32)[:, None]
    flags = np.zeros(count, np.float32)
    flags[-1] = terminated
    return {
        "obs": states[:-1],
        "next_obs": states[1:],
        "actions": states[:-1] * 10,
        "rewards": np.array(rewards, np.float32),
        "k": np.array(k or [HORIZON] * count),
        "terminated": flags,
        "tag": states[:-1] + 0.5,
        "next_tag": states[1:] + 0.5,
    }


def _draw_from(replay: Replay, state: int) -> dict[str, NDArray]:
    """The draw that starts in `state`; every such draw is the same."""
    drawn = replay.sample(2_000)
    places = np.flatnonzero(drawn["obs"][:, 0] == state)
    assert len(places), f"state {state} is never drawn"
    for column in drawn.values():
        assert (column[places] == column[places[0]]).all()
    return {name: column[places[0]] for name, column in drawn.items()}


def _states(replay: Replay) -> set[int]:
    return set(replay.sample(3_000)["obs"][:, 0].astype(int).tolist())


def test_n_step_return_of_full_skills() -> None:
    replay = _replay()
    replay.add("a", _rows(0, [1, 2, 4, 8, 16]), ended=True)
    draw = _draw_from(replay, 1)
    assert draw["returns"] == pytest.approx(2 + 0.9 * 4 + 0.81 * 8)
    assert draw["n_step_weights"] == pytest.approx([1, 0.9, 0.81])
    assert draw["n_step_states"][:, 0].tolist() == [1, 2, 3]
    assert draw["bootstrap"] == pytest.approx(0.9**3)
    assert draw["next_obs"][0] == 4
    assert draw["later_states"][:, 0].tolist() == [2, 3, 4]
    assert draw["later_tag"][:, 0].tolist() == [2.5, 3.5, 4.5]
    assert draw["later_weights"] == pytest.approx([0.9, 0.81, 0.729])
    assert (draw["actions"][0], draw["tag"][0]) == (10, 1.5)


def test_truncation_shortens_the_walk_and_bootstraps() -> None:
    replay = _replay()
    replay.add("a", _rows(0, [1, 2, 4], k=[10, 10, 5]), ended=True)
    draw = _draw_from(replay, 1)
    assert draw["returns"] == pytest.approx(2 + 0.9 * 4)
    assert draw["n_step_weights"] == pytest.approx([1, 0.9, 0])
    assert draw["bootstrap"] == pytest.approx(0.9 * 0.9**0.5), "gamma^(k/H) of the skill that was cut"
    assert draw["next_obs"][0] == 3
    assert draw["later_weights"] == pytest.approx([0.9, 0, 0.9 * 0.9**0.5])
    assert (draw["later_states"][0, 0], draw["later_states"][-1, 0]) == (2, 3)
    assert (draw["later_tag"][0, 0], draw["later_tag"][-1, 0]) == (2.5, 3.5)


def test_termination_does_not_bootstrap() -> None:
    replay = _replay()
    replay.add("a", _rows(0, [1, 2, 4, 8], terminated=True), ended=True)
    assert _draw_from(replay, 2)["bootstrap"] == 0
    assert _draw_from(replay, 2)["later_weights"] == pytest.approx([0.9, 0, 0]), "the end is not valued"
    assert _draw_from(replay, 1)["bootstrap"] == 0
    assert _draw_from(replay, 0)["bootstrap"] == pytest.approx(0.9**3), "the walk stops before the end"
    assert _draw_from(replay, 1)["returns"] == pytest.approx(2 + 0.9 * 4 + 0.81 * 8)


def test_short_skills_are_discounted_by_their_length() -> None:
    replay = _replay()
    replay.add("a", _rows(0, [1, 2, 4, 8], k=[5, 2, 10, 10]), ended=True)
    draw = _draw_from(replay, 0)
    assert draw["n_step_weights"] == pytest.approx([1, 0.9**0.5, 0.9**0.7])
    assert draw["returns"] == pytest.approx(1 + 2 * 0.9**0.5 + 4 * 0.9**0.7, rel=1e-6)
    assert draw["bootstrap"] == pytest.approx(0.9**1.7)


def test_walk_goes_on_in_the_next_chunk_of_the_episode() -> None:
    whole, chunked = _replay(), _replay()
    whole.add("a", _rows(0, [1, 2, 4, 8], terminated=True), ended=True)
    chunked.add("a", _rows(0, [1]), ended=False)
    assert _draw_from(chunked, 0)["bootstrap"] == pytest.approx(0.9), "what is known so far bootstraps"
    chunked.add("b", _rows(50, [100, 100]), ended=False)
    chunked.add("a", _rows(1, [2, 4]), ended=False)
    chunked.add("b", _rows(52, [100]), ended=True)
    chunked.add("a", _rows(3, [8], terminated=True), ended=True)
    for state in range(4):
        for name, expected in _draw_from(whole, state).items():
            np.testing.assert_array_equal(_draw_from(chunked, state)[name], expected)


def test_episodes_never_mix() -> None:
    replay = _replay()
    for episode in range(6):
        replay.add(f"{episode}", _rows(10 * episode, [1.0] * 4), ended=episode % 2 == 0)
    drawn = replay.sample(2_000)
    assert (np.ptp(drawn["n_step_states"][..., 0] // 10, axis=1) == 0).all()
    assert (drawn["next_obs"][:, 0] - drawn["obs"][:, 0] <= 4).all()


def test_an_id_used_again_starts_anew() -> None:
    replay = _replay()
    replay.add("a", _rows(0, [1]), ended=True)
    replay.add("a", _rows(10, [1]), ended=True)
    assert _draw_from(replay, 0)["n_step_weights"].tolist() == [1, 0, 0]


def test_forgotten_episodes_are_not_continued() -> None:
    replay = _replay()
    replay.add("a", _rows(0, [1]), ended=False)
    replay.forget_open_episodes()
    replay.add("a", _rows(1, [1]), ended=False)
    assert _draw_from(replay, 0)["n_step_weights"].tolist() == [1, 0, 0]


def test_oldest_transitions_are_overwritten() -> None:
    replay = _replay(capacity=5)
    replay.add("a", _rows(0, [1, 1, 1, 1]), ended=True)
    replay.add("b", _rows(10, [1, 1, 1]), ended=True)
    assert (len(replay), replay.added) == (5, 7)
    assert _states(replay) == {2, 3, 10, 11, 12}
    assert replay.recent()["obs"][:, 0].tolist() == [2, 3, 10, 11, 12]
    assert replay.recent()["following"].tolist() == [1, -1, 3, 4, -1]
    assert replay.recent(2)["obs"][:, 0].tolist() == [11, 12]
    assert _draw_from(replay, 2)["n_step_states"][:, 0].tolist() == [2, 3, 3], "walks end where they ended before"
    assert _draw_from(replay, 10)["n_step_states"][:, 0].tolist() == [10, 11, 12], "across the seam of the ring"


def test_overwritten_tail_is_not_continued() -> None:
    replay = _replay(capacity=4)
    replay.add("a", _rows(0, [1]), ended=False)
    replay.add("b", _rows(10, [1, 1, 1]), ended=False)
    replay.add("c", _rows(20, [1]), ended=True)  # takes the place of the only row of "a"
    replay.add("a", _rows(1, [1]), ended=False)
    assert _states(replay) == {11, 12, 20, 1}
    assert _draw_from(replay, 20)["n_step_weights"].tolist() == [1, 0, 0]
    assert _draw_from(replay, 12)["n_step_states"][0, 0] == 12


def test_tail_overwritten_by_its_own_continuation() -> None:
    replay = _replay(capacity=3)
    replay.add("a", _rows(0, [1]), ended=False)
    replay.add("a", _rows(1, [1, 1, 1]), ended=False)
    assert _states(replay) == {1, 2, 3}
    for state, length in ((1, 3), (2, 2), (3, 1)):
        assert np.count_nonzero(_draw_from(replay, state)["n_step_weights"]) == length


@pytest.mark.parametrize("first", [False, True])
def test_chunk_longer_than_the_ring_keeps_its_end(first: bool) -> None:
    replay = _replay(capacity=3)
    if not first:
        replay.add("z", _rows(90, [1]), ended=True)
    replay.add("a", _rows(0, [1, 2, 4, 8, 16]), ended=True)
    assert _states(replay) == {2, 3, 4}
    assert _draw_from(replay, 2)["returns"] == pytest.approx(4 + 0.9 * 8 + 0.81 * 16)
    assert _draw_from(replay, 4)["n_step_weights"].tolist() == [1, 0, 0]


def test_draws_are_uniform() -> None:
    replay = _replay()
    replay.add("a", _rows(0, [1.0] * 10), ended=True)
    counts = np.bincount(replay.sample(20_000)["obs"][:, 0].astype(int), minlength=10)
    assert (abs(counts - 2_000) < 250).all()


def test_nothing_is_added_by_an_empty_chunk() -> None:
    replay = _replay()
    replay.add("a", {name: column[:0] for name, column in _rows(0, [1]).items()}, ended=False)
    assert (len(replay), replay.added) == (0, 0)


def test_largest_return() -> None:
    replay = _replay()
    assert replay.largest_return() == 0
    replay.add("a", _rows(0, [0.0, 0.0]), ended=False)
    assert replay.largest_return() == 0
    replay.add("b", _rows(20, [1.0, 1.0], k=[5, HORIZON], terminated=True), ended=True)
    assert replay.largest_return() == pytest.approx(1 + DISCOUNT**0.5)
    replay.add("a", _rows(2, [-3.0]), ended=True)
    assert replay.largest_return() == pytest.approx(3), "losses count as gains do, here from where they are made"
    replay.add("c", _rows(40, [-2.0, -2.0]), ended=True)
    assert replay.largest_return() == pytest.approx(2 + 2 * DISCOUNT)


def test_state_round_trip_is_exact() -> None:
    replay = _replay(capacity=6)
    replay.add("a", _rows(0, [1, 2, 3, 4]), ended=False)
    replay.add("b", _rows(10, [1, 2, 3]), ended=False)
    replay.sample(5)
    state = pickle.loads(pickle.dumps(replay.get_state()))
    restored = _replay(capacity=6)
    restored.set_state(state)
    assert (len(restored), restored.added) == (len(replay), replay.added)
    for _ in range(2):  # the same draws, then, after the same continuation, the same draws again
        expected, found = replay.sample(100), restored.sample(100)
        assert expected.keys() == found.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
        for buffer in (replay, restored):
            buffer.add("a", _rows(4, [5], terminated=True), ended=True)


def test_state_is_a_snapshot() -> None:
    replay = _replay(capacity=4)
    replay.add("a", _rows(0, [1, 2]), ended=False)
    state = replay.get_state()
    replay.add("a", _rows(2, [3, 4, 5]), ended=True)
    restored = _replay(capacity=4)
    restored.set_state(state)
    assert _states(restored) == {0, 1}
    assert _draw_from(restored, 0)["n_step_weights"].tolist() == pytest.approx([1, 0.9, 0])
