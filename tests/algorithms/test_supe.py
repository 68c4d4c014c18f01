"""SUPE: its losses by hand, what prior data are taken for, and a short run."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from pretrained import publish_pretrained, tiny_experiment
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from short_runs import equal

from skild_ray.algorithms.prior_data import PriorData
from skild_ray.algorithms.supe.losses import supe_losses
from skild_ray.algorithms.supe.settings import Relabel, SUPESettings
from skild_ray.algorithms.supe.supe import SUPE, SUPEConfig
from skild_ray.algorithms.supe.supe_experience import SUPEExperience
from skild_ray.algorithms.supe.supe_rl_module import MODELS
from skild_ray.algorithms.train import algorithm_config, metrics_row, module_weights
from skild_ray.config import Experiment, with_values
from skild_ray.errors import DataError
from skild_ray.generation.sources import stored_sources
from skild_ray.pipeline import Run
from skild_ray.stages import TASK_AGNOSTIC
from skild_ray.tracking import MetricsRow

SETTINGS = {"type": "supe", "hidden": 16, "layers": 2, "critics": 3, "batch_size": 32, "warmup_env_steps": 200}
SETTINGS |= {"updates_per_env_step": 0.1, "synchronous": True, "total_env_steps": 1_000}

# --- losses ---

BATCH = {
    "returns": torch.tensor([1.0, 2.0, 7.0]),
    "bootstrap": torch.tensor([0.9, 0.0, 0.9]),
    "own": torch.tensor([1.0, 1.0, 0.0]),
}
"""A transition of the policy's own that goes on, one that terminates, and one of prior data."""


def _out(*models: str) -> dict[str, torch.Tensor]:
    """What the networks say: m^ is 1/2, 3/4 and 3/4."""
    found = {"q": torch.zeros(2, 3), "q_next": torch.full((3,), 10.0), "alpha": torch.tensor(0.5)}
    said = {"novelty": [0.2, 0.4, 0.6], "reward": [0.5, 3.0, -1.0], "survival": [0.0, math.log(3), math.log(3)]}
    return found | {name: torch.tensor(said[name], requires_grad=True) for name in models}


def test_losses_by_hand() -> None:
    """beta = 1/2; y = (1 + 0.1 + 9, 2 + 0.2 + 0, -1 + 0.3 + 0.9 * 3/4 * 10)."""
    out = _out("novelty", "reward", "survival")
    losses, target, reward, bonus = supe_losses(BATCH, out, target_entropy=-1.0, coefficient=0.5)
    assert target.tolist() == pytest.approx([10.1, 2.2, 6.05])
    assert reward.tolist() == [1, 2, -1] and bonus.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert losses.critic.item() == pytest.approx((10.1**2 + 2.2**2 + 6.05**2) / 3)
    assert losses.rnd.item() == pytest.approx(0.3)
    assert losses.reward_model.item() == pytest.approx((0.25 + 1) / 2)
    assert losses.termination.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert losses.total.item() == pytest.approx(sum(loss.item() for loss in losses))
    losses.total.backward()
    gradients = [out[name].grad for name in ("novelty", "reward", "survival")]
    assert [gradient.tolist() for gradient in gradients if gradient is not None] == [
        pytest.approx([0.5, 0.5, 0]),
        pytest.approx([-0.5, 1, 0]),
        pytest.approx([(0.5 - 1) / 2, 0.75 / 2, 0]),
    ], "of the models' own losses, on the policy's own transitions"


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["survival"], 7 + 0.9 * 0.75 * 10),  # min: the experience has put the smallest reward there
        (["novelty"], 7 + 0.3 + 9),  # none
        ([], 7 + 9),
    ],
)
def test_labels_of_prior_data(models: list[str], expected: float) -> None:
    losses, target, _, _ = supe_losses(BATCH, _out(*models), target_entropy=-1.0, coefficient=0.5)
    assert target[2].item() == pytest.approx(expected)
    assert losses.reward_model == 0 and (losses.rnd > 0) == ("novelty" in models)


def test_entropy_is_masked_as_values_are() -> None:
    batch = BATCH | {"later_weights": BATCH["bootstrap"][:, None]}
    out = _out("survival") | {"later_log_pi": torch.full((3, 1), 4.0)}
    target = supe_losses(batch, out, target_entropy=-1.0, coefficient=0.5).target
    assert target.tolist() == pytest.approx([1 + 0.9 * (10 - 2), 2, 7 + 0.9 * 0.75 * (10 - 2)])


# --- experience ---


def _experience(relabel: Relabel, seed: int = 0) -> SUPEExperience:
    """A quarter of every batch from episodes of one transition with a reward of 8; discount 1/2."""
    column, one = np.ones((1, 1), np.float32), np.ones(1, np.float32)
    rows = {"obs": column, "next_obs": column, "actions": column, "rewards": 8 * one, "k": np.ones(1, np.int64)}
    return SUPEExperience(
        {TASK_AGNOSTIC: PriorData([rows | {"terminated": one}] * 4, 0.25)},
        relabel=relabel,
        warmup=4,
        capacity=100,
        seed=seed,
        observation_dim=1,
        action_dim=1,
        n_step=1,
        discount=0.5,
        horizon=1,
    )


def _collect(experience: SUPEExperience, *rewards: float) -> None:
    """An episode that terminates."""
    space, count = Box(-np.inf, np.inf, (1,), np.float32), len(rewards)
    states = list(np.zeros((count + 1, 1), np.float32))
    episode = SingleAgentEpisode(
        observations=states,
        actions=states[:count],
        rewards=list(rewards),
        infos=[{"k": 1}] * (count + 1),
        terminated=True,
        observation_space=space,
        action_space=space,
        len_lookback_buffer=0,
    )
    experience.add([episode])


@pytest.mark.parametrize(("relabel", "scale", "prior"), [("none", 1 / 8, 1), ("min", 1 / 4, -0.25), ("pred", 1 / 4, 2)])
def test_batches_are_normalised_and_say_what_is_their_own(relabel: Relabel, scale: float, prior: float) -> None:
    """The largest return is 4 of the policy's own, and 8 of the prior data, whose rewards count if they are labels."""
    experience = _experience(relabel)
    _collect(experience, -1.0, 2.0)
    assert experience.reward_scale.value == 1, "during the warm-up"
    _collect(experience, 0.0, 4.0)
    assert experience.reward_scale.value == scale
    drawn = experience.draw(2, 16)
    own = drawn["own"].reshape(2, 16)
    assert own.tolist() == [[0.0] * 4 + [1.0] * 12] * 2
    returns = drawn["returns"].reshape(2, 16)
    assert (returns[:, :4] == prior).all()
    assert set(returns[:, 4:].ravel()) == {-scale, 2 * scale, 0.0, 4 * scale}


def test_state_decides_what_is_drawn_next() -> None:
    experience, restored = _experience("min"), _experience("min", seed=1)
    _collect(experience, -1.0, 2.0, 0.0, 4.0)
    restored.set_state(experience.get_state())
    first, second = (one.draw(2, 16) for one in (experience, restored))
    for name, column in first.items():
        np.testing.assert_array_equal(column, second[name])


# --- data and networks ---


def test_prior_data_need_no_rewards_if_they_are_relabelled(tmp_path: Path) -> None:
    path = tmp_path / "mute.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.zeros((8, 2)), np.zeros((8, 1))
        file["terminals"] = np.arange(8) % 4 == 3

    def experiment(**algorithm: Any) -> Experiment:
        data = {kind: [{"dataset": str(path)}] for kind in ("task_agnostic", "demonstrations")}
        return tiny_experiment(tmp_path, data=data, algorithm=SETTINGS | algorithm)

    for remedy, algorithm in (
        ("algorithm.relabel: pred or min", {"relabel": "none"}),
        ("algorithm.type: supe", {"type": "rlpd_skills"}),
    ):
        with pytest.raises(DataError, match=f"it has no rewards for this task.*; {remedy}") as caught:
            Run(experiment(**algorithm)).direct_data()
        assert "\n" not in str(caught.value)
    assert Run(experiment()).direct_data().keys() == {TASK_AGNOSTIC}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[Experiment]:
    """On a skill prior with random weights, its data made."""
    folder = tmp_path_factory.mktemp("supe")
    (folder / "minari").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("TUNE_RESULT_DIR", str(folder / "ray"))
        experiment = tiny_experiment(folder, algorithm=SETTINGS)
        publish_pretrained(experiment)
        stored_sources(experiment, TASK_AGNOSTIC)
        yield experiment


def test_data_without_labels_have_no_ends(experiment: Experiment) -> None:
    """Every episode of the line's expert terminates with a reward."""
    labelled = algorithm_config(with_values(experiment, {"algorithm.relabel": "none"}))
    for config, ends in ((labelled, True), (algorithm_config(experiment), False)):
        assert isinstance(config, SUPEConfig)
        rows = config.transitions(TASK_AGNOSTIC)
        assert any(part["rewards"].any() for part in rows) == any(part["terminated"].any() for part in rows) == ends


@pytest.mark.parametrize(
    ("settings", "models"),
    [
        ({}, MODELS),
        ({"relabel": "min"}, ("random_features", "feature_predictor", "survival_model")),
        ({"relabel": "none", "bonus": 0.0}, ()),
    ],
)
def test_models_that_are_in_use(experiment: Experiment, settings: dict[str, Any], models: tuple[str, ...]) -> None:
    config = algorithm_config(experiment).training(**settings)
    assert {name.split(".")[0] for name in config.build_module().state_dict()} & set(MODELS) == set(models)


def test_settings() -> None:
    assert SUPESettings().replayed == {TASK_AGNOSTIC: "unlabelled"}
    assert SUPESettings(relabel="none").replayed == {TASK_AGNOSTIC: "with rewards"}
    with pytest.raises(ValueError, match="n_step"):
        SUPESettings.model_validate({"n_step": 3})


# --- the whole ---


def _finish(algo: SUPE) -> list[MetricsRow]:
    rows = []
    while not algo.finished:
        rows.append(metrics_row(algo.train(), algo, [], seconds=0.0))
    return rows


def test_a_run_and_its_resumption(experiment: Experiment, tmp_path: Path) -> None:
    algo = algorithm_config(experiment).build_algo()
    assert isinstance(algo, SUPE)
    initial = module_weights(algo)
    restored = None
    try:
        while algo.counts["env_steps"] < 600:
            algo.train()
        checkpoint = algo.save_to_path(str(tmp_path / "checkpoint"))
        rows = _finish(algo)
        weights = module_weights(algo)
        moved = {name.split(".")[0] for name, weight in weights.items() if not torch.equal(weight, initial[name])}
        assert moved >= {"feature_predictor", "reward_model", "survival_model", "policy", "critics", "log_alpha"}
        assert "random_features" not in moved
        for name in ("exploration_bonus", "rnd_loss", "reward_model_loss", "termination_loss"):
            assert rows[-1][name] > 0
        total = rows[-1]["env_reward"] + rows[-1]["exploration_bonus"]
        assert rows[-1]["rl_training_reward"] == pytest.approx(total, abs=1e-5)
        restored = SUPE.from_checkpoint(checkpoint)
        assert _finish(restored) == rows
        assert equal(weights, module_weights(restored))
    finally:
        algo.stop()
        if restored:
            restored.stop()
