"""What steps the weights of the offline stages."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from skild_ray.config import Training

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
    """U V^T of the singular value decomposition, approximately: singular values come to between 0.7 and 1.2.

    Those below a three-hundredth of the Frobenius norm stay smaller.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_CUBIC, alpha=_QUINTIC), x, beta=_LINEAR)
    return x.T if tall else x


def adamw(weights: Iterable[Tensor], settings: Training) -> AdamW:
    """AdamW for those of the weights that are trained."""
    trained = [weight for weight in weights if weight.requires_grad]
    return AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
