"""What is said where a finished stage is reused, and what may not be lost by making it again."""

from pathlib import Path
from typing import Any

import pytest
from pretrained import publish_pretrained, tiny_experiment

from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError
from skild_ray.runs.artifacts import Artifact, open_artifact, publish
from skild_ray.runs.folder import run_folder
from skild_ray.runs.reuse import changed_settings, differences, require_replaceable


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """With finished stages 1 to 3."""
    experiment = tiny_experiment(tmp_path)
    publish_pretrained(experiment)
    return experiment


def _publish_agent(experiment: Experiment) -> Artifact:
    inputs = [
        open_artifact(run_folder(experiment), name) for name in ("skill_prior", "skill_posterior", "demo_discriminator")
    ]
    rows = [{"env_steps": 1}]
    return publish(experiment, "demo_rl", {}, rows, fingerprint="f", data={}, inputs=inputs, facts={})


def _refusal(experiment: Experiment, stage: str, **changes: Any) -> str:
    wanted = experiment.model_copy(update=changes)
    with pytest.raises(ArtifactError) as caught:
        require_replaceable(open_artifact(run_folder(experiment), stage), experiment, wanted)
    message = str(caught.value)
    assert "\n" not in message
    assert "--force" in message and "--set name=" in message
    return message


def test_what_a_finished_stage_was_made_from_is_not_replaced(experiment: Experiment) -> None:
    run = run_folder(experiment)
    message = _refusal(experiment, "skill_prior", seed=1)
    assert (
        f"{run / 'skill_prior'} was made with seed 0, not 1, and {run / 'skill_posterior'} was made from it" in message
    )
    _publish_agent(experiment)
    assert f"{run / 'demo_rl'} was made from it" in _refusal(experiment, "demo_discriminator", seed=1)
    assert "other data or inputs" in _refusal(experiment, "skill_prior")


def test_a_finished_agent_is_not_replaced(experiment: Experiment) -> None:
    _publish_agent(experiment)
    algorithm = experiment.algorithm.model_copy(update={"alpha": 0.5, "total_env_steps": 10})
    message = _refusal(experiment, "demo_rl", algorithm=algorithm)
    path = run_folder(experiment) / "demo_rl"
    assert f"{path} was made with algorithm.alpha {experiment.algorithm.alpha}, not 0.5, and is finished" in message
    algorithm = experiment.algorithm.model_copy(update={"total_env_steps": 10})
    assert "algorithm.total_env_steps 3000, not 10, and is finished" in _refusal(
        experiment, "demo_rl", algorithm=algorithm
    )


def test_what_nothing_was_made_from_is_replaced(experiment: Experiment) -> None:
    for stage in ("skill_posterior", "demo_discriminator"):
        require_replaceable(open_artifact(run_folder(experiment), stage), experiment, experiment)


def test_what_cannot_be_used_any_more_protects_nothing(experiment: Experiment) -> None:
    """As after `pipeline --force` that was interrupted: it resumes without `--force`."""
    _publish_agent(experiment)
    prior = publish_pretrained(tiny_experiment(run_folder(experiment).parent / "other"), seed=1).skill_prior
    (run_folder(experiment) / "skill_prior").rename(run_folder(experiment) / "old")
    prior.path.rename(run_folder(experiment) / "skill_prior")
    for stage in ("skill_prior", "skill_posterior", "demo_discriminator", "demo_rl"):
        require_replaceable(open_artifact(run_folder(experiment), stage), experiment, experiment)


def test_differences_that_the_fingerprint_leaves_out() -> None:
    before = tiny_experiment("runs", resources={"train_workers": 1}, rollout={"num_env_runners": 4})
    now = tiny_experiment("runs", resources={"train_workers": 2}, rollout={"num_env_runners": 2}, seed=1)
    assert differences("skill_prior", before, before) == ""
    assert differences("skill_prior", before, now) == "resources.train_workers 1, not 2"
    assert differences("demo_rl", before, now) == "rollout.num_env_runners 4, not 2"
    often = tiny_experiment("runs", progress={"checkpoint_env_steps": 10}, algorithm={"synchronous": True})
    rarely = tiny_experiment("runs", progress={"checkpoint_env_steps": 20}, algorithm={"synchronous": True})
    assert differences("demo_rl", often, rarely) == "progress.checkpoint_env_steps 10, not 20"


def test_the_order_of_sources_decides_but_not_their_names() -> None:
    def of(**datasets: str) -> Experiment:
        sources = {name: {"dataset": dataset} for name, dataset in datasets.items()}
        return tiny_experiment("runs", data={"task_agnostic": sources, "demonstrations": {"human": {"dataset": "c"}}})

    before = of(play="a", old="b")
    assert changed_settings(before, of(first="a", second="b"), "skill_prior") == {}
    assert list(changed_settings(before, of(old="b", play="a"), "skill_prior")) == ["data.task_agnostic"]


def test_another_torch_is_a_difference(experiment: Experiment) -> None:
    artifact = open_artifact(run_folder(experiment), "skill_prior")
    assert differences("skill_prior", experiment, experiment, artifact) == ""
    older = Artifact(artifact.path, artifact.record | {"versions": {"torch": "1.0"}})  # type: ignore[operator]
    assert differences("skill_prior", experiment, experiment, older).startswith("torch 1.0, not ")
