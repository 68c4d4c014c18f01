"""Skill transitions of the counting environment: the semi-Markov ones, and the released code's."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from counting_env import CountingEnv
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from skild_ray.algorithms.skild.reference import ShiftedTransitions, TracedSkillVectorEnv
from skild_ray.algorithms.transitions import Rows, episode_rows

Transition = tuple[float, float, float, float, bool]


def _chunks(low: CountingEnv, cuts: Sequence[int] = ()) -> list[SingleAgentEpisode]:
    """One episode of skills z = 0, 10, 20, .. (the time each was chosen), cut after `cuts` skills as env runners do."""
    env = TracedSkillVectorEnv([lambda: low], lambda inputs: torch.zeros(len(inputs), 1), 1, 10)
    observations, infos = env.reset(seed=0)
    episode = SingleAgentEpisode(observation_space=env.single_observation_space, action_space=env.single_action_space)
    episode.add_env_reset(observations[0], _info(infos))
    finished = []
    while not episode.is_done:
        if episode.t in cuts and len(episode):
            successor = episode.cut(len_lookback_buffer=1)
            finished.append(episode.to_numpy())
            episode = successor
        skill = np.array([10 * episode.t], np.float32)
        observations, rewards, terminated, truncated, infos = env.step(skill[None])
        episode.add_env_step(
            observations[0], skill, rewards[0], _info(infos), terminated=terminated[0], truncated=truncated[0]
        )
    return [*finished, episode.to_numpy()]


def _info(infos: dict[str, NDArray]) -> dict[str, NDArray]:
    return {key: values[0] for key, values in infos.items() if not key.startswith("_")}


def _transitions(rows: Rows) -> list[Transition]:
    columns = (
        rows["obs"][:, 0],
        rows["actions"][:, 0],
        rows["rewards"],
        rows["next_obs"][:, 0],
        rows["terminated"] > 0,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _joined(chunks: Sequence[Rows]) -> Rows:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


@pytest.mark.parametrize("cuts", [(), (1,), (1, 2)])
def test_semi_markov_transitions(cuts: tuple[int, ...]) -> None:
    rows = _joined([episode_rows(chunk) for chunk in _chunks(CountingEnv(max_steps=30), cuts)])
    assert _transitions(rows) == [(0, 0, 55, 10, False), (10, 10, 155, 20, False), (20, 20, 255, 30, False)]
    assert rows["k"].tolist() == [10, 10, 10]


def test_time_limit_inside_a_skill_is_no_termination() -> None:
    rows = episode_rows(_chunks(CountingEnv(max_steps=35))[0])
    assert _transitions(rows)[-1] == (30, 30, 31 + 32 + 33 + 34 + 35, 35, False)
    assert rows["k"].tolist() == [10, 10, 10, 5]


@pytest.mark.parametrize(("done_after", "last"), [(25, (20, 20, 115, 25, True)), (21, (20, 20, 21, 21, True))])
def test_termination_inside_a_skill(done_after: int, last: Transition) -> None:
    rows = episode_rows(_chunks(CountingEnv(done_after=done_after), (2,))[-1])
    assert _transitions(rows) == [last]
    assert rows["k"].tolist() == [done_after - 20]


FIRST, SECOND = (0, 0, 55, 11, False), (11, 10, 155, 21, False)


@pytest.mark.parametrize("cuts", [(), (1,), (1, 2), (3,)])
@pytest.mark.parametrize(
    ("low", "expected"),
    [
        ({"max_steps": 30}, [FIRST, SECOND, (21, 20, 225, 30, True)]),
        ({"max_steps": 35}, [FIRST, SECOND, (21, 20, 255, 31, False), (31, 30, 130, 35, True)]),
        ({"done_after": 25}, [FIRST, SECOND, (21, 20, 115, 25, True)]),
        ({"done_after": 21}, [FIRST, (11, 10, 176, 21, True)]),
    ],
    ids=["time limit on a boundary", "time limit inside", "termination inside", "termination on a first step"],
)
def test_shifted_transitions(low: dict[str, int], expected: list[Transition], cuts: tuple[int, ...]) -> None:
    shift = ShiftedTransitions()
    *open_chunks, last = [shift(chunk) for chunk in _chunks(CountingEnv(**low), cuts)]
    assert open_chunks == [None] * len(open_chunks), "rows leave when the episode has ended"
    assert last is not None
    assert _transitions(last) == expected


def test_shifted_episodes_are_kept_apart() -> None:
    shift = ShiftedTransitions()
    first, second = (_chunks(CountingEnv(max_steps=30), (1,)) for _ in range(2))
    assert shift(first[0]) is None
    assert shift(second[0]) is None
    for chunk in (first[1], second[1]):
        rows = shift(chunk)
        assert rows is not None
        assert _transitions(rows) == [FIRST, SECOND, (21, 20, 225, 30, True)]


def test_shifted_episode_of_one_step() -> None:
    rows = ShiftedTransitions()(_chunks(CountingEnv(done_after=1))[0])
    assert rows is not None
    assert _transitions(rows) == [(0, 0, 1, 1, True)]
