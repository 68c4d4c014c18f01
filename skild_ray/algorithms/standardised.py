"""Observations standardised by data that are known before learning begins."""

import functools
from collections.abc import Mapping

import torch
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from skild_ray.models.networks import Standardizer


def standardise_by(learners: LearnerGroup, observations: NDArray) -> None:
    """Fit the Standardizer `standardize` of the RLModule to [N, observation_dim]; it stays the identity if N is 0.

    The statistics are part of the weights: env runners get them with the policy, and a checkpoint brings its own.
    """
    if len(observations):
        standardize = Standardizer(observations.shape[1])
        standardize.fit(torch.from_numpy(observations))
        learners.foreach_learner(func=functools.partial(_load, statistics=standardize.state_dict()))


def _load(learner: TorchLearner, statistics: Mapping[str, Tensor]) -> None:
    learner.module[DEFAULT_MODULE_ID].unwrapped().standardize.load_state_dict(statistics)
