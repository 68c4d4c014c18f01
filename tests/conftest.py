"""Fixtures of the whole suite: one Ray instance, an empty place for Minari data sets, and real data where it is."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from skild_ray.log import show_lines

HERE = Path(__file__).parent
# Environments and experts of the tests, such as `line_world`, are imported by name.
sys.path.insert(0, str(HERE))


def pytest_configure() -> None:
    show_lines()  # on standard output, where `capsys` finds them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start Ray first, those that start it several times before the others: the small ones fill the end."""
    several = {item.path for item in items if item.path.parent.name in {"cluster", "end_to_end", "tune", "project"}}
    once = {item.path for item in items if "ray_session" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: 0 if item.path in several else 1 if item.path in once else 2)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray with two cores for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        # Workers inherit the variable, not this process' path.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))))
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which Minari keeps its data sets during the test."""
    root = tmp_path / "minari"
    root.mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    return root


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Real Minari data sets: the folder `minari` in SKILD_TEST_DATA, or in `shared/data` beside the repository."""
    beside = HERE.parents[1] / "shared" / "data"
    root = Path(os.environ.get("SKILD_TEST_DATA", beside)) / "minari"
    if not root.is_dir():
        pytest.skip(f"no real data in {root}: set SKILD_TEST_DATA to the folder that has them")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    return root
