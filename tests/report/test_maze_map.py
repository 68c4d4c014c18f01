import numpy as np
import pytest

from skild_ray.config import Environment
from skild_ray.report.maze_map import BINS_PER_CELL, MazeMap
from skild_ray.worlds.maze.environment import TARGET


@pytest.fixture(scope="module")
def maze() -> MazeMap:
    plan = MazeMap.of(Environment(id="skild_ray/Maze-v0"))
    assert plan is not None
    return plan


def test_environments_without_walls_have_no_map():
    assert MazeMap.of(Environment(id="MountainCarContinuous-v0")) is None


def test_the_target_is_marked_where_all_episodes_share_it(maze):
    assert maze.target == TARGET
    elsewhere = MazeMap.of(Environment(id="skild_ray/Maze-v0", kwargs={"task": "random"}))
    assert elsewhere is not None
    assert elsewhere.target is None


def test_counts_and_means_of_squares(maze):
    # Cell (10, 24) is centred at (9.8, 23.8), so its first square reaches from (9.3, 23.3) to (9.8, 23.8).
    positions = np.array([[9.4, 23.4], [9.7, 23.7], [9.9, 23.4]], np.float32)
    counts = maze.counts(positions)
    assert counts.shape == tuple(size * BINS_PER_CELL for size in maze.walls.shape)
    assert (counts[20, 48], counts[21, 48], counts.sum()) == (2, 1, 3)
    means = maze.means(positions, np.array([1.0, 3.0, 5.0]))
    assert (means[20, 48], means[21, 48]) == (2.0, 5.0)
    assert np.isnan(means).sum() == means.size - 2


def test_squares_cover_the_map_once(maze):
    assert (maze.counts(maze.squares()) == 1).all()


def test_drawings_embed_their_images_and_take_the_colours_of_the_page(maze):
    squares = maze.squares()
    svg = maze.draw("name", "a <map>", maze.means(squares, squares[:, 0]), 0, 40, paths=[squares[:5]])
    assert 'aria-label="a &lt;map&gt;"' in svg
    assert "data:image/png;base64," in svg
    assert "var(--wall)" in svg
    assert "start" in svg
    assert "target" in svg
    assert "#0102" not in svg
