"""Plans for OGBench's tasks: what has to be done, in which order. None of it needs the package."""

import numpy as np
import pytest

from skild_ray.worlds.ogbench.goals import CubeTask, PuzzleTask, SceneTask, State, Task, task_of
from skild_ray.worlds.ogbench.lights_out import press, solve

TABLE, IN_CLOSED_DRAWER = (0.35, 0.05, 0.02), (0.33, -0.356, 0.066)


def scene(
    cube: tuple[float, float, float] = TABLE,
    buttons: tuple[int, int] = (0, 0),
    drawer: float = 0.0,
    window: float = 0.0,
) -> dict:  # type: ignore[type-arg]
    return {"block_xyzs": np.array([cube]), "button_states": buttons, "drawer_pos": drawer, "window_pos": window}


def scene_task(first: dict, goal: dict) -> Task:  # type: ignore[type-arg]
    return task_of("scene", {"init": first, "goal": goal})


def cubes(*places: tuple[float, float, float]) -> State:
    return {f"privileged/block_{index}_pos": np.array(place) for index, place in enumerate(places)}


def test_what_is_locked_is_unlocked_first_and_locked_again() -> None:
    task = scene_task(scene(drawer=-0.16, window=0.2), scene())
    assert task.subtasks == (
        *("unlock drawer", "close drawer", "lock drawer"),
        *("unlock window", "close window", "lock window"),
    )
    assert scene_task(scene(buttons=(1, 1)), scene(buttons=(1, 1), drawer=-0.16)).subtasks == ("open drawer",)
    assert scene_task(scene(buttons=(1, 1)), scene(buttons=(1, 0))).subtasks == ("lock window",)


def test_a_cube_gets_into_an_open_drawer() -> None:
    task = scene_task(scene(), scene(IN_CLOSED_DRAWER, buttons=(1, 0)))
    assert isinstance(task, SceneTask)
    assert task.subtasks == ("unlock drawer", "open drawer", "cube in drawer", "close drawer")

    def todo(**changes: object) -> list[str]:
        now = scene_state(**changes)
        return [goal.name for goal in task.plan(now)]

    assert todo(buttons=(1, 0), drawer=-0.16) == ["cube in drawer", "close drawer"]
    assert todo(cube=(0.33, -0.24, 0.066), buttons=(1, 0), drawer=-0.16) == ["close drawer"]
    assert todo(cube=(0.33, -0.24, 0.2), buttons=(1, 0), drawer=-0.16)[0] == "cube in drawer", "it is above it"
    assert todo(cube=IN_CLOSED_DRAWER, buttons=(1, 0)) == []
    assert todo(cube=IN_CLOSED_DRAWER) == ["unlock drawer"], "pressed too often"


def scene_state(**changes: object) -> State:
    described = scene(**changes)  # type: ignore[arg-type]
    return cubes(*described["block_xyzs"]) | {  # type: ignore[operator]
        "button_states": described["button_states"],
        "privileged/drawer_pos": [described["drawer_pos"]],
        "privileged/window_pos": [described["window_pos"]],
    }


def test_cubes_in_each_others_way_are_put_aside_or_stacked_from_below() -> None:
    a, b, on_a = (0.425, -0.1, 0.02), (0.425, 0.1, 0.02), (0.425, -0.1, 0.06)
    assert CubeTask(cubes(a, b), cubes(a, (0.5, 0.2, 0.02))).subtasks == ("blue cube in place",)
    assert CubeTask(cubes(a), cubes(b)).subtasks == ("cube in place",)
    swap = CubeTask(cubes(a, b), cubes(b, a))
    assert swap.subtasks == ("blue cube aside", "red cube in place", "blue cube in place")
    for place, is_aside in ((b, False), ((0.5, 0.2, 0.2), False), ((0.5, 0.2, 0.02), True)):
        assert swap.is_solved(0, cubes(a, place)) == is_aside
    stack = CubeTask(cubes((0.5, 0.2, 0.02), b), cubes(on_a, a))
    assert stack.subtasks == ("blue cube in place", "red cube in place"), "the lower one first"
    unstack = CubeTask(cubes(a, on_a), cubes(b, a))
    assert unstack.subtasks == ("blue cube aside", "red cube in place", "blue cube in place")


def test_lights_out_takes_the_fewest_presses() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        lights, goal = rng.integers(0, 2, (2, 3, 3))
        presses = solve(lights, goal)
        for button in presses:
            press(lights, *divmod(button, 3))
        assert np.array_equal(lights, goal) and len(set(presses)) == len(presses)
    blank = np.zeros((4, 4), int)
    cross = blank.copy()
    press(cross, 1, 2)
    assert solve(blank, cross) == (6,), "though sixteen sets of presses do it on four by four"
    corner = blank.copy()
    corner[0, 0] = 1
    with pytest.raises(ValueError, match="no presses"):
        solve(blank, corner)


def test_presses_count_in_any_order() -> None:
    first = np.zeros((3, 3), int)
    goal = first.copy()
    for button in (0, 4, 8):
        press(goal, *divmod(button, 3))
    task = PuzzleTask({"button_states": first.ravel()}, {"button_states": goal.ravel()}, columns=3)
    assert task.subtasks == ("2 presses left", "1 press left", "all lights")
    now = first.copy()
    press(now, 2, 2)
    state = {"button_states": now.ravel()}
    assert [task.is_solved(index, state) for index in range(3)] == [True, False, False]
    assert [goal.name for goal in task.plan(state)] == ["button 0", "button 4"]
    press(now, 2, 0)
    assert not task.is_solved(0, {"button_states": now.ravel()}), "a wrong button costs two"
