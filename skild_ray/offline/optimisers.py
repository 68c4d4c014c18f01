"""Which optimiser steps which weights of an offline stage."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from skild_ray.config import Training

MIN_SIDE = 64
"""A matrix with a shorter side belongs to an input or an output, or is soon learned anyway."""

# A quintic whose iterates bring every singular value in (0, 1] near 1, steepest at 0 (Jordan et al., 2024).
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
_STEPS = 5


class Muon(Optimizer):
    """Momentum, orthogonalised: every direction of a matrix moves at the same rate (Jordan et al., "Muon", 2024).

    With the momentum M of matrix W [m, n], g its gradient, and U V^T from the singular value decomposition of the
    Nesterov step g + beta (M - g), approximately:

        M <- beta M + (1 - beta) g,    W <- (1 - rate * weight_decay) W - rate * sqrt(max(1, m / n)) * U V^T

    `torch.optim.Muon` orthogonalises in bfloat16, which takes a processor without such instructions twenty times as
    long as this one's float32.

    Args:
        matrices: parameters of two dimensions.
        lr: rate, in spectral norm of a step.
        weight_decay: decoupled, as in AdamW.
        momentum: beta.
    """

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "no closure is evaluated"
        for group in self.param_groups:
            rate, beta = group["lr"], group["momentum"]
            for matrix in group["params"]:
                gradient = matrix.grad
                if gradient is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                momentum = state["momentum"].lerp_(gradient, 1 - beta)
                matrix.mul_(1 - rate * group["weight_decay"])
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.add_(orthogonalised(gradient.lerp(momentum, beta)), alpha=-rate * scale)


def orthogonalised(matrix: Tensor) -> Tensor:
    """U V^T of the matrix' singular value decomposition, its singular values only near 1: between 0.7 and 1.2."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_CUBIC, alpha=_QUINTIC), x, beta=_LINEAR)
    return x.T if tall else x


def optimisers(module: nn.Module, settings: Training) -> list[Optimizer]:
    """AdamW for all that is trainable or, with `settings.muon_learning_rate`, all but the hidden layers' matrices."""
    rate, decay = settings.muon_learning_rate, settings.weight_decay
    hidden: list[Tensor] = []
    others: list[Tensor] = []
    for weight in module.parameters():
        if weight.requires_grad:
            is_hidden = rate is not None and weight.ndim == 2 and min(weight.shape) >= MIN_SIDE
            (hidden if is_hidden else others).append(weight)
    adamw = AdamW(others, lr=settings.learning_rate, weight_decay=decay, fused=True)
    return [adamw, Muon(hidden, rate, decay)] if rate is not None and hidden else [adamw]
