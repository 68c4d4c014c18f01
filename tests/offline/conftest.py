"""Small synthetic trajectories whose actions can be told from the states."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from skild_ray.data.trajectories import Trajectories

torch.set_num_threads(1)  # the networks of the tests are too small for more


@pytest.fixture(scope="session")
def make_trajectories() -> Callable[..., Trajectories]:
    """Episodes of 20 to 40 steps that circle around `centre`; actions are the tangents."""

    def make(episodes: int, seed: int = 0, centre: float = 0.0) -> Trajectories:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(20, 41, episodes)
        angles = [rng.uniform(0, 2 * np.pi) + 0.2 * np.arange(length) for length in lengths]
        states = [np.stack([np.cos(a), np.sin(a)], 1) + centre for a in angles]
        actions = [np.stack([-np.sin(a), np.cos(a)], 1) * 0.5 for a in angles]
        return Trajectories.from_episodes(
            [s.astype(np.float32) for s in states], [a.astype(np.float32) for a in actions]
        )

    return make
