"""Progress of one training in one process: iterations, validations, the best weights, and what resumes it."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray.train.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from skild_ray.config.skills import MatmulPrecision
from skild_ray.offline.problem import Batch, Problem
from skild_ray.tracking import MetricsRow

STOP_INTERVAL = 10
"""Iterations between two questions whether to stop."""
Weights = dict[str, Tensor]


class TrainingRun:
    """Progress of one training: model, optimiser, best weights so far and the rows of metrics.

    What is kept is chosen part by part, see `Problem.criteria`; `best_losses` are the held-out losses by which its
    parts were chosen, in the order of the criteria.
    """

    def __init__(self, problem: Problem, device: torch.device, workers: int) -> None:
        self.problem, self.settings, self.device, self.workers = problem, problem.settings, device, workers
        self.module = problem.module.to(device)
        self.parallel: nn.Module = self.module
        if workers > 1:
            self.parallel = ray.train.torch.prepare_model(self.module, move_to_device=False)
        self.optimisers = problem.optimisers()
        self.schedulers = [torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate) for optimiser in self.optimisers]
        self.validation = [self._to_device(batch) for batch in problem.validation()]
        self.averaged: AveragedModel | None = None
        if decay := self.settings.weight_average:
            self.averaged = AveragedModel(self.module, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.judged: nn.Module = self.averaged.module if self.averaged else self.module  # validated and kept
        self._last = self.settings.iterations
        self.iteration, self.seconds, self.stale = 0, 0.0, 0
        self.best_weights = _copy(self.module)
        self.best_losses: dict[str, float] = dict.fromkeys(problem.criteria.values(), math.inf)
        self.rows: list[MetricsRow] = []

    @property
    def finished(self) -> bool:
        patience = self.settings.patience
        return self.iteration >= self._last or (patience is not None and self.stale >= patience)

    def advance(self, stop: Callable[[], bool] = lambda: False) -> MetricsRow | None:
        """Train up to the next validation, validate, and return the row of metrics.

        Returns None, somewhere before the validation, if `stop()` says so. It is asked every few iterations; the next
        call trains on as if there had been no stop.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        with _matmul_precision(self.settings.matmul_precision):
            return self._advance(stop)

    def _advance(self, stop: Callable[[], bool]) -> MetricsRow | None:
        started, first = time.monotonic(), self.iteration
        end = min((first // self.settings.validation_interval + 1) * self.settings.validation_interval, self._last)
        self.parallel.train()
        while self.iteration < end:
            if self.iteration % STOP_INTERVAL == 0 and stop():
                self.seconds += time.monotonic() - started
                return None
            losses = self._step()
        trained = {f"train_{name}": value.item() for name, value in losses._asdict().items() if value is not None}
        if not all(map(math.isfinite, trained.values())):
            raise FloatingPointError(
                f"the loss is not finite at iteration {self.iteration} ({trained}); "
                "lower learning_rate or check the data"
            )
        elapsed = time.monotonic() - started
        losses_now = self._validate()
        kept = self._keep_best(losses_now)
        self.seconds += time.monotonic() - started
        samples = (self.iteration - first) * self.settings.batch_size
        row: MetricsRow = {"iteration": float(self.iteration), "seconds": self.seconds, **trained}
        row |= {f"val_{name}": loss for name, loss in losses_now.items()}
        row |= {
            "learning_rate": float(self.schedulers[0].get_last_lr()[0]),
            "samples_per_s": samples / elapsed,
            "kept": float(kept[0]),
        }
        row |= {f"kept_{criterion}": self.best_losses[criterion] for criterion in self.problem.criteria.values()}
        self.rows.append(row)
        return row

    def _step(self) -> Any:
        """One iteration; its losses."""
        losses = self.problem.losses(self.parallel, self._to_device(self.problem.batch()))
        self.module.zero_grad(set_to_none=True)
        losses.total.backward()
        if self.settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.gradient_clip, foreach=True)
        for optimiser, scheduler in zip(self.optimisers, self.schedulers, strict=True):
            optimiser.step()
            scheduler.step()
        if self.averaged:
            self.averaged.update_parameters(self.module)
        self.iteration += 1
        return losses

    def state(self) -> dict[str, Any]:
        """Everything needed to resume exactly from here."""
        return {
            "module": self.module.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "sampler": self.problem.sampler_state(),
            "torch_generators": generator_states(self.device),
            "iteration": self.iteration,
            "seconds": self.seconds,
            "stale": self.stale,
            "best_losses": self.best_losses,
            "best_weights": self.best_weights,
            "rows": self.rows,
        }

    def restore(self, state: dict[str, Any], rank: int) -> None:
        """Resume from rank 0's `state`; the other ranks keep random sequences of their own."""
        self.module.load_state_dict(state["module"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        for name in ("optimisers", "schedulers"):
            for one, its_state in zip(getattr(self, name), state[name], strict=True):
                one.load_state_dict(its_state)
        if rank == 0:
            self.problem.restore_sampler(state["sampler"])
            set_generator_states(self.device, state["torch_generators"])
        for name in ("iteration", "seconds", "stale", "best_losses", "best_weights", "rows"):
            setattr(self, name, state[name])

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean of each loss over the held-out batches, by number of rows; the same noise every time."""
        self.judged.eval()
        sums: dict[str, Tensor] = {}
        total = sum(len(batch[0]) for batch in self.validation)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(0)
            for batch in self.validation:
                for name, value in self.problem.losses(self.judged, batch)._asdict().items():
                    sums[name] = sums.get(name, torch.zeros(())) + value.cpu() * len(batch[0]) / total
        return {name: float(value) for name, value in sums.items()}

    def _keep_best(self, losses: dict[str, float]) -> list[bool]:
        """Replace each part of what is kept by the current one if that lowers its criterion, beside the parts kept
        before it; whether each was replaced. `losses` are those of the current weights."""
        criteria = self.problem.criteria
        current = _copy(self.judged)
        all_kept, all_current = (False,) * len(criteria), (True,) * len(criteria)
        known = {all_kept: self.best_losses, all_current: losses}

        def mixed(chosen: tuple[bool, ...]) -> Weights:
            sources = dict(zip(criteria, chosen, strict=True))
            return {name: (current if sources[_part(name, criteria)] else self.best_weights)[name] for name in current}

        def judged(chosen: tuple[bool, ...]) -> dict[str, float]:
            if chosen not in known:
                self.judged.load_state_dict(mixed(chosen))
                known[chosen] = self._validate()
                self.judged.load_state_dict(current)
            return known[chosen]

        chosen: tuple[bool, ...] = ()
        for criterion in criteria.values():
            rest = len(criteria) - len(chosen)  # what comes after a part has no influence on its criterion
            before, now = (judged((*chosen, *(replace,) * rest))[criterion] for replace in (False, True))
            chosen = (*chosen, now < before)
        self.best_weights, best = mixed(chosen), judged(chosen)
        self.best_losses = {criterion: best[criterion] for criterion in criteria.values()}
        self.stale = 0 if any(chosen) else self.stale + 1
        return list(chosen)

    def _rate(self, iteration: int) -> float:
        """Factor on the learning rate: linear warm-up, then constant, or half a cosine down to 1 %."""
        factor = min(1.0, (iteration + 1) / max(1, self.settings.warmup_iterations))
        if self.settings.schedule == "cosine":
            factor *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / self.settings.iterations)))
        return factor

    def _to_device(self, batch: Batch) -> Batch:
        return tuple(part.to(self.device, non_blocking=True) for part in batch)


@contextmanager
def _matmul_precision(precision: MatmulPrecision) -> Iterator[None]:
    """Products in float32 this precise inside the block. The setting is one of the process, so it is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """State of torch's generators: the CPU's and, where the device is a GPU, the device's, by type of device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_states(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Let torch's generators continue from `generator_states`; the device's only if it was one of that type."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _part(name: str, prefixes: Iterable[str]) -> str:
    """The part that a weight belongs to: the longest prefix of its name."""
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len)


def _copy(module: nn.Module) -> Weights:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
