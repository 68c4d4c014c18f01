"""Demonstrations as transitions, by hand."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pretrained import publish_pretrained, tiny_experiment

from skild_ray.algorithms.skild.skild import SkiLDConfig
from skild_ray.algorithms.stored_transitions import skill_rows, transition_rows
from skild_ray.config import Experiment, SkillModelSettings
from skild_ray.data.episode import Episode
from skild_ray.errors import ArtifactError, DataError
from skild_ray.models.skill_model import SkillModel
from skild_ray.pipeline import Run

HORIZON = 5


def test_demonstration_rows() -> None:
    states, actions, rewards = np.arange(4.0)[:, None], np.zeros((3, 1)), np.array([0.0, 0.0, 1.0])
    whole = transition_rows(Episode(states, actions, rewards, terminated=True))
    assert whole["next_obs"][:, 0].tolist() == [1, 2, 3]
    assert whole["terminated"].tolist() == [0, 0, 1]
    goal = transition_rows(Episode(states[:3], actions, rewards, terminated=True))
    assert goal["rewards"].tolist() == [0, 0, 1], "what comes after an end does not matter"
    cut = transition_rows(Episode(states[:3], actions, rewards))
    assert (cut["next_obs"][:, 0].tolist(), cut["terminated"].tolist()) == ([1, 2], [0, 0])


def test_transitions_have_the_actions_that_were_executed() -> None:
    states, meant, done = np.arange(4.0)[:, None], np.zeros((3, 1)), np.array([[0.1], [0.2], [0.3]])
    episode = Episode(states, meant, np.zeros(3), executed_actions=done)
    assert transition_rows(episode)["actions"] == pytest.approx(done)
    cut = transition_rows(Episode(states[:3], meant, np.zeros(3), executed_actions=done))
    assert cut["actions"] == pytest.approx(done[:2])


def _episode(length: int, terminated: bool) -> dict[str, NDArray]:
    """States 0, 1, ..., with reward t at step t."""
    generator = np.random.default_rng(0)
    states = np.arange(length + 1.0)[:, None]
    actions = generator.uniform(-1, 1, (length, 1))
    return transition_rows(Episode(states, actions, np.arange(float(length)), terminated=terminated))


@pytest.fixture
def model() -> SkillModel:
    torch.manual_seed(0)
    settings = SkillModelSettings(horizon=HORIZON, latent_dim=3, hidden=8, decoder_layers=1, head_layers=1)
    return SkillModel(1, 1, settings).eval()


@pytest.mark.parametrize("terminated", [False, True])
def test_skill_rows(model: SkillModel, terminated: bool) -> None:
    episode = _episode(12, terminated)
    phases = skill_rows(episode, model, HORIZON)
    assert len(phases) == HORIZON
    assert sorted(np.concatenate([rows["obs"][:, 0] for rows in phases])) == list(range(12)), (
        "a skill begins everywhere"
    )
    rows = phases[1]
    assert rows["obs"][:, 0].tolist() == [1, 6, 11]
    assert rows["next_obs"][:, 0].tolist() == [6, 11, 12]
    assert rows["k"].tolist() == [5, 5, 1]
    assert rows["rewards"].tolist() == [1 + 2 + 3 + 4 + 5, 6 + 7 + 8 + 9 + 10, 11]
    assert rows["terminated"].tolist() == [0, 0, terminated]
    states, actions = (torch.from_numpy(episode[name]) for name in ("obs", "actions"))
    with torch.no_grad():
        expected = model.encode(states[None, 6:11], actions[None, 6:11]).mean[0]
    np.testing.assert_allclose(rows["actions"][1], expected, atol=1e-6)


def test_a_demonstration_shorter_than_a_skill(model: SkillModel) -> None:
    phases = skill_rows(_episode(3, True), model, HORIZON)
    assert [rows["k"].tolist() for rows in phases] == [[3], [2], [1]]
    assert all(rows["terminated"].tolist() == [1] for rows in phases)


def test_a_source_without_negatives_changes_the_discriminator_only(
    tmp_path: Path, minari_root: Path, ray_session: None
) -> None:
    def run(negatives: bool) -> Run:
        source = {"generate": {"expert": "line_world:LineExpert", "episodes": 4}}
        data = {"task_agnostic": [source, source | {"negatives": negatives}], "demonstrations": [source]}
        return Run(tiny_experiment(tmp_path, data=data))

    with_them, without = run(True), run(False)
    publish_pretrained(with_them.experiment)
    assert with_them.fingerprint("demo_discriminator") != without.fingerprint("demo_discriminator")
    for stage in ("skill_prior", "skill_posterior"):
        assert with_them.fingerprint(stage) == without.fingerprint(stage)
    with pytest.raises(ArtifactError, match=r"demo_discriminator: was made with another data\.task_agnostic"):
        without.fingerprint("demo_rl")


def test_imitation_takes_demonstrations_without_rewards(tmp_path: Path, ray_session: None) -> None:
    path = tmp_path / "mute.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.zeros((8, 2)), np.zeros((8, 1))
        file["terminals"] = np.arange(8) % 4 == 3
    source = {"dataset": str(path)}

    def experiment(**algorithm: Any) -> Experiment:
        data = {"task_agnostic": [source], "demonstrations": [source]}
        return tiny_experiment(tmp_path, data=data, algorithm={"demonstration_share": 0.25} | algorithm)

    imitation = experiment(env_reward_weight=0.0)
    publish_pretrained(imitation)
    assert Run(imitation).direct_data()
    algo = SkiLDConfig.from_experiment(imitation).build_algo()
    try:
        rows = algo.experience.prior["demonstrations"].recent()
        assert len(rows["rewards"]) == 8 and not rows["rewards"].any() and rows["terminated"].any()
    finally:
        algo.stop()
    for wants_rewards in (experiment(), experiment(env_reward_weight=0.0, type="skild_reference")):
        with pytest.raises(DataError, match="no rewards for this task"):
            Run(wants_rewards).direct_data()


def test_what_stage_4_learns_from_is_part_of_its_record(tmp_path: Path, minari_root: Path, ray_session: None) -> None:
    def direct(share: float, episodes: int) -> dict[str, str]:
        sources = [{"generate": {"expert": "line_world:LineExpert", "episodes": episodes}}]
        data = {"task_agnostic": sources, "demonstrations": sources}
        return Run(tiny_experiment(tmp_path, data=data, algorithm={"demonstration_share": share})).direct_data()

    assert direct(0.0, 2) == {}
    assert direct(0.25, 2) == direct(0.5, 2) != direct(0.25, 3)
