"""Building blocks shared by all models: the multi-layer perceptron, its ensemble form, input standardisation."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from skild_ray.config import Norm

LEAK = 0.2


def _normalisation(norm: Norm, width: int) -> list[nn.Module]:
    return {"batch": [nn.BatchNorm1d(width)], "layer": [nn.LayerNorm(width)], "none": []}[norm]  # type: ignore[return-value]


class Predictor(nn.Sequential):
    """Multi-layer perceptron: Linear, LeakyReLU, `layers` x [Linear, norm, LeakyReLU], Linear; no output activation.

    Weights start Xavier-normal, biases at zero; the Linear before a normalisation has no bias.

    Shapes: [B, inputs] -> [B, outputs].
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int, norm: Norm) -> None:
        modules: list[nn.Module] = [nn.Linear(inputs, hidden), nn.LeakyReLU(LEAK)]
        for _ in range(layers):
            modules += [
                nn.Linear(hidden, hidden, bias=norm == "none"),
                *_normalisation(norm, hidden),
                nn.LeakyReLU(LEAK),
            ]
        super().__init__(*modules, nn.Linear(hidden, outputs))
        for module in self:
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class Ensemble(nn.Module):
    """`members` Predictors of equal shape, evaluated by one batched matrix product a layer.

    Twin critics share every input, so one product over a leading member axis replaces two smaller ones.

    Shapes: [B, inputs] -> [members, B].
    """

    def __init__(self, members: int, inputs: int, hidden: int, layers: int, norm: Literal["layer", "none"]) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (layers + 1), 1]
        pairs = list(pairwise(widths))
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(members, i, o)) for i, o in pairs)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, o)) for _, o in pairs)
        hidden_layers = layers + 1 if norm == "layer" else 0
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(members, 1, hidden)) for _ in range(hidden_layers))
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, hidden)) for _ in range(hidden_layers))
        for weight in self.weights:
            for member in weight:
                nn.init.xavier_normal_(member)

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs.expand(self.weights[0].shape[0], *inputs.shape)
        for layer, (weight, bias) in enumerate(zip(self.weights[:-1], self.biases[:-1], strict=True)):
            features = torch.baddbmm(bias, features, weight)
            if len(self.gains):
                normalised = functional.layer_norm(features, features.shape[-1:])
                features = torch.addcmul(self.shifts[layer], normalised, self.gains[layer])
            features = functional.leaky_relu(features, LEAK)
        return torch.baddbmm(self.biases[-1], features, self.weights[-1]).squeeze(-1)


class Standardizer(nn.Module):
    """x -> (x - mean) / std with fixed statistics, which travel with the weights. The identity until they are set."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, data: Tensor) -> None:
        """Set the statistics from [N, dim]; a constant column is only shifted, not scaled."""
        std, mean = torch.std_mean(data, dim=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-4, std, torch.ones_like(std)))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.std


@torch.no_grad()
def fold(standardizer: Standardizer | None, predictor: Predictor) -> nn.Sequential:
    """The same function as `predictor(standardizer(x))` in evaluation mode with every batch-norm folded away.

    A batch-norm in evaluation mode is affine, so it joins the Linear before it; standardisation joins the first
    Linear, on its leading inputs. Layer-norms stay. Acting then costs one matrix product and one activation a layer.
    """
    folded: list[nn.Module] = []
    for module in predictor:
        if isinstance(module, nn.BatchNorm1d):
            linear, mean, variance = folded[-1], module.running_mean, module.running_var
            assert isinstance(linear, nn.Linear) and mean is not None and variance is not None
            scale = module.weight / torch.sqrt(variance + module.eps)
            folded[-1] = _linear(linear.weight * scale[:, None], module.bias - mean * scale)
        elif isinstance(module, nn.Linear):
            bias = module.bias if module.bias is not None else torch.zeros(module.out_features)
            folded.append(_linear(module.weight, bias))
        elif isinstance(module, nn.LayerNorm):
            folded.append(module)
        else:
            folded.append(nn.LeakyReLU(LEAK, inplace=True))
    if standardizer is not None:
        first = folded[0]
        assert isinstance(first, nn.Linear)
        weight, size = first.weight.clone(), standardizer.mean.numel()
        weight[:, :size] /= standardizer.std
        folded[0] = _linear(weight, first.bias - weight[:, :size] @ standardizer.mean)
    return nn.Sequential(*folded).eval().requires_grad_(False)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight.data, linear.bias.data = weight.detach().clone(), bias.detach().clone()
    return linear
