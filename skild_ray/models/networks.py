"""Building blocks shared by all models: the multi-layer perceptron, its ensemble form, input standardisation."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from skild_ray.config import Norm

LEAK = 0.2


def _normalisation(norm: Norm, width: int) -> list[nn.Module]:
    return {"batch": [nn.BatchNorm1d(width)], "layer": [nn.LayerNorm(width)], "none": []}[norm]  # type: ignore[return-value]


def _activation() -> nn.Module:
    return nn.LeakyReLU(LEAK, inplace=True)  # what comes before it does not need its output to differentiate


class Predictor(nn.Sequential):
    """Multi-layer perceptron: Linear, LeakyReLU, `layers` x [Linear, norm, LeakyReLU], Linear; no output activation.

    Weights start Xavier-normal, biases at zero; the Linear before a normalisation has no bias.

    Shapes: [B, inputs] -> [B, outputs].
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int, norm: Norm) -> None:
        modules: list[nn.Module] = [nn.Linear(inputs, hidden), _activation()]
        for _ in range(layers):
            modules += [
                nn.Linear(hidden, hidden, bias=norm == "none"),
                *_normalisation(norm, hidden),
                _activation(),
            ]
        super().__init__(*modules, nn.Linear(hidden, outputs))
        for module in self:
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class _Following(nn.Module):
    @torch.no_grad()
    def follow(self, source: nn.Module, rate: float) -> None:
        """theta <- (1 - rate) theta + rate theta_source, as target networks do."""
        torch._foreach_lerp_(list(self.parameters()), list(source.parameters()), rate)


class Ensemble(_Following, nn.ModuleList):
    """`members` Predictors of equal shape and one output, each started on its own.

    One product a member and layer: with few members, on a CPU, faster than `BatchedEnsemble`.

    Shapes: [B, inputs] -> [members, B].
    """

    def __init__(self, members: int, inputs: int, hidden: int, layers: int, norm: Norm) -> None:
        super().__init__(Predictor(inputs, 1, hidden, layers, norm) for _ in range(members))

    def forward(self, inputs: Tensor, members: Tensor | None = None) -> Tensor:
        """The outputs of all members, or of those with these indices only."""
        wanted = self if members is None else [self[index] for index in members.tolist()]
        return torch.stack([member(inputs).squeeze(-1) for member in wanted])

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Let every member be 0 everywhere until it is trained; their hidden layers still differ."""
        for member in self:
            *_, output = member.children()
            assert isinstance(output, nn.Linear)
            nn.init.zeros_(output.weight)


class BatchedEnsemble(_Following):
    """`members` perceptrons of equal shape and one output: `layers` x [Linear, LayerNorm, LeakyReLU], Linear.

    A layer of all members is one product of [members, B, in] and [members, in, out], followed by one normalisation and
    one activation, so a GPU gets no more work orders for ten members than for one. On a CPU ten members cost a tenth
    more than one after the other, whose layers stay in its caches.

    The normalisation has a bias and no gain: with g > 0, LeakyReLU(g x + b) = g LeakyReLU(x + b / g), so that the next
    layer's weights stand for it.

    Weights start Xavier-normal, each member's on its own; a Linear before a normalisation has no bias.

    Shapes: [B, inputs] -> [members, B].
    """

    def __init__(self, members: int, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * layers, 1]
        shapes = [(members, width, following) for width, following in pairwise(widths)]
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(shape)) for shape in shapes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, width)) for width in widths[1:])
        for weight in self.weights:
            for member in weight:
                nn.init.xavier_normal_(member)

    def forward(self, inputs: Tensor, members: Tensor | None = None) -> Tensor:
        """The outputs of all members, or of those with these indices only."""
        weights, biases = (
            list(parameters) if members is None else [parameter[members] for parameter in parameters]
            for parameters in (self.weights, self.biases)
        )
        hidden = inputs.expand(len(weights[0]), *inputs.shape)
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            normalised = functional.layer_norm(torch.bmm(hidden, weight), weight.shape[-1:])
            hidden = functional.leaky_relu_(normalised.add_(bias), LEAK)  # in place: no gradient needs what was there
        return torch.baddbmm(biases[-1], hidden, weights[-1]).squeeze(-1)


class Standardizer(nn.Module):
    """x -> (x - mean) / std with fixed statistics, which travel with the weights. The identity until they are set."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, data: Tensor) -> None:
        """Set the statistics from [N, dim].

        No std is taken below 5 % of the columns' root mean square: a column that hardly moved in the data, a door that
        nobody opened, would turn a small movement into a huge input.
        """
        std, mean = torch.std_mean(data, dim=0)
        floor = 0.05 * std.square().mean().sqrt()
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=floor) if floor > 0 else torch.ones_like(std))

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
            folded.append(_activation())
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
