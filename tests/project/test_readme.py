"""What the README tells to type or to write exists and is accepted."""

import re
import shlex
from pathlib import Path
from typing import get_args

import click
import pytest
import typer

from skild_ray.algorithms.skild.reference_settings import Quirk
from skild_ray.benchmark.suite import load_benchmark
from skild_ray.cli import app
from skild_ray.config import load_experiment
from skild_ray.tune.sweep import load_sweep

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[list[str]]:
    """Arguments of each use of `program` in the shell blocks."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[line.index(program) + 1 :] for line in words if program in line]


@pytest.mark.parametrize("arguments", commands("skild-ray"), ids=" ".join)
def test_command_parses(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    command: click.Command = typer.main.get_command(app)
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.get_command(click.Context(command), name)
        assert found is not None, name
        command = found
    command.make_context(command.name, arguments)
    for word in arguments:
        if word.startswith("experiments/"):
            load_experiment(word)
        if word.startswith("tune_configs/"):
            load_sweep(word)
        if word.startswith("benchmarks/learning/"):
            load_benchmark(word)


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    assert {line[0] for line in commands("make")} == {"demo", "test"}
    for target in ("demo", "test", "venv"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("arguments", commands("python"), ids=" ".join)
def test_benchmarks_exist(arguments: list[str]) -> None:
    option, module = arguments[:2]
    assert option == "-m"
    assert (REPOSITORY / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("text", blocks("yaml"))
def test_experiments_and_sweeps_are_valid(text: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    place = rf"\g<1>{REPOSITORY}/experiments/"
    file.write_text(re.sub(r'^( *(?:extends|experiment): "?)', place, text, flags=re.MULTILINE))
    if "\nspace:" in text:
        load_sweep(file)
    elif "\nworlds:" in text:
        benchmark = load_benchmark(file)
        assert all(benchmark.experiment_of("maze", method) for method in benchmark.methods)
    else:
        load_experiment(file)


def test_every_quirk_is_explained() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) >= set(get_args(Quirk))
