"""Progress of long work: a bar with rate and ETA in a program on a terminal, lines in the log everywhere else."""

import contextlib
import logging
import sys
import threading
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from skild_ray.log import shows_lines

logger = logging.getLogger(__name__)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} {task.fields['unit']}/s")


class TaskProgress:
    """Reports how far one task is.

    Args:
        name: what is being done.
        total: units of work.
        unit: what is counted.
        start: units that were done before (a resumed task); they do not count for the rate.
        interval_s: seconds between lines where there is no terminal.
    """

    def __init__(self, name: str, total: float, unit: str, start: float = 0, interval_s: float = 10.0) -> None:
        self.name, self.total, self.unit, self.start, self.interval_s = name, total, unit, start, interval_s
        self.done = start
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None
        # A terminal has room for one bar: what runs beside the main thread writes lines.
        if shows_lines() and sys.stdout.isatty() and threading.current_thread() is threading.main_thread():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"))
            self._task = self._bar.add_task(name, total=total, completed=int(start), unit=unit, note="")

    def __enter__(self) -> "TaskProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None:
            self._line("", over=True)

    def update(self, done: float, note: str = "") -> None:
        """Say that `done` units are finished in all, with a short note on the state of things."""
        self.done = done
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
        elif time.monotonic() - self._said >= self.interval_s:
            self._line(note)

    def _line(self, note: str, over: bool = False) -> None:
        self._said = time.monotonic()
        elapsed = self._said - self._started
        rate = (self.done - self.start) / max(elapsed, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        eta = f"ETA {left:,.0f} s" if not over else f"took {elapsed:,.0f} s"
        line = f"{self.name}: {self.done:,.0f}/{self.total:,.0f} {self.unit}, {rate:,.0f}/s, {eta}  {note}"
        with contextlib.suppress(OSError):  # a log that is full, or that nobody reads any more, ends no training
            logger.info(line.rstrip())
