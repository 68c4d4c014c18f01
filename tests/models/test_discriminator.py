"""The demonstration discriminator and its cross-entropy."""

import math

import pytest
import torch

from skild_ray.models.discriminator import Discriminator, discriminator_loss


@pytest.mark.parametrize(("observation_dim", "count"), [(60, 5_153), (4, 3_361), (97, 6_337)])
def test_parameter_counts(observation_dim: int, count: int) -> None:
    discriminator = Discriminator(observation_dim, hidden=32, layers=3)
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == count


def test_loss_by_hand() -> None:
    positive, negative = torch.tensor([2.0, 0.0]), torch.tensor([-1.0])
    # -log sigmoid(2) = 0.126928, -log sigmoid(0) = 0.693147, -log(1 - sigmoid(-1)) = 0.313262
    assert discriminator_loss(positive, negative, 0.0).item() == pytest.approx(
        (0.126928 + 0.693147 + 0.313262) / 3, abs=1e-5
    )


def test_smoothed_loss_by_hand() -> None:
    # label 0.9 of logit 2: 0.126928 + 0.1 * 2; label 0.1 of logit -1: 0.313262 + 0.1 * 1
    loss = discriminator_loss(torch.tensor([2.0]), torch.tensor([-1.0]), 0.1)
    assert loss.item() == pytest.approx((0.326928 + 0.413262) / 2, abs=1e-5)


def test_smoothing_bounds_the_best_logit() -> None:
    logit = torch.tensor([math.log(0.95 / 0.05)], requires_grad=True)
    discriminator_loss(logit, -logit.detach(), 0.05).backward()
    assert logit.grad is not None
    assert logit.grad.abs().item() < 1e-6


def test_noise_is_in_standardised_units() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(2, 8, 1)
    discriminator.standardize.fit(torch.randn(1000, 2) * 1000)
    observations = torch.zeros(400, 2)
    assert torch.equal(discriminator(observations), discriminator(observations, noise=0.0))
    noisy = discriminator(observations, noise=0.5)
    expected = discriminator.net(0.5 * torch.randn(100_000, 2) + discriminator.standardize(observations[:1]))
    assert noisy.std().item() == pytest.approx(expected.std().item(), rel=0.15)


def test_any_leading_shape() -> None:
    assert Discriminator(4, 8, 1)(torch.zeros(3, 5, 4)).shape == (3, 5)
