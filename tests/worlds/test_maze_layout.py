"""The maze's grid against the published map."""

import numpy as np
import pytest

from skild_ray.worlds.maze.layout import cell_of, distances_to, maze_walls, touches_wall, wall_boxes

# Rows are x, columns y.
PUBLISHED = """
##########################################
#..............#................#........#
#..#...........#...##.#.........#...#....#
#..#...#.......#.####.#########.#...#....#
#..#...#.......#...##.#.........#..###...#
#..#..###......#...#............#........#
#..#...........#...#.......#....#..###...#
#.###.###......#...##.#....#....#...#....#
#......#....#########.####.#....#...#....#
#.###..#.......#...##.#....#....#...#....#
#..#...#..#....#...#....S..#....#...#....#
#..#...#..#....#...#.......#....#.#.#....#
#..#...#..#...###..#..###########.###....#
#..#...#..#.......###......#....#.#.#....#
#..#...#..#...###..........#....#...#.#..#
#..#...#..#....#..###......#...###....#..#
#..#...#..#........#.#.#...#..........#..#
#..#.....#############.###.#...###....#..#
#.......T.#........#.#.#..###...#.....#..#
#.........#........#..................#..#
#........###.#............###.........#..#
#..........#.###########...#.........###.#
#...#....###.#.................#.........#
#...#.....#....................#.....###.#
#...#.....#....................#......#..#
##.##.....#...#................#......#..#
##.#################...........#......#..#
##.###...#.#################...#......#..#
#........#.#..#................#......#..#
#..###........#..#.#...........#......#..#
#...#.......######.###########.#......#..#
#...#.........#..#.#...........#.........#
#...#.........#....#.#.........#.........#
#...#.......########.#######..###........#
#...#........###...#.#...................#
#...#.........................###........#
#...#........###..........#.#..#.........#
#.......#.#...#..##########.####.........#
#.#######.###########.....#.#..#.........#
#.......#.#...#................#.........#
#..............................#.........#
##########################################
"""


def test_layout_is_the_published_one() -> None:
    rows = PUBLISHED.split()
    expected = np.array([[character == "#" for character in row] for row in rows])
    np.testing.assert_array_equal(maze_walls(), expected)
    assert rows[10][24] == "S"
    assert rows[18][8] == "T"


def test_other_seeds_are_other_mazes() -> None:
    walls = maze_walls(1)
    assert walls.shape == (42, 42)
    assert (walls != maze_walls()).any()
    assert walls[1:-1, 1:-1].mean() >= 0.25


def test_layout_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        maze_walls()[3, 3] = True


def test_boxes_cover_each_wall_cell_once() -> None:
    walls = maze_walls()
    covered = np.zeros(walls.shape, dtype=int)
    boxes = wall_boxes(walls)
    for i, j, i_end, j_end in boxes:
        covered[i:i_end, j:j_end] += 1
    np.testing.assert_array_equal(covered, walls)
    assert len(boxes) < walls.sum() / 4


def test_start_and_target_are_34_cells_apart() -> None:
    assert distances_to((18, 8), maze_walls())[10, 24] == 34


def test_distances_fall_by_one_towards_the_goal_and_leave_out_walls() -> None:
    walls = maze_walls()
    distances = distances_to((18, 8), walls)
    assert not any(walls[cell] for cell in distances)
    for (i, j), distance in distances.items():
        beside = [distances.get(cell) for cell in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))]
        assert min((d for d in beside if d is not None), default=None) == (distance - 1 if distance else 1)


@pytest.mark.parametrize(
    ("position", "cell"), [((9.8, 23.8), (10, 24)), ((10.29, 24.29), (10, 24)), ((9.31, 24.31), (10, 25))]
)
def test_cells_are_centred_a_fifth_below_their_index(position: tuple[float, float], cell: tuple[int, int]) -> None:
    assert cell_of(*position) == cell


def test_touching_a_wall() -> None:
    walls = maze_walls()
    # Cell (1, 1) is free, the border below it is a wall: it ends at 0.3 on both axes.
    assert not touches_wall(walls, 0.41, 0.41, 0.1)
    assert touches_wall(walls, 0.39, 0.8, 0.1)
    assert touches_wall(walls, 0.8, 0.39, 0.1)
    assert touches_wall(walls, 0.0, 0.0, 0.1)
    assert touches_wall(walls, -5.0, 80.0, 0.1)
