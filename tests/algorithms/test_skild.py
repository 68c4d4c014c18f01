"""SkiLD as a whole: demonstrations, discriminator, metrics, changed settings, configuration."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pretrained import tiny_experiment
from ray.rllib.core import DEFAULT_MODULE_ID
from short_runs import VARIED, Build, equal, finish

from skild_ray.algorithms.pretrained import Pretrained, References
from skild_ray.algorithms.skild.skild import SkiLDConfig
from skild_ray.algorithms.train import module_weights
from skild_ray.config import Experiment
from skild_ray.data.formats import load_dataset
from skild_ray.generation.sources import stored_sources
from skild_ray.runs.folder import run_folder
from skild_ray.stages import DEMONSTRATIONS


@pytest.mark.parametrize(("task_agnostic_share", "given"), [(0.0, 8), (0.5, 24)])
def test_prior_data_have_their_shares_of_every_batch(build: Build, task_agnostic_share: float, given: int) -> None:
    """Demonstrations and play are from the same data set here."""
    algo = build(
        demonstration_share=0.25, task_agnostic_share=task_agnostic_share, n_step=2, posterior_scale=0.5, critics=3
    )
    finish(algo, until=600)
    (source,) = stored_sources(tiny_experiment("unused"), DEMONSTRATIONS)
    states = load_dataset(source.dataset or "").observations
    drawn = algo.experience.draw(3, 32)
    is_state = (drawn["obs"][:, None] == states).all(-1).any(-1).reshape(3, 32)
    assert is_state[:, :given].all()
    assert not is_state[:, given:].all(1).any()
    for name, values in References(Pretrained.open(algo.config.run_dir or ""), 0.5)(drawn["obs"]).items():
        np.testing.assert_allclose(drawn[name], values, atol=1e-5)


def test_a_discount_that_is_not_given_follows_from_the_demonstrations(pretrained_run: Experiment) -> None:
    config = SkiLDConfig().environment("line_world:LineEnv").pretrained(run_dir=str(run_folder(pretrained_run)))
    assert config.resolved.discount == pytest.approx(1 - 1 / (2 * 5)), "25 steps a demonstration are 5 skills"
    assert config.model_settings["algorithm"]["discount"] == config.resolved.discount
    assert config.training(discount=0.5).resolved.discount == 0.5


def test_demonstrations_are_no_negatives_of_the_online_discriminator(build: Build) -> None:
    algo = build(demonstration_share=0.5, discriminator_updates=0.5)
    finish(algo, until=600)
    drawn = algo.experience.draw(4, 32)
    assert drawn["replayed_states"].shape == (4 * 32, 2)

    def shares(states: NDArray) -> list[float]:
        own = algo.replay.recent()["obs"], algo.experience.prior[DEMONSTRATIONS].recent()["obs"]
        return [float((states[:, None] == rows).all(-1).any(-1).mean()) for rows in own]

    assert shares(drawn["replayed_states"])[0] == 1, "all from the policy's own experience"
    assert shares(drawn["replayed_states"])[1] < 0.5 <= shares(drawn["obs"])[1]


def test_results_name_what_happened(build: Build) -> None:
    algo = build(environment=VARIED, total_env_steps=2_000)
    result = finish(algo)
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


def test_a_checkpoint_goes_on_with_other_settings(build: Build, tmp_path: Path) -> None:
    first = build(alpha=2.0, policy_lr=1e-3, discriminator_updates=1.0)
    finish(first, until=600)
    first.save_to_path(str(tmp_path / "checkpoint"))
    other = build(alpha=0.5, policy_lr=1e-5, discriminator_updates=1.0, discriminator_weight_decay=0.5)
    other.restore_from_path(str(tmp_path / "checkpoint"))
    before, after = module_weights(first), module_weights(other)
    assert float(before.pop("log_alpha").exp()) == pytest.approx(2.0)
    assert float(after.pop("log_alpha").exp()) == pytest.approx(0.5)
    assert equal(before, after)
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
