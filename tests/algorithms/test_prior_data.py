"""Where the transitions of a batch come from."""

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from skild_ray.algorithms.prior_data import PriorData, PriorDataExperience
from skild_ray.algorithms.replay import learner_shares
from skild_ray.algorithms.transitions import Rows

SPACE = Box(-np.inf, np.inf, (1,), np.float32)
OWN, DEMONSTRATED, PLAYED = 0.0, 1.0, 2.0


def _rows(value: float, count: int = 4) -> Rows:
    """Transitions whose actions tell where they are from."""
    column = np.full((count, 1), value, np.float32)
    rewards, k, terminated = np.ones(count, np.float32), np.ones(count, np.int64), np.zeros(count, np.float32)
    return {"obs": column, "next_obs": column, "actions": column, "rewards": rewards, "k": k, "terminated": terminated}


def _experience(seed: int = 0, **arguments: Any) -> PriorDataExperience:
    """Shares of 1/4 and 1/2, and 5 transitions of the policy's own, each of 2 env steps."""
    prior = {
        "demonstrations": PriorData([_rows(DEMONSTRATED)] * 2, 0.25),
        "task_agnostic": PriorData([_rows(PLAYED)], 0.5),
    }
    sizes = {"observation_dim": 1, "action_dim": 1, "n_step": 1, "discount": 0.9, "horizon": 1}
    experience = PriorDataExperience(prior, capacity=100, seed=seed, **sizes | arguments)
    _collect(experience)
    return experience


def _collect(experience: PriorDataExperience) -> None:
    states = np.zeros((6, 1), np.float32)
    episode = SingleAgentEpisode(
        observations=list(states),
        actions=list(states[:5]),
        rewards=[1.0] * 5,
        infos=[{"k": 2}] * 6,
        terminated=True,
        observation_space=SPACE,
        action_space=SPACE,
        len_lookback_buffer=0,
    )
    experience.add([episode])


def _shares(experience: PriorDataExperience) -> list[list[int]]:
    """Of each of 3 batches of 16: how many are own, demonstrated and played."""
    actions = experience.draw(3, 16)["actions"].reshape(3, 16)
    return [[int((batch == source).sum()) for source in (OWN, DEMONSTRATED, PLAYED)] for batch in actions]


def test_every_batch_has_the_shares() -> None:
    assert _shares(_experience()) == [[4, 4, 8]] * 3


@pytest.mark.parametrize(
    ("collections", "expected"), [(1, [7, 3, 6]), (3, [13, 1, 2]), (4, [16, 0, 0]), (6, [16, 0, 0])]
)
def test_shares_fall_with_the_policys_env_steps(collections: int, expected: list[int]) -> None:
    """Of 40; each collection is 10 of them."""
    experience = _experience(annealed_over=40)
    for _ in range(collections - 1):
        _collect(experience)
    assert _shares(experience) == [expected] * 3


def test_one_learner_and_two_get_the_same_mixture() -> None:
    drawn = _experience().draw(3, 16)["actions"]
    for learner in np.split(learner_shares(drawn, 3, 2), 2):
        for batch in learner.reshape(3, 8):
            assert [int((batch == source).sum()) for source in (OWN, DEMONSTRATED, PLAYED)] == [2, 2, 4]


def test_bias_of_every_env_step() -> None:
    drawn = _experience(reward_bias=-3.0).draw(3, 16)
    own = drawn["actions"][:, 0] == OWN
    assert set(drawn["returns"][own]) == {1 - 2 * 3}, "its transitions last 2"
    assert set(drawn["returns"][~own]) == {1 - 3}


def test_state_decides_what_is_drawn_next() -> None:
    experience = _experience(annealed_over=40)
    experience.draw(1, 16)
    restored = _experience(seed=1, annealed_over=40)
    _collect(restored)
    restored.set_state(experience.get_state())
    first, second = (one.draw(2, 16) for one in (experience, restored))
    for name, column in first.items():
        np.testing.assert_array_equal(column, second[name])


def test_prior_observations() -> None:
    assert _experience().prior_observations().tolist() == [[DEMONSTRATED]] * 8 + [[PLAYED]] * 4
