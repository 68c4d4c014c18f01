"""An evaluation as tables in a terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from skild_ray.evaluation.results import Evaluation, Summary
from skild_ray.evaluation.statistics import in_words

LOG_WIDTH = 170


def show(evaluation: Evaluation) -> None:
    """Print the summaries as tables."""
    labelled = evaluation.labelled
    several = bool(evaluation.trained.deterministic.subtasks)
    table = Table("policy", "success", "return", *(["sub-tasks"] if several else []), "env steps an episode", "trained")
    for label, summary in labelled:
        solved = [in_words(summary.subtasks_mean, summary.subtasks_ci95)] if several else []
        table.add_row(
            label,
            in_words(summary.success_rate, summary.success_ci95),
            in_words(summary.return_mean, summary.return_ci95),
            *solved,
            f"{summary.episode_length_mean:.0f}",
            f"{summary.env_steps_trained:,} env steps",
        )
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print(
        f"{evaluation.episodes} episodes each, seed {evaluation.seed}; brackets are 95 % intervals. Training starts "
        "from the initial policy; skill BC is the posterior with its own sigma."
    )
    console.print(table)
    if several:
        console.print(_subtask_table(labelled))


def _subtask_table(labelled: Sequence[tuple[str, Summary]]) -> Table:
    """Completion rate of each sub-task (rows) by each policy (columns), with its 95 % interval."""
    table = Table("completed in order", *(label for label, _ in labelled))
    for rates in zip(*(summary.subtasks for _, summary in labelled), strict=True):
        table.add_row(rates[0].name, *(in_words(subtask.rate, subtask.ci95) for subtask in rates))
    return table
