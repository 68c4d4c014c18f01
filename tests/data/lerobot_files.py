"""Small LeRobot data sets, laid out as its three versions lay them out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

IMAGE = "observation.images.top"


def write_lerobot(
    folder: Path,
    version: str,
    episodes: Sequence[tuple[np.ndarray, np.ndarray]],
    per_file: int = 2,
) -> str:
    """A data set of (states [T + 1, d], actions [T, da]) pairs."""
    vector = {"dtype": "float32", "names": None}
    features: dict[str, Any] = {
        "observation.state": vector | {"shape": [episodes[0][0].shape[1]]},
        "action": vector | {"shape": [episodes[0][1].shape[1]]},
        IMAGE: {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]},
        "next.reward": {"dtype": "float32", "shape": [1]},
        "next.done": {"dtype": "bool", "shape": [1]},
        "timestamp": {"dtype": "float32", "shape": [1]},
        **{name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")},
    }
    old = version != "v3.0"
    place = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    info = {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(episodes),
        "total_frames": sum(len(actions) for _, actions in episodes),
        "chunks_size": 1000,
        "fps": 30,
        "splits": {"train": f"0:{len(episodes)}", "first": "0:1"},
        "data_path": place if old else "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "features": features,
    }
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    step = 1 if old else per_file
    for first in range(0, len(episodes), step):
        tables = [_table(index, *episodes[index]) for index in range(first, min(first + step, len(episodes)))]
        name = f"episode_{first:06d}" if old else f"file-{first // step:03d}"
        pyarrow.parquet.write_table(pyarrow.concat_tables(tables), folder / f"data/chunk-000/{name}.parquet")
    return str(folder)


def _table(index: int, states: np.ndarray, actions: np.ndarray) -> pyarrow.Table:
    count = len(actions)
    last = np.arange(count) == count - 1
    return pyarrow.table(
        {
            "observation.state": _vectors(states[:-1]),
            "action": _vectors(actions),
            "next.reward": last.astype(np.float32),
            "next.done": last,
            "timestamp": np.arange(count, dtype=np.float32) / 30,
            "frame_index": np.arange(count),
            "episode_index": np.full(count, index),
            "index": np.arange(count),
            "task_index": np.zeros(count, np.int64),
        }
    )


def _vectors(values: np.ndarray) -> pyarrow.Array:
    """LeRobot stores vectors as lists, and vectors of one number as numbers."""
    if values.shape[1] == 1:
        return pyarrow.array(values[:, 0].astype(np.float32))
    return pyarrow.array(list(values.astype(np.float32)), pyarrow.list_(pyarrow.float32()))


def change(file: Path, columns: Mapping[str, Any]) -> None:
    """Replace columns of a Parquet file, or drop those of None."""
    table = pyarrow.parquet.read_table(file)
    contents = {name: table[name] for name in table.column_names} | dict(columns)
    pyarrow.parquet.write_table(
        pyarrow.table({name: values for name, values in contents.items() if values is not None}), file
    )
