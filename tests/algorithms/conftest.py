"""Finished stages 1 to 3 on disk, and what stage 4 builds from them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from pretrained import publish_pretrained, tiny_experiment
from ray.rllib.core import DEFAULT_MODULE_ID
from short_runs import Build
from torch import Tensor

from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.algorithms.train import algorithm_config
from skild_ray.config import Experiment
from skild_ray.runs.folder import run_folder

torch.set_num_threads(1)  # the networks of the tests are too small for more

LATENT, OBSERVATION = 3, 2
SPACES = (Box(-np.inf, np.inf, (OBSERVATION,), np.float32), Box(-np.inf, np.inf, (LATENT,), np.float32))

Batch = dict[str, Tensor]


@pytest.fixture(scope="session")
def pretrained_run(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """An experiment whose stages 1 to 3 are finished, with random weights."""
    experiment = tiny_experiment(tmp_path_factory.mktemp("runs"))
    publish_pretrained(experiment)
    return experiment


@pytest.fixture
def make_module(pretrained_run: Experiment) -> Callable[..., SkiLDTorchRLModule]:
    """Builds the networks with fields of `SkiLDSettings` changed."""

    def make(run_dir: Path | None = None, inference_only: bool = False, **changes: Any) -> SkiLDTorchRLModule:
        torch.manual_seed(0)
        settings = SkiLDSettings.model_validate(pretrained_run.algorithm.model_dump() | changes)
        return SkiLDTorchRLModule(
            observation_space=SPACES[0],
            action_space=SPACES[1],
            inference_only=inference_only,
            model_config={"run_dir": str(run_dir or run_folder(pretrained_run)), "algorithm": settings.model_dump()},
        )

    return make


@pytest.fixture
def make_learner(pretrained_run: Experiment) -> Callable[..., SkiLDTorchLearner]:
    """Builds a learner in this process with fields of `SkiLDSettings` changed."""

    def make(**changes: Any) -> SkiLDTorchLearner:
        torch.manual_seed(0)
        config = SkiLDConfig.from_experiment(pretrained_run).training(**changes)
        learner = config.build_learner(spaces={DEFAULT_MODULE_ID: SPACES})
        learner.build()
        assert isinstance(learner, SkiLDTorchLearner)
        return learner

    return make


@pytest.fixture
def batch() -> Batch:
    """A replay batch of 8 transitions, n = 3, with the columns of every option."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    states, next_obs = normal(8, 3, OBSERVATION), normal(8, OBSERVATION)
    weights, bootstrap = torch.tensor([[1.0, 0.99, 0.98]]).repeat(8, 1), torch.tensor([0.97] * 7 + [0.0])
    heads = ("prior", "posterior")
    return {
        "obs": states[:, 0].clone(),
        "actions": normal(8, LATENT),
        "returns": normal(8),
        "n_step_states": states,
        "n_step_weights": weights,
        "next_obs": next_obs,
        "bootstrap": bootstrap,
        "later_states": torch.cat([states[:, 1:], next_obs[:, None]], 1),
        "later_weights": torch.cat([weights[:, 1:], bootstrap[:, None]], 1),
        "demonstration_states": normal(8, OBSERVATION) + 3,
        "replayed_states": normal(8, OBSERVATION),
        **{f"{name}_mean": normal(8, LATENT) for name in heads},
        **{f"{name}_log_std": 0.3 * normal(8, LATENT) for name in heads},
        **{f"later_{name}_mean": normal(8, 3, LATENT) for name in heads},
        **{f"later_{name}_log_std": 0.3 * normal(8, 3, LATENT) for name in heads},
    }


@pytest.fixture
def build(
    pretrained_run: Experiment, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Build]:
    """Builds the algorithm with settings of `algorithm` and of other sections changed, and stops it in the end."""
    monkeypatch.setenv("TUNE_RESULT_DIR", str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", f"{pretrained_run.runs}/minari")
    built: list[SkiLD] = []

    def build(num_env_runners: int = 0, num_learners: int = 0, **changes: Any) -> SkiLD:
        rollout = {"num_env_runners": num_env_runners, "num_envs_per_env_runner": 4, "decisions_per_fragment": 16}
        rollout |= changes.pop("rollout", {})
        sections = {name: changes.pop(name) for name in ("environment", "seed") if name in changes}
        experiment = tiny_experiment(
            pretrained_run.runs,
            **sections,
            rollout=rollout,
            resources={"num_learners": num_learners},
            algorithm=changes,
        )
        algo = algorithm_config(experiment).build_algo()
        assert isinstance(algo, SkiLD)
        built.append(algo)
        return algo

    yield build
    for algo in built:
        algo.stop()
