"""The page of a benchmark: protocol, tables with every seed, figures; all of it from the list of cells."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skild_ray.benchmark import figures
from skild_ray.benchmark.results import CellResult, require_comparable
from skild_ray.benchmark.suite import TUNING_EVALUATION_SEED, TUNING_SEEDS
from skild_ray.benchmark.table import Table
from skild_ray.evaluation import aggregates
from skild_ray.evaluation.aggregates import Runs
from skild_ray.report.comparison import better, over_seeds, reached, with_interval
from skild_ray.runs.artifacts import writable


def write_page(cells: Sequence[CellResult], folder: Path, name: str) -> Path:
    """Write `<name>.md` and its figures, `<name>_*.svg`, into a folder; the path of the page.

    Raises:
        ArtifactError: there are no cells, they cannot be compared, or the files cannot be written.
    """
    path = folder / f"{name}.md"
    require_comparable(cells, path)
    table = Table(cells)
    parts = [f"# Benchmark {name}", _introduction(table), "## Protocol", _protocol(table)]
    drawn = figures.draw(table)
    if table.complete:
        parts += ["## Over all worlds", _overview(table)]
    with writable(path):
        folder.mkdir(parents=True, exist_ok=True)
        for figure in drawn:
            file = folder / f"{name}_{figure.name}.svg"
            file.write_text(figure.svg, encoding="utf-8")
            parts.append(f"![{figure.description}]({file.name})\n\n{figure.caption}")
        parts += [part for world in table.worlds for part in (f"## {world}", _world(table, world))]
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _introduction(table: Table) -> str:
    return (
        f"{_count(len(table.methods), 'method')} in {_count(len(table.worlds), 'world')}, "
        f"{_count(len(table.cells), 'cell')}. A score is the share of a world's sub-tasks that an episode solves; in a "
        "world with a single task it is success."
    )


def _protocol(table: Table) -> str:
    seeds = ", ".join(str(seed) for seed in sorted({cell.seed for cell in table.cells}))
    first = table.cells[0]
    budgets = {world: max(cell.env_steps for cell in table.cells if cell.world == world) for world in table.worlds}
    trained = ", ".join(f"{world} {steps:,}" for world, steps in budgets.items() if steps)
    return "\n".join(
        [
            f"* Hyper-parameters were chosen on the training seeds {TUNING_SEEDS[0]} to {TUNING_SEEDS[-1]} and "
            f"evaluation seed {TUNING_EVALUATION_SEED}. Reported are the training seeds {seeds} and evaluation seed "
            f"{first.evaluation_seed}, each run once.",
            "* All methods that learn in an environment have the same budget of env steps there"
            + (f" (trained for at most: {trained})." if trained else "."),
            f"* The policy that training ends with is evaluated over {first.episodes} episodes, deterministic (by its "
            "mean) and sampled. The best checkpoint is never picked.",
            "* Brackets are 95 % percentile bootstrap intervals over seeds, within each world where several are "
            "aggregated. They need three seeds that differ.",
        ]
    )


def _overview(table: Table) -> str:
    reference = table.complete[0]
    names = ["method", "IQM, deterministic", "IQM, sampled", f"better than {reference}", "regret", "reach 80 %", "runs"]
    rows = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    against = table.runs(reference)
    for method in table.complete:
        runs = table.runs(method)
        assert runs is not None and against is not None
        curves = [curve for world in table.worlds for curve in table.curves(world, method)]
        at_level = sum(aggregates.steps_to(*curve) is not None for curve in curves)
        row = [
            method,
            _iqm(runs),
            _iqm(table.runs(method, sampled=True)),
            "" if method == reference else better(runs, against),
            f"{np.mean([aggregates.regret(*curve) for curve in curves]):.2f}" if curves else "",
            f"{at_level} of {len(curves)}" if curves else "",
            str(sum(map(len, runs))),
        ]
        rows.append(f"| {' | '.join(row)} |")
    lines = [
        "IQM is the interquartile mean of the scores of all worlds and seeds. A method is better than "
        f"{reference} with the probability that, in the mean of the worlds, a run of it has the higher deterministic "
        "score; equal ones count half. Regret is the area above the learning curve as a share of the budget, and 80 % "
        "is reached where the curve is that high once.",
        "\n".join(rows),
    ]
    if missing := [method for method in table.methods if method not in table.complete]:
        lacks = (f"{method} ({', '.join(w for w in table.worlds if not table.of(w, method))})" for method in missing)
        lines.append(f"Left out here and in the figures of all worlds, for want of cells: {'; '.join(lacks)}.")
    return "\n\n".join(lines)


def _iqm(runs: Runs | None) -> str:
    if runs is None:
        return ""
    return with_interval(float(aggregates.iqm(runs)), aggregates.interval(aggregates.iqm, runs))


def _world(table: Table, world: str) -> str:
    names = ["method", "score, deterministic", "score, sampled", "success", "steps to 80 %", "regret", "seeds"]
    rows = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for method in table.methods:
        if not (cells := table.of(world, method)):
            continue
        curves = table.curves(world, method)
        success = [cell.success_deterministic for cell in cells]
        sampled = [cell.success_sampled for cell in cells if cell.success_sampled is not None]
        row = [
            method,
            over_seeds([cell.score_deterministic for cell in cells]),
            over_seeds(scores) if (scores := [s for cell in cells if (s := cell.score_sampled) is not None]) else "",
            f"{np.mean(success):.2f}" + (f", {np.mean(sampled):.2f}" if sampled else ""),
            ", ".join(map(reached, curves)),
            f"{np.mean([aggregates.regret(*curve) for curve in curves]):.2f}" if curves else "",
            ", ".join(str(cell.seed) for cell in cells),
        ]
        rows.append(f"| {' | '.join(row)} |")
    head = (
        "Mean over the seeds and, in square brackets, each of them in the order of the last column. Success: "
        "deterministic, sampled."
    )
    return f"{head}\n\n" + "\n".join(rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
