"""The command line's `skild-ray data`: make, convert and inspect data sets."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from skild_ray.errors import ConfigError

data_app = typer.Typer(no_args_is_help=True, help="Make, convert and inspect data sets.")

DataSet = Annotated[
    str,
    typer.Argument(
        metavar="DATA_SET",
        help="Minari id, or path of a data set in one of the formats that the README lists; module:attribute:path "
        "names another package's reader",
    ),
]
Keys = Annotated[
    str | None,
    typer.Option(
        "--observations", metavar="KEY,KEY", help="observations by their keys, side by side, such as 'ee_pos,object'"
    ),
]
Part = Annotated[str | None, typer.Option("--filter", help="only this part of the data set, such as robomimic's train")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a key, such as --set algorithm.alpha=0.5; repeatable"),
]


@data_app.command("generate")
def data_generate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="WORLD_OR_EXPERIMENT", help="a world (maze, kitchen, scene, ...), or an experiment file"
        ),
    ],
    play: Annotated[bool, typer.Option("--play", help="task-agnostic data of a world")] = False,
    task: Annotated[str | None, typer.Option(help="demonstrations of this task of a world, or of 'a,b,...'")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="episodes to keep  [default: the world's]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the episodes  [default: 0]")] = None,
    noise: Annotated[
        float | None, typer.Option(min=0, help="std of the noise on executed actions  [default: the world's]")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Minari id to write  [default: WORLD/play-v0, WORLD/TASK-v0]")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Make scripted data: play or demonstrations of a world, or what an experiment lacks.

    A world takes --set, too: --set environment.kwargs.rare=mlsh, for example, is an argument of its environment.
    """
    from skild_ray.generation.sources import generate_named
    from skild_ray.pipeline import Run
    from skild_ray.worlds import WORLDS
    from skild_ray.worlds.named import load_world_or_experiment

    experiment = load_world_or_experiment(target, overrides or ())
    if target not in WORLDS:
        if play or any(option is not None for option in (task, episodes, seed, noise, name)):
            raise ConfigError(f"{target}: an experiment says itself what to generate; change it with --set")
        Run(experiment).load_all()
        return
    if play == (task is not None):
        raise ConfigError(f"{target}: say what to generate, either --play or --task TASK")
    if seed is not None:
        experiment = experiment.model_copy(update={"seed": seed})
    wanted = _names(task) if task and "," in task else task
    made = generate_named(experiment, wanted, name=name, episodes=episodes, action_noise=noise)
    print(f"{made} is ready: skild-ray data info {made}")


@data_app.command("download")
def data_download(
    names: Annotated[list[str], typer.Argument(help="Minari ids, such as D4RL/kitchen/mixed-v2")],
) -> None:
    """Download data sets from Minari's hub, where they are not here yet."""
    from skild_ray.data.download import download

    for name in names:
        print(f"{name} {'is downloaded' if download(name) else 'is here already'}: skild-ray data info {name}")


@data_app.command("import")
def data_import(
    source: DataSet,
    name: Annotated[str, typer.Argument(help="Minari id to write, such as kitchen/teleop-v0")],
    target: Annotated[str, typer.Argument(metavar="WORLD_OR_EXPERIMENT", help="whose environment fixes the layout")],
    observations: Keys = None,
    part: Part = None,
    overrides: Overrides = None,
) -> None:
    """Convert a data set to the layout of an environment and store it with Minari."""
    from skild_ray.data.formats import Stored
    from skild_ray.data.importing import import_dataset
    from skild_ray.envs import make_env
    from skild_ray.generation.sources import with_measured_bounds
    from skild_ray.worlds.named import load_world_or_experiment

    wanted = Stored(source, _keys(observations), part)
    environment = load_world_or_experiment(target, overrides or ()).environment
    if environment.actions.scale == "minmax":
        environment = with_measured_bounds(environment, {source: wanted})
    count = import_dataset(wanted, name, make_env(environment.id, environment.arguments))
    print(f"{count} episodes stored as {name}: skild-ray data info {name}")


@data_app.command("info")
def data_info(
    source: DataSet,
    select: Annotated[
        str | None,
        typer.Option(help="only the episodes with exactly this order of sub-tasks, such as 'kettle,microwave'"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--environment",
            metavar="WORLD_OR_EXPERIMENT",
            help="whose environment tells sub-tasks from states, if the data set does not name a world's",
        ),
    ] = None,
    observations: Keys = None,
    part: Part = None,
) -> None:
    """Say what a data set holds: sizes, ranges, and in which orders the episodes solve sub-tasks."""
    from skild_ray.data.formats import Stored
    from skild_ray.envs import make_env
    from skild_ray.generation.describe import describe_dataset, environment_of
    from skild_ray.generation.sources import with_measured_bounds
    from skild_ray.worlds.named import load_world_or_experiment

    wanted = Stored(source, _keys(observations), part)
    environment = load_world_or_experiment(target).environment if target else environment_of(source)
    if environment and environment.actions.scale == "minmax":
        environment = with_measured_bounds(environment, {source: wanted})
    env = make_env(environment.id, environment.arguments) if environment else None
    table = Table("", "", title=source, show_header=False)
    for label, value in describe_dataset(wanted, env, _names(select) if select else None):
        table.add_row(label, value)
    Console().print(table)


def _keys(text: str | None) -> tuple[str, ...] | None:
    return tuple(_names(text)) if text else None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
