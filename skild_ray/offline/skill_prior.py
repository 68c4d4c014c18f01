"""Stage 1: skill encoder, decoder and prior on windows of the task-agnostic trajectories (section 4.1)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from skild_ray.data.windows import WindowSampler
from skild_ray.models.skill_model import SkillLosses, SkillModel
from skild_ray.offline.optimisers import Muon, adamw
from skild_ray.offline.problem import Batch, Inputs, Problem, chunks


class SkillPriorProblem(Problem):
    """Minimise the loss of `SkillModel` over weighted task-agnostic windows.

    Encoder and decoder are kept at their lowest held-out action error: the prior's likelihood, much the largest part of
    the loss, hides it in its noise. The prior overfits earlier, on a small data set long before. It is kept at its
    lowest held-out -log p(z | s_0), with z of the encoder that is kept: it models that one's skills.
    """

    version: ClassVar[int] = 1
    criteria: ClassVar[Mapping[str, str]] = {"": "action_mse", "prior.": "prior"}

    def __init__(self, inputs: Inputs, seed: int) -> None:
        experiment = inputs.experiment
        self.settings = experiment.skill_prior
        self._batch_size = self.settings.batch_size // inputs.workers
        train, held_out, weights = inputs.split("task_agnostic")
        self.module = SkillModel(train[0].observation_dim, train[0].action_dim, experiment.skill)
        if experiment.skill.standardize:
            self.module.fit_standardizers(torch.cat([torch.from_numpy(source.observations) for source in train]))
        horizon = experiment.skill.horizon
        self._sampler = WindowSampler(train, weights, horizon, seed)
        self._held_out = WindowSampler(held_out, weights, horizon, seed).all_windows(self.settings.validation_samples)

    def batch(self) -> Batch:
        return self._sampler.sample(self._batch_size)

    def validation(self) -> Sequence[Batch]:
        return chunks(self._held_out, 1024)

    def optimisers(self) -> Sequence[Optimizer]:
        """AdamW; with `muon_learning_rate` Muon for the hidden layers of encoder and decoder.

        They are what limits how exactly actions are decoded. The prior is left with AdamW: it has one target a window,
        not one a step, and overfits sooner.
        """
        rate = self.settings.muon_learning_rate
        if rate is None:
            return [adamw(self.module.parameters(), self.settings)]
        hidden = list(self.module.hidden_matrices())
        chosen = set(map(id, hidden))
        others = (weight for weight in self.module.parameters() if id(weight) not in chosen)
        return [adamw(others, self.settings), Muon(hidden, rate, self.settings.weight_decay)]

    def losses(self, module: nn.Module, batch: Batch) -> SkillLosses:
        losses: SkillLosses = module(*batch, self.settings.kl_weight)
        return losses

    def sampler_state(self) -> dict[str, Any]:
        return self._sampler.state_dict()

    def restore_sampler(self, state: dict[str, Any]) -> None:
        self._sampler.load_state_dict(state)
