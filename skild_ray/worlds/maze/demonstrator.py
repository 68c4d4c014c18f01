"""A demonstrator for the maze: shortest path over the grid, followed by a PD controller."""

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.worlds.maze.layout import Cell, cell_of, distances_to, neighbours

POSITION_GAIN = 10.0
VELOCITY_GAIN = -1.0
WAYPOINT_RADIUS = 0.1
WAYPOINT_JITTER = 0.2


class MazeExpert:
    """Walks from cell to cell on a shortest path to the target's cell.

    Action: clip(10 (w - p) - v, -1, 1) with position p, velocity v and the current waypoint w, which is passed once p
    is within 0.1 of it. The waypoint of cell c is c - U(0, 0.2)^2, that of the last cell is the target itself. Which
    of several shortest paths is walked is drawn anew in every episode.

    Args:
        env: an environment with attributes `walls` (bool array) and `target` (position), as `MazeEnv` has them.
        rng: draws paths and waypoints.
    """

    def __init__(self, env: gym.Env, rng: np.random.Generator):
        self._env = env
        self._rng = rng
        self._distances: dict[Cell, dict[Cell, int]] = {}
        self._waypoints: list[tuple[float, float]] = []
        self._next = 0

    def reset(self, observation: NDArray[np.float32]) -> None:
        """Plan from where the point is."""
        x, y = map(float, self._env.get_wrapper_attr("target"))
        goal = cell_of(x, y)
        if goal not in self._distances:
            self._distances[goal] = distances_to(goal, self._env.get_wrapper_attr("walls"))
        distance = self._distances[goal]
        cell = cell_of(float(observation[0]), float(observation[1]))
        if cell not in distance:
            raise ValueError(f"no way leads from the cell {cell} to the target's cell {goal}")
        self._waypoints = []
        while cell != goal:
            closer = [other for other in neighbours(cell) if distance.get(other, distance[cell]) < distance[cell]]
            cell = closer[self._rng.integers(len(closer))]
            jitter_x, jitter_y = self._rng.uniform(0.0, WAYPOINT_JITTER, 2).tolist()
            self._waypoints.append((cell[0] - jitter_x, cell[1] - jitter_y))
        self._waypoints[-1:] = [(x, y)]
        self._next = 0

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """A PD step towards the current waypoint."""
        x, y, vx, vy = observation.tolist()
        wx, wy = self._waypoints[self._next]
        action = np.array(
            (
                min(max(POSITION_GAIN * (wx - x) + VELOCITY_GAIN * vx, -1.0), 1.0),
                min(max(POSITION_GAIN * (wy - y) + VELOCITY_GAIN * vy, -1.0), 1.0),
            ),
            np.float32,
        )
        near = (x - wx) * (x - wx) + (y - wy) * (y - wy) < WAYPOINT_RADIUS * WAYPOINT_RADIUS
        if near and self._next < len(self._waypoints) - 1:
            self._next += 1
        return action
