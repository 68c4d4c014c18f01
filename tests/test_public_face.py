"""The library: what `skild_ray` offers, what editors see of it, and all four stages on arrays in memory."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from line_world import LineEnv
from mypy import api
from pretrained import tiny_experiment

import skild_ray
from skild_ray import Experiment, SkiLDConfig, SkildError, Trajectories, load_agent, play, run_pipeline
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.runs.folder import run_folder

TRAINING = {"iterations": 20, "validation_interval": 10, "batch_size": 16}


def _arrays(seed: int, episodes: int = 6) -> Trajectories:
    """Walks to the right on the line."""
    env, rng = LineEnv(), np.random.default_rng(seed)
    observations, actions, dones = [], [], []
    for episode in range(episodes):
        observation, over = env.reset(seed=seed + episode)[0], False
        while not over:
            action = rng.uniform(0.2, 1.0, 1).astype(np.float32)
            observations.append(observation)
            actions.append(action)
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            dones.append(over)
    return Trajectories.from_arrays(observations, actions, terminals=dones)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    stages = dict.fromkeys(("skill_prior", "skill_posterior"), TRAINING)
    sources = {"task_agnostic": {"play": {"dataset": "mine"}}, "demonstrations": {"human": {"dataset": "mine"}}}
    return tiny_experiment(
        tmp_path,
        data=sources,
        **stages,
        demo_discriminator=TRAINING | {"hidden": 8, "layers": 1},
        algorithm={"total_env_steps": 1_500},
        evaluation={"episodes": 2, "num_envs": 2},
    )


def test_what_is_offered_is_there() -> None:
    assert set(skild_ray.__all__) <= set(dir(skild_ray))
    for name in skild_ray.__all__:
        assert getattr(skild_ray, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = skild_ray.absent


def test_editors_know_the_settings(tmp_path: Path) -> None:
    assert inspect.signature(SkiLDConfig.training).parameters["alpha"].default == SkiLDSettings().alpha
    file = tmp_path / "user.py"
    file.write_text(
        "from skild_ray import SkiLDConfig\n"
        "reveal_type(SkiLDConfig().environment('x').training(alpha=2.0).pretrained(run_dir='y'))\n"
        "SkiLDConfig().training(alhpa=2.0)\n"
    )
    output, _, _ = api.run([str(file)])
    assert 'Revealed type is "skild_ray.algorithms.skild.skild.SkiLDConfig"' in output
    assert 'Unexpected keyword argument "alhpa" for "training" of "SkiLDConfig"; did you mean "alpha"?' in output
    assert output.count("error") == 2  # the second in the summary


def test_all_stages_on_arrays_in_memory(experiment: Experiment, ray_session: None) -> None:
    data = {"play": _arrays(0), "human": _arrays(100)}
    finished = run_pipeline(experiment, data)
    assert finished.report.exists()
    assert finished.artifact.path.parent == run_folder(experiment)
    agent = load_agent(finished.artifact.path)
    assert agent.policy(deterministic=True, seed=0)(data["human"].observations[:5]).shape == (5, 3)
    assert len(play(agent, 3, seed=0, deterministic=True)) == 3

    again = run_pipeline(experiment, {"play": _arrays(0), "human": _arrays(100)})
    assert again.artifact.fingerprint == finished.artifact.fingerprint, "equal arrays are equal data"
    with pytest.raises(SkildError, match="was made from other data or inputs"):
        run_pipeline(experiment, data | {"play": _arrays(1)})


def test_arrays_that_cannot_be_used(experiment: Experiment) -> None:
    with pytest.raises(SkildError, match="data: no source 'plaay'; the experiment has play, human"):
        run_pipeline(experiment, {"plaay": _arrays(0)})
    algorithm = experiment.algorithm.model_copy(update={"demonstration_share": 0.5})
    replaying = experiment.model_copy(update={"algorithm": algorithm})
    with pytest.raises(SkildError, match=r"data\.demonstrations\.human: .* a stored data set with rewards"):
        skild_ray.Run(replaying, data={"human": _arrays(0)}).direct_data()
