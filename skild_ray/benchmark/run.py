"""Runs the cells of a benchmark on Ray, as many at a time as the cluster holds, and goes on where it was stopped.

A cell is a run: what is finished of it is reused, and its training resumes from its last checkpoint. So nothing has to
be kept of the benchmark itself, and cells may be added to it or chosen one by one.
"""

import contextlib
import functools
import logging
import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from queue import Empty, Queue

import ray
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from skild_ray.algorithms.registry import last_stage
from skild_ray.benchmark.cell import cell_resources, run_cell
from skild_ray.benchmark.results import CellResult, unfinished
from skild_ray.benchmark.stages import SharedStages
from skild_ray.benchmark.suite import Benchmark, Cell
from skild_ray.cluster import connect
from skild_ray.errors import reason
from skild_ray.interruption import Interrupted, interrupted
from skild_ray.pipeline import Run
from skild_ray.resources import Request, Waiting, check, downstream_requests
from skild_ray.runs.folder import WORK_FOLDER
from skild_ray.runs.lock import locked
from skild_ray.stages import in_words
from skild_ray.tracking.files import read_rows

logger = logging.getLogger(__name__)

OFFLINE_FOLDER, FAILURE_FILE = "offline", "failure.txt"
LOST_WORKERS = 3
"""Times a cell is begun again after its process or node was lost; a failure of the cell itself is final."""
LINE_INTERVAL_S = 60.0


def run_benchmark(benchmark: Benchmark, cells: Sequence[Cell]) -> dict[str, str]:
    """Run those of the cells that are not finished, with a line for each in the log.

    Everything is in `runs/<benchmark>`: `offline/` the stages that cells share, `cells/` a run for each cell, with its
    result. A cell that fails does not end the others.

    Returns:
        Why cells failed, by their names.

    Raises:
        ConfigError: see `unfinished`.
        ArtifactError: see `unfinished`.
        SkildError: another process works on the benchmark, or this machine cannot hold one of the cells.
        Interrupted: SIGTERM or Ctrl-C ended it.
    """
    left = unfinished(cells)
    logger.info(f"{benchmark.name}: {len(cells) - len(left)} of {len(cells)} cells are finished already")
    if not left:
        return {}
    with locked(benchmark.folder):
        try:
            connect()
            return _run(benchmark, left)
        except (Interrupted, SystemError) as error:
            message = f"{benchmark.folder}: stopped; the same command resumes it"
            raise interrupted(error, message) or error from None


def _run(benchmark: Benchmark, cells: Sequence[Cell]) -> dict[str, str]:
    largest = min(cells, key=_fitting)
    check(f"a cell ({largest})", _requests(largest))
    failures: dict[str, str] = {}
    with Waiting(f"a cell ({largest})", _requests(largest), started=True):
        crew = Crew(benchmark, cells, benchmark.concurrent or max(1, _fitting(largest)))
        for number in range(1, len(cells) + 1):
            cell, outcome = crew.next()
            if isinstance(outcome, str):
                failures[str(cell)] = outcome
                logger.warning(f"[{number}/{len(cells)}] {cell}: failed: {outcome}")
            else:
                logger.info(f"[{number}/{len(cells)}] {cell}: {outcome}")
    return failures


def _requests(cell: Cell) -> list[Request]:
    """What a cell asks for: its own process, and those that it starts."""
    own = Request("cells", "concurrent", 1, {"CPU": 1.0})
    return [own] if cell.tapes else [own, *downstream_requests(cell.experiment)]


def _fitting(cell: Cell) -> int:
    """How many cells like this one the cluster holds at a time."""
    needed: Counter[str] = Counter()
    for request in _requests(cell):
        needed.update({kind: request.processes * amount for kind, amount in request.each.items()})
    has = ray.cluster_resources()
    return min(int(has.get(kind, 0.0) // amount) for kind, amount in needed.items() if amount)


class Crew:
    """Threads that take the cells in turn. Each lets Ray train what its cell needs, and then the cell.

    The offline stages are no part of a cell's process: one that waits for its skills would hold the cores that they
    need to be trained.

    Args:
        benchmark: which the cells are of.
        cells: to run.
        size: cells at a time.
    """

    def __init__(self, benchmark: Benchmark, cells: Sequence[Cell], size: int) -> None:
        self._stages = SharedStages(benchmark.folder / OFFLINE_FOLDER)
        self._data = threading.Lock()  # two threads must not make the same data set
        self._left: Queue[Cell] = Queue()
        self._over: Queue[tuple[Cell, CellResult | str]] = Queue()
        self._running: list[Cell] = []
        for cell in cells:
            self._left.put(cell)
        for _ in range(min(size, len(cells))):
            # They must not keep a benchmark that is interrupted from ending; what they leave behind is resumed.
            threading.Thread(target=self._work, daemon=True).start()

    def next(self) -> tuple[Cell, CellResult | str]:
        """The next cell that is over, with its result, or the reason why it failed. Says meanwhile what is running."""
        while True:
            try:
                return self._over.get(timeout=LINE_INTERVAL_S)
            except Empty:
                running = "; ".join(f"{cell}{progress(cell)}" for cell in [*self._running])
                logger.info(f"running: {running}; {self._left.qsize()} cells wait")

    def _work(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                cell = self._left.get_nowait()
                self._running.append(cell)
                outcome = self._attempt(cell)
                self._running.remove(cell)
                self._over.put((cell, outcome))

    def _attempt(self, cell: Cell) -> CellResult | str:
        failure = cell.folder / FAILURE_FILE
        try:
            failure.unlink(missing_ok=True)
            if not cell.tapes:
                self._prepare(cell)
            return _run_on_ray(cell)
        except Exception as error:
            with contextlib.suppress(OSError):
                cell.folder.mkdir(parents=True, exist_ok=True)
                failure.write_text(traceback.format_exc())
            return reason(error)

    def _prepare(self, cell: Cell) -> None:
        """Put the offline stages into the cell's run, and make the data that stage 4 learns from directly."""
        run = Run(cell.experiment, functools.partial(_log, cell), force=True)
        for stage in last_stage(cell.experiment).inputs:
            with self._data:
                made_from = run.fingerprint(stage)
            self._stages.provide(run, stage, made_from)
        with self._data:
            run.direct_data()


def _log(cell: Cell, line: str) -> None:
    logger.info(f"{cell}: {line}")


def _run_on_ray(cell: Cell) -> CellResult:
    """`run_cell` in a process of its own, which has its place together with those that it starts."""
    resources = cell_resources(cell)
    group, (first, *_) = resources.to_placement_group(), resources.bundles
    placed = PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )
    task = ray.remote(
        num_cpus=first.get("CPU", 0), num_gpus=first.get("GPU", 0), max_calls=1, max_retries=LOST_WORKERS
    )(run_cell)
    try:
        result: CellResult = ray.get(task.options(scheduling_strategy=placed).remote(cell))
        return result
    finally:
        remove_placement_group(group)


def progress(cell: Cell) -> str:
    """What of a running cell is being trained, and how far it is: ', demo rl at 12,000 env steps'."""
    with contextlib.suppress(OSError, ValueError, IndexError):  # it is being written, or not begun
        newest = max(cell.folder.glob(f"{WORK_FOLDER}/*"), key=lambda folder: folder.stat().st_mtime)
        step, value = next(iter(read_rows(newest)[-1].items()))
        return f", {in_words(newest.name.rpartition('-')[0])} at {value:,.0f} {in_words(step)}"
    return ""
