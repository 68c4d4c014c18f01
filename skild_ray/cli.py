"""The command line. It parses, calls and prints; everything else is elsewhere."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from skild_ray.config import load_experiment
from skild_ray.errors import ConfigError, SkildError

HELP = "SkiLD: demonstration-guided reinforcement learning with learned skills, on Ray."

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=HELP)
data_app = typer.Typer(no_args_is_help=True, help="Make, convert and inspect data sets.")
app.add_typer(data_app, name="data")

File = Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="experiment file, such as experiments/maze.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a key, such as --set algorithm.alpha=0.5; repeatable"),
]
Stage = Literal["skill-prior", "skill-posterior", "demo-discriminator", "demo-rl", "imitation"]


@data_app.command("generate")
def data_generate(experiment: File, overrides: Overrides = None) -> None:
    """Make the experiment's scripted data sets, where they do not exist yet."""
    from skild_ray.pipeline import Run

    Run(load_experiment(experiment, overrides or ())).load_all()


@data_app.command("import")
def data_import(
    source: Annotated[str, typer.Argument(help="Minari id, D4RL-style .hdf5 file, or folder of SPiRL-style .h5 files")],
    name: Annotated[str, typer.Argument(help="Minari id to write, such as kitchen/teleop-v0")],
    experiment: Annotated[Path, typer.Argument(help="experiment file whose environment fixes the layout")],
) -> None:
    """Convert a data set to the layout of an experiment's environment and store it with Minari."""
    from skild_ray.data.formats import import_dataset
    from skild_ray.envs import make_env

    environment = load_experiment(experiment).environment
    count = import_dataset(source, name, make_env(environment.id, environment.kwargs))
    print(f"{count} episodes stored as {name}; a last action whose outcome the source lacks was dropped")


@data_app.command("info")
def data_info(
    source: Annotated[str, typer.Argument(help="Minari id, D4RL-style .hdf5 file, or folder of SPiRL-style .h5 files")],
) -> None:
    """Say what a data set holds: episodes, lengths, dimensions, ranges."""
    from skild_ray.data.describe import describe_dataset

    table = Table("", "", title=source, show_header=False)
    for label, value in describe_dataset(source):
        table.add_row(label, value)
    Console().print(table)


@app.command()
def train(
    stage: Annotated[Stage, typer.Argument(help="the stage to train; its inputs must be finished")],
    experiment: File,
    overrides: Overrides = None,
) -> None:
    """Train one stage, or reuse its artifact where nothing it was made from has changed.

    `imitation` is `demo-rl` without the environment's reward: the file's algorithm.env_reward_weight must be 0.
    """
    from skild_ray.pipeline import Run

    Run(load_experiment(experiment, overrides or ())).train(stage.replace("-", "_"))


@app.command()
def pipeline(experiment: File, overrides: Overrides = None) -> None:
    """Run everything an experiment needs: data, all four stages, the final evaluation and the report.

    What is finished and still fits is reused; what was interrupted goes on where it stopped.
    """
    from skild_ray.evaluation.report import write_report
    from skild_ray.evaluation.results import evaluate_run, show
    from skild_ray.pipeline import Run

    loaded = load_experiment(experiment, overrides or ())
    artifact = Run(loaded).train_all()
    show(evaluate_run(artifact.path, loaded.evaluation.episodes, loaded.evaluation.seed))
    print(f"report: {write_report(loaded.run_dir)}")


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
    from skild_ray.tune.results import show, write_best, write_page
    from skild_ray.tune.run import run_sweep
    from skild_ray.tune.sweep import load_sweep

    loaded = load_sweep(sweep, overrides or ())
    ranking = run_sweep(loaded, resume)
    show(loaded, ranking)
    print(f"plot: {write_page(loaded, ranking)}")
    best = write_best(loaded, ranking)
    if best is None:
        raise SkildError(f"no trial has a result; what is wrong with each is in the table above ({loaded.folder})")
    print(f"best: {best}")


@app.command()
def evaluate(
    target: Annotated[Path, typer.Argument(metavar="CHECKPOINT_OR_RUN", help="run, stage-4 artifact or checkpoint")],
    episodes: Annotated[int, typer.Option(min=1, help="episodes, once deterministic and once sampled")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="seed of the episodes")] = 1000,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the results here")] = None,
) -> None:
    """Play complete episodes: success, return and sub-tasks with 95 % confidence intervals."""
    from skild_ray.evaluation.results import evaluate_target, show

    if json_file and not json_file.parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {json_file.parent}")
    results = evaluate_target(target, episodes, seed)
    show(results)
    if json_file:
        json_file.write_text(json.dumps(results, indent=2))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="folder of a run, such as runs/maze")]) -> None:
    """Write one self-contained page on a run: what was run, the curves of every stage, what the agent does."""
    from skild_ray.evaluation.report import write_report

    print(f"report: {write_report(run)}")


def main() -> None:
    """Entry point: errors meant for people become one line and an exit code."""
    try:
        app()
    except SkildError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
