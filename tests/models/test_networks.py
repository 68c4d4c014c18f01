"""Building blocks: the perceptron, its ensemble form, standardisation, folding."""

import pytest
import torch
from torch import nn

from skild_ray.models.networks import BatchedEnsemble, Ensemble, Predictor, Standardizer, fold


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_predictor_layers() -> None:
    predictor = Predictor(3, 2, 8, 4, "batch")
    linears = [module for module in predictor if isinstance(module, nn.Linear)]
    assert len(linears) == 6
    assert [linear.bias is not None for linear in linears] == [True, False, False, False, False, True]
    assert isinstance(predictor[-1], nn.Linear), "no output activation"
    assert all(module.negative_slope == 0.2 for module in predictor if isinstance(module, nn.LeakyReLU))
    unnormalised = Predictor(3, 2, 8, 4, "none")
    assert all(module.bias is not None for module in unnormalised if isinstance(module, nn.Linear))


def test_predictor_starts_xavier_normal_with_zero_biases() -> None:
    torch.manual_seed(0)
    predictor = Predictor(300, 100, 200, 1, "none")
    first = predictor[0]
    assert isinstance(first, nn.Linear)
    assert first.weight.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.02)
    assert all(not module.bias.any() for module in predictor if isinstance(module, nn.Linear))


def _unlike_fresh(predictor: Predictor, inputs: int) -> Predictor:
    """Norms with statistics and affine parts that are not those of initialisation."""
    for module in predictor:
        if isinstance(module, nn.BatchNorm1d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    predictor.train()
    for _ in range(20):
        predictor(3 * torch.randn(64, inputs) + 1)
    return predictor.eval()


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("standardised", [True, False])
def test_folding_keeps_the_function(norm, standardised: bool) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    predictor = _unlike_fresh(Predictor(7, 3, 16, 4, norm), 7)
    standardizer = Standardizer(5)
    standardizer.fit(torch.randn(100, 5) * torch.tensor([1.0, 10.0, 0.1, 3.0, 1.0]) + 4)
    inputs = torch.randn(50, 7) * 3
    folded = fold(standardizer if standardised else None, predictor)
    expected_inputs = torch.cat([standardizer(inputs[:, :5]), inputs[:, 5:]], -1) if standardised else inputs
    torch.testing.assert_close(folded(inputs), predictor(expected_inputs), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_folding_copies() -> None:
    predictor = Predictor(2, 1, 4, 1, "none").eval()
    folded, inputs = fold(None, predictor), torch.randn(3, 2)
    before = folded(inputs.clone())
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(1.0)
    assert torch.equal(folded(inputs.clone()), before)


def test_ensemble_stacks_its_members() -> None:
    torch.manual_seed(0)
    ensemble, inputs = Ensemble(2, 5, 16, 2, "layer"), torch.randn(9, 5)
    outputs = ensemble(inputs)
    assert outputs.shape == (2, 9)
    for member, output in zip(ensemble, outputs, strict=True):
        torch.testing.assert_close(member(inputs)[:, 0], output)


def test_ensemble_members_start_differently() -> None:
    torch.manual_seed(0)
    first, second = Ensemble(2, 5, 16, 2, "layer")(torch.randn(9, 5))
    assert not torch.allclose(first, second)


def test_batched_members_are_perceptrons_of_their_own() -> None:
    torch.manual_seed(0)
    ensemble, inputs = BatchedEnsemble(3, inputs=5, hidden=16, layers=2), torch.randn(9, 5)
    for parameter in ensemble.biases:
        torch.nn.init.normal_(parameter)
    outputs = ensemble(inputs)
    assert outputs.shape == (3, 9)
    for member in range(3):
        hidden = inputs
        for weight, bias in zip(ensemble.weights[:-1], ensemble.biases[:-1], strict=True):
            product = hidden @ weight[member]
            variance, mean = torch.var_mean(product, 1, correction=0, keepdim=True)
            normalised = (product - mean) / (variance + 1e-5).sqrt()
            hidden = torch.nn.functional.leaky_relu(normalised + bias[member], 0.2)
        expected = hidden @ ensemble.weights[-1][member] + ensemble.biases[-1][member]
        torch.testing.assert_close(outputs[member], expected[:, 0])
    torch.testing.assert_close(ensemble(inputs, torch.tensor([2, 0])), outputs[[2, 0]])


def test_standardizer() -> None:
    standardizer = Standardizer(3)
    data = torch.randn(500, 3) * torch.tensor([2.0, 0.5, 0.0]) + torch.tensor([1.0, -3.0, 7.0])
    assert torch.equal(standardizer(data), data), "the identity until fitted"
    standardizer.fit(data)
    standardised = standardizer(data)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardised.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    assert not list(standardizer.parameters())
    assert set(standardizer.state_dict()) == {"mean", "std"}, "the statistics travel with the weights"


def test_columns_that_hardly_moved_are_not_blown_up() -> None:
    standardizer = Standardizer(2)
    standardizer.fit(torch.randn(500, 2) * torch.tensor([1.0, 1e-4]))
    assert abs(float(standardizer(torch.tensor([0.0, 0.5]))[1])) < 20
    standardizer.fit(torch.ones(5, 2))
    assert torch.equal(standardizer(torch.ones(1, 2)), torch.zeros(1, 2))
