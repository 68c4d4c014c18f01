"""Downloads that cannot succeed, without a connection."""

from pathlib import Path

import pytest

from skild_ray.data.download import download
from skild_ray.errors import DataError


def test_what_is_here_is_not_downloaded(real_data: Path) -> None:
    assert not download("kitchen/teleop-complete15-v2")


def test_what_is_here_but_damaged(minari_root: Path) -> None:
    (minari_root / "D4RL/kitchen/mixed-v2/data").mkdir(parents=True)
    with pytest.raises(DataError, match=r"'D4RL/kitchen/mixed-v2' in .* cannot be read: .*; if it is damaged, delete"):
        download("D4RL/kitchen/mixed-v2")


def test_a_hub_that_is_not_there(minari_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_REMOTE", "nowhere://at-all")
    with pytest.raises(DataError) as caught:
        download("D4RL/kitchen/mixed-v2")
    message = str(caught.value)
    assert "\n" not in message and "'D4RL/kitchen/mixed-v2' cannot be downloaded" in message
    assert "minari download D4RL/kitchen/mixed-v2" in message
    assert str(minari_root / "D4RL/kitchen/mixed-v2") in message


@pytest.mark.parametrize("name", ["kitchen mixed", "D4RL/kitchen", ".", "..", "", "{other}"])
def test_a_malformed_id_removes_nothing(minari_root: Path, tmp_path: Path, name: str) -> None:
    """The folder of a download that fails is removed; a namespace, or a path, is no folder of a data set."""
    kept = [minari_root / "D4RL/kitchen/mixed-v2/data/main_data.hdf5", tmp_path / "other/file"]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(DataError, match="is no Minari id"):
        download(name.format(other=tmp_path / "other"))
    assert all(path.exists() for path in kept)
