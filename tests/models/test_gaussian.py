"""Diagonal Gaussians against torch.distributions."""

import math

import torch
from torch.distributions import Independent, Normal, kl_divergence

from skild_ray.models.gaussian import Gaussian, standard


def _random(seed: int, shape: tuple[int, ...] = (6, 3)) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    return Gaussian(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator) * 0.7)


def _normal(gaussian: Gaussian) -> Normal:
    return Normal(gaussian.mean, gaussian.log_std.exp())


def test_log_prob_sums_over_dimensions() -> None:
    gaussian, value = _random(0), torch.randn(6, 3)
    torch.testing.assert_close(gaussian.log_prob(value), Independent(_normal(gaussian), 1).log_prob(value))


def test_kl_a_dimension() -> None:
    first, second = _random(0), _random(1)
    assert first.kl(second).shape == (6, 3)
    torch.testing.assert_close(first.kl(second), kl_divergence(_normal(first), _normal(second)))
    torch.testing.assert_close(first.kl(standard(first)), kl_divergence(_normal(first), Normal(0.0, 1.0)))
    assert first.kl(first).abs().max() < 1e-6


def test_output_is_split_and_clamped() -> None:
    gaussian = Gaussian.from_output(torch.tensor([[1.0, -2.0, -30.0, 5.0], [0.0, 3.0, 1.5, -9.0]]))
    assert gaussian.mean.tolist() == [[1.0, -2.0], [0.0, 3.0]]
    assert gaussian.log_std.tolist() == [[-10.0, 2.0], [1.5, -9.0]]


def test_floor_raises_small_deviations_only() -> None:
    gaussian = Gaussian(torch.zeros(1, 2), torch.tensor([[math.log(0.01), math.log(0.5)]]))
    torch.testing.assert_close(gaussian.floored(0.1).log_std.exp(), torch.tensor([[0.1, 0.5]]))
    assert gaussian.floored(0.0) is gaussian


def test_samples_are_reparameterised_and_have_the_moments() -> None:
    mean, log_std = torch.tensor([2.0, -1.0], requires_grad=True), torch.tensor([-1.0, 0.5], requires_grad=True)
    samples = Gaussian(mean.expand(200_000, 2), log_std.expand(200_000, 2)).sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(samples.std(0), log_std.exp(), atol=0.02, rtol=0)
    samples.mean().backward()
    torch.testing.assert_close(mean.grad, torch.tensor([0.5, 0.5]))


def test_sampling_follows_its_generator() -> None:
    gaussian = _random(0)
    draws = [gaussian.sample(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
