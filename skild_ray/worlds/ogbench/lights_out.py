"""Lights Out: a pressed button flips its own light and those beside, above and below it."""

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Lights = NDArray[np.int64]


def press(lights: Lights, row: int, column: int) -> None:
    """Flip what a button flips, in place."""
    rows, columns = lights.shape
    for i, j in ((row, column), (row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
        if 0 <= i < rows and 0 <= j < columns:
            lights[i, j] ^= 1


def solve(lights: Lights, goal: Lights) -> tuple[int, ...]:
    """The fewest buttons, counted row by row from 0, that turn one pattern [rows, columns] into another.

    No button is pressed twice and the order does not matter. Presses in the first row leave no choice in the next ones:
    each must mend the light above it.

    Raises:
        ValueError: if no presses do.
    """
    return _solve((lights != goal).shape, tuple((lights != goal).ravel().tolist()))


@cache
def _solve(shape: tuple[int, int], wrong: tuple[bool, ...]) -> tuple[int, ...]:
    rows, columns = shape
    found: list[tuple[int, ...]] = []
    for first in product((0, 1), repeat=columns):
        left = np.array(wrong, np.int64).reshape(shape)
        presses: list[int] = []
        wanted = np.array(first)
        for row in range(rows):
            for column in np.flatnonzero(wanted).tolist():
                press(left, row, column)
                presses.append(row * columns + column)
            wanted = left[row].copy()
        if not left.any():
            found.append(tuple(presses))
    if not found:
        raise ValueError(f"no presses turn these lights of {rows} x {columns} into the others")
    return min(found, key=len)
