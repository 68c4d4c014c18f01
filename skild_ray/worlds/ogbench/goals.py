"""What a task of OGBench's manipulation asks for, one object at a time.

A plan is a list of goals, in the order in which they have to be reached: a locked drawer is unlocked before it is
moved, and locked after that. It follows from the state and the task's goal state alone. The plan from a task's first
state gives its sub-tasks, and the one from the present state what a demonstrator does next.

States are read from OGBench's infos. Lengths are in m.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skild_ray.worlds.ogbench.lights_out import solve

State = Mapping[str, Any]
Vector = NDArray[np.float64]

TOLERANCE_M = 0.04
"""OGBench's: how far a cube, the drawer and the window may be from where they belong."""
CLOSELY_M = 0.02
"""How near to where they belong a plan moves drawer and window: fingers touch the front of a drawer left further in."""
UNLOCKED, LOCKED = 1, 0
LOCKS = {"drawer": 0, "window": 1}
"""The button that locks each."""
OPEN_M = {"drawer": -0.16, "window": 0.2}
DRAWER_CENTRE = np.array([0.33, -0.24, 0.066])
"""Where a cube lies in the open drawer."""
CUBE_M = 0.04
MAX_MOVES = 4
"""Of each cube in a plan: where cubes lie across each other's places there may be no end to clearing them."""
COLOURS = ("red", "blue", "orange", "green", "purple", "yellow", "magenta", "gray")
"""Of the cubes, in their order."""


@dataclass(frozen=True)
class Press:
    """Bring a button into a state, by pressing it."""

    name: str
    button: int
    state: int

    def is_reached(self, state: State) -> bool:
        """Whether it is so."""
        return bool(state["button_states"][self.button] == self.state)


@dataclass(frozen=True)
class Slide:
    """Move drawer or window, `thing`, to a position, which is 0 where it is closed."""

    name: str
    thing: str
    position: float

    def is_reached(self, state: State) -> bool:
        """Whether it is there."""
        return bool(abs(_position(state, self.thing) - self.position) <= TOLERANCE_M)


@dataclass(frozen=True)
class Place:
    """Put a cube somewhere, with the gripper."""

    name: str
    cube: int
    place: tuple[float, float, float]

    def is_reached(self, state: State) -> bool:
        """Whether it is there, by OGBench's criterion."""
        return bool(np.linalg.norm(_cube(state, self.cube) - self.place) <= TOLERANCE_M)


@dataclass(frozen=True)
class PutInDrawer(Place):
    """Put a cube into the open drawer."""

    def is_reached(self, state: State) -> bool:
        """Whether it lies in the drawer, wherever that is."""
        return _is_in_drawer(state, self.cube)


@dataclass(frozen=True)
class ClearPlace(Place):
    """Put a cube aside, at `place`, where another one belongs: at `occupied`."""

    occupied: tuple[float, float, float]

    def is_reached(self, state: State) -> bool:
        """Whether it has left the other one's place, and lies somewhere."""
        position = _cube(state, self.cube)
        return bool(np.linalg.norm((position - self.occupied)[:2]) > CUBE_M + 0.02 and position[2] < CUBE_M)


Goal = Press | Slide | Place


class Task(ABC):
    """A task of an OGBench environment.

    Attributes:
        subtasks: their names, in the order in which they count.
        conditions: how many OGBench's dense reward counts.
    """

    subtasks: tuple[str, ...]
    conditions: int

    @abstractmethod
    def is_solved(self, index: int, state: State) -> bool:
        """Whether the sub-task is solved in this state; the last one, which all conditions belong to, is OGBench's."""

    @abstractmethod
    def plan(self, state: State) -> list[Goal]:
        """What has to be done from this state on; empty where nothing remains."""


class ObjectsTask(Task):
    """A task whose sub-tasks are the goals of the plan from its first state.

    Args:
        first: the first state.
    """

    def __init__(self, first: State):
        self._goals = self.plan(first)
        self.subtasks = tuple(goal.name for goal in self._goals)

    def is_solved(self, index: int, state: State) -> bool:
        return self._goals[index].is_reached(state)


class SceneTask(ObjectsTask):
    """The scene: a cube, and a drawer and a window with a button each that locks it.

    Args:
        first: the first state.
        goal: the last one.
    """

    def __init__(self, first: State, goal: State):
        self._goal = goal
        self.conditions = 1 + 2 * len(LOCKS)
        super().__init__(first)

    def plan(self, state: State) -> list[Goal]:
        """The cube first, then drawer and window; what is locked is unlocked for it."""
        plan: list[Goal] = []
        buttons = list(state["button_states"])
        positions = {thing: _position(state, thing) for thing in LOCKS}
        place = tuple(_cube(self._goal, 0).tolist())

        def press(thing: str, wanted: int) -> None:
            if buttons[LOCKS[thing]] != wanted:
                plan.append(Press(f"{'unlock' if wanted == UNLOCKED else 'lock'} {thing}", LOCKS[thing], wanted))
                buttons[LOCKS[thing]] = wanted

        def slide(thing: str, wanted: float) -> None:
            if abs(positions[thing] - wanted) > CLOSELY_M:
                press(thing, UNLOCKED)
                plan.append(Slide(f"{'open' if wanted else 'close'} {thing}", thing, wanted))
                positions[thing] = wanted

        if place[2] > CUBE_M:  # off the table is in the drawer
            put = PutInDrawer("cube in drawer", 0, tuple(DRAWER_CENTRE.tolist()))
            if not put.is_reached(state):
                slide("drawer", OPEN_M["drawer"])
                plan.append(put)
        else:
            move = Place("move cube", 0, place)
            if not move.is_reached(state):
                plan.append(move)
        for thing, lock in LOCKS.items():
            slide(thing, _position(self._goal, thing))
            press(thing, self._goal["button_states"][lock])
        return plan


class CubeTask(ObjectsTask):
    """Cubes to be moved, swapped and stacked.

    Args:
        first: the first state.
        goal: the last one.
    """

    def __init__(self, first: State, goal: State):
        self._places = _cubes(goal)
        self.conditions = len(self._places)
        super().__init__(first)

    def plan(self, state: State) -> list[Goal]:
        """The lower places first; where cubes are in each other's way, one is put aside."""
        plan: list[Goal] = []
        at = _cubes(state)
        names = [f"{colour} cube" for colour in COLOURS[: len(at)]] if len(at) > 1 else ["cube"]
        for _ in range(MAX_MOVES * len(at)):
            pending = self._pending(at)
            if not pending:
                break
            in_the_way = {cube: _above(at, cube, self._places[cube], in_it=True) for cube in pending}
            ready = [
                cube
                for cube in pending
                if not (in_the_way[cube] or _above(at, cube, at[cube]) or self._lacks_support(pending, cube))
            ]
            if ready:
                cube, place = ready[0], self._places[ready[0]]
                plan.append(Place(f"{names[cube]} in place", cube, tuple(place.tolist())))
            else:
                first = pending[0]
                cube = max(in_the_way[first] or _above(at, first, at[first]), key=lambda other: at[other][2])
                place = self._free_place(at, cube)
                plan.append(ClearPlace(f"{names[cube]} aside", cube, tuple(place.tolist()), tuple(at[cube].tolist())))
            at[cube] = place
        return plan

    def _pending(self, at: Vector) -> list[int]:
        """The cubes that are not where they belong, those with the lower places first."""
        cubes = [cube for cube in range(len(at)) if np.linalg.norm(at[cube] - self._places[cube]) > TOLERANCE_M]
        return sorted(cubes, key=lambda cube: float(self._places[cube][2]))

    def _lacks_support(self, pending: list[int], cube: int) -> bool:
        """Whether a cube that belongs below it is not there yet."""
        return any(cube in _above(self._places, other, self._places[other]) for other in pending)

    def _free_place(self, at: Vector, cube: int) -> Vector:
        """The nearest place on the table with room around it that no cube has or wants."""
        taken = np.concatenate((np.delete(at, cube, 0), self._places))
        grid = np.array([(x, y, CUBE_M / 2) for x, y in product((0.35, 0.425, 0.5), np.linspace(-0.25, 0.25, 11))])
        room = np.linalg.norm(grid[:, None, :2] - taken[None, :, :2], axis=-1).min(1)
        wide = grid[room > min(0.09, float(room.max()) - 1e-9)]
        nearest: Vector = wide[np.linalg.norm(wide - at[cube], axis=-1).argmin()]
        return nearest


class PuzzleTask(Task):
    """Lights Out. A sub-task is solved when fewer presses remain than ever before: their order does not matter.

    Args:
        first: the first state.
        goal: the last one.
        columns: of the buttons.
    """

    def __init__(self, first: State, goal: State, columns: int):
        self._columns = columns
        self._goal = self._lights(goal)
        self.conditions = self._goal.size
        presses = len(self.plan(first))
        self.subtasks = tuple(f"{left} press{'es' * (left > 1)} left" for left in range(presses - 1, 0, -1))
        self.subtasks += ("all lights",)

    def is_solved(self, index: int, state: State) -> bool:
        return len(self.plan(state)) < len(self.subtasks) - index

    def plan(self, state: State) -> list[Goal]:
        """The fewest presses that remain, row by row."""
        pressed = 1 - np.asarray(state["button_states"])
        return [
            Press(f"button {button}", button, int(pressed[button])) for button in solve(self._lights(state), self._goal)
        ]

    def _lights(self, state: State) -> NDArray[np.int64]:
        return np.asarray(state["button_states"], np.int64).reshape(-1, self._columns)


class MazeTask(Task):
    """A maze: its goal, which OGBench judges."""

    subtasks = ("goal",)
    conditions = 1

    def is_solved(self, index: int, state: State) -> bool:
        return False

    def plan(self, state: State) -> list[Goal]:
        return []


def task_of(name: str, info: Mapping[str, Any]) -> Task:
    """The task that an entry of OGBench's `task_infos` describes.

    Args:
        name: of the environment, without its size: scene, cube, puzzle or one of the mazes.
        info: the entry.
    """
    family, _, size = name.partition("-")
    if family == "scene":
        return SceneTask(*ends_of(name, info))
    if family == "cube":
        return CubeTask(*ends_of(name, info))
    if family == "puzzle":
        return PuzzleTask(*ends_of(name, info), int(size.rpartition("x")[2]))
    return MazeTask()


def ends_of(name: str, info: Mapping[str, Any]) -> tuple[State, State]:
    """First and last state of a task of manipulation; arguments as for `task_of`."""
    if name.startswith("scene"):
        return _scene_state(info["init"]), _scene_state(info["goal"])
    if name.startswith("cube"):
        return _cube_state(info["init_xyzs"]), _cube_state(info["goal_xyzs"])
    first, goal = ({"button_states": info[f"{when}_button_states"]} for when in ("init", "goal"))
    return first, goal


def _scene_state(described: Mapping[str, Any]) -> State:
    return _cube_state(described["block_xyzs"]) | {
        "button_states": described["button_states"],
        "privileged/drawer_pos": [described["drawer_pos"]],
        "privileged/window_pos": [described["window_pos"]],
    }


def _cube_state(places: Vector) -> dict[str, Any]:
    return {f"privileged/block_{cube}_pos": np.array(place) for cube, place in enumerate(places)}


def _cube(state: State, cube: int) -> Vector:
    return np.asarray(state[f"privileged/block_{cube}_pos"])


def _cubes(state: State) -> Vector:
    count = sum(f"privileged/block_{cube}_pos" in state for cube in range(len(COLOURS)))
    return np.array([_cube(state, cube) for cube in range(count)])


def _position(state: State, thing: str) -> float:
    return float(state[f"privileged/{thing}_pos"][0])


def _is_in_drawer(state: State, cube: int) -> bool:
    """Whether a cube lies on the drawer's bottom, which moves away from the arm's side by how far it is closed."""
    shift = _position(state, "drawer") - OPEN_M["drawer"]
    x, y, z = np.abs(_cube(state, cube) - DRAWER_CENTRE - (0.0, -shift, 0.0))
    return bool(x < 0.1 and y < 0.07 and z < 0.02)


def _above(at: Vector, cube: int, place: Vector, in_it: bool = False) -> list[int]:
    """The other cubes above a place or, with `in_it`, in it, too."""
    lowest = place[2] + (-CUBE_M if in_it else CUBE_M) / 2
    return [
        other
        for other in range(len(at))
        if other != cube and at[other][2] > lowest and np.linalg.norm((at[other] - place)[:2]) < CUBE_M + 0.01
    ]
