"""One training in this process: the running mean of the weights, stops, parts kept, generators, precision."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skild_ray.config import SkillPosteriorSettings
from skild_ray.offline.optimisers import adamw
from skild_ray.offline.problem import Batch
from skild_ray.offline.training_run import STOP_INTERVAL, TrainingRun, generator_states, set_generator_states


class Losses(NamedTuple):
    total: Tensor


class Slope:
    """One weight w, loss w: AdamW without decay lowers it by the learning rate in every iteration."""

    version: ClassVar[int] = 1
    criteria: ClassVar[Mapping[str, str]] = {"": "total"}

    def __init__(self, decay: float = 0.0, iterations: int = 3, **settings: Any) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.module.weight)
        self.settings = SkillPosteriorSettings(
            iterations=iterations,
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


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Parameter(torch.zeros(()))
        self.head = nn.Parameter(torch.zeros(()))


class PartsLosses(NamedTuple):
    total: Tensor
    error: Tensor
    misfit: Tensor


class TwoParts:
    """`error` is how far body is from 0; `misfit` how far head is from body: a head that fits this body, no other.

    The optimiser moves the weights through a given course.
    """

    version: ClassVar[int] = 1
    criteria: ClassVar[Mapping[str, str]] = {"": "error", "head": "misfit"}

    def __init__(self, course: Sequence[tuple[float, float]], patience: int | None = None) -> None:
        self.module, self.course = Parts(), iter(course)
        self.settings = SkillPosteriorSettings(
            iterations=len(course), validation_interval=1, patience=patience, weight_average=0.0
        )

    def batch(self) -> Batch:
        with torch.no_grad():
            for weight, value in zip(self.module.parameters(), next(self.course), strict=True):
                weight.copy_(torch.tensor(value))
        return (torch.ones(1, 1),)

    def validation(self) -> Sequence[Batch]:
        return [(torch.ones(1, 1),)]

    def losses(self, module: Any, batch: Batch) -> PartsLosses:
        return PartsLosses(0 * module.body + 0 * module.head, module.body.abs(), (module.head - module.body).abs())

    def optimisers(self) -> Sequence[Optimizer]:
        return [torch.optim.SGD(self.module.parameters(), lr=0.0)]

    def sampler_state(self) -> dict[str, Any]:
        return {}

    def restore_sampler(self, state: dict[str, Any]) -> None: ...


CPU = torch.device("cpu")


def _rows(run: TrainingRun) -> list[dict[str, float]]:
    """Train to the end; the rows without what the clock decides."""
    while not run.finished:
        run.advance()
    return [{name: row[name] for name in row if name not in ("seconds", "samples_per_s")} for row in run.rows]


def test_kept_weights_are_the_running_mean() -> None:
    run = TrainingRun(Slope(0.75), CPU, workers=1)
    row = run.advance()  # weights 0.5, 0.0, -0.5; their mean begins with the first
    expected = 0.75 * (0.75 * 0.5 + 0.25 * 0.0) + 0.25 * -0.5
    assert row is not None
    assert row["val_total"] == row["kept_total"] == pytest.approx(expected, abs=1e-4)
    assert run.best_weights["weight"].item() == pytest.approx(expected, abs=1e-4)


def test_without_decay_they_are_the_last() -> None:
    run = TrainingRun(Slope(0.0), CPU, workers=1)
    run.advance()
    assert run.best_weights["weight"].item() == pytest.approx(-0.5, abs=1e-4)


def test_a_stop_between_validations_changes_nothing() -> None:
    settings = {"iterations": 5 * STOP_INTERVAL, "validation_interval": 2 * STOP_INTERVAL}
    whole, first, rest = (TrainingRun(Slope(0.75, **settings), CPU, workers=1) for _ in range(3))
    answers = iter([False, False, False, True])
    assert first.advance(lambda: next(answers)) is not None
    assert first.advance(lambda: next(answers)) is None
    assert first.iteration == 3 * STOP_INTERVAL
    rest.restore(first.state(), rank=0)
    assert _rows(rest) == _rows(whole)
    assert [row["iteration"] for row in whole.rows] == [2 * STOP_INTERVAL, 4 * STOP_INTERVAL, 5 * STOP_INTERVAL]
    assert torch.equal(whole.best_weights["weight"], rest.best_weights["weight"])


def test_each_part_is_kept_at_its_own_best_beside_the_others() -> None:
    """The head fits its body best early, then drifts while the body becomes better; then the body gets worse."""
    run = TrainingRun(TwoParts([(5.0, 4.0), (3.0, 6.0), (2.0, 9.0), (4.0, 2.5), (6.0, 6.0)]), CPU, workers=1)
    rows = _rows(run)
    kept = [(row["kept_error"], row["kept_misfit"], row["kept"]) for row in rows]
    assert kept == [
        (5.0, 1.0, 1.0),
        (3.0, 1.0, 1.0),  # the first head, 4, is nearer to 3 than 6 is
        (2.0, 2.0, 1.0),
        (2.0, 0.5, 0.0),  # a better head, from a worse body
        (2.0, 0.5, 0.0),  # a head that fits its own body perfectly, and not the one that is kept
    ]
    assert list(run.best_losses.items()) == [("error", 2.0), ("misfit", 0.5)]
    assert (run.best_weights["body"].item(), run.best_weights["head"].item()) == (2.0, 2.5)
    assert run.module.body.item() == 6.0, "to judge a mixture leaves the weights that are trained alone"


def test_patience_counts_validations_that_improve_no_part() -> None:
    course = [(5.0, 4.0), (6.0, 4.5), (6.0, 9.0), (6.0, 9.0), (1.0, 1.0)]
    run = TrainingRun(TwoParts(course, patience=2), CPU, workers=1)
    assert [row["iteration"] for row in _rows(run)] == [1, 2, 3, 4]
    assert run.best_weights["head"].item() == 4.5


def test_generators_continue_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's generator by the two functions that torch has for it."""
    states = {"cuda:1": torch.arange(16, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[str(device)].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({str(device): state}))
    device, saved = torch.device("cuda:1"), generator_states(torch.device("cuda:1"))
    expected = torch.rand(3)
    states["cuda:1"] = torch.zeros(16, dtype=torch.uint8)
    set_generator_states(device, saved)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(states["cuda:1"], torch.arange(16, dtype=torch.uint8))
    assert generator_states(CPU).keys() == {"cpu"} == TrainingRun(Slope(), CPU, 1).state()["torch_generators"].keys()
    set_generator_states(CPU, saved)
    assert torch.equal(torch.rand(3), expected), "a run that was begun on a GPU resumes without one"


def test_products_are_as_precise_as_asked_in_each_run_of_a_process() -> None:
    before, seen = torch.get_float32_matmul_precision(), set()

    class Watched(Slope):
        def losses(self, module: nn.Module, batch: Batch) -> Losses:
            seen.add((self.settings.matmul_precision, torch.get_float32_matmul_precision()))
            return super().losses(module, batch)

    for precision in ("medium", "high", "highest"):
        TrainingRun(Watched(matmul_precision=precision), CPU, workers=1).advance()
    assert seen == {(precision, precision) for precision in ("medium", "high", "highest")}
    assert torch.get_float32_matmul_precision() == before
