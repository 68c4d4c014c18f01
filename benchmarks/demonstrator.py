"""How reliably and how fast a world's scripted demonstrator solves its tasks, on one core.

    python -m benchmarks.demonstrator kitchen --episodes 100 --json demonstrator_kitchen.json

The kitchen: every sub-task alone, named tasks, and random orders of four, which are judged at two step limits. The
office: the fixed task and random ones. OGBench's worlds: tasks 1 to 5, within OGBench's limits.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measure import check_folder, run_command, write_json
from skild_ray.envs import make_env
from skild_ray.worlds import WORLDS
from skild_ray.worlds.expert import Expert
from skild_ray.worlds.kitchen.environment import PLAY, SUBTASKS
from skild_ray.worlds.named import load_expert

World = Literal["kitchen", "office", "scene", "cube-single", "cube-double", "puzzle-3x3"]

CHAINS = ("kbts", "mlsh", "mkls")
CHAIN_STEPS, PLAY_STEPS, OFFICE_STEPS = 280, 400, 350
OGBENCH_STEPS: dict[World, int] = {"scene": 750, "cube-single": 200, "cube-double": 500, "puzzle-3x3": 500}
# The tasks of each world by name: the environment's argument, and the step limits at which its episodes are judged.
TASKS: dict[World, dict[str, tuple[str | list[str], tuple[int, ...]]]] = {
    "kitchen": {
        **{name: ([name], (CHAIN_STEPS,)) for name in SUBTASKS},
        **{name: (name, (CHAIN_STEPS,)) for name in CHAINS},
        PLAY: (PLAY, (CHAIN_STEPS, PLAY_STEPS)),
    },
    "office": {name: (name, (OFFICE_STEPS,)) for name in ("fixed", "random")},
    **{
        world: {f"task{number}": (f"task{number}", (limit,)) for number in range(1, 6)}
        for world, limit in OGBENCH_STEPS.items()
    },
}


@dataclass(frozen=True)
class Outcome:
    """Of the episodes of one task.

    Attributes:
        task: what was to be solved.
        limit: env steps after which an episode counts as not solved.
        solved: share of the episodes.
        mean_steps: env steps of the solved ones; 0 where there are none.
        max_steps: of the longest solved one.
        unsolved_seeds: of the others.
    """

    task: str
    limit: int
    solved: float
    mean_steps: float
    max_steps: int
    unsolved_seeds: list[int]

    @classmethod
    def of(cls, task: str, limit: int, first_seed: int, steps: list[int | None]) -> "Outcome":
        """From the steps to the end of each episode, None where there was none."""
        in_time = [count for count in steps if count is not None and count <= limit]
        return cls(
            task,
            limit,
            len(in_time) / len(steps),
            float(np.mean(in_time)) if in_time else 0.0,
            max(in_time, default=0),
            [first_seed + i for i, count in enumerate(steps) if count is None or count > limit],
        )


def play(env: gym.Env, expert_type: type[Expert], seed: int, action_noise: float) -> tuple[int, bool]:
    """Steps of the episode that environment and expert get from a seed, and whether it is solved."""
    for_expert, for_noise = np.random.SeedSequence(seed).spawn(2)
    world: Any = env.unwrapped
    shape = (world.max_episode_steps, *world.action_space.shape)
    noise = action_noise * np.random.default_rng(for_noise).standard_normal(shape, np.float32)
    observation, _ = env.reset(seed=seed)
    expert = expert_type(env, np.random.default_rng(for_expert))
    expert.reset(observation)
    for step in range(len(noise)):
        observation, _, terminated, truncated, info = env.step(expert.act(observation) + noise[step])
        if terminated or truncated:
            break
    return step + 1, info["subtasks_solved"] == len(world.subtasks)


def measure(
    world: World, episodes: int, first_seed: int = 0, action_noise: float = 0.0, only: str | None = None
) -> dict[str, object]:
    """Outcomes of every task of a world, or `only` one; and env steps a second of it all."""
    outcomes, env_steps, started = [], 0, time.perf_counter()
    expert_type = load_expert(next(iter(WORLDS[world].experts)))
    for name, (task, limits) in TASKS[world].items():
        if only not in (None, name):
            continue
        env = make_env(WORLDS[world].environment, {"task": task, "max_episode_steps": max(limits)})
        played = [play(env, expert_type, first_seed + index, action_noise) for index in range(episodes)]
        env.close()
        env_steps += sum(steps for steps, _ in played)
        steps = [count if solved else None for count, solved in played]
        outcomes += [Outcome.of(name, limit, first_seed, steps) for limit in limits]
    return {
        "world": world,
        "episodes": episodes,
        "first_seed": first_seed,
        "action_noise": action_noise,
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "env_steps_per_s": env_steps / (time.perf_counter() - started),
    }


def show(results: dict[str, object]) -> None:
    """Print the outcomes."""
    table = Table("task", "within", "solved", "mean steps", "longest", "seeds not solved", title_justify="left")
    table.title = (
        f"{results['world']}: {results['episodes']} episodes each, {results['env_steps_per_s']:.0f} env steps/s"
    )
    outcomes: list[dict[str, object]] = results["outcomes"]  # type: ignore[assignment]
    for row in outcomes:
        unsolved = " ".join(map(str, row["unsolved_seeds"]))  # type: ignore[call-overload]
        solved, steps = f"{row['solved']:.0%}", f"{row['mean_steps']:.0f}"
        table.add_row(str(row["task"]), str(row["limit"]), solved, steps, str(row["max_steps"]), unsolved)
    Console().print(table)


def main(
    world: Annotated[World, typer.Argument(help="whose demonstrator")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the results here")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="of each task")] = 100,
    first_seed: Annotated[int, typer.Option(min=0, help="episodes have this seed and the following ones")] = 0,
    action_noise: Annotated[float, typer.Option(min=0, help="std of noise added to the executed actions")] = 0.0,
    task: Annotated[str | None, typer.Option(help="only this one of the world's tasks")] = None,
) -> None:
    """Let the demonstrator play and print how often and how fast it succeeds."""
    check_folder(json_file)
    if task not in (None, *TASKS[world]):
        raise typer.BadParameter(f"{task!r} is not one of {', '.join(TASKS[world])}")
    results = measure(world, episodes, first_seed, action_noise, task)
    show(results)
    if json_file:
        write_json(json_file, results)


if __name__ == "__main__":
    run_command(main)
