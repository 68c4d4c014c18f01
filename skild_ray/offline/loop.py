"""The training loop of the offline stages: one Ray Train job a stage."""

import contextlib
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import safetensors.numpy
import torch
from numpy.typing import NDArray
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from skild_ray import storage
from skild_ray.artifacts import Artifact, publish, work_folder, writable
from skild_ray.config import Experiment
from skild_ray.data.trajectories import Trajectories
from skild_ray.errors import ConfigError, SkildError, last_line
from skild_ray.offline.demo_discriminator import DEMONSTRATIONS_FILE, DemoDiscriminatorProblem
from skild_ray.offline.problem import Batch, DataKind, Inputs, Problem, worker_seed
from skild_ray.offline.skill_posterior import SkillPosteriorProblem
from skild_ray.offline.skill_prior import SkillPriorProblem
from skild_ray.progress import TaskProgress
from skild_ray.tracking import Series, Tracking

PROBLEMS: Mapping[str, type] = {
    "skill_prior": SkillPriorProblem,
    "skill_posterior": SkillPosteriorProblem,
    "demo_discriminator": DemoDiscriminatorProblem,
}
STAGE_DATA: Mapping[str, tuple[DataKind, ...]] = {
    "skill_prior": ("task_agnostic",),
    "skill_posterior": ("demonstrations",),
    "demo_discriminator": ("task_agnostic", "demonstrations"),
}
MAX_WORKER_FAILURES = 3
STATE_FILE = "state.pt"

Row = dict[str, float]


def train_stage(
    experiment: Experiment,
    stage: str,
    task_agnostic: Sequence[Trajectories],
    demonstrations: Sequence[Trajectories],
    inputs: Sequence[Artifact],
    fingerprint: str,
    tracking: Tracking | None = None,
) -> Artifact:
    """Train one offline stage as a Ray Train job and publish its artifact.

    Trajectories of a kind that the stage does not use may be left out.

    A job that was stopped, whoever stopped it, goes on from its last checkpoint when it is started again with the
    same fingerprint.

    Raises:
        ConfigError: the batch does not divide into the workers.
        DataError: the trajectories are too few or too short.
        SkildError: training failed; one line with the reason.
        ArtifactError: the run directory cannot be written.
    """
    work = work_folder(experiment, stage, fingerprint)
    with writable(work):
        work.mkdir(parents=True, exist_ok=True)
        if not os.access(work, os.W_OK):
            raise PermissionError(13, "Permission denied", str(work))
    settings, resources = getattr(experiment, stage), experiment.resources
    share, rest = divmod(settings.batch_size, resources.train_workers)
    if rest:
        raise ConfigError(
            f"{stage}.batch_size {settings.batch_size} does not divide into resources.train_workers "
            f"{resources.train_workers}"
        )
    for_worker = experiment.model_copy(update={stage: settings.model_copy(update={"batch_size": share})})
    weights = {artifact.stage: artifact.weights() for artifact in inputs}
    made_from = Inputs(for_worker, task_agnostic, demonstrations, weights)
    made_from.require_windows(STAGE_DATA[stage])  # here, not in a worker that would be started again
    events = Queue(actor_options={"num_cpus": 0})
    available = int(ray.cluster_resources().get("CPU", 1)) // resources.train_workers
    cpus = max(1, min(resources.cpus_per_train_worker, available))  # a worker that asks for more would never start
    trainer = TorchTrainer(
        _worker_loop,
        train_loop_config={
            "stage": stage,
            "inputs": ray.put(made_from),
            "events": events,
            "threads": cpus,
        },
        scaling_config=ScalingConfig(
            num_workers=resources.train_workers,
            use_gpu=resources.use_gpu,
            resources_per_worker={"CPU": cpus, **({"GPU": 1} if resources.use_gpu else {})},
        ),
        run_config=RunConfig(
            name=work.name,
            storage_path=storage.uri(work.parent) or str(work.parent.resolve()),
            failure_config=FailureConfig(max_failures=MAX_WORKER_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    with (
        (tracking or Tracking()).stage(stage, fingerprint, work) as series,
        _show(stage, settings.iterations, events, series) as restarts,
    ):
        try:
            result = trainer.fit()
        except Exception as error:
            raise SkildError(f"{stage}: training failed: {last_line(error)}") from error
    assert result.checkpoint is not None
    with result.checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    example = made_from.sources(STAGE_DATA[stage][0])[0]
    extra = [_save_demonstrations(work, demonstrations)] if stage == "demo_discriminator" else []
    artifact = publish(
        experiment,
        stage,
        state["best_weights"],
        state["rows"],
        fingerprint=fingerprint,
        data={kind: ",".join(source.fingerprint() for source in made_from.sources(kind)) for kind in STAGE_DATA[stage]},
        inputs=inputs,
        facts={
            "observation_dim": example.observation_dim,
            "action_dim": example.action_dim,
            "iterations": state["iteration"],
            "seconds": round(state["seconds"], 1),
            "best_validation_loss": state["best_loss"],
            "worker_restarts": len(restarts),
        },
        extra=extra,
    )
    storage.remove(work)
    return artifact


def _save_demonstrations(folder: Path, demonstrations: Sequence[Trajectories]) -> Path:
    together = Trajectories.concatenate(demonstrations)
    path = folder / DEMONSTRATIONS_FILE
    with writable(path):
        arrays: dict[str, NDArray] = {
            "observations": together.observations,
            "actions": together.actions,
            "ends": together.ends,
        }
        safetensors.numpy.save_file(arrays, path)
    return path


def _worker_loop(config: dict[str, Any]) -> None:
    """What each Train worker runs: restore, then train, validate and checkpoint until done."""
    context = ray.train.get_context()
    rank = context.get_world_rank()
    inputs: Inputs = ray.get(config["inputs"])
    stage, events = config["stage"], config["events"]
    torch.set_num_threads(config["threads"])
    seed = worker_seed(inputs.experiment, stage, rank)
    torch.manual_seed(worker_seed(inputs.experiment, stage, 0))  # equal initial weights on every rank
    problem: Problem = PROBLEMS[stage](inputs, seed)
    torch.manual_seed(seed)
    run = _Run(problem, ray.train.torch.get_device(), context.get_world_size())
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            run.restore(torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True), rank)

    if rank == 0:
        events.put(list(run.rows))
    settings = problem.settings
    saved = time.monotonic()
    while not _agreed(run.finished, run.device):
        row = run.advance(settings.validation_interval)
        if rank == 0:
            events.put(row)
        if _agreed(time.monotonic() - saved >= settings.checkpoint_interval_s and not run.finished, run.device):
            _report(run, rank)
            saved = time.monotonic()
    _report(run, rank)


def _agreed(answer: bool, device: torch.device) -> bool:
    """Rank 0's answer, on every rank: clocks and losses differ, and a report waits for all ranks."""
    if not torch.distributed.is_initialized():
        return answer
    shared = torch.tensor(answer, device=device)
    torch.distributed.broadcast(shared, src=0)
    return bool(shared)


def _report(run: "_Run", rank: int) -> None:
    """Hand rank 0's state to Ray Train; a barrier for all workers."""
    if rank != 0:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(run.state(), Path(folder) / STATE_FILE)
        ray.train.report({"iteration": run.iteration}, checkpoint=Checkpoint.from_directory(folder))


class _Run:
    """Progress of one training: model, optimiser, best weights so far and the rows of metrics."""

    def __init__(self, problem: Problem, device: torch.device, workers: int) -> None:
        self.problem, self.settings, self.device, self.workers = problem, problem.settings, device, workers
        torch.set_float32_matmul_precision(self.settings.matmul_precision)
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
        self.iteration, self.seconds, self.stale = 0, 0.0, 0
        self.best_loss, self.best_weights = math.inf, _copy(self.module)
        self.rows: list[Row] = []

    @property
    def finished(self) -> bool:
        patience = self.settings.patience
        return self.iteration >= self.settings.iterations or (patience is not None and self.stale >= patience)

    def advance(self, iterations: int) -> Row:
        """Train for up to `iterations` steps, validate, and return the row of metrics."""
        started, first = time.monotonic(), self.iteration
        self.parallel.train()
        while self.iteration < min(first + iterations, self.settings.iterations):
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
        trained = {f"train_{name}": value.item() for name, value in losses._asdict().items() if value is not None}
        if not all(map(math.isfinite, trained.values())):
            raise FloatingPointError(
                f"the loss is not finite at iteration {self.iteration} ({trained}); "
                "lower learning_rate or check the data"
            )
        elapsed = time.monotonic() - started
        validated = self._validate()
        self.seconds += time.monotonic() - started
        kept = self._keep_if_best(validated[f"val_{self.problem.criterion}"])
        samples = (self.iteration - first) * self.settings.batch_size * self.workers
        row: Row = {"iteration": float(self.iteration), "seconds": self.seconds, **trained, **validated}
        row |= {
            "learning_rate": float(self.schedulers[0].get_last_lr()[0]),
            "samples_per_s": samples / elapsed,
            "kept": float(kept),
        }
        self.rows.append(row)
        return row

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly where this leaves off."""
        return {
            "module": self.module.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "sampler": self.problem.sampler_state(),
            "torch_generator": torch.get_rng_state(),
            "iteration": self.iteration,
            "seconds": self.seconds,
            "stale": self.stale,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
            "rows": self.rows,
        }

    def restore(self, state: dict[str, Any], rank: int) -> None:
        """Go on from rank 0's `state`; the other ranks keep random sequences of their own."""
        self.module.load_state_dict(state["module"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        for name in ("optimisers", "schedulers"):
            for one, its_state in zip(getattr(self, name), state[name], strict=True):
                one.load_state_dict(its_state)
        if rank == 0:
            self.problem.restore_sampler(state["sampler"])
            torch.set_rng_state(state["torch_generator"])
        for name in ("iteration", "seconds", "stale", "best_loss", "best_weights", "rows"):
            setattr(self, name, state[name])

    @torch.no_grad()
    def _validate(self) -> Row:
        """Mean of each loss over the held-out batches, by number of rows; the same noise every time."""
        self.judged.eval()
        sums: dict[str, Tensor] = {}
        total = sum(len(batch[0]) for batch in self.validation)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(0)
            for batch in self.validation:
                for name, value in self.problem.losses(self.judged, batch)._asdict().items():
                    sums[name] = sums.get(name, torch.zeros(())) + value.cpu() * len(batch[0]) / total
        return {f"val_{name}": float(value) for name, value in sums.items()}

    def _keep_if_best(self, loss: float) -> bool:
        best = loss < self.best_loss
        if best:
            self.best_loss, self.best_weights, self.stale = loss, _copy(self.judged), 0
        else:
            self.stale += 1
        return best

    def _rate(self, iteration: int) -> float:
        """Factor on the learning rate: linear warm-up, then constant, or half a cosine down to 1 %."""
        factor = min(1.0, (iteration + 1) / max(1, self.settings.warmup_iterations))
        if self.settings.schedule == "cosine":
            factor *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / self.settings.iterations)))
        return factor

    def _to_device(self, batch: Batch) -> Batch:
        return tuple(part.to(self.device, non_blocking=True) for part in batch)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


@contextlib.contextmanager
def _show(stage: str, iterations: int, events: Queue, series: Series) -> Iterator[list[int]]:
    """Show and log what comes from the workers, in a thread: `fit` blocks the main one.

    It is the list of rows up to the checkpoint whenever workers have started, then row by row. Yields the iterations at
    which they began again after one of them was lost or failed, as they happen.
    """
    finished, name = threading.Event(), stage.replace("_", " ")
    starts: list[int] = []
    restarts: list[int] = []

    def follow() -> None:
        with TaskProgress(name, iterations, "iterations") as progress:
            while True:
                ended = finished.is_set()
                try:
                    event: list[Row] | Row = events.get(block=not ended, timeout=0.5)
                except Empty:
                    if ended:
                        return
                    continue
                if not isinstance(event, list):
                    series.add(event)
                    note = f"loss {event['train_total']:.4f}, held out {event['val_total']:.4f}"
                    progress.update(event["iteration"], note)
                    continue
                series.restart(event)
                starts.append(int(event[-1]["iteration"]) if event else 0)
                if len(starts) > 1:
                    restarts.append(starts[-1])
                    print(
                        f"{name}: a Train worker was lost or failed; all go on from iteration {starts[-1]} "
                        f"({len(restarts)} of at most {MAX_WORKER_FAILURES} times)",
                        flush=True,
                    )

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield restarts
    finally:
        finished.set()
        thread.join()
        events.shutdown()
