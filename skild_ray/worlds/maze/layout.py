"""The grid of the maze: how it is made, and where its cells lie in the world.

A position p = (x, y) is what the environment observes: the point's two joint coordinates, in metres, as in D4RL's
point maze. The first axis of the grid is x, the second y, and cell (i, j) is the unit square centred at
(i - 0.2, j - 0.2): D4RL puts the centre of cell (i, j) at (i + 1, j + 1) and the origin of the point at (1.2, 1.2).
"""

from collections import deque
from functools import cache

import numpy as np
from numpy.typing import NDArray

SIZE = 40
CENTRE_OFFSET = -0.2
Cell = tuple[int, int]
MIN_WALL_FRACTION = 0.25


def cell_of(x: float, y: float) -> Cell:
    """The cell that contains the position (x, y)."""
    return round(x - CENTRE_OFFSET), round(y - CENTRE_OFFSET)


@cache
def maze_walls(seed: int = 0) -> NDArray[np.bool_]:
    """Walls of the random maze, bool [42, 42], read-only: SIZE x SIZE cells and a border.

    Straight walls, 12 to 19 cells long and each with a door, are added until a quarter of the cells is wall. Where a
    wall goes is drawn from softmax(-20 m), m the share of wall cells within two cells of it. The cells diagonal to the
    door become walls, so that it cannot be built over without being seen. Seed 0 is the maze of the SkiLD paper.
    """
    rng = np.random.default_rng(seed)
    inner = np.zeros((SIZE, SIZE), dtype=bool)
    while inner.mean() < MIN_WALL_FRACTION:
        _add_wall(inner, rng)
    walls = np.pad(inner, 1, constant_values=True)
    walls.setflags(write=False)
    return walls


def _add_wall(inner: NDArray[np.bool_], rng: np.random.Generator) -> None:
    along_x = rng.random() < 0.5
    length = int((0.3 + 0.2 * rng.random()) * SIZE)
    door = rng.integers(1, length - 1)
    # A wall along x is drawn as one along y in the transposed grid, but its place is drawn in the grid's own order.
    grid = inner.T if along_x else inner
    density = np.lib.stride_tricks.sliding_window_view(grid, (5, length)).mean(axis=(2, 3))
    weights = np.exp(-20.0 * (density.T if along_x else density))
    place = np.unravel_index(rng.choice(weights.size, p=(weights / weights.sum()).ravel()), weights.shape)
    row, column = place[::-1] if along_x else place
    row += 2
    grid[row, column : column + length] = True
    grid[row, column + door] = False
    for row_step in (-1, 1):
        for column_step in (-1, 1):
            grid[row + row_step, column + door + column_step] = True


def wall_boxes(walls: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Disjoint rectangles (i, j, i_end, j_end) that cover the wall cells: long boxes instead of many unit ones.

    Fewer boxes make collision detection faster, and a point that slides along a wall meets no seams.
    """
    left = walls.copy()
    boxes = []
    for i, j in np.argwhere(walls):
        if not left[i, j]:
            continue
        i_end, j_end = i + 1, j + 1
        down, right = _run(left[i:, j]), _run(left[i, j:])
        if down > right:
            i_end = i + down
            while j_end < left.shape[1] and left[i:i_end, j_end].all():
                j_end += 1
        else:
            j_end = j + right
            while i_end < left.shape[0] and left[i_end, j:j_end].all():
                i_end += 1
        left[i:i_end, j:j_end] = False
        boxes.append((int(i), int(j), int(i_end), int(j_end)))
    return boxes


def _run(cells: NDArray[np.bool_]) -> int:
    """How many cells at the beginning are walls."""
    return len(cells) if cells.all() else int(np.argmin(cells))


def neighbours(cell: Cell) -> tuple[Cell, Cell, Cell, Cell]:
    """The four cells beside a cell."""
    i, j = cell
    return (i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)


def distances_to(goal: Cell, walls: NDArray[np.bool_]) -> dict[Cell, int]:
    """Steps from cell to cell on the shortest way to the goal, for every free cell from which there is one."""
    free = set(map(tuple, np.argwhere(~walls).tolist()))
    distances = {goal: 0}
    queue = deque([goal])
    while queue:
        cell = queue.popleft()
        for other in neighbours(cell):
            if other in free and other not in distances:
                distances[other] = distances[cell] + 1
                queue.append(other)
    return distances


def touches_wall(walls: NDArray[np.bool_], x: float, y: float, radius: float) -> bool:
    """Whether the disc of that radius (at most half a cell) around (x, y) reaches into a wall or out of the grid."""
    i, j = cell_of(x, y)
    for ni in (i - 1, i, i + 1):
        for nj in (j - 1, j, j + 1):
            if 0 <= ni < walls.shape[0] and 0 <= nj < walls.shape[1] and not walls[ni, nj]:
                continue
            # Distance from the disc's centre to the nearest point of that unit square.
            dx = max(abs(x - ni - CENTRE_OFFSET) - 0.5, 0.0)
            dy = max(abs(y - nj - CENTRE_OFFSET) - 0.5, 0.0)
            if dx * dx + dy * dy < radius * radius:
                return True
    return False
