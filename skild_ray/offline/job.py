"""A Ray Train job as its driver sees it: what workers say is shown and logged, and a signal stops them."""

import logging
import threading
from collections.abc import Sequence
from typing import NamedTuple

from ray.train import Checkpoint, Result
from ray.train.torch import TorchTrainer

from skild_ray.errors import SkildError, last_line
from skild_ray.interruption import Interrupted, Interruption, Stopped
from skild_ray.offline.channel import Channel, Event
from skild_ray.progress import TaskProgress
from skild_ray.resources import Request, Waiting
from skild_ray.stages import in_words
from skild_ray.tracking import MetricsRow, Series

logger = logging.getLogger(__name__)

MAX_WORKER_FAILURES = 3
POLL_S = 0.3


class Outcome(NamedTuple):
    """What a finished job left behind."""

    checkpoint: Checkpoint
    restarts: int
    """How often workers were lost or failed."""


def run_job(
    trainer: TorchTrainer,
    channel: Channel,
    stage: str,
    iterations: int,
    requests: Sequence[Request],
    series: Series,
) -> Outcome:
    """Run a job to its end.

    `fit` runs in a thread: in the main one it would take over Ctrl-C.

    Raises:
        Stopped: SIGTERM or Ctrl-C ended it, with a checkpoint.
        SkildError: training failed; one line with the reason.
        Interrupted: a second signal came, or the first one before any worker had started.
    """
    fit, name = _Fit(trainer), in_words(stage)
    follower = _Follower(stage, series)
    with (
        Interruption() as interruption,
        Waiting(name, requests) as waiting,
        TaskProgress(name, iterations, "iterations") as progress,
    ):
        fit.start()
        while fit.is_alive():
            fit.join(POLL_S)
            follower.follow(channel.events(), progress)
            waiting.started = bool(follower.starts)
            if interruption.number:
                channel.stop()
                if not follower.starts:
                    raise Interrupted(interruption.number, f"{stage}: stopped before its workers had started")
        follower.follow(channel.events(), progress)
        try:
            result = fit.result()
        except Exception as error:
            raise SkildError(f"{stage}: training failed: {last_line(error)}") from error
        channel.close()
        if follower.failure:
            raise SkildError(f"{stage}: training failed: {follower.failure}")
        assert result.checkpoint is not None and result.metrics is not None
        if interruption.number and not result.metrics["finished"]:
            raise Stopped(
                f"{stage}: stopped at {result.metrics['iteration']} iterations; the same command resumes from there",
                interruption.number,
            )
    return Outcome(result.checkpoint, len(follower.starts) - 1)


class _Fit(threading.Thread):
    """`trainer.fit()` in a thread of its own."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(daemon=True)
        self._trainer = trainer
        self._result: Result | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._trainer.fit()
        except BaseException as error:  # SystemExit, too, where Ray is shut down meanwhile
            self._error = error

    def result(self) -> Result:
        """What `fit` returned or raised."""
        self.join()
        if self._error:
            raise self._error
        assert self._result is not None
        return self._result


class _Follower:
    """Shows and logs events.

    Attributes:
        starts: the iteration at which workers have started, each time.
        failure: why training cannot continue, if it cannot.
    """

    def __init__(self, stage: str, series: Series) -> None:
        self.starts: list[int] = []
        self.failure: str | None = None
        self._name, self._series = in_words(stage), series

    def follow(self, events: Sequence[Event], progress: TaskProgress) -> None:
        for event in events:
            if isinstance(event, str):
                self.failure = event
            elif isinstance(event, list):
                self._started(event)
            else:
                self._series.add(event)
                note = f"loss {event['train_total']:.4f}, held out {event['val_total']:.4f}"
                progress.update(event["iteration"], note)

    def _started(self, rows: list[MetricsRow]) -> None:
        self._series.restart(rows)
        self.starts.append(int(rows[-1]["iteration"]) if rows else 0)
        if len(self.starts) > 1:
            logger.warning(
                f"{self._name}: a Train worker was lost or failed; all resume from iteration {self.starts[-1]} "
                f"({len(self.starts) - 1} of at most {MAX_WORKER_FAILURES} times)",
            )
