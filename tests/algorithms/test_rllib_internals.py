"""The private names of RLlib that are used: a release of Ray that changes one fails here first."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import skild_ray
from skild_ray.algorithms import rllib_internals
from skild_ray.algorithms.rllib_internals import PRIVATE


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, name, _ in PRIVATE], ids=str)
def test_private_name_still_exists(owner: Any, name: str) -> None:
    classes = [owner, *getattr(owner, "__mro__", ())[1:]]
    sources = [inspect.getsource(part) for part in classes if part is not object]
    assert any(re.search(rf"\b{name}\b", source) for source in sources)


def test_they_are_used_in_one_file_only() -> None:
    names = {name for _, name, _ in PRIVATE if name.startswith("_")} - {"_seed", "_setup"}  # also names of our own
    here = Path(rllib_internals.__file__)
    for path in Path(skild_ray.__file__).parent.rglob("*.py"):
        if path != here:
            found = names & set(re.findall(r"\b_\w+", path.read_text()))
            assert not found, f"{path}: {found}"
