"""What is drawn from the list of cells: all seeds, aggregates over worlds, text for those who see no figures."""

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from skild_ray.benchmark.page import write_page
from skild_ray.benchmark.results import MAX_POINTS, CellResult, Curve, read_results, write_results
from skild_ray.errors import ArtifactError

ARIA = "aria-label"


def cell(world: str, method: str, seed: int, score: float, curve: bool = True, **changes: Any) -> CellResult:
    rising = {"env_steps": [100, 1_000], "score": [0.0, score], "success": [0.0, score]}
    content = {
        "world": world,
        "method": method,
        "seed": seed,
        "env_steps": 1_000 if curve else 0,
        "score_deterministic": score,
        "score_sampled": score / 2,
        "success_deterministic": score / 4,
        "success_sampled": 0.0,
        "episodes": 50,
        "evaluation_seed": 2000,
        "curve": rising if curve else {},
    }
    return CellResult.model_validate(content | changes)


SCORES = {"SkiLD": (0.9, 1.0, 0.8), "RLPD": (0.2, 0.85, 0.3)}
CELLS = [cell(w, m, 10 + i, s) for w in ("maze", "office") for m, own in SCORES.items() for i, s in enumerate(own)]
TAPE = [cell(w, "tape", 10, 0.5, False, score_sampled=None, success_sampled=None) for w in ("maze", "office")]
SUPE = [cell("maze", "SUPE", 10, 0.4)]


def test_the_page_is_drawn_from_the_file(tmp_path: Path) -> None:
    write_results([*CELLS, *TAPE, *SUPE], tmp_path / "core.json")
    assert len(json.loads((tmp_path / "core.json").read_text())) == 15
    cells = read_results(tmp_path / "core.json")
    assert cells == [*CELLS, *TAPE, *SUPE]
    text = write_page(cells, tmp_path, "core").read_text()
    assert (
        "seeds 0 to 9 and evaluation seed 1000. Reported are the training seeds 10, 11, 12 and evaluation seed 2000"
        in text
    )
    assert "The best checkpoint is never picked" in text and "maze 1,000, office 1,000" in text
    # Of six scores one is left out at either end: 0.8, 0.9, 0.9, 1.0 are left.
    assert re.search(r"\| SkiLD \| 0\.90 \(0\.8\d \.\. 0\.9\d\) \| 0\.45 \(.*\) \|  \| 0\.(59|60) \|", text)
    # In each world one of nine pairs is better.
    assert re.search(r"\| RLPD \| 0\.41 \(.*\) \| 0\.21 \(.*\) \| 0\.11 \(0\.00 \.\. 0\.\d\d\) \|", text)
    assert "| tape | 0.50 |  | 0.00 |  |  | 2 |" in text
    assert "for want of cells: SUPE (office)." in text
    maze = text[text.index("## maze") : text.index("## office")]
    assert "| RLPD | 0.45 (0.20 .. 0.85) [0.20, 0.85, 0.30] |" in maze and "never, 1,000, never" in maze
    assert "| SUPE | 0.40 [0.40] | 0.20 [0.20] |" in maze
    assert "SUPE" not in text[text.index("## office") :]

    figures = re.findall(r"!\[(.*)\]\((.*)\)", text)
    assert [name for _, name in figures] == ["core_iqm.svg", "core_profiles.svg", "core_curves.svg"]
    for description, name in figures:
        root = ElementTree.parse(tmp_path / name).getroot()
        assert root.attrib[ARIA] == description
        assert "SkiLD" in {"".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "SkiLD 0.90 (" in figures[0][0] and "maze: SkiLD 0.90, RLPD 0.45" in figures[2][0]
    write_page(cells, tmp_path / "again", "core")
    again = sorted((tmp_path / "again").iterdir())
    assert len(again) == 4
    assert all(path.read_bytes() == (tmp_path / path.name).read_bytes() for path in again), (
        "the same for the same cells"
    )


def test_one_seed_has_no_interval_and_no_complete_method_no_aggregate(tmp_path: Path) -> None:
    text = write_page([cell("maze", "SkiLD", 10, 0.9)], tmp_path, "one").read_text()
    assert "| SkiLD | 0.90 | 0.45 |" in text
    text = write_page([cell("maze", "SkiLD", 10, 0.9), cell("office", "BC", 10, 0.1)], tmp_path, "none").read_text()
    assert "Over all worlds" not in text and "none_curves.svg" in text and "none_iqm.svg" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_sampled": math.nan}, r"damaged at 0\.score_sampled"),
        ({"success_deterministic": 1.2}, r"damaged at 0\.success_deterministic: .* less than or equal to 1"),
        ({"seed": 11}, "maze/SkiLD/11 is there twice"),
        ({"evaluation_seed": 7}, "maze/SkiLD/11 was evaluated over 50 episodes of seed 2000"),
    ],
)
def test_cells_that_cannot_be_drawn(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = [CELLS[0].model_dump() | changes, CELLS[1].model_dump()]
    (tmp_path / "core.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=message) as caught:
        read_results(tmp_path / "core.json")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_no_cells(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read it"):
        read_results(tmp_path / "absent.json")
    with pytest.raises(ArtifactError, match="no cell is finished"):
        write_page([], tmp_path, "core")


def test_a_curve_has_the_rows_with_episodes() -> None:
    steps = np.arange(1_000.0)
    success = np.where(steps < 10, np.nan, steps / 1_000)
    metrics = {"env_steps": steps, "success": success, "subtasks_solved": 4 * success}
    curve = Curve.of(metrics, subtasks=4)
    assert (curve.env_steps[0], curve.env_steps[-1], len(curve.env_steps)) == (10, 999, MAX_POINTS)
    np.testing.assert_allclose(curve.score, np.array(curve.env_steps) / 1_000)
    assert Curve.of({}, 0) == Curve(), "nothing was trained"
    assert Curve.of(metrics | {"success": np.full(1_000, np.nan)}, 0) == Curve(), "no episode has ended"
