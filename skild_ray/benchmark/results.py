"""What a benchmark found: a list of cells in one JSON file, from which everything else is drawn."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from skild_ray.benchmark.suite import Benchmark, Cell
from skild_ray.errors import ArtifactError, ConfigError
from skild_ray.report.curves import Metrics
from skild_ray.runs.artifacts import writable

MAX_POINTS = 200
"""Of a curve."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Curve(BaseModel, frozen=True):
    """Training episodes over env steps: running means over the last ones, of the sampled policy. Empty if none."""

    env_steps: list[int] = []
    score: list[Share] = []
    success: list[Share] = []

    @classmethod
    def of(cls, metrics: Metrics, subtasks: int) -> "Curve":
        """The rows with finished episodes among the metrics of stage 4, at most MAX_POINTS of them, evenly chosen.

        Args:
            metrics: by name; the table of the artifact.
            subtasks: what a full score is; 0 or 1 where success is the score.
        """
        if "success" not in metrics:
            return cls()
        rows = np.flatnonzero(np.isfinite(metrics["success"]))
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS)).astype(int))]
        success = metrics["success"][rows]
        score = metrics["subtasks_solved"][rows] / subtasks if subtasks > 1 else success
        return cls(
            env_steps=metrics["env_steps"][rows].astype(int).tolist(), score=score.tolist(), success=success.tolist()
        )


class CellResult(BaseModel, frozen=True):
    """A finished cell. A score is the share of the maximum: of the sub-tasks where there are several, else success."""

    world: str
    method: str
    seed: int
    env_steps: int = Field(ge=0, description="of training; 0 where nothing is learned in the environment")
    score_deterministic: Share
    score_sampled: Share | None
    """None if nothing is sampled."""
    success_deterministic: Share
    success_sampled: Share | None
    episodes: int = Field(gt=0, description="of each of the two final evaluations")
    evaluation_seed: int
    curve: Curve

    @property
    def name(self) -> str:
        return f"{self.world}/{self.method}/{self.seed}"

    def __str__(self) -> str:
        sampled = "" if self.score_sampled is None else f", sampled {self.score_sampled:.2f}"
        return f"score {self.score_deterministic:.2f}{sampled}, {self.env_steps:,} env steps"


def write_cell(cell: Cell, result: CellResult, evaluation: Mapping[str, Any]) -> None:
    """Keep a result in the cell's folder, with its whole evaluation and what it was made with; in one step.

    Raises:
        ArtifactError: it cannot be written.
    """
    content = result.model_dump(mode="json") | {"evaluation": evaluation, "settings": cell.settings}
    draft = cell.file.with_suffix(".draft")
    with writable(cell.file):
        cell.folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(content, indent=1))
        os.replace(draft, cell.file)


def read_cell(cell: Cell) -> CellResult | None:
    """The result of a cell, if it is finished.

    Raises:
        ArtifactError: the file is damaged.
    """
    if not cell.file.exists():
        return None
    return _validated(TypeAdapter(CellResult), cell.file, "delete it to run the cell again")


def require_same_settings(cell: Cell) -> None:
    """Raise ConfigError if a finished cell was made with other settings than it has now."""
    try:
        before: dict[str, Any] = json.loads(cell.file.read_text())["settings"]
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{cell.file}: damaged; delete it to run the cell again") from None
    now = cell.settings
    changed = [key for key in now | before if now.get(key) != before.get(key)]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{cell}: is finished, with {key} {before.get(key)}, not {now.get(key)}; give the benchmark another name "
            f"(--set name=...), or delete {cell.folder} to run it again"
        )


def unfinished(cells: Sequence[Cell]) -> list[Cell]:
    """Those of the cells that have no result yet.

    Raises:
        ConfigError: the experiment of a cell is missing or wrong, or a finished cell was made with another one.
        ArtifactError: a result is damaged.
    """
    left = []
    for cell in cells:
        if cell.experiment and read_cell(cell):
            require_same_settings(cell)
        else:
            left.append(cell)
    return left


def state(cell: Cell) -> str:
    """How far a cell is, in words."""
    if result := read_cell(cell):
        return f"finished, {result}"
    return "begun" if cell.folder.exists() else "not begun"


def finished(benchmark: Benchmark) -> list[CellResult]:
    """The results of all cells that are finished, in the order of the benchmark.

    Raises:
        ArtifactError: one is damaged.
    """
    return [result for cell in benchmark.cells() if (result := read_cell(cell))]


def write_results(results: Sequence[CellResult], path: Path) -> None:
    """The list of cells as JSON, a line each; the folder is made."""
    lines = ",\n".join(json.dumps(result.model_dump(mode="json"), allow_nan=False) for result in results)
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[\n{lines}\n]\n")


def read_results(path: Path) -> list[CellResult]:
    """The cells of a file of results, checked to be comparable.

    Raises:
        ArtifactError: it is missing or damaged, a number is NaN or out of range, a cell is there twice, or cells were
            evaluated on other episodes than the first.
    """
    results: list[CellResult] = _validated(TypeAdapter(list[CellResult]), path, "write it again: skild-ray benchmark")
    require_comparable(results, path)
    return results


def require_comparable(results: Sequence[CellResult], path: Path) -> None:
    """Raise ArtifactError if there are no cells, one is there twice, or they were not evaluated alike."""
    if not results:
        raise ArtifactError(f"{path}: no cell is finished, so there is nothing to draw")
    names = [result.name for result in results]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ArtifactError(f"{path}: {twice[0]} is there twice")
    for result in results:
        if (result.episodes, result.evaluation_seed) != (results[0].episodes, results[0].evaluation_seed):
            raise ArtifactError(
                f"{path}: {result.name} was evaluated over {result.episodes} episodes of seed "
                f"{result.evaluation_seed}, {results[0].name} over {results[0].episodes} of seed "
                f"{results[0].evaluation_seed}"
            )


def _validated(schema: TypeAdapter[Any], path: Path, remedy: str) -> Any:
    try:
        return schema.validate_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path}: cannot read it ({error.strerror})") from None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise ArtifactError(f"{path}: damaged at {place or 'its beginning'}: {problem['msg']}; {remedy}") from None
