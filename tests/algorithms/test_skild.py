"""The algorithm as a whole: sampling, learning, counting, checkpoints and faults, on tiny networks."""

import copy
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pretrained import publish_pretrained, tiny_experiment
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.minibatch_utils import MiniBatchCyclicIterator, ShardBatchIterator
from torch import Tensor

from skild_ray.algorithms.off_policy_config import make_runner_env
from skild_ray.algorithms.pretrained import Pretrained, References, load_decoder
from skild_ray.algorithms.replay import learner_shares
from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.algorithms.train import algorithm_config, metrics_row, module_weights
from skild_ray.config import Experiment, with_values
from skild_ray.data.formats import load_dataset
from skild_ray.errors import SkildError
from skild_ray.evaluation.agent import Agent
from skild_ray.evaluation.rollouts import evaluation_env
from skild_ray.generation.sources import stored_demonstrations
from skild_ray.runs.folder import run_folder

Build = Callable[..., SkiLD]
VARIED = {"id": "counting_env:RandomLengthEnv"}

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def build(pretrained_run: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Builds the algorithm with settings of `algorithm` and of other sections changed, and stops it in the end."""
    monkeypatch.setenv("TUNE_RESULT_DIR", str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", f"{pretrained_run.runs}/minari")
    built: list[SkiLD] = []

    def build(num_env_runners: int = 0, num_learners: int = 0, **changes: Any) -> SkiLD:
        rollout = {"num_env_runners": num_env_runners, "num_envs_per_env_runner": 4, "decisions_per_fragment": 16}
        rollout |= changes.pop("rollout", {})
        sections = {name: changes.pop(name) for name in ("environment", "seed") if name in changes}
        experiment = tiny_experiment(
            pretrained_run.runs,
            **sections,
            rollout=rollout,
            resources={"num_learners": num_learners},
            algorithm=changes,
        )
        algo = algorithm_config(experiment).build_algo()
        assert isinstance(algo, SkiLD)
        built.append(algo)
        return algo

    yield build
    for algo in built:
        algo.stop()


def _finish(algo: SkiLD, until: int | None = None) -> dict[str, Any]:
    """Train until the budget, or so many environment steps, are spent; the last result."""
    result: dict[str, Any] = {}
    for _ in range(5_000):
        if algo.finished or (until is not None and algo.counts["env_steps"] >= until):
            return result
        result = algo.train()
    raise AssertionError(f"stuck at {dict(algo.counts)}")


def _num_updates(algo: SkiLD) -> int:
    return int(module_weights(algo)["num_updates"])


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _runner_policies(algo: SkiLD) -> list[dict[str, Tensor]]:
    """The policy that each env runner acts with."""
    return algo.env_runner_group.foreach_env_runner(
        lambda runner: {name: value.clone() for name, value in runner.module.state_dict().items()},
        local_env_runner=algo.env_runner_group.num_remote_env_runners() == 0,
    )


# --- counting ---


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
    assert counts["updates"] == _num_updates(algo)
    assert len(algo.replay) == counts["decisions"]
    before = dict(counts)
    for _ in range(3):
        algo.train()
    assert dict(algo.counts) == before, "nothing was still on its way"


def test_stored_transitions_are_the_environments(build: Build) -> None:
    """In the counting environment step t pays t and leads to state t: rows can be checked one by one."""
    algo = build(environment=VARIED, total_env_steps=2_000, n_step=1)
    _finish(algo)
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


def test_demonstrations_have_their_share_of_every_batch(build: Build) -> None:
    algo = build(demonstration_share=0.25, n_step=2, posterior_scale=0.5)
    _finish(algo, until=600)
    (source,) = stored_demonstrations(tiny_experiment("unused"))
    states = load_dataset(source.dataset or "").observations
    drawn = algo.experience.draw(3, 32)
    is_state = (drawn["obs"][:, None] == states).all(-1).any(-1).reshape(3, 32)
    assert is_state[:, :8].all()
    assert not is_state[:, 8:].all(1).any()
    for name, values in References(Pretrained.open(algo.config.run_dir or ""), 0.5)(drawn["obs"]).items():
        np.testing.assert_allclose(drawn[name], values, atol=1e-5)


def test_demonstrations_are_no_negatives_of_the_online_discriminator(build: Build) -> None:
    algo = build(demonstration_share=0.5, discriminator_updates=0.5)
    _finish(algo, until=600)
    drawn = algo.experience.draw(4, 32)
    assert drawn["replayed_states"].shape == (4 * 32, 2)

    def shares(states: NDArray) -> list[float]:
        own = algo.replay.recent()["obs"], algo.experience.demonstrated.recent()["obs"]
        return [float((states[:, None] == rows).all(-1).any(-1).mean()) for rows in own]

    assert shares(drawn["replayed_states"])[0] == 1, "all from the policy's own experience"
    assert shares(drawn["replayed_states"])[1] < 0.5 <= shares(drawn["obs"])[1]


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


def test_results_name_what_happened(build: Build) -> None:
    algo = build(environment=VARIED, total_env_steps=2_000)
    result = _finish(algo)
    for name, value in algo.counts.items():
        assert result[name] == value
    assert result["replay_size"] == algo.counts["decisions"]
    assert 0 < result["success"] < 1
    assert 10 < result["episode_env_steps"] < 30
    learner = result["learners"][DEFAULT_MODULE_ID]
    for name in (
        "policy_loss",
        "critic_loss",
        "q_1",
        "q_2",
        "q_target",
        "p_demo",
        "prior_divergence",
        "alpha",
        "alpha_q",
        "critic_gradient",
        "policy_gradient",
    ):
        assert name in learner
    for name in ("env_reward", "discriminator_reward", "rl_training_reward"):
        assert np.isfinite(learner[name])


def test_env_runners_act_with_the_learners_policy(build: Build) -> None:
    algo = build(policy_lr=0.01)
    start = _runner_policies(algo)[0]
    _finish(algo, until=1_000)
    before = {name: value for name, value in module_weights(algo).items() if name.startswith("policy.")}
    algo.train()
    runner = _runner_policies(algo)[0]
    assert _equal(runner, before), "the fragment was collected with the weights of the moment before"
    assert not _equal(runner, start)


def test_two_learners(build: Build) -> None:
    algo = build(num_learners=2, discriminator_updates=0.5, learn_alphas=True, total_env_steps=800)
    noise = [result.get() for result in algo.learner_group.foreach_learner(lambda _: torch.randn(4).tolist())]
    assert noise[0] != noise[1]
    _finish(algo)
    states = algo.learner_group.foreach_learner(
        lambda learner: {name: value.cpu() for name, value in learner.module[DEFAULT_MODULE_ID].state_dict().items()}
    )
    first, second = (result.get() for result in states)
    first = {name.removeprefix("module."): value for name, value in first.items()}
    second = {name.removeprefix("module."): value for name, value in second.items()}
    assert _equal(first, second), "gradients are shared"
    assert int(first["num_updates"]) == algo.counts["updates"] > 10


# --- reproducibility and checkpoints ---


def test_a_lost_runner_needs_nothing_of_the_object_store(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    """What its node held is lost with it, and Ray warns of it at every start."""
    build(1)
    assert "constructor arguments in the object store" not in capfd.readouterr().err


@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_synchronous_runs_are_equal_bit_for_bit(build: Build, num_env_runners: int) -> None:
    weights = []
    for _ in range(2):
        algo = build(
            num_env_runners, environment=VARIED, synchronous=True, discriminator_updates=0.5, total_env_steps=1_500
        )
        _finish(algo)
        weights.append((module_weights(algo), algo.replay.recent()))
        algo.stop()
    assert _equal(weights[0][0], weights[1][0])
    for name, column in weights[0][1].items():
        np.testing.assert_array_equal(column, weights[1][1][name])


def test_another_seed_is_another_run(build: Build) -> None:
    rewards = []
    for seed in (0, 1):
        algo = build(environment=VARIED, seed=seed, total_env_steps=500)
        _finish(algo)
        rewards.append(algo.replay.recent()["rewards"].tolist())
    assert rewards[0] != rewards[1]


def _everything(algo: SkiLD) -> dict[str, Any]:
    """All that decides how learning goes on, as plain values."""
    learner = algo.learner_group.get_state()["learner"]
    own = algo.get_state()["off_policy"]
    found = {
        "module": learner["rl_module"][DEFAULT_MODULE_ID],
        "optimizer": learner["optimizer"],
        "replay": own["replay"]["data"],
        "replay_rng": own["replay"]["rng"],
        "rng": own["rng"],
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
    _finish(algo, until=1_500)
    expected = _everything(algo)
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    restored = SkiLD.from_checkpoint(path)
    try:
        _assert_equal(_everything(restored), expected)
        _assert_equal(restored.replay.sample(50), algo.replay.sample(50))
        _finish(restored)
        assert restored.counts["updates"] == _num_updates(restored) > expected["counts"]["updates"]
    finally:
        restored.stop()


@pytest.mark.parametrize(("how", "num_env_runners"), [("path", 1), ("state", 0)])
def test_live_algorithm_goes_back(build: Build, tmp_path: Path, how: str, num_env_runners: int) -> None:
    algo = build(num_env_runners, synchronous=True, policy_lr=0.01, **LEARNS_EVERYTHING)
    _finish(algo, until=1_000)
    expected = _everything(algo)
    policy = {name: value for name, value in module_weights(algo).items() if name.startswith("policy.")}
    if how == "path":
        path = algo.save_to_path(str(tmp_path / "checkpoint"))
        _finish(algo, until=2_000)
        algo.restore_from_path(path)
    else:
        state = algo.get_state()
        _finish(algo, until=2_000)
        algo.set_state(state)
    _assert_equal(_everything(algo), expected)
    algo.train()
    assert _equal(_runner_policies(algo)[0], policy), "env runners act with the older policy again"
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
    _finish(algo, until=1_200)
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    expected = _learning(algo, 12)
    algo.stop()
    restored = build(num_env_runners, **changes)
    restored.restore_from_path(path)
    _assert_equal(_learning(restored, 12), expected)
    assert expected[-1]["episodes"] > expected[0]["episodes"] > 16
    assert expected[-1]["critic_loss"] != expected[-2]["critic_loss"]


# --- faults ---


@pytest.mark.parametrize("resumed", [False, True])
def test_a_result_without_updates_reports_no_losses(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    algo = build(1)
    _finish(algo, until=1_000)
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    assert "critic_loss" in metrics_row(algo.train(), algo, [], 0.0)
    if resumed:
        algo.restore_from_path(path)
    monkeypatch.setattr(algo._runners, "fetch", list)  # runners that are slow, or lost
    row = metrics_row(algo.train(), algo, [], 0.0)
    assert row["updates"] > 0
    assert "critic_loss" not in row
    assert all(np.isfinite(list(row.values())))


def _env_runner_processes(algo: SkiLD) -> list[int]:
    return algo.env_runner_group.foreach_env_runner(lambda _: os.getpid(), local_env_runner=False)


def test_a_checkpoint_goes_on_with_other_settings(build: Build, tmp_path: Path) -> None:
    first = build(alpha=2.0, policy_lr=1e-3, discriminator_updates=1.0)
    _finish(first, until=600)
    first.save_to_path(str(tmp_path / "checkpoint"))
    other = build(alpha=0.5, policy_lr=1e-5, discriminator_updates=1.0, discriminator_weight_decay=0.5)
    other.restore_from_path(str(tmp_path / "checkpoint"))
    before, after = module_weights(first), module_weights(other)
    assert float(before.pop("log_alpha").exp()) == pytest.approx(2.0)
    assert float(after.pop("log_alpha").exp()) == pytest.approx(0.5)
    assert _equal(before, after)
    learner = other.learner_group._learner

    def group(name: str) -> dict[str, Any]:
        found: dict[str, Any] = learner.get_optimizer(DEFAULT_MODULE_ID, name).param_groups[0]
        return found

    for _ in range(2):
        assert group("policy")["lr"] == 1e-5
        assert group("discriminator")["weight_decay"] == 0.5
        result = other.train()
        assert result["learners"][DEFAULT_MODULE_ID]["alpha"] == pytest.approx(0.5)
    state = learner.get_optimizer(DEFAULT_MODULE_ID, "critic").state_dict()["state"]
    assert float(state[0]["step"]) > float(module_weights(first)["num_updates"])


def test_killed_env_runners_are_replaced(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    algo = build(2, total_env_steps=10**6)
    _finish(algo, until=500)
    first, second = _env_runner_processes(algo)
    os.kill(first, signal.SIGKILL)
    _finish(algo, until=algo.counts["env_steps"] + 1_000)
    assert second in _env_runner_processes(algo), "the other one goes on"
    os.kill(second, signal.SIGKILL)
    _finish(algo, until=algo.counts["env_steps"] + 2_000)
    replacements = _env_runner_processes(algo)
    assert replacements
    assert not {first, second} & set(replacements)
    assert algo.counts["updates"] == _num_updates(algo)
    assert algo.faults["lost_runners"] == 2
    assert algo.faults["lost_fragments"] <= 2
    said = [line for line in capsys.readouterr().out.splitlines() if "lost" in line]
    assert len(said) == 2, "one line each"
    assert "1 of 2 go on" in said[0]


def test_environment_that_hangs(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    hangs = VARIED | {"kwargs": {"hang_at": 200}}
    algo = build(1, environment=hangs, rollout={"answer_timeout_s": 0.5}, total_env_steps=10**6)
    _finish(algo, until=1_000)
    assert algo.faults["silent_runners"] == algo.faults["lost_runners"] == algo.faults["lost_fragments"] >= 1
    assert "did not answer for" in capsys.readouterr().out


def _seeds(algo: SkiLD, first: int = 0, last: int | None = None) -> list[float]:
    """The environments' seeds, which they observe at the beginning of an episode, in rows of the replay."""
    observations = algo.replay.recent()["obs"][first:last]
    return [seed for seed in observations[observations[:, 0] == 0, 1] if seed]


def test_environment_that_raises(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    algo = build(environment=VARIED | {"kwargs": {"fail_at": 120}}, total_env_steps=2_000)
    result = _finish(algo)
    assert algo.counts["env_steps"] > 1_500
    drawn = algo.replay.sample(1_000)
    assert (drawn["next_obs"][:, 0] > drawn["obs"][:, 0]).all(), "no transition leads from one episode into another"
    assert result["environment_rebuilds"] == algo.faults["environment_rebuilds"] >= 3
    assert len(set(_seeds(algo))) == len(_seeds(algo)) > 8, "no episode is played twice"
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "RuntimeError: the counter broke" in line]
    assert "environment_rebuilds" in said


@pytest.mark.parametrize("fail_at", [12, 50])
def test_environment_that_raises_all_the_time(build: Build, fail_at: int) -> None:
    algo = build(environment=VARIED | {"kwargs": {"fail_at": fail_at}}, total_env_steps=10**6)
    with pytest.raises(SkildError, match=r"fails too often: .*; last: environment '.*': RuntimeError: the counter"):
        _finish(algo)


def test_what_was_restored_begins_episodes_nobody_has_seen(build: Build, tmp_path: Path) -> None:
    algo = build(environment=VARIED, synchronous=True, total_env_steps=2_000)
    _finish(algo, until=800)
    before = algo.replay.added
    assert _seeds(algo)
    algo.restore_from_path(algo.save_to_path(tmp_path / "checkpoint"))
    _finish(algo)
    assert _seeds(algo, before)
    assert not set(_seeds(algo, before)) & set(_seeds(algo, 0, before))


# --- quirks ---

SHIFTED: dict[str, Any] = {"type": "skild_reference", "reference_quirks": ["shifted_transitions"]}


def test_shifted_transitions_reach_the_replay(build: Build) -> None:
    algo = build(environment=VARIED, **SHIFTED, total_env_steps=1_500)
    _finish(algo)
    starts = algo.replay.recent()["obs"][:, 0]
    assert set(np.unique(starts % 5)) <= {0, 1}
    assert (starts[starts > 0] % 5 == 1).all()


def test_shifted_transitions_wait_for_long_episodes(build: Build) -> None:
    algo = build(
        environment={"id": "counting_env:CountingEnv", "kwargs": {"max_steps": 400}},
        **SHIFTED,
        warmup_skill_steps=20,
        total_env_steps=4_000,
    )
    _finish(algo)
    assert algo.counts["updates"] > 0


def test_decoder_is_squashed_by_the_quirk_only(pretrained_run: Experiment) -> None:
    """In training as in evaluation."""
    decoder = load_decoder(Pretrained.open(run_folder(pretrained_run)).skill_prior)
    skill, ends = [5.0, -10.0, 20.0], []
    for quirks, bounded in (([], lambda action: np.clip(action, -1, 1)), (["squashed_decoder"], np.tanh)):
        algorithm = {"type": "skild_reference", "reference_quirks": quirks}
        config = algorithm_config(with_values(pretrained_run, {"algorithm": algorithm}))
        config.validate()
        evaluated = evaluation_env(Agent(config, config.build_module()), 1)
        for env in (make_runner_env(config.env_config), evaluated):
            (start,), _ = env.reset(seed=[0])
            position = start[0]
            for _ in range(5):
                action = decoder(torch.tensor([[position, start[1], *skill]], dtype=torch.float32)).item()
                position += 0.1 * bounded(action)
            ends.append(env.step(np.array([skill], np.float32))[0][0, 0])
            assert ends[-1] == pytest.approx(position, abs=1e-5)
            env.close()
    assert ends[0] != pytest.approx(ends[2], abs=1e-3)


def test_all_quirks_at_once_train(build: Build) -> None:
    algo = build(environment=VARIED, type="skild_reference", discriminator_updates=0.5, env_reward_weight=0.0)
    _finish(algo)
    assert all(torch.isfinite(value).all() for value in module_weights(algo).values())


# --- configuration ---


def test_configuration_of_a_library_user(pretrained_run: Experiment) -> None:
    config = (
        SkiLDConfig()
        .environment("line_world:LineEnv", env_config={"max_episode_steps": 7})
        .pretrained(run_dir=str(run_folder(pretrained_run)))
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(alpha=0.5, n_step=2)
    )
    config.validate()
    assert (config.settings.alpha, config.settings.n_step) == (0.5, 2)
    assert config.env_config["record"]["environment"]["kwargs"] == {"max_episode_steps": 7}
    with pytest.raises(TypeError, match="alfa"):
        config.training(alfa=1.0)
    with pytest.raises(ValueError, match="discount"):
        _ = SkiLDConfig().training(discount=2.0).settings
    with pytest.raises(TypeError, match="reference_quirks"):
        config.training(reference_quirks=["squashed_decoder"])


def test_configuration_needs_environment_and_run() -> None:
    with pytest.raises(ValueError, match="pretrained"):
        SkiLDConfig().environment("line_world:LineEnv").validate()


def test_batch_must_divide_among_learners(pretrained_run: Experiment) -> None:
    config = SkiLDConfig.from_experiment(pretrained_run).learners(num_learners=2).training(batch_size=33)
    with pytest.raises(ValueError, match="33"):
        config.validate()


def test_experiment_decides_the_configuration(pretrained_run: Experiment) -> None:
    config = SkiLDConfig.from_experiment(pretrained_run)
    assert config.settings == pretrained_run.algorithm
    assert config.rollout_fragment_length * config.num_envs_per_env_runner == 16
    assert Path(config.run_dir or "") == run_folder(pretrained_run).resolve()


def test_maze(build: Build, tmp_path: Path) -> None:
    maze = {"id": "skild_ray/Maze-v0", "kwargs": {"max_episode_steps": 60}}
    experiment = tiny_experiment(tmp_path, environment=maze, algorithm={"total_env_steps": 1_000})
    publish_pretrained(experiment, observation_dim=4, action_dim=2)
    algo = SkiLDConfig.from_experiment(experiment).build_algo()
    assert isinstance(algo, SkiLD)
    try:
        result = _finish(algo)
        assert result["episode_env_steps"] == 60
        assert algo.counts["updates"] > 20
    finally:
        algo.stop()
