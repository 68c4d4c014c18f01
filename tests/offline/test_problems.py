"""What each offline stage trains on, without Ray."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrained import tiny_experiment
from torch import Tensor

from skild_ray.config import Experiment
from skild_ray.data.trajectories import Trajectories
from skild_ray.errors import DataError
from skild_ray.models.skill_model import SkillHead, SkillModel
from skild_ray.offline.behavioural_cloning import BehaviouralCloningProblem
from skild_ray.offline.demo_discriminator import DemoDiscriminatorProblem
from skild_ray.offline.problem import Inputs, Problem, worker_seed
from skild_ray.offline.skill_posterior import SkillPosteriorProblem
from skild_ray.offline.skill_prior import SkillPriorProblem
from skild_ray.offline.training_run import TrainingRun
from skild_ray.stages import OFFLINE

MakeTrajectories = Callable[..., Trajectories]
RATE = 1e-2
"""Of learning: a few steps have to be enough."""
PROBLEMS = [SkillPriorProblem, SkillPosteriorProblem, DemoDiscriminatorProblem, BehaviouralCloningProblem]


def _experiment(**sections: Any) -> Experiment:
    return tiny_experiment(Path("nowhere"), **sections)


def _inputs(task_agnostic: Sequence[Trajectories], demonstrations: Sequence[Trajectories], **sections: Any) -> Inputs:
    sources = {
        "task_agnostic": [{"dataset": "x"}] * len(task_agnostic),
        "demonstrations": [{"dataset": "x"}] * len(demonstrations),
    }
    rates = {stage: {"learning_rate": RATE} for stage in OFFLINE}
    experiment = _experiment(**({"data": sources} | rates | sections))
    torch.manual_seed(0)
    model = SkillModel(2, 2, experiment.skill)
    model.fit_standardizers(torch.from_numpy(task_agnostic[0].observations))
    return Inputs(experiment, task_agnostic, demonstrations, {"skill_prior": model.state_dict()})


@pytest.fixture
def inputs(make_trajectories: MakeTrajectories) -> Inputs:
    return _inputs([make_trajectories(12)], [make_trajectories(4, seed=1, centre=3.0)])


def _rows(states: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in states.reshape(-1, states.shape[-1])}


def _known_rows(*sources: Trajectories) -> set[bytes]:
    return {row.tobytes() for source in sources for row in source.observations}


def test_prior_trains_on_task_agnostic_windows(inputs: Inputs) -> None:
    problem = SkillPriorProblem(inputs, seed=0)
    states, actions = problem.batch()
    assert states.shape == (128, 5, 2)
    assert actions.shape == (128, 5, 2)
    train, held_out, _ = inputs.split("task_agnostic")
    assert _rows(states) <= _known_rows(*train)
    assert _rows(problem.validation()[0][0]) <= _known_rows(*held_out)
    assert not _known_rows(*train) & _known_rows(*held_out)


def test_prior_is_standardised_by_its_training_data(inputs: Inputs) -> None:
    module = SkillPriorProblem(inputs, seed=0).module
    observations = torch.from_numpy(inputs.split("task_agnostic")[0][0].observations)
    for standardizer in (module.standardize, module.prior.standardize):
        torch.testing.assert_close(standardizer.mean, observations.mean(0))
        torch.testing.assert_close(standardizer.std, observations.std(0))
    raw = _inputs(inputs.task_agnostic, inputs.demonstrations, skill={"horizon": 5, "standardize": False})
    assert SkillPriorProblem(raw, seed=0).module.standardize.std.tolist() == [1, 1]


def test_posterior_imitates_the_frozen_encoder_on_demonstrations(inputs: Inputs) -> None:
    problem = SkillPosteriorProblem(inputs, seed=0)
    model = SkillModel(2, 2, inputs.experiment.skill)
    model.load_state_dict(dict(inputs.weights["skill_prior"]))
    (demonstrations,) = inputs.split("demonstrations")[0]
    starts = demonstrations.window_starts(5)
    rows = starts[:, None] + np.arange(5)
    states, actions = (torch.from_numpy(array[rows]) for array in (demonstrations.observations, demonstrations.actions))
    encoded = model.encode(states, actions)
    torch.testing.assert_close(problem._mean, encoded.mean)
    torch.testing.assert_close(problem._log_std, encoded.log_std)
    torch.testing.assert_close(problem._states, model.standardize(states[:, 0]))


def test_posterior_trains_a_head_of_its_own(inputs: Inputs) -> None:
    problem = SkillPosteriorProblem(inputs, seed=0)
    assert isinstance(problem.module, SkillHead)
    assert all(parameter.requires_grad for parameter in problem.module.parameters())
    prior = {
        name.removeprefix("prior."): v for name, v in inputs.weights["skill_prior"].items() if name.startswith("prior.")
    }
    assert torch.equal(problem.module.net[0].weight, prior["net.0.weight"])
    assert torch.equal(problem.module.standardize.std, prior["standardize.std"])
    cold = _inputs(inputs.task_agnostic, inputs.demonstrations, skill_posterior={"init_from_prior": False})
    module = SkillPosteriorProblem(cold, seed=0).module
    assert not torch.equal(module.net[0].weight, cold.weights["skill_prior"]["prior.net.0.weight"]), "random weights"


def test_posterior_noise(inputs: Inputs) -> None:
    quiet = _inputs(inputs.task_agnostic, inputs.demonstrations, skill_posterior={"observation_noise": 0.0})
    noisy = _inputs(inputs.task_agnostic, inputs.demonstrations, skill_posterior={"observation_noise": 2.0})
    known = _rows(SkillPosteriorProblem(quiet, 0)._states)
    assert _rows(SkillPosteriorProblem(quiet, 0).batch()[0]) <= known
    gap = SkillPosteriorProblem(noisy, 0).batch()[0] - SkillPosteriorProblem(quiet, 0).batch()[0]
    states, _ = SkillPosteriorProblem(quiet, 0)._sampler.all_windows(10_000)
    moved = (states[:, -1] - states[:, 0]) / SkillPosteriorProblem(quiet, 0).module.standardize.std
    torch.testing.assert_close(gap.std(0), 2.0 * moved.square().mean(0).sqrt(), rtol=0.2, atol=0.0)


def test_discriminator_batches(inputs: Inputs) -> None:
    problem = DemoDiscriminatorProblem(inputs, seed=0)
    positive, negative = problem.batch()
    assert positive.shape == negative.shape == (256, 2)
    assert _rows(positive) <= _known_rows(*inputs.split("demonstrations")[0])
    assert _rows(negative) <= _known_rows(*inputs.split("task_agnostic")[0])
    (held_out,) = problem.validation()
    assert len(held_out[0]) == len(held_out[1])
    assert _rows(held_out[0]) <= _known_rows(*inputs.split("demonstrations")[1])


def test_demonstrations_are_no_negatives(make_trajectories: MakeTrajectories) -> None:
    demonstrations = make_trajectories(4, seed=1, centre=3.0)
    mixed = Trajectories.concatenate([make_trajectories(12), demonstrations])
    problem = DemoDiscriminatorProblem(_inputs([mixed], [demonstrations]), seed=0)
    known = _known_rows(demonstrations)
    for _ in range(3):
        assert not _rows(problem.batch()[1]) & known
    assert not _rows(problem.validation()[0][1]) & known


def test_source_of_demonstrations_only_is_dropped(make_trajectories: MakeTrajectories) -> None:
    demonstrations = make_trajectories(4, seed=1, centre=3.0)
    problem = DemoDiscriminatorProblem(_inputs([demonstrations, make_trajectories(12)], [demonstrations]), seed=0)
    assert not _rows(problem.batch()[1]) & _known_rows(demonstrations)


def test_a_source_may_be_left_out_of_the_negatives(make_trajectories: MakeTrajectories) -> None:
    play, repetitions = make_trajectories(12), make_trajectories(9, seed=2, centre=3.0)
    demonstrations = make_trajectories(4, seed=1, centre=3.0)
    task_agnostic = [{"dataset": "x"}, {"dataset": "x", "weight": 3, "negatives": False}]
    sources = {"task_agnostic": task_agnostic, "demonstrations": [{"dataset": "x"}]}
    problem = DemoDiscriminatorProblem(_inputs([play, repetitions], [demonstrations], data=sources), seed=0)
    negatives = _rows(problem.batch()[1]) | _rows(problem.validation()[0][1])
    assert negatives <= _known_rows(play)


def test_equal_sets_are_still_trained_on(make_trajectories: MakeTrajectories) -> None:
    demonstrations = make_trajectories(4, seed=1)
    problem = DemoDiscriminatorProblem(_inputs([demonstrations], [demonstrations]), seed=0)
    assert _rows(problem.batch()[1]) <= _known_rows(demonstrations)


def test_discriminator_noise_is_for_training_only(inputs: Inputs) -> None:
    problem = DemoDiscriminatorProblem(inputs, seed=0)
    (batch,) = problem.validation()
    problem.module.eval()
    assert torch.equal(problem.losses(problem.module, batch).total, problem.losses(problem.module, batch).total)
    problem.module.train()
    assert not torch.equal(problem.losses(problem.module, batch).total, problem.losses(problem.module, batch).total)


@pytest.mark.parametrize("make", PROBLEMS)
def test_batches_continue_exactly(inputs: Inputs, make: Callable[[Inputs, int], Problem]) -> None:
    problem, other = make(inputs, 0), make(inputs, 5)
    problem.batch()
    assert not all(map(torch.equal, problem.batch(), other.batch())), "another seed"
    other.restore_sampler(problem.sampler_state())
    for _ in range(2):
        assert all(map(torch.equal, problem.batch(), other.batch()))


@pytest.mark.parametrize("make", PROBLEMS)
def test_validation_is_fixed(inputs: Inputs, make: Callable[[Inputs, int], Problem]) -> None:
    problem = make(inputs, 0)
    first = problem.validation()
    problem.batch()
    for before, after in zip(first, problem.validation(), strict=True):
        assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("make", PROBLEMS)
def test_a_few_steps_lower_the_loss(inputs: Inputs, make: Callable[[Inputs, int], Problem]) -> None:
    torch.manual_seed(0)
    _check_that_it_learns(make(inputs, 0))


def test_cloning_losses_by_hand(inputs: Inputs) -> None:
    """mu = 0, sigma = (1, e): -log pi(a|s) = (a_1^2 + a_2^2 / e^2) / 2 + 1 + log 2 pi."""
    problem = BehaviouralCloningProblem(inputs, seed=0)
    policy = problem.module.eval()
    last = policy.mean[-1]
    for parameter in (last.weight, last.bias):
        torch.nn.init.zeros_(parameter)
    policy.log_std.data = torch.tensor([0.0, 1.0])
    losses = problem.losses(policy, (torch.zeros(2, 2), torch.tensor([[0.6, 0.8], [0.0, 0.0]])))
    mean_square = (0.36 + 0.64 * math.exp(-2)) / 2
    assert losses.total.item() == pytest.approx(mean_square / 2 + 1 + math.log(2 * math.pi))
    assert losses.squared_error.item() == pytest.approx((0.36 + 0.64) / 4)


def test_cloning_trains_on_demonstrations_alone(inputs: Inputs) -> None:
    problem = BehaviouralCloningProblem(inputs, seed=0)
    train, held_out, _ = inputs.split("demonstrations")
    states, actions = problem.batch()
    assert states.shape == actions.shape == (256, 2)
    assert _rows(states) <= _known_rows(*train)
    assert _rows(problem.validation()[0][0]) <= _known_rows(*held_out)
    observations = torch.from_numpy(train[0].observations)
    torch.testing.assert_close(problem.module.standardize.mean, observations.mean(0))
    torch.testing.assert_close(problem.module.standardize.std, observations.std(0))


def test_muon_steps_the_hidden_matrices_of_encoder_and_decoder(make_trajectories: MakeTrajectories) -> None:
    settings = {"learning_rate": RATE, "muon_learning_rate": 0.02}
    skill = {"horizon": 5, "hidden": 48, "decoder_hidden": 40, "decoder_layers": 2}
    inputs = _inputs([make_trajectories(12)], [make_trajectories(4)], skill=skill, skill_prior=settings)
    problem = SkillPriorProblem(inputs, seed=0)
    rest, hidden = ([w for group in one.param_groups for w in group["params"]] for one in problem.optimisers())
    shapes = sorted(tuple(weight.shape) for weight in hidden)
    assert shapes == [(40, 40), (40, 40), (48, 48), (192, 48), (192, 48)]  # decoder; encoder, the last two its LSTM's
    every = [*rest, *hidden]
    assert len(every) == len(set(map(id, every))) == len(list(problem.module.parameters()))
    _check_that_it_learns(problem)


def test_the_prior_is_kept_at_its_best_under_the_encoder_that_is_kept(make_trajectories: MakeTrajectories) -> None:
    """The prior grows too certain while the decoder still improves: as an overfitting one does."""
    settings = {"learning_rate": RATE, "iterations": 400, "validation_interval": 20, "warmup_iterations": 0}
    inputs = _inputs([make_trajectories(12)], [make_trajectories(4)], skill_prior=settings)
    torch.manual_seed(0)
    problem = SkillPriorProblem(inputs, seed=0)
    run = TrainingRun(problem, torch.device("cpu"), workers=1)
    for _ in range(3):
        run.advance()
    earlier = dict(run.best_weights)
    last = problem.module.prior.net[-1].bias
    with torch.no_grad():
        last[last.numel() // 2 :] -= 4.0
    problem.module.prior.requires_grad_(False)
    row = run.advance()
    while row is not None and not row["kept"]:
        row = run.advance()
    assert row is not None and row["kept_action_mse"] == row["val_action_mse"], "the decoder improves"
    assert row["kept_prior"] < row["val_prior"]

    kept = type(problem.module)(2, 2, inputs.experiment.skill).eval()
    kept.load_state_dict(run.best_weights)
    assert torch.equal(kept.encoder.head.weight, problem.module.encoder.head.weight)
    assert not torch.equal(kept.encoder.head.weight, earlier["encoder.head.weight"])
    assert all(torch.equal(value, earlier[f"prior.{name}"]) for name, value in kept.prior.state_dict().items())
    (held_out,) = problem.validation()
    torch.manual_seed(0)
    assert problem.losses(kept, held_out).prior.item() == pytest.approx(row["kept_prior"], abs=1e-4)


def _check_that_it_learns(problem: Problem) -> None:
    optimisers, losses = problem.optimisers(), []
    for _ in range(60):
        losses.append(problem.losses(problem.module, problem.batch()).total)
        problem.module.zero_grad()
        losses[-1].backward()
        for optimiser in optimisers:
            optimiser.step()
    assert torch.stack(losses[-5:]).mean() < torch.stack(losses[:5]).mean() - 0.05


def test_source_weights_share_the_batches(make_trajectories: MakeTrajectories) -> None:
    sources = {"task_agnostic": [{"dataset": "x", "weight": 3}, {"dataset": "x"}], "demonstrations": [{"dataset": "x"}]}
    near, far = make_trajectories(12), make_trajectories(12, seed=2, centre=10.0)
    inputs = _inputs([near, far], [near], data=sources)
    problem = SkillPriorProblem(inputs, seed=0)
    share = torch.cat([problem.batch()[0][:, 0, 0] < 5 for _ in range(20)]).float().mean().item()
    assert share == pytest.approx(0.75, abs=0.05)


def test_posterior_weighs_its_sources_too(make_trajectories: MakeTrajectories) -> None:
    sources = {"task_agnostic": [{"dataset": "x"}], "demonstrations": [{"dataset": "x", "weight": 3}, {"dataset": "x"}]}
    near, far = make_trajectories(12), make_trajectories(12, seed=2, centre=10.0)
    problem = SkillPosteriorProblem(_inputs([near], [near, far], data=sources), seed=0)
    share = torch.cat([problem.batch()[0][:, 0] < 5 for _ in range(20)]).float().mean().item()
    assert share == pytest.approx(0.75, abs=0.05)


def test_short_episodes_are_left_out_before_the_split(
    make_trajectories: MakeTrajectories, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the seed holds out: the short one could be all that there is to validate."""
    short = make_trajectories(1)
    short = Trajectories(short.observations[:3], short.actions[:3], np.array([3]))
    data = Trajectories.concatenate([make_trajectories(2), short, make_trajectories(2, seed=1)])
    for seed in range(20):
        inputs = _inputs([data], [data], seed=seed)
        (train,), (held_out,), _ = inputs.split("demonstrations")
        assert train.num_episodes + held_out.num_episodes == 4
        assert min(*train.lengths, *held_out.lengths) >= 20
    inputs.require_windows(["task_agnostic", "demonstrations"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("data.task_agnostic.0") and second.startswith("data.demonstrations.0")
    assert second.endswith("1 of 5 episodes is shorter than the horizon of 5 transitions, left out")
    for make in (SkillPriorProblem, DemoDiscriminatorProblem):
        assert make(inputs, seed=0).validation()


def test_two_episodes_of_the_horizon_are_required(make_trajectories: MakeTrajectories) -> None:
    data = make_trajectories(4)
    longest = data.lengths.max()
    inputs = _inputs([data], [data], skill={"horizon": 41})
    with pytest.raises(DataError, match=rf"data\.task_agnostic\.0.*: 0 of its 4 .* 41 .* longest has {longest}; at"):
        inputs.require_windows(["task_agnostic"])
    one = data.select([0])
    with pytest.raises(DataError, match=r"data\.demonstrations\.0.*: 1 of its 1 episodes is as long as"):
        _inputs([data], [one]).require_windows(["demonstrations"])


def test_seeds_differ_between_stages_and_ranks() -> None:
    seeds = [
        worker_seed(_experiment(seed=seed), stage, rank)
        for seed in (0, 1)
        for stage in ("skill_prior", "skill_posterior")
        for rank in (0, 1)
    ]
    assert len(set(seeds)) == len(seeds)
