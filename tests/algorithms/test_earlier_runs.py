"""The replay of an earlier run as prior data: what is read of it, and which runs are refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrained import publish_pretrained, tiny_experiment

from skild_ray.algorithms.earlier_runs import REPLAY_FILE, earlier_transitions
from skild_ray.algorithms.prior_data import PriorDataConfig
from skild_ray.algorithms.replay import Replay, episodes_of
from skild_ray.algorithms.rlpd.settings import RLPDSettings
from skild_ray.algorithms.train import algorithm_config
from skild_ray.algorithms.transitions import Rows
from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError
from skild_ray.pipeline import Run
from skild_ray.runs.artifacts import Artifact, file_hash, publish
from skild_ray.runs.folder import run_folder


def _rows(first: int, count: int, terminated: bool = False, width: int = 1) -> Rows:
    """Transitions from state to state, with a reward of 10 s and k = 2."""
    states = np.arange(first, first + count + 1, dtype=np.float32)[:, None]
    return {
        "obs": states[:-1].repeat(2, 1),
        "next_obs": states[1:].repeat(2, 1),
        "actions": 0.1 * states[:-1].repeat(width, 1),
        "rewards": 10 * states[:-1, 0],
        "k": np.full(count, 2),
        "terminated": np.array([0.0] * (count - 1) + [terminated], np.float32),
    }


def _replay(capacity: int = 100, width: int = 1) -> Replay:
    sizes = {"observation_dim": 2, "action_dim": width, "n_step": 1, "discount": 0.9, "horizon": 5}
    return Replay(capacity, seed=0, columns={}, **sizes)


def test_episodes_of_a_replay() -> None:
    """Chunks of two episodes by turns, in a ring that has lost the first two transitions of the first."""
    replay = _replay(capacity=7)
    replay.add("a", _rows(0, 3), ended=False)
    replay.add("b", _rows(50, 2), ended=False)
    replay.add("a", _rows(3, 2, terminated=True), ended=True)
    replay.add("b", _rows(52, 2), ended=True)
    first, second = episodes_of(replay.recent())
    for found, expected in ((first, _rows(2, 3, terminated=True)), (second, _rows(50, 4))):
        for name, column in expected.items():
            np.testing.assert_allclose(found[name], column, err_msg=name)


def _publish(experiment: Experiment, inputs: Sequence[Artifact] = (), width: int = 1, replay: bool = True) -> Artifact:
    """A finished stage 4 with two episodes, as it is published."""
    stored = _replay(width=width)
    stored.add("a", _rows(0, 3, terminated=True, width=width), ended=True)
    stored.add("b", _rows(50, 4, width=width), ended=True)
    file = run_folder(experiment) / REPLAY_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **stored.recent())  # type: ignore[arg-type]
    return publish(
        experiment,
        experiment.algorithm.type,
        {"weight": torch.zeros(1)},
        [],
        fingerprint="made up",
        data={},
        inputs=inputs,
        facts={},
        extra=[file] if replay else [],
    )


def _earlier(runs: Path, name: str = "earlier", **sections: Any) -> Experiment:
    return tiny_experiment(runs, **({"name": name, "algorithm": {"type": "rlpd"}} | sections))


def _config(runs: Path, earlier: str = "earlier", **algorithm: Any) -> PriorDataConfig:
    changes = {"type": "rlpd", "demonstration_share": 0.0, "replays": [f"{runs}/{earlier}"], "replay_share": 0.25}
    config = algorithm_config(tiny_experiment(runs, algorithm=changes | algorithm))
    assert isinstance(config, PriorDataConfig)
    return config


def test_transitions_with_the_rewards_of_the_environment(tmp_path: Path) -> None:
    """The earlier run's bias of -2 an env step is in what it stored; this one's of 1 is added."""
    _publish(_earlier(tmp_path, algorithm={"type": "rlpd", "reward_bias": -2.0}))
    config = _config(tmp_path, reward_bias=1.0)
    (artifact,) = config.earlier_runs()
    episodes = earlier_transitions(artifact, 2, 1)
    assert [rows["rewards"].tolist() for rows in episodes] == [[4, 14, 24], [504, 514, 524, 534]]
    assert episodes[0]["terminated"].tolist() == [0, 0, 1]
    (prior,) = config.build_experience()._prior.values()
    assert prior.recent()["rewards"].tolist() == [6, 16, 26, 506, 516, 526, 536]
    assert prior.recent()["following"].tolist() == [1, 2, -1, 4, 5, 6, -1]


def test_runs_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    prior = publish_pretrained(tiny_experiment(tmp_path)).skill_prior
    other = publish_pretrained(tiny_experiment(tmp_path, name="other"), seed=1).skill_prior
    longer = {"id": "line_world:LineEnv", "kwargs": {"max_episode_steps": 50}}
    _publish(_earlier(tmp_path))
    _publish(_earlier(tmp_path, "longer", environment=longer))
    _publish(_earlier(tmp_path, "wide"), width=3)
    _publish(_earlier(tmp_path, "cloned", algorithm={"type": "bc"}), replay=False)
    _publish(_earlier(tmp_path, "skills", algorithm={"type": "rlpd_skills"}), [prior], width=3)
    _publish(_earlier(tmp_path, "other_skills", algorithm={"type": "rlpd_skills"}), [other], width=3)
    skills = {"type": "rlpd_skills", "task_agnostic_share": 0.0}
    assert len(earlier_transitions(_config(tmp_path, "skills", **skills).earlier_runs()[0], 2, 3)) == 2
    for config, message in (
        (_config(tmp_path, "nowhere"), "nowhere: no finished stage 4"),
        (_config(tmp_path, "longer"), "with environment.kwargs.max_episode_steps 50, not None"),
        (_config(tmp_path, "cloned"), "cloned/bc: it collected nothing"),
        (_config(tmp_path, "skills"), "its replay holds skills as decisions, and this algorithm needs actions"),
        (_config(tmp_path, **skills), "its replay holds actions as decisions, and this algorithm needs skills"),
        (_config(tmp_path, "other_skills", **skills), "was trained from another skill_prior"),
        (_config(tmp_path, "wide"), "of 2 and 3 dimensions, not 2 and 1"),
    ):
        with pytest.raises(ArtifactError, match=message) as caught:
            config.build_experience()
        assert "\n" not in str(caught.value)


def test_the_run_is_refused_before_anything_is_trained_and_is_part_of_the_record(tmp_path: Path) -> None:
    def run(name: str) -> Run:
        algorithm = {"type": "rlpd_skills", "task_agnostic_share": 0.0, "replay_share": 0.5}
        return Run(tiny_experiment(tmp_path, algorithm=algorithm | {"replays": [f"{tmp_path}/{name}"]}))

    prior = publish_pretrained(tiny_experiment(tmp_path)).skill_prior
    _publish(_earlier(tmp_path))
    artifact = _publish(_earlier(tmp_path, "skills", algorithm={"type": "rlpd_skills"}), [prior], width=3)
    with pytest.raises(ArtifactError, match="holds actions as decisions"):
        run("earlier").train_all()
    assert run("skills").direct_data() == {str(artifact.path): file_hash(artifact.path / REPLAY_FILE)}


def test_runs_and_share_need_each_other() -> None:
    for half in ({"replays": ["runs/a"]}, {"replay_share": 0.25}):
        with pytest.raises(ValueError, match="replays and replay_share need each other"):
            RLPDSettings.model_validate(half)
    with pytest.raises(ValueError, match="must leave room"):
        RLPDSettings(replays=["runs/a"], replay_share=0.5, demonstration_share=0.5)
