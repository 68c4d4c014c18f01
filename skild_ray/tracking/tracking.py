"""What stages tell their metrics to."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from skild_ray.config import Experiment
from skild_ray.tracking.external import ExternalRun
from skild_ray.tracking.files import MetricFiles, MetricsRow, read_rows

logger = logging.getLogger(__name__)


class Series:
    """The metrics of one stage while it runs. A tracker that fails says so in one line; it never ends training."""

    def __init__(self, stage: str, files: MetricFiles, runs: Sequence[ExternalRun]) -> None:
        self._stage, self._files, self._runs = stage, files, runs
        self._writes_files = True

    def restart(self, rows: Sequence[MetricsRow]) -> None:
        """The series is these rows: those of the checkpoint that the stage goes on from, none where it begins."""
        self._write(lambda: self._files.restart(rows))
        for row in rows:
            self._send(row)

    def add(self, row: MetricsRow) -> None:
        """The next row; its first key is the step."""
        self._write(lambda: self._files.add(row))
        self._send(row)

    def remove_files(self) -> None:
        """Delete the files, where the stage has been published and its work folder stays."""
        self._write(self._files.remove)

    def _send(self, row: MetricsRow) -> None:
        for run in self._runs:
            run.add(self._stage, row)

    def _write(self, action: Callable[[], None]) -> None:
        if not self._writes_files:
            return
        try:
            action()
        except Exception as error:  # TensorBoard's writer has some of its own
            self._writes_files = False
            reason = getattr(error, "strerror", None) or error
            logger.warning(f"{self._files.folder}: metrics are not written while training ({reason})")


class Tracking:
    """The trackers of an experiment, for the life of the program: `with Tracking.of(experiment) as tracking`."""

    def __init__(self, runs: Sequence[ExternalRun] = ()) -> None:
        self._runs = runs

    @classmethod
    def of(cls, experiment: Experiment) -> "Tracking":
        """The trackers that the experiment's section `tracking` names, none by default.

        Raises:
            ConfigError: the package of one is missing, it needs a login, or refuses a setting.
        """
        runs: list[ExternalRun] = []
        settings = experiment.tracking
        if settings.wandb and (settings.wandb.mode or os.environ.get("WANDB_MODE")) != "disabled":
            from skild_ray.tracking.weights_and_biases import WandbRun

            runs.append(WandbRun(experiment, settings.wandb))
        if settings.mlflow:
            from skild_ray.tracking.mlflow_run import MLflowRun

            runs.append(MLflowRun(experiment, settings.mlflow))
        return cls(runs)

    def __enter__(self) -> "Tracking":
        for run in self._runs:
            run.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run in self._runs:
            run.close(succeeded=kind is None)

    @contextlib.contextmanager
    def stage(self, stage: str, fingerprint: str, folder: Path) -> Iterator[Series]:
        """The metrics of a stage that runs.

        Args:
            stage: its name.
            fingerprint: what it is made from.
            folder: where its files are while it runs; a published artifact has its own.
        """
        files = MetricFiles(folder)
        for run in self._runs:
            run.begin_stage(stage, fingerprint)
        try:
            yield Series(stage, files, self._runs)
        finally:
            with contextlib.suppress(OSError):  # a full disk refuses what is still buffered
                files.close()

    def finished(self, stage: str, fingerprint: str, folder: Path) -> None:
        """A stage that was finished before, in `folder`: trackers that lack it get it."""
        rows = read_rows(folder) if self._runs else []
        for run in self._runs:
            run.begin_stage(stage, fingerprint)
            for row in rows:
                run.add(stage, row)

    def outcome(self, results: Mapping[str, Any], report: Path, artifact: Path) -> None:
        """The end of a pipeline: the content of its `evaluation.json`, its page and its last artifact's videos."""
        for run in self._runs:
            run.add_outcome(results, report, artifact)
