"""The command line: what a mistake looks like, and what help there is."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
import ray.rllib  # noqa: F401  (its log handler keeps the stderr of its import, which must not be that of one test)
from pretrained import publish_pretrained, tiny_experiment
from typer.testing import CliRunner

from skild_ray import interruption as interruption_module
from skild_ray.cli import app, main
from skild_ray.config import Experiment, to_yaml
from skild_ray.generation.generate import dataset_id, generate
from skild_ray.interruption import Interrupted, Interruption, interrupted
from skild_ray.runs.folder import run_folder

COMMANDS = (
    *("data generate", "data download", "data import", "data info"),
    *("train", "pipeline", "tune", "benchmark", "evaluate", "report", "compare"),
)


class Outcome(NamedTuple):
    code: int
    error: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program with these arguments: exit code and standard error."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["skild-ray", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return Outcome(int(caught.value.code or 0), capsys.readouterr().err)

    return run


def _write(experiment: Experiment, folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(to_yaml(experiment))
    return path


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return tiny_experiment(tmp_path / "runs")


def _is_one_line(outcome: Outcome, code: int, *parts: object) -> None:
    assert outcome.code == code
    assert outcome.error.startswith("error: ")
    assert outcome.error.count("\n") == 1, outcome.error
    for part in parts:
        assert str(part) in outcome.error


@pytest.mark.parametrize("command", ["pipeline", "data generate", "train skill-prior"])
def test_unknown_key(run: Run, experiment: Experiment, tmp_path: Path, command: str) -> None:
    path = _write(experiment, tmp_path)
    outcome = run(*command.split(), path, "--set", "algorithm.alfa=1")
    _is_one_line(outcome, 2, path, "unknown key 'algorithm.alfa'", "'algorithm.alpha'")


def test_missing_experiment(run: Run, tmp_path: Path) -> None:
    _is_one_line(run("pipeline", tmp_path / "absent.yaml"), 2, "absent.yaml", "no such experiment file")


def test_missing_data_set(run: Run, tmp_path: Path, minari_root: Path) -> None:
    source = {"dataset": "tiny/absent-v0"}
    experiment = tiny_experiment(
        tmp_path, data={"task_agnostic": {"play": source}, "demonstrations": {"human": source}}
    )
    outcome = run("train", "skill-prior", _write(experiment, tmp_path))
    _is_one_line(outcome, 1, "data.task_agnostic.play", "tiny/absent-v0", minari_root)
    _is_one_line(run("data", "info", "tiny/absent-v0"), 1, "tiny/absent-v0")


def test_unknown_environment(run: Run, experiment: Experiment, tmp_path: Path) -> None:
    path = _write(experiment, tmp_path)
    _is_one_line(
        run("train", "skill-prior", path, "--set", "environment.id=skild_ray/Maize-v0"), 2, "skild_ray/Maze-v0"
    )


def test_neither_world_nor_experiment(run: Run) -> None:
    for command in (["data", "generate", "kitchn", "--play"], ["data", "import", "play.h5", "a/b-v0", "kitchn"]):
        _is_one_line(run(*command), 2, "'kitchn'", "maze, kitchen, office", "experiment file")


@pytest.mark.parametrize("options", [[], ["--play", "--task", "kbts"]])
def test_what_to_generate_in_a_world(run: Run, options: list[str]) -> None:
    _is_one_line(run("data", "generate", "kitchen", *options), 2, "kitchen", "--play", "--task")


def test_unknown_task_of_a_world(run: Run, minari_root: Path) -> None:
    _is_one_line(run("data", "generate", "maze", "--task", "home"), 2, "unknown maze task 'home'", "target, random")
    _is_one_line(run("data", "generate", "maze", "--play", "--set", "envronment.id=x"), 2, "'environment'")


def test_options_of_worlds_with_an_experiment(run: Run, experiment: Experiment, tmp_path: Path) -> None:
    path = _write(experiment, tmp_path)
    _is_one_line(run("data", "generate", path, "--seed", "0"), 2, path, "--set")


def test_missing_input_stage(run: Run, experiment: Experiment, tmp_path: Path) -> None:
    outcome = run("train", "demo-rl", _write(experiment, tmp_path))
    _is_one_line(outcome, 1, run_folder(experiment) / "skill_prior", "skild-ray train skill-prior")


def test_truncated_input(run: Run, experiment: Experiment, tmp_path: Path) -> None:
    model = publish_pretrained(experiment).skill_posterior.path / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-10])
    outcome = run("train", "demo-rl", _write(experiment, tmp_path))
    _is_one_line(outcome, 1, model, "truncated", "skild-ray train skill-posterior")


def test_posterior_of_another_prior(run: Run, experiment: Experiment, tmp_path: Path, ray_session: None) -> None:
    publish_pretrained(experiment)
    other = tiny_experiment(tmp_path / "other")
    publish_pretrained(other, seed=1)
    prior = run_folder(experiment) / "skill_prior"
    prior.rename(tmp_path / "old")
    (run_folder(other) / "skill_prior").rename(prior)
    outcome = run("train", "demo-rl", _write(experiment, tmp_path))
    _is_one_line(outcome, 1, "another skill_prior", "skild-ray train skill-posterior")


@pytest.mark.parametrize(("weight", "wrong"), [(0.9, "imitation"), (0.0, "demo-rl")])
def test_stage_that_the_experiment_does_not_have(
    run: Run, experiment: Experiment, tmp_path: Path, weight: float, wrong: str
) -> None:
    publish_pretrained(experiment)
    path = _write(experiment, tmp_path)
    outcome = run("train", wrong, path, "--set", f"algorithm.env_reward_weight={weight}")
    right = "demo-rl" if wrong == "imitation" else "imitation"
    _is_one_line(outcome, 2, f"no stage {wrong!r}", "algorithm.env_reward_weight is", f"skild-ray train {right}")


def test_an_algorithm_has_its_own_stage_and_settings(run: Run, experiment: Experiment, tmp_path: Path) -> None:
    path = _write(experiment, tmp_path)
    _is_one_line(run("train", "rlpd", path), 2, "no stage 'rlpd'", "train demo-rl")
    right, wrong = "algorithm={type: rlpd, hidden: 8}", "algorithm={type: rlpd, alpha: 8}"
    _is_one_line(run("train", "demo-rl", path, "--set", right), 2, "no stage 'demo-rl'", "train rlpd")
    _is_one_line(run("train", "rlpd", path, "--set", wrong), 2, "unknown key 'algorithm.alpha'")
    former = run("train", "rlpd", path, "--set", "sac.hidden=8")
    _is_one_line(former, 2, "'sac' is now written 'algorithm: {type: rlpd, ...}'")


def _generate(experiment: Experiment) -> None:
    source = experiment.data.task_agnostic["play"].generate
    assert source is not None
    generate(source, experiment.environment, experiment.seed)


@pytest.mark.parametrize("where", ["runs", "runs/tiny", "runs/tiny/.work"])
def test_unwritable_run_directory(
    run: Run, experiment: Experiment, tmp_path: Path, minari_root: Path, ray_session: None, where: str
) -> None:
    _generate(experiment)
    blocked = tmp_path / where
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file where a folder belongs")
    _is_one_line(run("train", "skill-prior", _write(experiment, tmp_path)), 1, "cannot write", blocked)


def test_horizon_longer_than_every_episode(
    run: Run, experiment: Experiment, tmp_path: Path, minari_root: Path, ray_session: None
) -> None:
    _generate(experiment)
    outcome = run("train", "skill-prior", _write(experiment, tmp_path), "--set", "skill.horizon=100")
    _is_one_line(outcome, 1, "horizon of 100")


def test_budget_below_one_fragment(run: Run, experiment: Experiment, tmp_path: Path, ray_session: None) -> None:
    publish_pretrained(experiment)
    outcome = run("train", "demo-rl", _write(experiment, tmp_path), "--set", "algorithm.total_env_steps=10")
    _is_one_line(outcome, 2, "algorithm.total_env_steps", 10)


def test_nothing_to_evaluate(run: Run, tmp_path: Path) -> None:
    _is_one_line(run("evaluate", tmp_path), 1, tmp_path)


@pytest.mark.parametrize(
    ("place", "reason"),
    [(".", "that is a folder"), ("absent/a.json", "there is no folder"), ("/proc/a.json", "cannot write there")],
)
def test_a_place_for_results_is_looked_at_first(run: Run, tmp_path: Path, place: str, reason: str) -> None:
    """What is to be evaluated is not there either, and is never looked for."""
    _is_one_line(run("evaluate", tmp_path, "--json", tmp_path / place), 2, f"--json {tmp_path / place}: {reason}")
    _is_one_line(run("compare", f"A={tmp_path}", "--out", tmp_path / "figure.png"), 2, "--out", "figure.svg")
    assert list(tmp_path.iterdir()) == []


def test_home_in_an_option(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _is_one_line(run("evaluate", tmp_path, "--json=~/absent/a.json"), 2, f"there is no folder {tmp_path}/absent")
    _is_one_line(run("evaluate", "~/absent"), 1, f"{tmp_path}/absent: neither")
    _is_one_line(run("report", "~/absent"), 1, f"{tmp_path}/absent: no finished stage")
    _is_one_line(run("compare", "A=~/a,~/b", "--out", "~/a.svg"), 1, f"{tmp_path}/a: no run")
    _is_one_line(run("tune", "~/absent.yaml"), 2, f"{tmp_path}/absent.yaml: no such sweep file")


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """Two episodes, in a folder whose name is not ASCII."""
    path = tmp_path / "ü" / "small.hdf5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        for name, width in (("observations", 3), ("actions", 2)):
            file[name] = np.zeros((20, width), np.float32)
        file["terminals"] = np.arange(20) % 10 == 9
    return path


def _program(*arguments: object, output: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own: its standard streams count."""
    return subprocess.run(
        [sys.executable, "-m", "skild_ray", *map(str, arguments)],
        env=os.environ | environment,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_output_that_cannot_be_written(data_file: Path) -> None:
    with open("/dev/full", "w") as full:
        done = _program("data", "info", data_file, output=full.fileno())
    assert (done.returncode, done.stderr) == (
        1,
        "error: cannot write to standard output (No space left on device)\n",
    )
    read, write = os.pipe()
    os.close(read)
    done = _program("data", "info", data_file, output=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, ""), "whoever reads has seen enough"


def test_letters_that_a_terminal_lacks(data_file: Path) -> None:
    done = _program("data", "info", data_file, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "?/small.hdf5" in done.stdout


def test_the_version(tmp_path: Path) -> None:
    """A file in the working directory does not stand in for Python's own."""
    (tmp_path / "random.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, "-m", "skild_ray", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"skild_ray {version('skild_ray')}\n"
    assert CliRunner().invoke(app, ["-h"]).output == CliRunner().invoke(app, ["--help"]).output


@pytest.mark.parametrize(
    "arguments", [["train", "skill-priors", "x.yaml"], ["evaluate", ".", "--episodes", "0"], ["nothing"]]
)
def test_wrong_usage(run: Run, arguments: Sequence[str]) -> None:
    assert run(*arguments).code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    description = [line for line in result.output.splitlines() if line.strip()][1]
    assert len(description.split()) > 4, result.output


def test_overview_names_every_command() -> None:
    output = CliRunner().invoke(app, ["--help"]).output + CliRunner().invoke(app, ["data", "--help"]).output
    for command in COMMANDS:
        assert command.split()[-1] in output


def test_info_of_a_generated_data_set(experiment: Experiment, minari_root: Path, ray_session: None) -> None:
    _generate(experiment)
    source = experiment.data.task_agnostic["play"].generate
    assert source is not None
    name = dataset_id(source, experiment.environment, experiment.seed)
    for options, order in (([], "orders"), (["--select", "goal"], f"{source.episodes} of {source.episodes}")):
        result = CliRunner().invoke(app, ["data", "info", name, *options])
        assert result.exit_code == 0
        assert str(source.episodes) in result.output and order in result.output


def test_maze_play_and_demonstrations(run: Run, minari_root: Path, ray_session: None) -> None:
    for options in (["--play", "--seed", "3"], ["--task", "target", "--noise", "0.1"]):
        result = CliRunner().invoke(app, ["data", "generate", "maze", *options, "--episodes", "2"])
        assert result.exit_code == 0, result.output
    shown = CliRunner().invoke(app, ["data", "info", "maze/target-v0"])
    assert "0-1 g" in shown.output
    _is_one_line(run("data", "generate", "maze", "--play", "--episodes", "2"), 1, "maze/play-v0", "minari delete")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_one_line(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Whatever the program is at: here it reads an experiment from a pipe to which nobody writes."""
    pipe, clock = tmp_path / "pipe.yaml", threading.Event()
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "skild_ray.cli", "pipeline", str(pipe)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.fspath(Path(__file__).parents[1])},
    )
    writer = None
    while writer is None and process.poll() is None:
        with contextlib.suppress(OSError):  # it has not opened it yet
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        clock.wait(0.02)
    process.send_signal(number)
    error = process.communicate()[1]
    _is_one_line(Outcome(process.returncode, error), code, f"stopped by {number.name}")


def test_the_first_signal_is_noted_and_the_second_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption_module, "_is_echo", interruption_module._Echo())  # no signal came before
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught, Interruption() as interruption:
        assert interruption.number is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.number == signal.SIGTERM
        monkeypatch.setattr(interruption_module, "ECHO_S", 0.0)
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.number == signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_signal_within_compiled_code_is_one_too() -> None:
    """Ray's raises a SystemError then."""
    error = SystemError("CoreWorker.wait returned a result with an exception set")
    assert interrupted(error) is None
    error.__cause__ = Interrupted(signal.SIGTERM)
    for origin in (error, error.__cause__):
        found = interrupted(origin, "stopped there")
        assert found is not None
        assert (found.number, str(found)) == (signal.SIGTERM, "stopped there")
        assert str(interrupted(origin)) == "stopped by SIGTERM"


def test_a_signal_while_data_are_made_leaves_none(experiment: Experiment, minari_root: Path, ray_session: None) -> None:
    source = experiment.data.task_agnostic["play"].generate
    assert source is not None

    def interrupt(done: int, wanted: int) -> None:
        if done == 2:
            raise Interrupted(signal.SIGTERM)  # as the handler does in the main thread

    name = dataset_id(source, experiment.environment, experiment.seed)
    with pytest.raises(Interrupted, match=f"{name}: stopped at 2 of 6 episodes; none of them is kept") as caught:
        generate(source, experiment.environment, experiment.seed, progress=interrupt)
    assert caught.value.number == signal.SIGTERM
    assert [path for path in (minari_root / name).parent.iterdir() if path.is_dir()] == []
