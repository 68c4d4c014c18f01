"""The loop of sampling and learning: its pace, what it counts, where batches go, checkpoints."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrained import publish_pretrained, tiny_experiment
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.minibatch_utils import MiniBatchCyclicIterator, ShardBatchIterator
from short_runs import VARIED, Build, equal, finish, num_updates, runner_policies

from skild_ray.algorithms.replay import learner_shares
from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.algorithms.train import module_weights


@pytest.mark.parametrize("num_env_runners", [0, 2])
def test_budget_and_replay_ratio(build: Build, num_env_runners: int) -> None:
    algo = build(num_env_runners, environment=VARIED, total_env_steps=3_000)
    learned_from = None
    while not algo.finished:
        before = dict(algo.counts)
        algo.train()
        if learned_from is None and algo.counts["decisions"] >= 64:
            # train() may take in several fragments; before the first update none of them counted
            owed = algo.counts["updates"] * 32 + algo.get_state()["off_policy"]["owed"]
            learned_from = algo.counts["decisions"] - owed / 16
            assert before["decisions"] <= learned_from < 64
    counts = algo.counts
    assert learned_from is not None
    assert 2_000 < counts["env_steps"] <= 3_000
    assert counts["env_steps"] < 5 * counts["decisions"], "skills that end early are shorter"
    owed = algo.get_state()["off_policy"]["owed"]
    assert counts["updates"] * 32 + owed == (counts["decisions"] - learned_from) * 16
    assert owed < 32
    assert counts["updates"] == num_updates(algo)
    assert len(algo.replay) == counts["decisions"]
    before = dict(counts)
    for _ in range(3):
        algo.train()
    assert dict(algo.counts) == before, "nothing was still on its way"


def test_stored_transitions_are_the_environments(build: Build) -> None:
    """In the counting environment step t pays t and leads to state t: rows can be checked one by one."""
    algo = build(environment=VARIED, total_env_steps=2_000, n_step=1)
    finish(algo)
    drawn = algo.replay.sample(2_000)
    start, end = drawn["obs"][:, 0], drawn["next_obs"][:, 0]
    length = end - start
    assert ((length >= 1) & (length <= 5)).all()
    assert (start % 5 == 0).all(), "skills begin every H steps"
    np.testing.assert_allclose(drawn["returns"], length * (start + 1 + end) / 2, err_msg="sum of start + 1 .. end")
    terminated = drawn["bootstrap"] == 0
    assert (end[terminated] % 2 == 1).all(), "odd episodes terminate"
    cut = ~terminated & (length < 5)
    assert (end[cut] % 2 == 0).all(), "even ones are cut by time"
    np.testing.assert_allclose(drawn["bootstrap"][~terminated], 0.99 ** (length[~terminated] / 5), rtol=1e-5)
    assert terminated.any()
    assert cut.any()


@pytest.mark.parametrize("updates", [1, 2, 3, 8])
@pytest.mark.parametrize("share", [24, 25])
def test_every_learner_gets_the_mixture_of_every_batch(updates: int, share: int) -> None:
    """By RLlib's own way of dealing rows out: to learners in shards, and to updates in minibatches."""
    size, learners = 96, 4
    source = np.tile(np.arange(size) < share, updates).astype(np.float32)
    batch_number = np.repeat(np.arange(updates, dtype=np.float32), size)
    rows = {"source": source, "number": batch_number}
    dealt = {name: torch.from_numpy(learner_shares(column, updates, learners)) for name, column in rows.items()}
    batch = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(dealt)}, env_steps=updates * size)
    for shard in ShardBatchIterator(batch, learners):
        minibatches = list(
            MiniBatchCyclicIterator(shard, minibatch_size=size // learners, num_epochs=1, shuffle_batch_per_epoch=False)
        )
        assert len(minibatches) == updates
        for number, minibatch in enumerate(minibatches):
            found = minibatch[DEFAULT_MODULE_ID]
            assert (found["number"] == number).all(), "all learners are at the same batch"
            assert len(found["source"]) == size // learners
            assert abs(float(found["source"].sum()) - share / learners) < 1


def test_env_runners_act_with_the_learners_policy(build: Build) -> None:
    algo = build(policy_lr=0.01)
    start = runner_policies(algo)[0]
    finish(algo, until=1_000)
    before = {name: value for name, value in module_weights(algo).items() if name.startswith("policy.")}
    algo.train()
    runner = runner_policies(algo)[0]
    assert equal(runner, before), "the fragment was collected with the weights of the moment before"
    assert not equal(runner, start)


def test_two_learners(build: Build) -> None:
    algo = build(num_learners=2, discriminator_updates=0.5, learn_alphas=True, total_env_steps=800)
    noise = [result.get() for result in algo.learner_group.foreach_learner(lambda _: torch.randn(4).tolist())]
    assert noise[0] != noise[1]
    finish(algo)
    states = algo.learner_group.foreach_learner(
        lambda learner: {name: value.cpu() for name, value in learner.module[DEFAULT_MODULE_ID].state_dict().items()}
    )
    first, second = (result.get() for result in states)
    first = {name.removeprefix("module."): value for name, value in first.items()}
    second = {name.removeprefix("module."): value for name, value in second.items()}
    assert equal(first, second), "gradients are shared"
    assert int(first["num_updates"]) == algo.counts["updates"] > 10


def test_maze(build: Build, tmp_path: Path) -> None:
    maze = {"id": "skild_ray/Maze-v0", "kwargs": {"max_episode_steps": 60}}
    experiment = tiny_experiment(tmp_path, environment=maze, algorithm={"total_env_steps": 1_000})
    publish_pretrained(experiment, observation_dim=4, action_dim=2)
    algo = SkiLDConfig.from_experiment(experiment).build_algo()
    assert isinstance(algo, SkiLD)
    try:
        result = finish(algo)
        assert result["episode_env_steps"] == 60
        assert algo.counts["updates"] > 20
    finally:
        algo.stop()


# --- reproducibility and checkpoints ---


@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_synchronous_runs_are_equal_bit_for_bit(build: Build, num_env_runners: int) -> None:
    weights = []
    for _ in range(2):
        algo = build(
            num_env_runners, environment=VARIED, synchronous=True, discriminator_updates=0.5, total_env_steps=1_500
        )
        finish(algo)
        weights.append((module_weights(algo), algo.replay.recent()))
        algo.stop()
    assert equal(weights[0][0], weights[1][0])
    for name, column in weights[0][1].items():
        np.testing.assert_array_equal(column, weights[1][1][name])


def test_another_seed_is_another_run(build: Build) -> None:
    rewards = []
    for seed in (0, 1):
        algo = build(environment=VARIED, seed=seed, total_env_steps=500)
        finish(algo)
        rewards.append(algo.replay.recent()["rewards"].tolist())
    assert rewards[0] != rewards[1]


def _everything(algo: SkiLD) -> dict[str, Any]:
    """All that decides how learning goes on, as plain values."""
    learner = algo.learner_group.get_state()["learner"]
    own = algo.get_state()["off_policy"]
    experience = own["experience"]
    found = {
        "module": learner["rl_module"][DEFAULT_MODULE_ID],
        "optimizer": learner["optimizer"],
        "replay": experience["replay"]["data"],
        "replay_rng": experience["replay"]["rng"],
        "rng": experience["rng"],
        "owed": own["owed"],
        "counts": own["counts"],
    }
    return copy.deepcopy(found)  # states of a learner in this process share its memory


def _assert_equal(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            _assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            _assert_equal(*pair)
    else:
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


LEARNS_EVERYTHING = {
    "discriminator_updates": 0.5,
    "learn_alphas": True,
    "kl_in_target": True,
    "demonstration_share": 0.25,
}


def test_from_checkpoint_is_exact(build: Build, tmp_path: Path) -> None:
    algo = build(environment=VARIED, **LEARNS_EVERYTHING)
    finish(algo, until=1_500)
    expected = _everything(algo)
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    restored = SkiLD.from_checkpoint(path)
    try:
        _assert_equal(_everything(restored), expected)
        _assert_equal(restored.replay.sample(50), algo.replay.sample(50))
        finish(restored)
        assert restored.counts["updates"] == num_updates(restored) > expected["counts"]["updates"]
    finally:
        restored.stop()


@pytest.mark.parametrize(("how", "num_env_runners"), [("path", 1), ("state", 0)])
def test_live_algorithm_goes_back(build: Build, tmp_path: Path, how: str, num_env_runners: int) -> None:
    algo = build(num_env_runners, synchronous=True, policy_lr=0.01, **LEARNS_EVERYTHING)
    finish(algo, until=1_000)
    expected = _everything(algo)
    policy = {name: value for name, value in module_weights(algo).items() if name.startswith("policy.")}
    if how == "path":
        path = algo.save_to_path(str(tmp_path / "checkpoint"))
        finish(algo, until=2_000)
        algo.restore_from_path(path)
    else:
        state = algo.get_state()
        finish(algo, until=2_000)
        algo.set_state(state)
    _assert_equal(_everything(algo), expected)
    algo.train()
    assert equal(runner_policies(algo)[0], policy), "env runners act with the older policy again"
    assert algo.counts["env_steps"] > expected["counts"]["env_steps"]


def _learning(algo: SkiLD, iterations: int) -> list[dict[str, Any]]:
    """What the next iterations log: numbers, which RLlib's rates are not."""
    found = []
    for _ in range(iterations):
        result = algo.train()
        logged = {name: result[name] for name in (*algo.counts, *algo.faults, "replay_size")}
        logged |= {name: result[name] for name in ("success", "episode_return") if name in result}
        learner = result["learners"][DEFAULT_MODULE_ID]
        found.append(logged | {name: value for name, value in learner.items() if isinstance(value, int | float)})
    return found


@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_a_resumed_synchronous_run_equals_an_uninterrupted_one(
    build: Build, tmp_path: Path, num_env_runners: int
) -> None:
    changes = LEARNS_EVERYTHING | {"environment": VARIED, "synchronous": True}
    algo = build(num_env_runners, **changes)
    finish(algo, until=1_200)
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    expected = _learning(algo, 12)
    algo.stop()
    restored = build(num_env_runners, **changes)
    restored.restore_from_path(path)
    _assert_equal(_learning(restored, 12), expected)
    assert expected[-1]["episodes"] > expected[0]["episodes"] > 16
    assert expected[-1]["critic_loss"] != expected[-2]["critic_loss"]
