"""A run at a tracker outside the run folder: it gets every row once, under one id, however often it is resumed."""

import contextlib
import json
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from skild_ray.errors import one_line
from skild_ray.tracking.files import MetricsRow

logger = logging.getLogger(__name__)

RETRY_INTERVAL_S = 60.0


class ExternalRun(ABC):
    """What trackers have in common: an id that lasts, rows that are neither sent twice nor lost, and patience.

    A record in the run folder keeps the run's id and, for every stage, what it was made from and the last step that
    was sent. A row up to that step is not sent again: what a resumed stage repeats is in the run already. A stage that
    is made from something else begins a new run, which gets the other stages, too.

    Rows that the tracker does not take (a server out of reach, a full disk) wait and are sent with a later one.
    """

    title: str
    """What people call the tracker."""
    settle_s = 0.0
    """Seconds until what was handed to its client outlives a kill; what is younger is sent again after one."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self.id: str | None = None
        self.sent = 0
        """Number of what was sent: rows, reports and videos."""
        self._stages: dict[str, dict[str, Any]] = {}
        self._queued: dict[str, float] = {}
        self._series: dict[str, tuple[str, list[MetricsRow]]] = {}
        self._pending: deque[Callable[[], None]] = deque()
        self._young: deque[tuple[float, str, float]] = deque()
        self._failed_at: float | None = None
        self._lock = threading.RLock()
        with contextlib.suppress(OSError, ValueError, KeyError):  # an unreadable record is as good as none
            known = json.loads(record.read_text())
            self.id, self.sent, self._stages = known["id"], known["sent"], known["stages"]

    def begin(self) -> None:
        """Open the run."""
        with self._lock:
            self._do(self._open)

    def begin_stage(self, stage: str, fingerprint: str) -> None:
        """Rows of `stage`, made from the inputs of `fingerprint`, are to follow."""
        with self._lock:
            if self._stages.get(stage, {}).get("fingerprint", fingerprint) != fingerprint:
                self._renew()
            self._stages.setdefault(stage, {"fingerprint": fingerprint, "step": -1})
            self._queued.setdefault(stage, self._stages[stage]["step"])
            self._series[stage] = (fingerprint, [])

    def add(self, stage: str, row: MetricsRow) -> None:
        """Send a row, unless the run has one of its step or a later one; its first key is the step."""
        with self._lock:
            self._series[stage][1].append(row)
            step = next(iter(row.values()))
            if step > self._queued[stage]:
                self._queued[stage] = step
                self._do(partial(self._send_and_note, stage, row))

    def add_outcome(self, results: Mapping[str, Any], report: Path, artifact: Path) -> None:
        """Send what stands at the end: the evaluation, the page, and the videos beside the last artifact."""
        with self._lock:
            self._do(partial(self._send_outcome, results, report, sorted((artifact / "videos").glob("*.mp4"))))

    def close(self, succeeded: bool) -> None:
        """Send what waits and end the run."""
        with self._lock:
            self._failed_at = None
            self._do(partial(self._finish_and_note, succeeded))

    @abstractmethod
    def _open(self) -> None:
        """Begin the run `id`, or go on with it; without one begin a new one and set `id`."""

    @abstractmethod
    def _send(self, stage: str, row: MetricsRow) -> None: ...

    @abstractmethod
    def _send_outcome(self, results: Mapping[str, Any], report: Path, videos: list[Path]) -> None: ...

    @abstractmethod
    def _finish(self, succeeded: bool) -> None: ...

    def _renew(self) -> None:
        self.close(succeeded=True)
        self._pending.clear()
        self._young.clear()
        self.id, self.sent, self._stages, self._queued = None, 0, {}, {}
        self.begin()
        for stage, (fingerprint, rows) in list(self._series.items()):
            self.begin_stage(stage, fingerprint)
            for row in rows:
                self.add(stage, row)

    def _do(self, action: Callable[[], None]) -> None:
        """Do it, after everything that waits; keep it where the tracker fails. Training goes on in any case."""
        self._pending.append(action)
        if self._failed_at is not None and time.monotonic() - self._failed_at < RETRY_INTERVAL_S:
            return
        try:
            while self._pending:
                self._pending[0]()
                self._pending.popleft()
        except Exception as error:  # whatever a client library raises
            if self._failed_at is None:
                reason = one_line(error)
                logger.warning(f"{self.title}: {reason[:200]}; training goes on, what it lacks is sent later")
            self._failed_at = time.monotonic()
        else:
            self._failed_at = None

    def _send_and_note(self, stage: str, row: MetricsRow) -> None:
        self._send(stage, row)
        self._young.append((time.monotonic(), stage, next(iter(row.values()))))
        self._note()

    def _finish_and_note(self, succeeded: bool) -> None:
        self._finish(succeeded)
        self._note(0, settled=True)

    def _note(self, sent: int = 1, settled: bool = False) -> None:
        """Count what was sent and write the record."""
        while self._young and (settled or time.monotonic() - self._young[0][0] >= self.settle_s):
            _, stage, step = self._young.popleft()
            self._stages[stage]["step"] = step
        sent += self.sent
        self._record.parent.mkdir(parents=True, exist_ok=True)
        draft = self._record.with_name(f".{self._record.name}.draft")
        draft.write_text(json.dumps({"id": self.id, "sent": sent, "stages": self._stages}))
        os.replace(draft, self._record)
        self.sent = sent
