"""`python -m benchmarks.demonstrator`, with one episode a task."""

import pytest

from benchmarks.demonstrator import Outcome, World, measure, show
from skild_ray.worlds.kitchen.environment import SUBTASKS

EXPECTED: dict[World, list[tuple[str, int]]] = {
    "kitchen": [*((task, 280) for task in [*SUBTASKS, "kbts", "mlsh", "mkls", "play"]), ("play", 400)],
    "office": [("fixed", 350), ("random", 350)],
}


@pytest.mark.parametrize("world", EXPECTED)
def test_every_task_is_played(world: World) -> None:
    results = measure(world, episodes=1, first_seed=3)
    outcomes: list[dict[str, object]] = results["outcomes"]  # type: ignore[assignment]
    assert [(row["task"], row["limit"]) for row in outcomes] == EXPECTED[world]
    assert all(row["solved"] in (0.0, 1.0) and row["max_steps"] == row["mean_steps"] for row in outcomes)
    assert results["env_steps_per_s"] > 0  # type: ignore[operator]
    show(results)


def test_episodes_count_up_to_the_limit() -> None:
    outcome = Outcome.of("play", 280, 10, [100, 280, 281, None])
    assert (outcome.solved, outcome.mean_steps, outcome.max_steps) == (0.5, 190.0, 280)
    assert outcome.unsolved_seeds == [12, 13]
    assert Outcome.of("play", 280, 0, [None]).mean_steps == 0.0
