"""Which sub-tasks of OGBench's manipulation are solved, told from observations alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skild_ray.worlds.ogbench.goals import COLOURS, LOCKS, TOLERANCE_M, State, Task

ARM, CUBE, BUTTON, SLIDE = 19, 9, 4, 2
"""Numbers of an observation that tell of the arm, and of each cube, button, and drawer or window, in this order."""
CENTRE = np.array([0.425, 0.0, 0.0])
SCALE = {"cube": 10.0, "drawer": 18.0, "window": 15.0}
"""Observations have lengths in m times these numbers, of cubes from CENTRE."""


def solved(task: Task, goal: State, observations: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """For each sub-task whether it is solved in the observations [T, d]: bool [T].

    As `OGBenchEnv` credits them: success, of all conditions together, is the last one, and solves the others, too.

    Args:
        task: names the sub-tasks.
        goal: its last state.
        observations: of the environment with the objects of that state.

    Raises:
        ValueError: observations have other dimensions.
    """
    relevant = _relevant(goal, observations)
    rows, inverse = np.unique(relevant, axis=0, return_inverse=True)  # buttons have few states, and are slow to judge
    states = [_state(goal, row) for row in rows]
    success = np.array([_is_reached(goal, state) for state in states], bool)
    told = {
        name: np.array([task.is_solved(index, state) for state in states], bool) | success
        for index, name in enumerate(task.subtasks[:-1])
    }
    return {name: flags[inverse] for name, flags in (told | {task.subtasks[-1]: success}).items()}


def _cubes(goal: State) -> list[str]:
    names = (f"privileged/block_{cube}_pos" for cube in range(len(COLOURS)))
    return [name for name in names if name in goal]


def _slides(goal: State) -> list[str]:
    return [thing for thing in LOCKS if f"privileged/{thing}_pos" in goal]


def _relevant(goal: State, observations: NDArray[Any]) -> NDArray[np.float64]:
    """Positions of all cubes in m, states of all buttons, positions of drawer and window in m, [T, n]."""
    cubes, buttons, slides = len(_cubes(goal)), len(goal.get("button_states", ())), _slides(goal)
    first_button = ARM + CUBE * cubes
    first_slide = first_button + BUTTON * buttons
    dimensions = first_slide + SLIDE * len(slides)
    if observations.shape[-1] != dimensions:
        raise ValueError(f"observations have {observations.shape[-1]} dimensions, this task's have {dimensions}")
    values = np.asarray(observations, np.float64)
    places = (values[:, ARM + CUBE * cube : ARM + CUBE * cube + 3] / SCALE["cube"] + CENTRE for cube in range(cubes))
    # A button's state is one-hot.
    pressed = (values[:, first_button + BUTTON * button + 1, None].round() for button in range(buttons))
    moved = (values[:, first_slide + SLIDE * index, None] / SCALE[thing] for index, thing in enumerate(slides))
    return np.concatenate([*places, *pressed, *moved], axis=1)


def _state(goal: State, row: NDArray[np.float64]) -> State:
    """The part of an info that goals look at, of a row of `_relevant`."""
    cubes, buttons, slides = _cubes(goal), len(goal.get("button_states", ())), _slides(goal)
    after = 3 * len(cubes)
    state: dict[str, Any] = {name: row[3 * index : 3 * index + 3] for index, name in enumerate(cubes)}
    if buttons:
        state["button_states"] = row[after : after + buttons].astype(np.int64)
    positions = row[after + buttons :, None]
    return state | {f"privileged/{thing}_pos": position for thing, position in zip(slides, positions, strict=True)}


def _is_reached(goal: State, state: State) -> bool:
    """OGBench's success."""
    buttons = np.array_equal(state.get("button_states", ()), goal.get("button_states", ()))
    names = [name for name in goal if name != "button_states"]
    return buttons and all(np.linalg.norm(state[name] - np.asarray(goal[name])) <= TOLERANCE_M for name in names)
