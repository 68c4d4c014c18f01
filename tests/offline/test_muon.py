"""Muon."""

import pytest
import torch
from torch import nn

from skild_ray.offline.optimisers import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (64, 64)])
def test_orthogonalised_keeps_the_singular_vectors_and_levels_the_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.logspace(0, -1.5, min(shape))  # a condition number of 30
    found = u.T @ orthogonalised(u @ values.diag() @ vh) @ vh.T
    assert torch.allclose(found, found.diagonal().diag(), atol=1e-3)
    assert found.diagonal().min() > 0.5 and found.diagonal().max() < 1.3


def test_steps_are_as_long_as_the_rate_whatever_the_gradient() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(128, 64))
    muon, before = Muon([weight], lr=0.02), weight.detach().clone()
    weight.grad = 1e-6 * torch.randn(128, 64)
    muon.step()
    lengths = torch.linalg.svdvals(weight.detach() - before)
    assert lengths.min() > 0.01 * 2**0.5 and lengths.max() < 0.026 * 2**0.5


def test_weight_decay_is_decoupled() -> None:
    weight = nn.Parameter(torch.ones(64, 64))
    weight.grad = torch.zeros(64, 64)
    Muon([weight], lr=0.5, weight_decay=0.1).step()
    assert torch.allclose(weight, torch.full((64, 64), 0.95))


def test_it_goes_on_exactly_from_its_state() -> None:
    torch.manual_seed(0)
    gradients = torch.randn(4, 64, 64)
    whole, parts = (nn.Parameter(torch.ones(64, 64)) for _ in range(2))
    muon, first, rest = Muon([whole], lr=0.02), Muon([parts], lr=0.02), Muon([parts], lr=0.02)

    def follow(one: Muon, weight: nn.Parameter, steps: slice) -> None:
        for gradient in gradients[steps]:
            weight.grad = gradient
            one.step()

    follow(muon, whole, slice(None))
    follow(first, parts, slice(2))
    rest.load_state_dict(first.state_dict())
    follow(rest, parts, slice(2, None))
    assert torch.equal(whole, parts)
