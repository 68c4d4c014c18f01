import numpy as np
import pytest
import torch

from skild_ray.data.trajectories import Trajectories
from skild_ray.data.windows import WindowSampler
from skild_ray.errors import DataError

H = 4


def source(source_id: int, *lengths: int) -> Trajectories:
    """States (source, episode, row within the episode), actions -(row within the episode)."""
    states = [[source_id, episode, row] for episode, length in enumerate(lengths) for row in range(length)]
    observations = np.array(states, np.float32)
    return Trajectories(observations, -observations[:, 2:], np.cumsum(lengths))


@pytest.fixture
def sampler() -> WindowSampler:
    return WindowSampler([source(0, 9, 3, 4), source(1, 50)], [1.0, 3.0], H, seed=0)


def test_windows_are_contiguous_and_of_one_episode(sampler: WindowSampler) -> None:
    states, actions = sampler.sample(2000)
    assert states.shape == (2000, H, 3) and actions.shape == (2000, H, 1)
    assert torch.equal(states[..., :2], states[:, :1, :2].expand(-1, H, -1))
    assert torch.equal(states[..., 2], states[:, :1, 2] + torch.arange(H))
    assert torch.equal(actions[..., 0], -states[..., 2])


def test_every_window_is_drawn_and_no_other(sampler: WindowSampler) -> None:
    states, _ = sampler.sample(5000)
    drawn = {tuple(start) for start in states[:, 0].int().tolist()}
    first = {(0, 0, row) for row in range(9 - H + 1)} | {(0, 2, 0)}
    assert drawn == first | {(1, 0, row) for row in range(50 - H + 1)}
    assert sampler.num_windows == len(drawn)


def test_sources_are_drawn_by_weight_and_windows_uniformly(sampler: WindowSampler) -> None:
    states, _ = sampler.sample(40_000)
    assert states[:, 0, 0].mean().item() == pytest.approx(0.75, abs=0.01)
    starts = states[states[:, 0, 0] == 1][:, 0, 2].int()
    counts = torch.bincount(starts)
    # 30,000 draws of 47 windows: a count has a standard deviation of 25.
    assert (counts - len(starts) / 47).abs().max() < 5 * 25


def test_resume_continues_the_sequence_exactly(sampler: WindowSampler) -> None:
    sampler.sample(7)
    state = sampler.state_dict()
    expected = [sampler.sample(16) for _ in range(3)]
    other = WindowSampler([source(0, 9, 3, 4), source(1, 50)], [1.0, 3.0], H, seed=99)
    other.load_state_dict(state)
    for want, got in zip(expected, [other.sample(16) for _ in range(3)], strict=True):
        assert torch.equal(want[0], got[0]) and torch.equal(want[1], got[1])


def test_all_windows_without_a_limit_are_all_in_order(sampler: WindowSampler) -> None:
    states, _ = sampler.all_windows(sampler.num_windows)
    starts = states[:, 0].int().tolist()
    assert starts == sorted(starts) and len({tuple(start) for start in starts}) == sampler.num_windows


def test_limited_windows_are_spread_by_weight_and_stay_the_same(sampler: WindowSampler) -> None:
    states, actions = sampler.all_windows(8)
    assert states[:, 0, 0].int().tolist() == [0] * 2 + [1] * 6
    rows = states[2:, 0, 2].int().tolist()
    assert len(set(rows)) == 6 and rows == sorted(rows) and rows[-1] > 30
    sampler.sample(3)
    assert torch.equal(sampler.all_windows(8)[1], actions)


def test_horizon_of_one_gives_single_transitions() -> None:
    sampler = WindowSampler([source(0, 2, 3)], [1.0], 1, seed=0)
    assert sampler.num_windows == 5
    assert sampler.sample(6)[0].shape == (6, 1, 3)


def test_unusable_sources_are_refused() -> None:
    with pytest.raises(DataError, match="horizon of 4 transitions: the longest has 3"):
        WindowSampler([source(0, 9), source(1, 3)], [1.0, 1.0], H, seed=0)
    with pytest.raises(DataError, match="no trajectories"):
        WindowSampler([], [], H, seed=0)
    with pytest.raises(ValueError, match="1 sources but 2 weights"):
        WindowSampler([source(0, 9)], [1.0, 1.0], H, seed=0)
    with pytest.raises(ValueError, match="positive"):
        WindowSampler([source(0, 9)], [0.0], H, seed=0)
