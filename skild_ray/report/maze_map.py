"""Maps of an environment with walls: where the agent was, and what its networks say there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import Circle
from numpy.typing import NDArray

from skild_ray.config import Environment
from skild_ray.envs import make_env
from skild_ray.report.figures import colour, new_axes, to_svg
from skild_ray.report.page import Markup
from skild_ray.worlds.maze.layout import CENTRE_OFFSET, wall_boxes

BINS_PER_CELL = 2
RESETS = 24
SMALL, LARGE = 2.7, 4.8
"""Widths of a map in inches."""
# Of middling lightness from end to end, so that no value vanishes on a light or on a dark page.
RAMP = ("#3f74e0", "#9a58c8", "#dd5a78", "#f0a030")
_COLOURS = LinearSegmentedColormap.from_list("ramp", RAMP)

Points = NDArray[np.float32]
Field = NDArray[np.float64]


@dataclass(frozen=True)
class MazeMap:
    """The plan of an environment whose observations begin with a position.

    Cell (i, j) of `walls` is the unit square around (i, j) + CENTRE_OFFSET; the first axis is x.
    """

    walls: NDArray[np.bool_]
    starts: Points
    """Positions [RESETS, 2] in which episodes begin."""
    target: tuple[float, float] | None
    """Its position, if it is the same in every episode."""
    target_radius: float

    @classmethod
    def of(cls, environment: Environment) -> "MazeMap | None":
        """The map of an environment, or None if it has no `walls`.

        Raises:
            ConfigError: the environment cannot be made.
        """
        env = make_env(environment.id, environment.arguments)
        try:
            plan: Any = env.unwrapped
            walls = getattr(plan, "walls", None)
            if not isinstance(walls, np.ndarray) or walls.ndim != 2:
                return None
            starts, targets = [], set()
            for seed in range(RESETS):
                starts.append(env.reset(seed=seed)[0][:2])
                targets.add(tuple(map(float, getattr(plan, "target", ()))))
            target = targets.pop() if len(targets) == 1 else ()
            radius = float(getattr(plan, "target_radius", 0.5))
            return cls(
                walls.astype(bool), np.array(starts), (target[0], target[1]) if len(target) == 2 else None, radius
            )
        finally:
            env.close()

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """x from, x to, y from, y to."""
        low = CENTRE_OFFSET - 0.5
        return low, low + self.walls.shape[0], low, low + self.walls.shape[1]

    def counts(self, positions: Points) -> Field:
        """Number of positions [N, 2] in every square of 1 / BINS_PER_CELL; axes x, y."""
        return self._histogram(positions, None)

    def means(self, positions: Points, values: NDArray[np.floating]) -> Field:
        """Mean of the values [N] in every square; NaN where there is none."""
        counts = self.counts(positions)
        sums = self._histogram(positions, values)
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)

    def squares(self) -> Points:
        """Centres [N, 2] of all squares."""
        squares = np.indices([size * BINS_PER_CELL for size in self.walls.shape]).reshape(2, -1).T
        return ((squares + 0.5) / BINS_PER_CELL + CENTRE_OFFSET - 0.5).astype(np.float32)

    def draw(
        self,
        name: str,
        description: str,
        field: Field,
        low: float,
        high: float,
        *,
        paths: Sequence[Points] = (),
        width: float = LARGE,
    ) -> Markup:
        """The map with a field in colours from `low` to `high` (NaN is left blank) and paths [T, 2] above it."""
        drawing, axes = new_axes(width, width * self.walls.shape[1] / self.walls.shape[0])
        axes.grid(False)
        pixels = _COLOURS(Normalize(low, high, clip=True)(np.nan_to_num(field, nan=low)))
        pixels[..., 3] = np.isfinite(field)
        axes.imshow(
            (pixels.swapaxes(0, 1) * 255).astype(np.uint8), extent=self.extent, origin="lower", interpolation="none"
        )
        corners = [[(i, j), (i_end, j), (i_end, j_end), (i, j_end)] for i, j, i_end, j_end in wall_boxes(self.walls)]
        boxes = np.array(corners) + CENTRE_OFFSET - 0.5
        axes.add_collection(PolyCollection(list(boxes), color=colour("--wall"), linewidth=0.2))
        for path in paths:
            axes.plot(path[:, 0], path[:, 1], color=colour("--mark"), linewidth=0.7, alpha=0.75)
        self._mark(axes)
        axes.set_xlim(*self.extent[:2])
        axes.set_ylim(*self.extent[2:])
        axes.set_aspect("equal")
        axes.set_xlabel("x (m)")
        axes.set_ylabel("y (m)")
        return to_svg(drawing, name, description)

    def _mark(self, axes: Axes) -> None:
        ink = colour("--mark")
        axes.plot(*self.starts.T, "o", markersize=2.2, markerfacecolor=colour("--paper"), markeredgecolor=ink, mew=0.5)
        if self.target is None:
            return
        x, y = self.starts[:, 0].mean(), self.starts[:, 1].max() + 0.7
        axes.text(x, y, "start", color=ink, ha="center", va="bottom")
        axes.add_patch(Circle(self.target, self.target_radius, facecolor="none", edgecolor=ink, linewidth=1.3))
        x, y = self.target
        axes.text(x, y - self.target_radius - 0.7, "target", color=ink, ha="center", va="top")

    def _histogram(self, positions: Points, weights: NDArray[np.floating] | None) -> Field:
        x_from, x_to, y_from, y_to = self.extent
        return np.histogram2d(
            positions[:, 0],
            positions[:, 1],
            bins=[size * BINS_PER_CELL for size in self.walls.shape],
            range=[[x_from, x_to], [y_from, y_to]],
            weights=weights,
        )[0]
