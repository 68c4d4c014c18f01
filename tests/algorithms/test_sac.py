"""Plain SAC: its losses against RLlib's own, where its batches come from, and the run as a whole."""

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
from typer.testing import CliRunner

from skild_ray.algorithms.sac.sac import SAC, SACConfig
from skild_ray.algorithms.sac.sac_learner import SACTorchLearner
from skild_ray.algorithms.sac.sac_rl_module import squashed_sample
from skild_ray.cli import app
from skild_ray.config import Experiment, Source
from skild_ray.errors import DataError
from skild_ray.evaluation.agent import load_agent
from skild_ray.evaluation.evaluate import evaluate_run
from skild_ray.models.gaussian import Gaussian
from skild_ray.pipeline import Run
from skild_ray.report.run_page import write_report
from skild_ray.runs.artifacts import open_artifact
from skild_ray.runs.folder import run_folder

SPACES = {DEFAULT_MODULE_ID: (Box(-np.inf, np.inf, (3,), np.float32), Box(-1, 1, (2,), np.float32))}
SETTINGS = {"hidden": 16, "batch_size": 32, "warmup_env_steps": 100, "updates_per_env_step": 0.5}


def _sac(runs: Path, **changes: Any) -> Experiment:
    """SAC on the line for 1500 env steps; fields of `config.SACSettings` may be changed, and sections."""
    sections = {name: changes.pop(name) for name in ("seed", "data", "rollout") if name in changes}
    algorithm = SETTINGS | {"type": "sac", "total_env_steps": 1_500} | changes
    return tiny_experiment(runs, algorithm=algorithm, **sections)


# --- losses ---


def _learner(**changes: Any) -> SACTorchLearner:
    torch.manual_seed(0)
    config = SACConfig().environment("none").demonstrations("none").training(**SETTINGS | changes)
    learner = config.build_learner(spaces=SPACES)
    learner.build()
    assert isinstance(learner, SACTorchLearner)
    return learner


def _batch(size: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    bootstrap = torch.tensor([0.99] * (size - 2) + [0.0] * 2)
    return {
        "obs": torch.randn(size, 3, generator=generator),
        "later_states": torch.randn(size, 1, 3, generator=generator),
        "later_weights": bootstrap[:, None],
        "actions": 2 * torch.rand(size, 2, generator=generator) - 1,
        "returns": 0.1 * torch.randn(size, generator=generator),
        "bootstrap": bootstrap,
    }


def test_losses_are_those_of_rllib() -> None:
    """On the same forward pass; RLlib's Huber loss is half the square where errors are small."""
    ours, batch = _learner(), _batch()
    module = ours.module[DEFAULT_MODULE_ID].unwrapped()
    module.log_alpha.data.fill_(-2.0)
    out = module.forward_train(batch)
    out |= {name: 0.1 * out[name] for name in ("q", "q_next", "later_log_pi")}
    loss = ours.compute_loss_for_module(module_id=DEFAULT_MODULE_ID, config=ours.config, batch=batch, fwd_out=out)

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
    assert (out["q"] - ours._latest.update.target).abs().max() < 1, "else this compares nothing"
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_entropy_of_every_state_of_the_walk() -> None:
    """y = sum w_i r_i + w_3 Q' - alpha sum_{i=1}^{3} w_i log pi_i, by hand; the second walk terminates in s_2."""
    learner = _learner(n_step=3, initial_temperature=0.5)
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    batch = {
        "returns": torch.tensor([1.0, 2.0]),
        "bootstrap": torch.tensor([0.729, 0.0]),
        "later_weights": torch.tensor([[0.9, 0.81, 0.729], [0.9, 0.0, 0.0]]),
    }
    two = torch.zeros(2)
    out = {"q": torch.zeros(2, 2), "q_next": torch.tensor([10.0, 10.0]), "log_pi": two, "q_policy": two}
    out |= {"later_log_pi": torch.tensor([[1.0, 2.0, 4.0]] * 2), "log_alpha": module.log_alpha}
    learner.compute_loss_for_module(module_id=DEFAULT_MODULE_ID, config=learner.config, batch=batch, fwd_out=out)
    expected = [1 + 0.729 * 10 - 0.5 * (0.9 * 1 + 0.81 * 2 + 0.729 * 4), 2 - 0.5 * 0.9 * 1]
    assert learner._latest.update.target.tolist() == pytest.approx(expected, rel=1e-5)


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


def test_an_update_moves_everything_and_targets_slowly() -> None:
    learner = _learner(target_update_rate=0.01)
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    learner.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(_batch())}, env_steps=8), timesteps={})
    after = module.state_dict()
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"policy", "critics", "target_critics", "log_alpha"}
    for name, value in after.items():
        if name.startswith("target_critics"):
            expected = 0.99 * before[name] + 0.01 * after[name.removeprefix("target_")]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


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
    experiment = _sac(tmp_path, data={"task_agnostic": [source], "demonstrations": [source]})
    with pytest.raises(DataError, match=r"old.hdf5.*no rewards") as caught:
        Run(experiment).train_all()
    assert "\n" not in str(caught.value)


# --- the whole ---


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> Iterator[tuple[Experiment, Callable[..., list[str]]]]:
    """A finished run, and a function that runs the experiment again and says what it reported."""
    folder = tmp_path_factory.mktemp("sac")
    (folder / "minari").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("TUNE_RESULT_DIR", str(folder / "ray"))

        def run(**changes: Any) -> list[str]:
            messages: list[str] = []
            Run(_sac(folder, **changes), messages.append).train_all()
            return messages

        run()
        yield _sac(folder), run


def _rows(experiment: Experiment) -> list[dict[str, str]]:
    with (run_folder(experiment) / "sac" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_it_needs_no_other_stage(finished: tuple[Experiment, Callable[..., list[str]]]) -> None:
    experiment, _ = finished
    assert {path.name for path in run_folder(experiment).iterdir()} == {"sac", ".work"}
    artifact = open_artifact(run_folder(experiment), "sac")
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
    artifact = run_folder(experiment) / "sac"
    evaluation = evaluate_run(artifact, episodes=6, seed=3)
    trained = evaluation.trained
    assert trained.deterministic.env_steps_trained == trained.sampled.env_steps_trained > 1_400
    assert set(evaluation.policies) == {"trained"}
    assert 5 < trained.deterministic.episode_length_mean <= 40
    (checkpoint,) = (run_folder(experiment) / ".work").glob("sac-*/checkpoint_*")
    policies = [load_agent(path).policy(deterministic=True, seed=0) for path in (run_folder(experiment), checkpoint)]
    states = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_array_equal(policies[0](states), policies[1](states))
    assert np.abs(policies[0](states)).max() <= 1


def test_report_and_comparison(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    experiment, _ = finished
    evaluate_run(run_folder(experiment) / "sac", episodes=2, seed=3)
    page = write_report(run_folder(experiment)).read_text()
    assert "SAC with demonstrations" in page
    assert "Entropy of the policy" in page
    assert "Not finished" not in page
    arguments = ["compare", f"SAC={run_folder(experiment)}", "--out", str(tmp_path / "figure.svg")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "| SAC |" in result.output
    assert (tmp_path / "figure.svg").read_text().startswith("<svg")


def test_reused_and_trained_on(
    finished: tuple[Experiment, Callable[..., list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, run = finished
    assert [message.split(",")[0] for message in run()] == ["sac: up to date"]
    before = _rows(experiment)
    run(total_env_steps=1_800)
    assert f"resumed at {before[-1]['env_steps']} env steps" in capsys.readouterr().out
    assert _rows(experiment)[: len(before)] == before
    assert 1_500 < open_artifact(run_folder(experiment), "sac").facts["env_steps"] <= 1_800


def _algo(experiment: Experiment) -> SAC:
    algo = SACConfig.from_experiment(experiment).build_algo()
    assert isinstance(algo, SAC)
    return algo


def test_half_of_every_batch_are_demonstrations(
    finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path
) -> None:
    """The expert always walks to the right, at half speed or more; the random policy also to the left."""
    algo = _algo(_sac(tmp_path, total_env_steps=600, warmup_env_steps=600))
    try:
        while not algo.finished:
            algo.train()
        actions = algo.experience.draw(4, 32)["actions"].reshape(4, 32)
        assert (actions[:, :16] >= 0.5).all()
        assert (actions[:, 16:] < 0.5).any(1).all()
        assert algo.counts["updates"] == 0
    finally:
        algo.stop()


def test_targets_of_both_halves_look_n_steps_ahead(
    finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path
) -> None:
    algo = _algo(_sac(tmp_path, total_env_steps=600, warmup_env_steps=600, n_step=3))
    try:
        while not algo.finished:
            algo.train()
        bootstrap = algo.experience.draw(4, 32)["bootstrap"].reshape(4, 32)
        for half in (bootstrap[:, :16], bootstrap[:, 16:]):
            assert half.max() < 1
            assert np.isclose(half, 0.99**3).mean() > 0.5, "nearer the end of an episode it is fewer"
    finally:
        algo.stop()


def test_a_checkpoint_holds_everything(finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path) -> None:
    algo = _algo(_sac(tmp_path, total_env_steps=900))
    restored = None
    try:
        while algo.counts["env_steps"] < 400:
            algo.train()
        restored = SAC.from_checkpoint(algo.save_to_path(str(tmp_path / "checkpoint")))
        assert dict(restored.counts) == dict(algo.counts)
        drawn = algo.experience.draw(2, 32), restored.experience.draw(2, 32)
        for name in drawn[0]:
            np.testing.assert_array_equal(drawn[0][name], drawn[1][name])
        states = [one.learner_group.get_state()["learner"] for one in (algo, restored)]
        modules = [state["rl_module"][DEFAULT_MODULE_ID] for state in states]
        assert modules[0].keys() == modules[1].keys()
        for name, value in modules[0].items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(modules[1][name]))
        assert float(modules[1]["log_alpha"]) != 0
    finally:
        algo.stop()
        if restored:
            restored.stop()


def test_temperature_starts_where_it_is_set() -> None:
    temperatures = [
        _learner(**changes).module[DEFAULT_MODULE_ID].unwrapped().log_alpha.exp().item()
        for changes in ({}, {"initial_temperature": 0.05})
    ]
    assert temperatures == pytest.approx([1.0, 0.05])


def test_configuration_needs_demonstrations() -> None:
    with pytest.raises(ValueError, match="demonstrations"):
        SACConfig().environment("line_world:LineEnv").validate()
    assert SACConfig().demonstrations("a/b-v0").sources == [Source(dataset="a/b-v0")]
