"""Rates on a machine that is not quiet: short rounds in turn, medians, ratios."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from skild_ray.errors import ConfigError, SkildError

Rates = dict[str, float]
Measurement = Callable[[float], Rates]
"""Works for about the given number of seconds and returns one or more rates by name."""


def rate(work: Callable[[], int], seconds: float) -> float:
    """Units of work a second: calls `work`, which returns how many units it did, until `seconds` have passed."""
    done, elapsed, started = 0, 0.0, time.perf_counter()
    while elapsed < seconds:
        done += work()
        elapsed = time.perf_counter() - started
    return done / elapsed


def alternate(measurements: Sequence[Measurement], seconds: float, rounds: int) -> dict[str, list[float]]:
    """All rates of all rounds. Every round takes each measurement once, so that a disturbance does not hit only one.

    A short round before the first one, which is not counted, pays for everything that happens only once.
    """
    found: dict[str, list[float]] = {}
    for measurement in measurements:
        measurement(min(seconds, 0.5))
    for _ in range(rounds):
        for measurement in measurements:
            for name, value in measurement(seconds).items():
                found.setdefault(name, []).append(value)
    return found


def medians(rates: Mapping[str, Sequence[float]]) -> Rates:
    """The median of each."""
    return {name: statistics.median(values) for name, values in rates.items()}


def show_rates(title: str, labels: Mapping[str, str], rates: Mapping[str, Sequence[float]]) -> None:
    """Print median, lowest and highest round of the rates in `labels`, which says what each one is."""
    table = Table("", "median / s", "lowest", "highest", title=title, title_justify="left")
    for name, label in labels.items():
        if values := rates.get(name):
            table.add_row(label, *(f"{value:,.0f}" for value in (statistics.median(values), min(values), max(values))))
    Console().print(table)


def show_ratios(ratios: Mapping[str, float]) -> None:
    """Print ratios by what they are."""
    table = Table("ratio", "", title_justify="left")
    for label, value in ratios.items():
        table.add_row(label, f"{value:.3f}")
    Console().print(table)


def check_folder(path: Path | None) -> None:
    """Raise ConfigError if the results cannot be written to `path` because its folder does not exist."""
    if path and not path.parent.is_dir():
        raise ConfigError(f"--json {path}: there is no folder {path.parent}")


def write_json(path: Path, results: Mapping[str, object]) -> None:
    """Write the results; NaN and infinity are refused."""
    path.write_text(json.dumps(dict(results), indent=2, allow_nan=False) + "\n")


def cores() -> int:
    """Cores of this machine."""
    return os.cpu_count() or 1


def run_command(main: Callable[..., Any]) -> None:
    """Run `main` as a command line; errors meant for people become one line and an exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except SkildError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
