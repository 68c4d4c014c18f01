"""The command line. It parses, calls and prints; everything else is elsewhere."""

import contextlib
import io
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from skild_ray.config import load_experiment
from skild_ray.data_commands import Overrides, data_app
from skild_ray.errors import ConfigError, SkildError
from skild_ray.interruption import Interrupted, end_at_once, interrupted, raising_on_signals
from skild_ray.log import show_lines
from skild_ray.runs.folder import run_folder
from skild_ray.stages import OFFLINE, command_name

HELP = "SkiLD: demonstration-guided reinforcement learning with learned skills, on Ray."

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")

File = Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="experiment file, such as experiments/maze.yaml")]
Force = Annotated[
    bool, typer.Option("--force", help="replace a finished stage that was made otherwise, and what was made from it")
]


def _at_home(text: str) -> Path:
    """A path as it was typed; shells do not expand the `~` of `--json=~/results.json`."""
    return Path(os.path.expanduser(text))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"skild_ray {version('skild_ray')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    stage: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(map(command_name, OFFLINE))}, or the experiment's last stage: demo-rl, imitation, or the "
            "type of its algorithm; the stage's inputs must be finished"
        ),
    ],
    experiment: File,
    overrides: Overrides = None,
    force: Force = False,
) -> None:
    """Train one stage, or reuse its artifact where nothing it was made from has changed.

    `imitation` is `demo-rl` without the environment's reward: the file's algorithm.env_reward_weight must be 0.
    """
    from skild_ray.pipeline import Run
    from skild_ray.runs.lock import locked
    from skild_ray.tracking import Tracking

    loaded = load_experiment(experiment, overrides or ())
    with locked(run_folder(loaded)), Tracking.of(loaded) as tracking:
        Run(loaded, tracking=tracking, force=force).train(stage.replace("-", "_"))


@app.command()
def pipeline(experiment: File, overrides: Overrides = None, force: Force = False) -> None:
    """Run everything an experiment needs: data, all stages, the final evaluation and the report.

    What is finished and still fits is reused; what was interrupted resumes where it stopped.
    """
    from skild_ray.evaluation.tables import show
    from skild_ray.pipeline import run_pipeline

    finished = run_pipeline(load_experiment(experiment, overrides or ()), force=force)
    show(finished.results)
    print(f"report: {finished.report}")


@app.command()
def tune(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="sweep file, such as tune_configs/maze_asha.yaml")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="override a key of the sweep (samples=8) or of its experiment (algorithm.n_step=4); repeatable",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a sweep that was stopped or killed")] = False,
) -> None:
    """Search settings: many trials of an experiment, which share the offline stages that they have in common.

    At the end: the trials ranked, a plot of them, and the best one as an experiment file.
    """
    from skild_ray.tune.results import show, write_best
    from skild_ray.tune.run import run_sweep
    from skild_ray.tune.sweep import load_sweep
    from skild_ray.tune.sweep_page import write_page

    loaded = load_sweep(sweep, overrides or ())
    ranking = run_sweep(loaded, resume)
    show(loaded, ranking)
    print(f"plot: {write_page(loaded, ranking)}")
    best = write_best(loaded, ranking)
    if best is None:
        raise SkildError(f"no trial has a result; what is wrong with each is in the table above ({loaded.folder})")
    print(f"best: {best}")


@app.command()
def benchmark(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="BENCHMARK",
            help="benchmark file, such as benchmarks/learning/core.yaml; or results (.json), whose page is drawn again",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="override a key of the benchmark (concurrent=4) or of all experiments (rollout.num_env_runners=2); "
            "repeatable",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE[,...]",
            help="these cells alone: world=maze,method=BC,seed=10; of one key, any; repeatable",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list the cells and which are finished; run nothing")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=_at_home,
            metavar="FOLDER",
            help="folder of results and page  [default: the benchmark's, or the file's]",
        ),
    ] = None,
) -> None:
    """Compare methods: every method in every world with every seed, each cell a run, with statistics over all of them.

    What is finished stays as it is; the same command resumes what was stopped. A cell that fails does not end the
    others.
    """
    from skild_ray.benchmark.page import write_page
    from skild_ray.benchmark.results import finished, read_results, state, unfinished, write_results
    from skild_ray.benchmark.suite import load_benchmark, read_only

    if target.suffix == ".json":
        print(f"page: {write_page(read_results(target), out or target.parent, target.stem)}")
        return
    loaded = load_benchmark(target, overrides or ())
    cells = loaded.cells(read_only(only or ()))
    left = unfinished(cells)
    if dry_run:
        for cell in cells:
            print(f"{cell}: {state(cell)}")
        print(f"{len(cells) - len(left)} of {len(cells)} cells are finished")
        return
    from skild_ray.benchmark.run import run_benchmark

    failures = run_benchmark(loaded, cells)
    if results := finished(loaded):
        folder = out or loaded.folder
        write_results(results, folder / f"{loaded.name}.json")
        print(f"page: {write_page(results, folder, loaded.name)}")
    if failures:
        first, why = next(iter(failures.items()))
        raise SkildError(
            f"{len(failures)} of {len(cells)} cells failed, {first} first: {why}; the same command tries them again"
        )


@app.command()
def evaluate(
    target: Annotated[Path, typer.Argument(metavar="CHECKPOINT_OR_RUN", help="run, stage-4 artifact or checkpoint")],
    episodes: Annotated[int, typer.Option(min=1, help="episodes, once deterministic and once sampled")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="seed of the episodes")] = 1000,
    json_file: Annotated[
        Path | None, typer.Option("--json", parser=_at_home, metavar="FILE", help="write the results here")
    ] = None,
    video: Annotated[int, typer.Option(min=0, help="deterministic episodes to film, into `videos` beside --json")] = 0,
) -> None:
    """Play complete episodes: success, return and sub-tasks with 95 % confidence intervals."""
    from skild_ray.evaluation.evaluate import evaluate_target
    from skild_ray.evaluation.tables import show

    if json_file:
        _require_place("--json", json_file)
    results = evaluate_target(target, episodes, seed, video, json_file.parent if json_file else Path())
    show(results)
    if json_file:
        content = json.dumps(results.to_json(), indent=2)
        try:
            json_file.write_text(content)
        except OSError as error:
            print(content)
            raise SkildError(f"--json {json_file}: cannot write ({error.strerror}); the results are above") from None


@app.command()
def report(run: Annotated[Path, typer.Argument(help="folder of a run, such as runs/maze")]) -> None:
    """Write one self-contained page on a run: what was run, the curves of every stage, what the agent does."""
    from skild_ray.report.run_page import write_report

    print(f"report: {write_report(run)}")


@app.command()
def compare(
    methods: Annotated[
        list[str], typer.Argument(metavar="NAME=RUN[,RUN...]", help="a method and its finished runs, one a seed")
    ],
    out: Annotated[Path, typer.Option(parser=_at_home, metavar="FILE.svg", help="SVG file to write the figure to")],
    before: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RUN[,RUN...]",
            help="a method before RL: the policy that the training of these runs started from; repeatable",
        ),
    ] = None,
    skill_bc: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RUN[,RUN...]",
            help="skill behavioural cloning, no RL: the posterior of these runs with its own sigma; repeatable",
        ),
    ] = None,
) -> None:
    """Draw the learning curves of several methods in one figure, and print their final evaluations as a table.

    What reinforcement learning adds to a method is its row less that of --before.
    """
    from skild_ray.report.comparison import compare, read_method

    if out.suffix.lower() != ".svg":
        raise ConfigError(f"--out {out}: the figure is written as SVG; name it {out.with_suffix('.svg')}")
    _require_place("--out", out)
    found = [read_method(text) for text in methods]
    found += [read_method(text, "initial") for text in before or ()]
    found += [read_method(text, "posterior") for text in skill_bc or ()]
    print(compare(found, out))
    print(f"\nfigure: {out}")


def _require_place(option: str, file: Path) -> None:
    """Raise ConfigError unless a file can be written, before the work is done that it is to hold."""
    if file.is_dir():
        raise ConfigError(f"{option} {file}: that is a folder; name a file in it")
    if not file.parent.is_dir():
        raise ConfigError(f"{option} {file}: there is no folder {file.parent}")
    if file.exists() and not file.is_file():
        return  # such as /dev/stdout
    probe = file.with_name(f".{file.name}.draft")
    try:
        with (file if file.exists() else probe).open("ab"):
            pass
        probe.write_bytes(bytes(2**16))
    except OSError as error:
        raise ConfigError(f"{option} {file}: cannot write there ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def main() -> None:
    """Entry point: errors meant for people, and signals, become one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the letter shows another
    show_lines()
    with raising_on_signals():
        try:
            try:
                app()
            finally:
                sys.stdout.flush()
        except SkildError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except OSError as error:
            if not _output_fails():
                raise
            if not isinstance(error, BrokenPipeError):  # whoever reads has seen enough, as `head` has
                print(f"error: cannot write to standard output ({error.strerror})", file=sys.stderr)
            sys.exit(1)
        except (Interrupted, SystemError) as error:
            interruption = interrupted(error)
            if interruption is None:
                raise
            end_at_once()
            print(f"error: {interruption}", file=sys.stderr, flush=True)
            if "ray" in sys.modules:
                sys.modules["ray"].shutdown()  # here: threads that wait for it would complain at the program's exit
            sys.exit(128 + interruption.number)


def _output_fails() -> bool:
    """Whether nothing can be printed any more; what is left is thrown away then, or Python would try it at the end."""
    try:
        print(flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


if __name__ == "__main__":
    main()
