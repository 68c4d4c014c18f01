"""What each Ray Train worker of an offline stage runs: restore, then train, validate and checkpoint until done."""

import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import Checkpoint

from skild_ray.offline.problem import Inputs, Problem, worker_seed
from skild_ray.offline.training_run import TrainingRun

STATE_FILE = "state.pt"
ASK_INTERVAL_S = 0.5


def worker_loop(config: dict[str, Any]) -> None:
    """Train until that is finished or the channel asks rank 0 to stop; either way the last act is a checkpoint.

    A loss that is not finite would come again: the reason goes through the channel, and the workers end as if they had
    finished, as Ray Train starts workers that raise again.

    Args:
        config: `stage` and its class of `problem`; a reference to its `inputs`; the `channel` to the driver; torch
            `threads`.
    """
    context = ray.train.get_context()
    rank = context.get_world_rank()
    inputs: Inputs = ray.get(config["inputs"])
    stage, channel = config["stage"], config["channel"]
    torch.set_num_threads(config["threads"])
    seed = worker_seed(inputs.experiment, stage, rank)
    torch.manual_seed(worker_seed(inputs.experiment, stage, 0))  # equal initial weights on every rank
    problem: Problem = config["problem"](inputs, seed)
    torch.manual_seed(seed)
    run = TrainingRun(problem, ray.train.torch.get_device(), context.get_world_size())
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            run.restore(torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True), rank)
    if rank == 0:
        channel.say(list(run.rows))

    asked = saved = time.monotonic()
    wanted = False

    def stop() -> bool:
        nonlocal asked, wanted
        if rank == 0 and not wanted and time.monotonic() - asked >= ASK_INTERVAL_S:
            asked, wanted = time.monotonic(), channel.stop_is_wanted()
        return _agreed(wanted, run.device)

    while not _agreed(run.finished, run.device):
        row, failure = None, None
        try:
            row = run.advance(stop)
        except FloatingPointError as error:
            failure = str(error)
        if _anywhere(failure is not None, run.device):
            if rank == 0:
                channel.say(failure or "the loss is not finite on another worker; lower learning_rate")
            return
        if row is None:
            break
        if rank == 0:
            channel.say(row)
        due = time.monotonic() - saved >= problem.settings.checkpoint_interval_s and not run.finished
        if _agreed(due, run.device):
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


def _anywhere(answer: bool, device: torch.device) -> bool:
    """Whether any rank's answer is yes, on every rank."""
    if not torch.distributed.is_initialized():
        return answer
    count = torch.tensor(int(answer), device=device)
    torch.distributed.all_reduce(count)
    return bool(count)


def _report(run: TrainingRun, rank: int) -> None:
    """Hand rank 0's state to Ray Train; a barrier for all workers."""
    if rank != 0:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(run.state(), Path(folder) / STATE_FILE)
        metrics = {"iteration": run.iteration, "finished": run.finished}
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))
