"""RLPD over skills: where it starts, what it learns from, and a short run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrained import publish_pretrained, tiny_experiment
from short_runs import equal

from skild_ray.algorithms.pretrained import load_head, load_skill_model
from skild_ray.algorithms.registry import spec_of
from skild_ray.algorithms.rlpd.settings import SkillRLPDSettings
from skild_ray.algorithms.rlpd.skill_rlpd import SkillRLPD, SkillRLPDConfig
from skild_ray.algorithms.train import algorithm_config, module_weights
from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError
from skild_ray.generation.sources import stored_sources
from skild_ray.runs.artifacts import open_artifact
from skild_ray.runs.folder import run_folder
from skild_ray.stages import DEMONSTRATIONS, SKILL_POSTERIOR, SKILL_PRIOR, TASK_AGNOSTIC

SETTINGS = {"type": "rlpd_skills", "hidden": 16, "layers": 2, "critics": 3, "batch_size": 32, "warmup_env_steps": 200}
SETTINGS |= {"demonstration_share": 0.25, "updates_per_env_step": 0.1, "synchronous": True, "total_env_steps": 1_000}


def _with(experiment: Experiment, **changes: Any) -> Experiment:
    """With other settings of the algorithm."""
    return experiment.model_copy(
        update={"algorithm": SkillRLPDSettings.model_validate(experiment.algorithm.model_dump() | changes)}
    )


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[Experiment]:
    """On a skill prior with random weights, its data made."""
    folder = tmp_path_factory.mktemp("rlpd_skills")
    (folder / "minari").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("TUNE_RESULT_DIR", str(folder / "ray"))
        experiment = tiny_experiment(folder, algorithm=SETTINGS)
        publish_pretrained(experiment)
        for kind in (TASK_AGNOSTIC, DEMONSTRATIONS):
            stored_sources(experiment, kind)
        yield experiment


def test_the_policy_starts_as_the_prior_within_the_bound(experiment: Experiment) -> None:
    module = algorithm_config(experiment).build_module()
    states = torch.randn(50, 2)
    prior = load_head(open_artifact(run_folder(experiment), SKILL_PRIOR.name))(states)
    skills = module.forward_inference({"obs": states})["actions"]
    torch.testing.assert_close(skills, 3.5 * torch.tanh(prior.mean / 3.5))
    torch.manual_seed(0)
    sampled = module.forward_exploration({"obs": states})["actions"]
    torch.manual_seed(0)
    torch.testing.assert_close(sampled, 3.5 * torch.tanh(prior.sample() / 3.5))


@pytest.mark.parametrize("changes", [{"policy_init": "posterior"}, {"choose_by_q": True}])
def test_the_policy_starts_as_the_posterior_or_takes_its_mean_by_q(
    experiment: Experiment, changes: dict[str, Any]
) -> None:
    module = algorithm_config(_with(experiment, **changes)).build_module()
    if "choose_by_q" in changes:
        module.target_critics.biases[-1].data.zero_()
        module.target_critics.weights[-1].data.zero_()
    states = torch.randn(50, 2)
    prior, posterior = (
        3.5 * torch.tanh(load_head(open_artifact(run_folder(experiment), stage.name))(states).mean / 3.5)
        for stage in (SKILL_PRIOR, SKILL_POSTERIOR)
    )
    expected = prior if "choose_by_q" in changes else posterior
    torch.testing.assert_close(module.forward_inference({"obs": states})["actions"], expected)
    if "choose_by_q" in changes:
        torch.testing.assert_close(module.cloned_actions(states), posterior)


def test_what_it_needs_follows_from_the_settings() -> None:
    settings = SkillRLPDSettings()
    assert settings.replayed == {TASK_AGNOSTIC: "with rewards"}
    assert spec_of(settings.type).stage(settings).inputs == (SKILL_PRIOR.name,)
    for changed in (SkillRLPDSettings(policy_init="posterior"), SkillRLPDSettings(choose_by_q=True)):
        assert spec_of(changed.type).stage(changed).inputs == (SKILL_PRIOR.name, SKILL_POSTERIOR.name)


def test_prior_data_are_skills_by_the_encoder(experiment: Experiment) -> None:
    """The last skill of an episode is cut by its end; every step begins one."""
    (source,) = stored_sources(experiment, TASK_AGNOSTIC)
    config = algorithm_config(experiment)
    assert isinstance(config, SkillRLPDConfig) and list(config.sources(TASK_AGNOSTIC)) == [source]
    skills = config.transitions(TASK_AGNOSTIC)[0]
    model = load_skill_model(config.skill_prior)
    flat = super(SkillRLPDConfig, config).transitions(TASK_AGNOSTIC)[0]
    window = model.encode(torch.from_numpy(flat["obs"][None, :5]), torch.from_numpy(flat["actions"][None, :5]))
    np.testing.assert_allclose(skills["actions"][0], window.mean[0].numpy(), rtol=1e-5, atol=1e-6)
    assert skills["rewards"].sum() == flat["rewards"].sum()
    assert skills["k"].sum() == len(flat["k"])


def _finish(algo: SkillRLPD) -> None:
    while not algo.finished:
        algo.train()


def test_a_run_and_its_resumption(experiment: Experiment, tmp_path: Path) -> None:
    algo = algorithm_config(_with(experiment, policy_init="posterior", choose_by_q=True)).build_algo()
    assert isinstance(algo, SkillRLPD)
    restored = None
    try:
        while algo.counts["env_steps"] < 600:
            algo.train()
        checkpoint = algo.save_to_path(str(tmp_path / "checkpoint"))
        _finish(algo)
        counts = algo.counts
        assert counts["decisions"] < counts["env_steps"] / 3
        assert counts["updates"] == pytest.approx(0.1 * 5 * (counts["decisions"] - 200 / 5), abs=16)
        drawn = algo.experience.draw(4, 32)["actions"].reshape(4, 32, 3)
        given = [
            {skill.tobytes() for rows in algo.config.transitions(kind) for skill in rows["actions"]}
            for kind in (DEMONSTRATIONS, TASK_AGNOSTIC)
        ]
        for batch in drawn:
            assert all(skill.tobytes() in given[0] for skill in batch[:8])
            assert all(skill.tobytes() in given[1] for skill in batch[8:24])
            assert not any(skill.tobytes() in given[0] | given[1] for skill in batch[24:])
            assert np.abs(batch[24:]).max() < 3.5
        restored = SkillRLPD.from_checkpoint(checkpoint)
        _finish(restored)
        assert equal(module_weights(algo), module_weights(restored))
        state = restored.experience.get_state()
        restored.config.require_inputs(state)
        for stage in (SKILL_PRIOR, SKILL_POSTERIOR):
            with pytest.raises(ArtifactError, match="the checkpoint"):
                restored.config.require_inputs({"inputs": state["inputs"] | {stage.name: "another"}})
    finally:
        algo.stop()
        if restored:
            restored.stop()
