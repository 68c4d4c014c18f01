"""What small runs learn, bit for bit, as it was noted: a change of structure must leave it as it is."""

import json
from pathlib import Path

import pytest

from benchmarks.identity import NOTE, hashes, kind_of_machine


@pytest.mark.parametrize("name", ["maze", "maze_rlpd"])
def test_weights_and_metrics_are_those_of_the_note(
    name: str, tmp_path: Path, minari_root: Path, ray_session: None
) -> None:
    """If a result is meant to change, note it anew: python -m benchmarks.identity --record."""
    note = json.loads(NOTE.read_text())
    if note["machine"] != kind_of_machine():
        pytest.skip(f"noted on another kind of machine: {note['machine']}; use benchmarks.identity --against REVISION")
    found = hashes(name, tmp_path)
    assert found == {key: value for key, value in note["hashes"].items() if key.startswith(f"{name}/")}
