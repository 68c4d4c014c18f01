"""Rewards of stored episodes: those of the task at hand."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from counting_env import CountingEnv
from gymnasium.envs.registration import EnvSpec
from line_world import LineEnv
from numpy.typing import NDArray

from skild_ray.algorithms.stored_transitions import load_transitions
from skild_ray.config import Environment, Generate, Source
from skild_ray.data.episode import Episode
from skild_ray.data.formats import load_rewarded_episodes, load_unlabelled_episodes
from skild_ray.data.importing import import_dataset
from skild_ray.data.minari_store import MinariWriter, read_minari
from skild_ray.data.rewards import credit, for_task
from skild_ray.envs import make_env
from skild_ray.errors import DataError
from skild_ray.generation.collect import Request, collect

HUMAN = "kitchen/teleop-complete15-v2"
TWO = Environment(id="skild_ray/Kitchen-v0", kwargs={"task": ["light switch", "kettle"], "observation": "qpos"})
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


class JudgingLineEnv(LineEnv):
    """Observations [T, n] are flags: is sub-task a, b, ... solved?"""

    subtask_reward = 2.0
    is_ordered = True

    def __init__(self, subtasks: str = "abc") -> None:
        super().__init__(dimensions=4)
        self.subtasks = tuple(subtasks)

    def solved(self, observations: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        return {name: observations[:, index] > 0 for index, name in enumerate("abcd")}


def _states(*flags: str) -> NDArray[np.float32]:
    """A row for each text: 1 in the columns of its letters."""
    return np.array([[float(name in text) for name in "abcd"] for text in flags], np.float32)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("", "a", "a", "ab", "abc"), [1, 0, 1, 1]),
        (("", "b", "", "a", ""), [0, 0, 1, 0]),  # b was solved before its turn, and is not any more
        (("", "b", "b", "ab", "abc"), [0, 0, 2, 1]),  # and here it still is
        (("abc", "", "a", "", "b"), [0, 1, 0, 1]),  # the first state is nobody's merit
        (("", "abc", "d", "", ""), [3, 0, 0, 0]),
        (("", "", "bcd", "", ""), [0, 0, 0, 0]),
    ],
)
def test_sub_tasks_are_credited_in_order(states: tuple[str, ...], expected: list[int]) -> None:
    assert credit(_states(*states), JudgingLineEnv()).tolist() == expected


def test_the_order_does_not_count_where_an_environment_says_so() -> None:
    env = JudgingLineEnv()
    env.is_ordered = False
    assert credit(_states("", "b", "ab", "", "c"), env).tolist() == [1, 1, 0, 1]
    assert credit(_states("", "", "bc", "b", ""), env).tolist() == [0, 2, 0, 0]


@pytest.mark.parametrize("reward", ["ordered", "d4rl"])
def test_credits_are_the_kitchens_own(reward: str) -> None:
    env = make_env(TWO.id, TWO.kwargs | {"reward": reward})
    source = Generate(expert="kitchen", episodes=1, env_kwargs={"reward": reward}, action_noise=0.1)
    (episode,) = collect(Request.of(source, TWO, 0), 0, 1)
    assert episode.rewards.sum() == 2
    assert np.array_equal(credit(episode.observations, env), episode.rewards)


def _episode(*flags: str, **changes: Any) -> Episode:
    states = _states(*flags)
    steps = len(flags) - 1
    facts = {"rewards": np.full(steps, 7.0), "terminated": True, "executed_actions": np.ones((steps, 1))}
    return Episode(states, np.zeros((steps, 1)), **facts | changes)


def test_an_episode_gets_the_rewards_and_the_end_of_the_task() -> None:
    whole, part = for_task([_episode("", "a", "ab", "ab"), _episode("", "b", "", "a")], {}, JudgingLineEnv("ab"))
    assert whole.terminated and whole.rewards.tolist() == [2, 2]
    assert (len(whole.observations), len(whole.actions), len(whole.executed_actions)) == (3, 2, 2)
    assert not part.terminated and part.rewards.tolist() == [0, 0, 2]
    without_last_state = Episode(_states("", "a", "ab"), np.zeros((3, 1)), np.zeros(3), terminated=True)
    (known,) = for_task([without_last_state], {}, JudgingLineEnv("abc"))
    assert (known.rewards.tolist(), len(known.actions), known.terminated) == ([2, 2], 2, False)


def test_what_the_environment_gave_itself_is_kept() -> None:
    generated = {"skild_ray": {"request": {}}}
    mine, others = (_episode("", "a", "ab", subtasks=names) for names in (("a", "b"), ("a",)))
    kept, made_anew = for_task([mine, others], generated, JudgingLineEnv("ab"))
    assert kept is mine and made_anew.rewards.tolist() == [2, 2]
    assert for_task([mine], {}, JudgingLineEnv("ab"))[0].rewards.tolist() == [2, 2], "somebody's say-so"


def test_a_sub_task_that_is_not_told_is_one_line() -> None:
    with pytest.raises(DataError, match="'solved' does not tell of its sub-task 'e'"):
        for_task([_episode("", "a")], {}, JudgingLineEnv("ae"))


def _spec(id: str, **kwargs: Any) -> dict[str, str]:
    return {"env_spec": EnvSpec(id, entry_point="nowhere:Env", kwargs=kwargs).to_json()}


@pytest.mark.parametrize(
    ("metadata", "mismatch"),
    [
        ({}, None),
        (_spec("skild_ray/Maze-v0"), None),
        (_spec("skild_ray/Maze-v0", task="target", max_episode_steps=9), None),
        (_spec("skild_ray/Maze-v0", task="random"), 'for task "random", not "target"'),
        (_spec("PointMaze_Large-v3"), "in PointMaze_Large-v3, not in skild_ray/Maze-v0"),
    ],
)
def test_data_of_another_task_are_refused_where_the_environment_cannot_judge(
    metadata: dict[str, Any], mismatch: str | None
) -> None:
    env, episodes = make_env("skild_ray/Maze-v0", {}), [_episode("", "a", subtasks=("goal",))]
    env.unwrapped.solved = None
    if mismatch is None:
        assert for_task(episodes, metadata, env) == episodes
        return
    with pytest.raises(DataError, match=f"it was recorded {mismatch}, so its rewards are not this task's; name") as e:
        for_task(episodes, metadata, env)
    assert "\n" not in str(e.value)


def test_data_of_other_sub_tasks_are_refused_where_the_environment_cannot_judge() -> None:
    episodes = [_episode("", "a", subtasks=("a", "b"))]
    with pytest.raises(DataError, match="recorded for a, b, not for goal, so"):
        for_task(episodes, {}, LineEnv())
    assert for_task(episodes, {}, CountingEnv()) == episodes, "an environment without sub-tasks says nothing"


def test_human_demonstrations_of_another_task(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kitchen").mkdir()
    (tmp_path / HUMAN).symlink_to(real_data / HUMAN)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    mkls, kbts = (make_env("skild_ray/Kitchen-v0", {"task": task, "observation": "qpos"}) for task in ("mkls", "kbts"))
    stored = "kitchen/imported-v0"
    import_dataset(HUMAN, stored, kbts)
    for name in (HUMAN, stored):
        right, wrong = (load_rewarded_episodes(name, env) for env in (mkls, kbts))
        assert [(e.rewards.sum(), e.terminated) for e in right] == [(4, True)] * 15
        assert {(float(e.rewards.sum()), e.terminated) for e in wrong} == {(1.0, False)}


def test_the_mazes_play_gets_the_rewards_of_its_target() -> None:
    """It passes the target in its fourth state; what it was rewarded for elsewhere does not count."""
    env = make_env("skild_ray/Maze-v0", {})
    states = np.array([[10, 24, 0, 0], [14, 12, 0, 0], [16, 8.1, 0, 0], [16.1, 8, 0, 0], [2, 2, 0, 0]], np.float32)
    rewards = np.array([0, 0, 0, 100], np.float32)
    episode = Episode(states, np.zeros((4, 2), np.float32), rewards, True, 0, ("goal",))
    generated = {"skild_ray": {"request": {}}} | _spec("skild_ray/Maze-v0", task="random")
    (judged,) = for_task([episode], generated, env)
    assert judged.rewards.tolist() == [0, 0, 100] and judged.terminated and len(judged.observations) == 4
    other = make_env("skild_ray/Maze-v0", {"task": "random"})
    with pytest.raises(DataError, match='for task "target", not "random"'):
        for_task([episode], _spec("skild_ray/Maze-v0"), other)


def _write(name: str, episodes: list[Episode], env: gym.Env, **metadata: Any) -> None:
    with MinariWriter(name, env.observation_space, env.action_space, metadata, env.spec) as writer:
        writer.append(episodes)


def test_executed_actions_and_seeds_are_stored_and_imported(minari_root: Path) -> None:
    env = JudgingLineEnv("ab")
    executed = np.array([[0.5], [-0.25]], np.float32)
    _write("line/noisy-v0", [_episode("", "a", "ab", executed_actions=executed, seed=7)], env)
    assert np.array_equal(minari.load_dataset("line/noisy-v0")[0].infos["executed_actions"], executed)
    import_dataset("line/noisy-v0", "line/again-v0", env)
    for name in ("line/noisy-v0", "line/again-v0"):
        (episode,) = read_minari(name, rewards=True)
        assert np.array_equal(episode.executed_actions, executed) and episode.seed == 7
        (rows,) = load_transitions([Source(dataset=name)], Environment(id="test_rewards:JudgingLineEnv"))
        assert np.array_equal(rows["actions"], executed)


@pytest.mark.parametrize(
    ("executed", "expected"),
    [
        (np.zeros((4, 1)), r"episode 0: 'executed_actions' in its infos is \[4, 1\], its actions are \[2, 1\]"),
        (np.full((2, 1), 1.5), r"executed actions must be in \[-1, 1\]: row 0, column 0 is 1.5"),
        (np.full((2, 1), np.nan), r"executed actions must be in \[-1, 1\]: row 0, column 0 is nan"),
    ],
)
def test_unusable_executed_actions_are_named(minari_root: Path, executed: NDArray[Any], expected: str) -> None:
    env = JudgingLineEnv("ab")
    _write("line/bad-v0", [_episode("", "a", "ab", executed_actions=executed)], env)
    with pytest.raises(DataError, match=f"'line/bad-v0'.*{expected}"):
        load_rewarded_episodes("line/bad-v0", env)


def test_infos_may_begin_with_that_of_reset(minari_root: Path) -> None:
    executed = np.array([[9.0], [0.5], [-0.25]], np.float32)
    _write("line/collected-v0", [_episode("", "a", "ab", executed_actions=executed)], JudgingLineEnv("ab"))
    (episode,) = read_minari("line/collected-v0", rewards=True)
    assert episode.executed_actions.tolist() == [[0.5], [-0.25]]


def test_imitation_asks_for_no_rewards(minari_root: Path) -> None:
    env = LineEnv()
    _write("line/mute-v0", [Episode(np.zeros((4, 2), np.float32), np.zeros((3, 1), np.float32), terminated=True)], env)
    sources, environment = [Source(dataset="line/mute-v0")], Environment(id="line_world:LineEnv")
    with pytest.raises(DataError, match="'line/mute-v0': it has no rewards for this task"):
        load_transitions(sources, environment)
    (rows,) = load_transitions(sources, environment, "without rewards")
    assert rows["rewards"].tolist() == [0, 0, 0] and rows["terminated"].tolist() == [0, 0, 1]


def test_unlabelled_data_are_taken_as_they_are() -> None:
    """The task's end does not cut them, and it does not matter for which task they were recorded."""
    episodes = [_episode("", "a", "ab", "", subtasks=("a", "b"))]
    (judged,) = load_rewarded_episodes(episodes, JudgingLineEnv("ab"))
    assert judged.rewards.tolist() == [2, 2] and judged.terminated
    other = LineEnv(dimensions=4)
    with pytest.raises(DataError, match="recorded for a, b, not for goal"):
        load_rewarded_episodes(episodes, other, needed=False)
    for env in (JudgingLineEnv("ab"), other):
        (episode,) = load_unlabelled_episodes(episodes, env)
        assert episode.rewards.tolist() == [0, 0, 0] and not episode.terminated
        assert len(episode.observations) == 4 and episode.executed_actions.tolist() == [[1], [1], [1]]


def test_json_metadata_of_generated_data_are_understood(minari_root: Path) -> None:
    """As `generate` writes them: rewards beside the states' stay, for these sub-tasks only."""
    env = make_env(TWO.id, TWO.kwargs)
    states = np.repeat(env.reset(seed=0)[0][None], 3, axis=0)
    rewards = np.array([1.0, 1.0], np.float32)
    episode = Episode(states, np.zeros((2, 9), np.float32), rewards, True, 0, ("light switch", "kettle"))
    _write("kitchen/two-v0", [episode], env, skild_ray={"request": {}})
    assert json.loads(minari.load_dataset("kitchen/two-v0").storage.metadata["env_spec"])["id"] == TWO.id
    assert load_rewarded_episodes("kitchen/two-v0", env)[0].rewards.tolist() == [1, 1]
    kbts = make_env(TWO.id, TWO.kwargs | {"task": "kbts"})
    with pytest.raises(DataError, match="no rewards for this task"):
        load_rewarded_episodes("kitchen/two-v0", kbts)
    (unsolved,) = load_rewarded_episodes("kitchen/two-v0", kbts, successful=False)
    assert unsolved.rewards.tolist() == [0, 0] and not unsolved.terminated, "by its states"
