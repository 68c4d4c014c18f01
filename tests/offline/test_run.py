"""One run of an offline stage, in this process: the running mean of the weights, the precision of products."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skild_ray.config import SkillPosterior
from skild_ray.offline.loop import _Run
from skild_ray.offline.optimisers import adamw
from skild_ray.offline.problem import Batch


class Losses(NamedTuple):
    total: Tensor


class Slope:
    """One weight w, loss w: AdamW without decay lowers it by the learning rate in every iteration."""

    criterion = "total"

    def __init__(self, decay: float = 0.0, **settings: Any) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.module.weight)
        self.settings = SkillPosterior(
            iterations=3,
            learning_rate=0.5,
            schedule="constant",
            warmup_iterations=0,
            weight_decay=0.0,
            weight_average=decay,
            **settings,
        )

    def batch(self) -> Batch:
        return (torch.ones(1, 1),)

    def validation(self) -> Sequence[Batch]:
        return [self.batch()]

    def losses(self, module: nn.Module, batch: Batch) -> Losses:
        return Losses(module(batch[0]).sum())

    def optimisers(self) -> Sequence[Optimizer]:
        return [adamw(self.module.parameters(), self.settings)]

    def sampler_state(self) -> dict[str, Any]:
        return {}

    def restore_sampler(self, state: dict[str, Any]) -> None: ...


def test_kept_weights_are_the_running_mean() -> None:
    run = _Run(Slope(0.75), torch.device("cpu"), workers=1)
    row = run.advance(3)  # weights 0.5, 0.0, -0.5; their mean begins with the first
    expected = 0.75 * (0.75 * 0.5 + 0.25 * 0.0) + 0.25 * -0.5
    assert row["val_total"] == pytest.approx(expected, abs=1e-4)
    assert run.best_weights["weight"].item() == pytest.approx(expected, abs=1e-4)


def test_without_decay_they_are_the_last() -> None:
    run = _Run(Slope(0.0), torch.device("cpu"), workers=1)
    run.advance(3)
    assert run.best_weights["weight"].item() == pytest.approx(-0.5, abs=1e-4)


def test_it_goes_on_after_a_resume() -> None:
    whole, first, rest = (_Run(Slope(0.75), torch.device("cpu"), workers=1) for _ in range(3))
    whole.advance(3)
    first.advance(2)
    rest.restore(first.state(), rank=0)
    rest.advance(1)
    assert torch.equal(whole.best_weights["weight"], rest.best_weights["weight"])


def test_products_are_as_precise_as_asked_in_each_run_of_a_process() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("medium", "high", "highest"):
            _Run(Slope(matmul_precision=precision), torch.device("cpu"), workers=1)
            assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
