"""Behavioural cloning as a run: trained offline, evaluated, reported and compared like every other."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained import tiny_experiment
from ray.rllib.core.columns import Columns
from typer.testing import CliRunner

from skild_ray.algorithms.pretrained import load_action_policy, load_head
from skild_ray.algorithms.train import train_downstream
from skild_ray.cli import app
from skild_ray.config import Experiment
from skild_ray.evaluation.agent import load_agent
from skild_ray.pipeline import Finished, Run, run_pipeline
from skild_ray.runs.artifacts import open_artifact
from skild_ray.runs.folder import run_folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[tuple[Experiment, Finished]]:
    """The line, cloned from six demonstrations."""
    folder = tmp_path_factory.mktemp("bc")
    (folder / "minari").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        settings = {"iterations": 300, "validation_interval": 100, "warmup_iterations": 10, "learning_rate": 5e-3}
        settings |= {"hidden": 16, "layers": 1}
        evaluation = {"episodes": 4, "videos": 0}
        experiment = tiny_experiment(
            folder, algorithm={"type": "bc"}, behavioural_cloning=settings, evaluation=evaluation
        )
        yield experiment, run_pipeline(experiment)


def test_it_trains_one_offline_stage_and_is_evaluated(finished: tuple[Experiment, Finished]) -> None:
    """The expert walks to the right at half speed or more, so its mean action reaches the goal within 20 steps."""
    experiment, (artifact, results, _) = finished
    folders = {path.name for path in run_folder(experiment).iterdir() if path.is_dir() and path.name != ".work"}
    assert folders == {"behavioural_cloning", "bc"}
    assert artifact.facts["env_steps"] == 0
    assert set(artifact.record["inputs"]) == {"behavioural_cloning"}
    assert set(results.policies) == {"trained"}
    assert results.trained.deterministic.success_rate == results.trained.sampled.success_rate == 1
    assert results.trained.deterministic.episode_length_mean < 20


def test_the_policy_is_that_of_the_offline_stage(finished: tuple[Experiment, Finished]) -> None:
    experiment, _ = finished
    states = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    policy = load_action_policy(open_artifact(run_folder(experiment), "behavioural_cloning"))
    agent = load_agent(run_folder(experiment))
    with torch.no_grad():
        np.testing.assert_array_equal(
            agent.policy(deterministic=True, seed=0)(states), policy(torch.from_numpy(states)).mean.numpy()
        )
    sampled = [agent.policy(deterministic=False, seed=seed)(states) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(sampled[0], sampled[1])
    assert not np.array_equal(sampled[0], sampled[2])


def test_reused_reported_and_compared(finished: tuple[Experiment, Finished], tmp_path: Path) -> None:
    experiment, (_, _, page) = finished
    messages: list[str] = []
    Run(experiment, messages.append).train_all()
    assert [message.split(",")[0] for message in messages] == ["behavioural_cloning: up to date", "bc: up to date"]
    text = page.read_text()
    assert "Behavioural cloning of the demonstrations" in text
    assert "Error of the mean action" in text
    assert "Not finished" not in text
    figure = tmp_path / "figure.svg"
    result = CliRunner().invoke(app, ["compare", f"BC={run_folder(experiment)}", "--out", str(figure)])
    assert result.exit_code == 0, result.output
    assert "| BC | 1.00 [1.00] | 1.00 [1.00] | 0 | 0 |" in result.output
    assert "BC, deterministic" in figure.read_text(), "a line across, as there is no curve"


def test_skill_bc_is_the_posterior(pretrained_run: Experiment) -> None:
    experiment = pretrained_run.model_copy(
        update={"algorithm": tiny_experiment("", algorithm={"type": "skill_bc"}).algorithm}
    )
    artifact = train_downstream(experiment, "f")
    assert set(artifact.record["inputs"]) == {"skill_prior", "skill_posterior"}
    states = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    module = load_agent(artifact.path).module
    posterior = load_head(open_artifact(run_folder(experiment), "skill_posterior"))(states)
    torch.testing.assert_close(module.forward_inference({Columns.OBS: states})[Columns.ACTIONS], posterior.mean)
