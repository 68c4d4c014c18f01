"""The cells of a benchmark as a table of methods and worlds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skild_ray.benchmark.results import CellResult
from skild_ray.evaluation import aggregates
from skild_ray.evaluation.aggregates import Runs, Scores

Curves = list[tuple[Scores, Scores]]


@dataclass(frozen=True)
class Table:
    """The cells by world and method, both in the order in which they first appear.

    Aggregates are over methods that have a cell of every world: over different worlds they could not be compared.
    """

    cells: Sequence[CellResult]

    @property
    def worlds(self) -> list[str]:
        return list(dict.fromkeys(cell.world for cell in self.cells))

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def complete(self) -> list[str]:
        """The methods that have a cell of every world."""
        return [method for method in self.methods if all(self.of(world, method) for world in self.worlds)]

    def of(self, world: str, method: str) -> list[CellResult]:
        """A cell for each seed."""
        return [cell for cell in self.cells if (cell.world, cell.method) == (world, method)]

    def runs(self, method: str, sampled: bool = False) -> Runs | None:
        """The scores of a method, an array a world; None if there are none."""
        scores = [
            [(cell.score_sampled if sampled else cell.score_deterministic) for cell in self.of(world, method)]
            for world in self.worlds
        ]
        if any(score is None for world in scores for score in world):
            return None
        return aggregates.checked([np.array(world, np.float64) for world in scores])

    def curves(self, world: str, method: str) -> Curves:
        """The learning curves of a method, env steps and scores; none where it learns nothing in the environment."""
        curves = [cell.curve for cell in self.of(world, method) if cell.curve.env_steps]
        return [(np.array(curve.env_steps, np.float64), np.array(curve.score)) for curve in curves]
