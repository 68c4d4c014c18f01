"""A stage's metrics as files: a table, JSON lines and TensorBoard events, complete after every row."""

import csv
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

TABLE_FILE, LINES_FILE, EVENTS = "metrics.csv", "metrics.jsonl", "events.out.tfevents.*"

MetricsRow = dict[str, float]
"""Metrics by name; the first is the step."""


class MetricFiles:
    """Files of one series of metrics in a folder.

        metrics.csv            the first column is the step; a value that a row lacks is left empty
        metrics.jsonl          the same, one JSON object a row
        events.out.tfevents.*  the same for TensorBoard

    Every row is handed to the operating system at once: a process that is killed loses none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: list[MetricsRow] = []
        self._names: list[str] = []
        self._lines: Any = None
        self._table: Any = None
        self._events: SummaryWriter | None = None

    def restart(self, rows: Sequence[MetricsRow]) -> None:
        """Replace whatever is there by these rows: those of the checkpoint that a run goes on from.

        Events that are there stay, as a TensorBoard that reads them would wait for more of them; new ones revoke them.
        """
        self._forget()
        now = time.time()
        for row in rows:  # as if they had been written when their stage was that many seconds old
            self._add(row, now - rows[-1].get("seconds", 0.0) + row.get("seconds", 0.0))
        self._flush()

    def add(self, row: MetricsRow) -> None:
        """Append a row; its first key is the step."""
        self._add(row, time.time())
        self._flush()

    def close(self) -> None:
        """Close the files and leave them there."""
        opened, self._lines, self._table, self._events = (self._lines, self._table, self._events), None, None, None
        for file in opened:
            if file:
                file.close()

    def remove(self) -> None:
        """Close and delete the files."""
        self._forget()
        for path in self.folder.glob(EVENTS):
            path.unlink()

    def _forget(self) -> None:
        self.close()
        self._rows, self._names = [], []
        for name in (TABLE_FILE, LINES_FILE):
            (self.folder / name).unlink(missing_ok=True)

    def _add(self, row: MetricsRow, wall_time: float) -> None:
        self._rows.append(row)
        new = [name for name in row if name not in self._names]
        self._names += new
        if new:
            self._rewrite_table()
        else:
            csv.DictWriter(self._table, self._names).writerow(row)
        if not self._lines:
            self._lines = (self.folder / LINES_FILE).open("a")
            self._events = SummaryWriter(str(self.folder), purge_step=0)  # revokes the events before it
        self._lines.write(json.dumps(row) + "\n")
        assert self._events is not None
        step, *names = row
        for name in names:
            self._events.add_scalar(name, row[name], int(row[step]), wall_time)

    def _rewrite_table(self) -> None:
        """The table with a wider head; who reads it meanwhile sees the old one or the new one."""
        path = self.folder / TABLE_FILE
        draft = path.with_name(f".{TABLE_FILE}.draft")
        if self._table:
            self._table.close()
        self._table = draft.open("w", newline="")
        writer = csv.DictWriter(self._table, self._names)
        writer.writeheader()
        writer.writerows(self._rows)
        self._table.flush()
        os.replace(draft, path)

    def _flush(self) -> None:
        for file in (self._table, self._lines, self._events):
            if file:
                file.flush()


def write_metrics(folder: Path, rows: Iterable[MetricsRow]) -> None:
    """Write a finished series into `folder`."""
    files = MetricFiles(folder)
    files.restart(list(rows))
    files.close()


def read_rows(folder: Path) -> list[MetricsRow]:
    """The rows of `folder`; none where it has no metrics."""
    path = folder / LINES_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
