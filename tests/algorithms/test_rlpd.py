"""RLPD: its losses against numbers by hand and RLlib's SAC, where its batches come from, and the run as a whole."""

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from pretrained import tiny_experiment
from ray.rllib.algorithms.sac import SACConfig as RLlibSACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from short_runs import equal
from typer.testing import CliRunner

from skild_ray.algorithms.rlpd.losses import rlpd_losses
from skild_ray.algorithms.rlpd.rlpd import RLPD, RLPDConfig
from skild_ray.algorithms.rlpd.rlpd_learner import RLPDTorchLearner
from skild_ray.algorithms.rlpd.rlpd_rl_module import squashed_sample
from skild_ray.algorithms.rlpd.settings import RLPDSettings
from skild_ray.algorithms.stored_transitions import load_transitions
from skild_ray.algorithms.train import metrics_row, module_weights
from skild_ray.cli import app
from skild_ray.config import Experiment, Source
from skild_ray.errors import DataError
from skild_ray.evaluation.agent import load_agent
from skild_ray.evaluation.evaluate import evaluate_run
from skild_ray.generation.sources import named_sources
from skild_ray.models.gaussian import Gaussian
from skild_ray.pipeline import Run
from skild_ray.report.run_page import write_report
from skild_ray.runs.artifacts import open_artifact
from skild_ray.runs.folder import run_folder
from skild_ray.stages import DEMONSTRATIONS
from skild_ray.tracking import MetricsRow

SPACES = {DEFAULT_MODULE_ID: (Box(-np.inf, np.inf, (3,), np.float32), Box(-1, 1, (2,), np.float32))}
SETTINGS = {
    "hidden": 16,
    "batch_size": 32,
    "warmup_env_steps": 100,
    "updates_per_env_step": 0.5,
    "layers": 2,
    "critics": 3,
}


def _rlpd(runs: Path, **changes: Any) -> Experiment:
    """RLPD on the line for 1500 env steps; fields of ``RLPDSettings`` may be changed, and sections."""
    sections = {name: changes.pop(name) for name in ("seed", "data", "rollout") if name in changes}
    algorithm = SETTINGS | {"type": "rlpd", "total_env_steps": 1_500} | changes
    return tiny_experiment(runs, algorithm=algorithm, **sections)


# --- losses ---


def _learner(**changes: Any) -> RLPDTorchLearner:
    torch.manual_seed(0)
    config = RLPDConfig().environment("none").demonstrations("none").training(**SETTINGS | changes)
    learner = config.build_learner(spaces=SPACES)
    learner.build()
    assert isinstance(learner, RLPDTorchLearner)
    return learner


def _batch(size: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    bootstrap = torch.tensor([0.99] * (size - 2) + [0.0] * 2)
    return {
        "obs": torch.randn(size, 3, generator=generator),
        "later_states": torch.randn(size, 1, 3, generator=generator),
        "next_obs": torch.randn(size, 3, generator=generator),
        "later_weights": bootstrap[:, None],
        "actions": 2 * torch.rand(size, 2, generator=generator) - 1,
        "returns": 0.1 * torch.randn(size, generator=generator),
        "bootstrap": bootstrap,
    }


def test_losses_by_hand() -> None:
    """E = 3 critics, H = -1, alpha = 1/2; y = (1 + 0.9 * 2, 0.5 + 0 * 7) = (2.8, 0.5)."""
    alpha = torch.tensor(0.5, requires_grad=True)
    q = torch.tensor([[2.8, 0.5], [1.8, 0.5], [2.8, -1.5]], requires_grad=True)
    log_pi, q_policy = torch.tensor([1.0, -3.0], requires_grad=True), torch.tensor([2.0, 4.0], requires_grad=True)
    batch = {"returns": torch.tensor([1.0, 0.5]), "bootstrap": torch.tensor([0.9, 0.0])}
    out = {"q": q, "q_next": torch.tensor([2.0, 7.0]), "alpha": alpha}
    losses = rlpd_losses(batch, out, target_entropy=-1.0).losses
    assert losses.critic.item() == pytest.approx((1 + 4) / 6)
    assert losses.policy.item() == losses.temperature.item() == 0, "an update of the critics alone"
    losses = rlpd_losses(batch, out | {"log_pi": log_pi, "q_policy": q_policy}, target_entropy=-1.0).losses
    assert losses.policy.item() == pytest.approx((0.5 * 1 - 2 + 0.5 * -3 - 4) / 2)
    assert losses.temperature.item() == pytest.approx(0.5 * (1 - -1)), "the entropy is 1"
    losses.total.backward()
    assert alpha.grad is not None and alpha.grad.item() == pytest.approx(2), "by its own loss alone"
    assert q.grad is not None and q.grad[1].tolist() == pytest.approx([-2 / 6, 0.0])
    assert log_pi.grad is not None and log_pi.grad.tolist() == pytest.approx([0.25, 0.25])
    assert q_policy.grad is not None and q_policy.grad.tolist() == pytest.approx([-0.5, -0.5])


def test_losses_with_two_critics_are_those_of_rllibs_sac() -> None:
    """On the same forward pass. RLlib's sums over critics, and its Huber loss is half the square of small errors."""
    ours, batch = _learner(critics=2, critic_subset=2, backup_entropy=True), _batch()
    module = ours.module[DEFAULT_MODULE_ID].unwrapped()
    module.log_alpha.data.fill_(-2.0)
    out = module.forward_train(batch)
    out |= {name: 0.1 * out[name] for name in ("q", "q_next", "later_log_pi")}
    ours.compute_loss_for_module(module_id=DEFAULT_MODULE_ID, config=ours.config, batch=batch, fwd_out=out)
    losses = ours._latest.update.losses

    theirs = RLlibSACConfig().training(gamma=0.99, initial_alpha=math.exp(-2)).build_learner(spaces=SPACES)
    theirs.build()
    expected = theirs.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID,
        config=theirs.config,
        batch={
            "rewards": batch["returns"],
            "terminateds": batch["bootstrap"] == 0,
            "n_step": torch.ones(8),
            "weights": torch.ones(8),
        },
        fwd_out={
            "qf_preds": out["q"][0],
            "qf_twin_preds": out["q"][1],
            "q_target_next": out["q_next"],
            "q_curr": out["q_policy"],
            "logp_resampled": out["log_pi"],
            "logp_next_resampled": out["later_log_pi"][:, 0],
        },
    )
    # Of alpha, RLlib's loss has the logarithm, and its target entropy is -2.
    alpha_loss = 2.0 * (out["log_pi"].mean() - 2)
    assert (out["q"] - ours._latest.update.target).abs().max() < 1, "else this compares nothing"
    assert (losses.critic + losses.policy + alpha_loss).item() == pytest.approx(expected.item(), rel=1e-5)


def test_entropy_of_every_state_of_the_walk() -> None:
    """y = sum w_i r_i + w_3 Q' - alpha sum_{i=1}^{3} w_i log pi_i, by hand; the second walk terminates in s_2."""
    batch = {
        "returns": torch.tensor([1.0, 2.0]),
        "bootstrap": torch.tensor([0.729, 0.0]),
        "later_weights": torch.tensor([[0.9, 0.81, 0.729], [0.9, 0.0, 0.0]]),
    }
    out = {"q": torch.zeros(2, 2), "q_next": torch.tensor([10.0, 10.0]), "alpha": torch.tensor(0.5)}
    out |= {"later_log_pi": torch.tensor([[1.0, 2.0, 4.0]] * 2)}
    expected = [1 + 0.729 * 10 - 0.5 * (0.9 * 1 + 0.81 * 2 + 0.729 * 4), 2 - 0.5 * 0.9 * 1]
    assert rlpd_losses(batch, out, target_entropy=-1.0).target.tolist() == pytest.approx(expected, rel=1e-5)


def test_density_of_squashed_actions() -> None:
    torch.manual_seed(0)
    gaussian = Gaussian(torch.tensor([[0.3, -0.2]]).expand(1000, 2), torch.tensor([[-0.5, 0.4]]).expand(1000, 2))
    actions, log_density = squashed_sample(gaussian)
    normal = torch.distributions.Normal(gaussian.mean, gaussian.log_std.exp())
    tanh = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    inside = actions.abs().amax(1) < 0.999
    expected = tanh.log_prob(actions.clamp(-0.9999, 0.9999)).sum(-1)
    torch.testing.assert_close(log_density[inside], expected[inside], rtol=1e-3, atol=1e-3)
    far = squashed_sample(Gaussian(torch.full((1, 2), 40.0), torch.zeros(1, 2)))[1]
    assert torch.isfinite(far).all()


def test_density_of_actions_up_to_a_bound() -> None:
    """That of a / b, by the same noise."""
    gaussian = Gaussian(torch.tensor([[0.3, -0.2]]), torch.tensor([[-0.5, 0.4]]))
    scaled = Gaussian(3.5 * gaussian.mean, gaussian.log_std + math.log(3.5))
    torch.manual_seed(0)
    unit, log_density = squashed_sample(gaussian)
    torch.manual_seed(0)
    actions, same = squashed_sample(scaled, bound=3.5)
    torch.testing.assert_close(actions, 3.5 * unit)
    torch.testing.assert_close(same, log_density)


def test_smallest_of_a_random_subset_bootstraps() -> None:
    """Target critics that are 0, 1, 2 everywhere: the smaller of two is 0 twice in three times, else 1."""
    module = _learner(critics=3, critic_subset=2).module[DEFAULT_MODULE_ID].unwrapped()
    module.target_critics.weights[-1].data.zero_()
    module.target_critics.biases[-1].data.copy_(torch.arange(3.0).view(3, 1, 1))
    drawn = torch.stack([module.forward_train(_batch())["q_next"] for _ in range(60)])
    assert (drawn == drawn[:, :1]).all(), "one subset for the whole batch"
    assert set(drawn[:, 0].tolist()) == {0.0, 1.0}
    assert 0.4 < (drawn[:, 0] == 0).float().mean() < 0.9
    module.log_alpha.data.zero_()
    module.critics.weights[-1].data.zero_()
    module.critics.biases[-1].data.copy_(torch.arange(3.0).view(3, 1, 1))
    assert module.forward_train(_batch())["q_policy"].tolist() == [1.0] * 8, "the policy follows the mean of all"


def _updated(learner: RLPDTorchLearner) -> set[str]:
    """Parts of the networks that an update moves."""
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    learner.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(_batch())}, env_steps=8), timesteps={})
    after = module.state_dict()
    for name, value in after.items():
        if name.startswith("target_critics"):
            expected = 0.99 * before[name] + 0.01 * after[name.removeprefix("target_")]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    return {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}


def test_one_update_of_the_policy_in_several_of_the_critics() -> None:
    learner = _learner(target_update_rate=0.01, critic_updates_per_policy_update=3)
    moved = [_updated(learner) - {"num_updates"} for _ in range(6)]
    critics = {"critics", "target_critics"}
    assert moved == [critics, critics, critics | {"policy", "log_alpha"}] * 2


# --- demonstrations ---


def _d4rl_file(path: Path, **arrays: Any) -> Source:
    with h5py.File(path, "w") as file:
        for name, values in {
            "observations": np.zeros((4, 2)),
            "actions": np.zeros((4, 1)),
            "terminals": [False, False, False, True],
            **arrays,
        }.items():
            file[name] = np.asarray(values)
    return Source(dataset=str(path))


@pytest.mark.parametrize("arrays", [{}, {"rewards": np.zeros(4)}])
def test_demonstrations_without_rewards_are_one_line(tmp_path: Path, arrays: dict[str, Any]) -> None:
    source = _d4rl_file(tmp_path / "old.hdf5", **arrays)
    experiment = _rlpd(tmp_path, data={"task_agnostic": [source], "demonstrations": [source]})
    with pytest.raises(DataError, match=r"old.hdf5.*no rewards") as caught:
        Run(experiment).train_all()
    assert "\n" not in str(caught.value)


# --- the whole ---


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> Iterator[tuple[Experiment, Callable[..., list[str]]]]:
    """A finished run, and a function that runs the experiment again and says what it reported."""
    folder = tmp_path_factory.mktemp("rlpd")
    (folder / "minari").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("TUNE_RESULT_DIR", str(folder / "ray"))

        def run(**changes: Any) -> list[str]:
            messages: list[str] = []
            Run(_rlpd(folder, **changes), messages.append).train_all()
            return messages

        run()
        yield _rlpd(folder), run


def _rows(experiment: Experiment) -> list[dict[str, str]]:
    with (run_folder(experiment) / "rlpd" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_it_needs_no_other_stage(finished: tuple[Experiment, Callable[..., list[str]]]) -> None:
    experiment, _ = finished
    assert {path.name for path in run_folder(experiment).iterdir()} == {"rlpd", ".work"}
    artifact = open_artifact(run_folder(experiment), "rlpd")
    assert not artifact.record["inputs"]
    assert set(artifact.record["data"]) == {"demonstrations"}
    facts = artifact.facts
    assert 1_400 < facts["env_steps"] == facts["decisions"] <= 1_500
    assert facts["updates"] == pytest.approx((facts["env_steps"] - 100) / 2, abs=64)
    last = _rows(experiment)[-1]
    for name in ("success", "subtasks_solved", "critic_loss", "policy_loss", "temperature", "entropy"):
        assert math.isfinite(float(last[name]))
    assert float(last["temperature"]) != 1


def test_evaluation(finished: tuple[Experiment, Callable[..., list[str]]]) -> None:
    experiment, _ = finished
    artifact = run_folder(experiment) / "rlpd"
    evaluation = evaluate_run(artifact, episodes=6, seed=3)
    trained = evaluation.trained
    assert trained.deterministic.env_steps_trained == trained.sampled.env_steps_trained > 1_400
    assert set(evaluation.policies) == {"trained"}
    assert 5 < trained.deterministic.episode_length_mean <= 40
    (checkpoint,) = (run_folder(experiment) / ".work").glob("rlpd-*/checkpoint_*")
    policies = [load_agent(path).policy(deterministic=True, seed=0) for path in (run_folder(experiment), checkpoint)]
    states = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_array_equal(policies[0](states), policies[1](states))
    assert np.abs(policies[0](states)).max() <= 1


def test_report_and_comparison(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    experiment, _ = finished
    evaluate_run(run_folder(experiment) / "rlpd", episodes=2, seed=3)
    page = write_report(run_folder(experiment)).read_text()
    assert "Reinforcement learning with prior data, without skills" in page
    assert "Entropy of the policy" in page
    assert "Not finished" not in page
    arguments = ["compare", f"RLPD={run_folder(experiment)}", "--out", str(tmp_path / "figure.svg")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "| RLPD |" in result.output
    assert (tmp_path / "figure.svg").read_text().startswith("<svg")


def test_reused_and_trained_on(
    finished: tuple[Experiment, Callable[..., list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, run = finished
    assert [message.split(",")[0] for message in run()] == ["rlpd: up to date"]
    before = _rows(experiment)
    run(total_env_steps=1_800)
    assert f"resumed at {before[-1]['env_steps']} env steps" in capsys.readouterr().out
    assert _rows(experiment)[: len(before)] == before
    assert 1_500 < open_artifact(run_folder(experiment), "rlpd").facts["env_steps"] <= 1_800


def _algo(experiment: Experiment) -> RLPD:
    algo = RLPDConfig.from_experiment(experiment).build_algo()
    assert isinstance(algo, RLPD)
    return algo


def test_half_of_every_batch_are_demonstrations(
    finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path
) -> None:
    """The expert always walks to the right, at half speed or more; the random policy also to the left."""
    algo = _algo(_rlpd(tmp_path, total_env_steps=600, warmup_env_steps=600))
    try:
        while not algo.finished:
            algo.train()
        actions = algo.experience.draw(4, 32)["actions"].reshape(4, 32)
        assert (actions[:, :16] >= 0.5).all()
        assert (actions[:, 16:] < 0.5).any(1).all()
        assert algo.counts["updates"] == 0
    finally:
        algo.stop()


def test_a_finished_run_is_prior_data(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    experiment, _ = finished
    changes = {"replays": [str(run_folder(experiment))], "replay_share": 0.25, "demonstration_share": 0.25}
    algo = _algo(_rlpd(tmp_path, total_env_steps=200, warmup_env_steps=200, **changes))
    try:
        while not algo.finished:
            algo.train()
        drawn = algo.experience.draw(4, 32)["obs"].reshape(4, 32, 2)
        with np.load(run_folder(experiment) / "rlpd" / "replay.npz") as file:
            known = {state.tobytes() for state in file["obs"]}
        for batch in drawn:
            from_there = [state.tobytes() in known for state in batch]
            assert all(from_there[8:16]) and not all(from_there[:8]) and not all(from_there[16:])
    finally:
        algo.stop()


def test_targets_of_both_halves_look_n_steps_ahead(
    finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path
) -> None:
    algo = _algo(_rlpd(tmp_path, total_env_steps=600, warmup_env_steps=600, n_step=3))
    try:
        while not algo.finished:
            algo.train()
        bootstrap = algo.experience.draw(4, 32)["bootstrap"].reshape(4, 32)
        for half in (bootstrap[:, :16], bootstrap[:, 16:]):
            assert half.max() < 1
            assert np.isclose(half, 0.99**3).mean() > 0.5, "nearer the end of an episode it is fewer"
    finally:
        algo.stop()


def _finish(algo: RLPD) -> list[MetricsRow]:
    """Train until the budget is spent; the metrics."""
    rows = []
    while not algo.finished:
        rows.append(metrics_row(algo.train(), algo, [], seconds=0.0))
    return rows


def test_a_checkpoint_holds_everything(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    """A synchronous run and what is restored from its checkpoint learn and log the same from there on."""
    algo = _algo(_rlpd(tmp_path, synchronous=True, total_env_steps=500, critic_updates_per_policy_update=30))
    restored = None
    try:
        while algo.counts["env_steps"] < 400:
            algo.train()
        checkpoint = algo.save_to_path(str(tmp_path / "checkpoint"))
        rows = _finish(algo)
        restored = RLPD.from_checkpoint(checkpoint)  # not before: both draw from this process's generator
        assert _finish(restored) == rows
        assert "policy_loss" in rows[0], "also where none of the last updates moved the policy"
        assert equal(module_weights(algo), module_weights(restored))
    finally:
        algo.stop()
        if restored:
            restored.stop()


def test_observations_are_standardised_by_the_demonstrations(
    finished: tuple[Experiment, Callable[..., list[str]]],
) -> None:
    experiment, _ = finished
    weights = open_artifact(run_folder(experiment), "rlpd").weights()
    (source,) = named_sources(experiment, DEMONSTRATIONS)
    observations = torch.cat(
        [torch.from_numpy(rows["obs"]) for rows in load_transitions([source], experiment.environment)]
    )
    torch.testing.assert_close(weights["standardize.mean"], observations.mean(0))
    torch.testing.assert_close(weights["standardize.std"], observations.std(0))


def test_reward_bias(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    """Rewards of the line are 0 or 1 an env step; with n = 1 they are what is drawn."""
    algo = _algo(_rlpd(tmp_path, total_env_steps=600, warmup_env_steps=600, reward_bias=-2.0))
    try:
        while not algo.finished:
            algo.train()
        returns = algo.experience.draw(8, 32)["returns"].reshape(8, 32)
        for half in (returns[:, :16], returns[:, 16:]):
            assert half.min() >= -2 and half.max() <= -1
    finally:
        algo.stop()


def test_temperature_starts_where_it_is_set() -> None:
    temperatures = [
        _learner(**changes).module[DEFAULT_MODULE_ID].unwrapped().log_alpha.exp().item()
        for changes in ({}, {"initial_temperature": 0.05})
    ]
    assert temperatures == pytest.approx([1.0, 0.05])


def test_configuration_needs_its_data() -> None:
    config = RLPDConfig().environment("line_world:LineEnv")
    with pytest.raises(ValueError, match=r"needs .demonstrations\(DATASET\)"):
        config.validate()
    config.demonstrations("a/b-v0").validate()
    with pytest.raises(ValueError, match=r"needs .task_agnostic\(DATASET\)"):
        config.training(task_agnostic_share=0.25).validate()
    config.task_agnostic("a/play-v0").validate()
    assert config.sources("task_agnostic") == [Source(dataset="a/play-v0")]
    assert RLPDConfig.from_record(config.record).record == config.record


def test_shares_leave_room() -> None:
    with pytest.raises(ValueError, match="must leave room for the policy's transitions"):
        RLPDSettings(demonstration_share=0.5, task_agnostic_share=0.5)
    assert RLPDSettings(demonstration_share=0, task_agnostic_share=0.5).replayed == {"task_agnostic": "with rewards"}
