"""LeRobot's data sets, versions 2.0, 2.1 and 3.0: folders of Parquet files, local or on Hugging Face's hub."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from skild_ray.data import arrays
from skild_ray.data.episode import Episode
from skild_ray.data.keyed import KeyedEpisode
from skild_ray.data.reader import Reader
from skild_ray.errors import DataError, about, one_line

INFO_FILE = "meta/info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")
HUB = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?/?")
OBSERVATIONS, ACTION = "observation.", "action"
EPISODE, FRAME = "episode_index", "frame_index"
REWARD, SUCCESS, DONE = "next.reward", "next.success", "next.done"

Columns = dict[str, NDArray]
"""Of some frames, by name: [N, d], or [N] of numbers."""


def read_lerobot(
    name: str, max_episodes: int | None = None, rewards: bool = False, filter: str | None = None
) -> Iterator[KeyedEpisode]:
    """The episodes of a LeRobot data set, by their numbers.

    Rows of `data/*/*.parquet` are frames: `action` [N, da], `observation.<key>` [N, d], `episode_index` and
    `frame_index` [N], and optionally `next.reward`, `next.success` and `next.done`. The state after the last action is
    not stored. An episode is terminated where its last `next.success` is true, or `next.done` if there is no success.
    Actions are in the robot's own units.

    Args:
        name: of the folder that has `meta/info.json`, or `hf://datasets/OWNER/NAME[@REVISION]`, which is downloaded,
            without its videos, unless it is in the hub's cache.
        max_episodes: read only the first N.
        rewards: also read rewards and ends, if the data set has them.
        filter: only the episodes of this split of `info.json`, such as "train".

    Raises:
        DataError: the data set is not there or incomplete, a file is damaged, or a column is missing or has another
            form; the message names the file.
    """
    folder = _folder(name)
    info = _info(folder)
    shapes = _shapes(info)
    readable = [key for key, shape in shapes.items() if len(shape) < 2]
    extra = [column for column in (REWARD, SUCCESS, DONE) if rewards and column in info["features"]]
    with about(str(folder)):
        wanted = _split(info, filter)
    count = 0
    for frames in _episodes(folder, [EPISODE, FRAME, ACTION, *readable, *extra]):
        if wanted is not None and int(frames[EPISODE][0]) not in wanted:
            continue
        count += 1
        ended = SUCCESS if SUCCESS in frames else DONE
        complete = partial(
            Episode,
            actions=_vectors(frames, ACTION),
            rewards=frames.get(REWARD),
            terminated=bool(frames[ended][-1]) if ended in frames else False,
        )
        yield KeyedEpisode(shapes, partial(_vectors, frames), complete)
        if count == max_episodes:
            return
    expected = info.get("total_episodes", count) if wanted is None else len(wanted)
    if count != expected:
        raise DataError(f"{folder}: has {count:,} of the {expected:,} episodes that {INFO_FILE} tells of; get the rest")


def read_shapes(name: str) -> Mapping[str, tuple[int, ...]]:
    """Shape of one observation of each key."""
    return _shapes(_info(_folder(name)))


def _folder(name: str) -> Path:
    found = HUB.fullmatch(name)
    if not found:
        return Path(name)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise DataError(f"{name}: to download it, install 'skild_ray[lerobot]'; a local folder needs nothing") from None
    try:
        patterns = ["meta/*", "data/*"]
        return Path(snapshot_download(found[1], repo_type="dataset", revision=found[2], allow_patterns=patterns))
    except Exception as error:  # of the hub's client, and of what it uses
        raise DataError(
            f"{name}: cannot be downloaded ({one_line(error)}): check name and connection, or copy the folder here"
        ) from error


def _info(folder: Path) -> Mapping[str, Any]:
    """The content of `meta/info.json`, with the parts that are needed."""
    path = folder / INFO_FILE
    try:
        info = json.loads(path.read_text())
        version, features = info["codebase_version"], info["features"]
        known = all(isinstance(feature["shape"], list) for feature in features.values())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is not a LeRobot data set's ({type(error).__name__}: {one_line(error)})") from error
    if version not in VERSIONS or not known:
        raise DataError(f"{path}: is of version {version}; those that are read are {', '.join(VERSIONS)}")
    if ACTION not in features:
        raise DataError(f"{path}: there is no feature {ACTION!r}; there are {', '.join(features)}")
    return info


def _shapes(info: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(feature["shape"])
        for name, feature in info["features"].items()
        if name.startswith(OBSERVATIONS) and feature.get("dtype") != "string"
    }


def _split(info: Mapping[str, Any], name: str | None) -> range | None:
    """The episodes of a split, which `info.json` has as "begin:end"."""
    if name is None:
        return None
    splits = info.get("splits", {})
    if name not in splits:
        raise DataError(f"has no split {name!r}; it has {', '.join(splits) or 'none'}")
    begin, _, end = str(splits[name]).partition(":")
    return range(int(begin), int(end))


def _episodes(folder: Path, columns: Sequence[str]) -> Iterator[Columns]:
    """The frames of each episode, in order; an episode may begin in one file and end in the next."""
    paths = sorted((folder / "data").glob("*/*.parquet"), key=_numbers_in)
    if not paths:
        raise DataError(f"{folder}: has no files data/*/*.parquet")
    open_frames: Columns = {}
    for path in paths:
        frames = _frames(path, columns)
        if open_frames:
            frames = {name: np.concatenate([open_frames[name], frames[name]]) for name in columns}
        order = np.lexsort((frames[FRAME], frames[EPISODE]))
        frames = {name: values[order] for name, values in frames.items()}
        begins = np.flatnonzero(np.diff(frames[EPISODE], prepend=-1))
        *complete, open_frames = (
            {name: values[begin:end] for name, values in frames.items()}
            for begin, end in zip(begins, [*begins[1:], len(order)], strict=True)
        )
        yield from (_consecutive(folder, frames) for frames in complete)
    yield _consecutive(folder, open_frames)


def _numbers_in(path: Path) -> list[int]:
    """Of chunk and file, by which the files are ordered."""
    return [int(number) for part in path.parts[-2:] for number in re.findall(r"\d+", part)]


def _consecutive(folder: Path, frames: Columns) -> Columns:
    """The frames of an episode; DataError if one is missing or there twice."""
    jumps = np.flatnonzero(np.diff(frames[FRAME], prepend=-1) != 1)
    if len(jumps):
        raise DataError(
            f"{folder}: episode {frames[EPISODE][0]}: {FRAME!r} must count 0, 1, 2, ...: row {jumps[0]} has "
            f"{frames[FRAME][jumps[0]]}"
        )
    return frames


def _frames(path: Path, columns: Sequence[str]) -> Columns:
    """Columns of one file.

    Raises:
        DataError: the file is damaged or empty, lacks a column, or has one that is no numbers or of unequal lengths.
    """
    with about(str(path)):
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                missing = [name for name in columns if name not in file.schema_arrow.names]
                if missing:
                    raise DataError(f"lacks {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}")
                rows = file.metadata.num_rows
                if not rows:
                    raise DataError("is empty")
                arrays.require_memory(sum(group.total_byte_size for group in _groups(file.metadata)))
                table = file.read(columns=list(columns))
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"cannot be read as Parquet ({one_line(error)})") from error
        return {name: _values(name, table[name].combine_chunks(), rows) for name in columns}


def _groups(metadata: pyarrow.parquet.FileMetaData) -> Iterator[pyarrow.parquet.RowGroupMetaData]:
    return (metadata.row_group(index) for index in range(metadata.num_row_groups))


def _values(name: str, column: pyarrow.Array, rows: int) -> NDArray:
    """A column as [N, d], or [N] where it has one number a row."""
    kinds = pyarrow.types
    if column.null_count:
        raise DataError(f"{name!r} has rows without a value")
    if not (kinds.is_list(column.type) or kinds.is_fixed_size_list(column.type) or kinds.is_large_list(column.type)):
        return _numbers(name, column)
    lengths = np.unique(np.asarray(column.value_lengths()))
    if len(lengths) > 1:
        raise DataError(f"{name!r} is ragged: its rows have {lengths[0]} to {lengths[-1]} numbers")
    values = column.flatten()
    if values.null_count:
        raise DataError(f"{name!r} has rows without a value")
    return _numbers(name, values).reshape(rows, int(lengths[0]))


def _numbers(name: str, values: pyarrow.Array) -> NDArray:
    kinds = pyarrow.types
    kind = values.type
    if not (kinds.is_floating(kind) or kinds.is_integer(kind) or kinds.is_boolean(kind)):
        raise DataError(f"{name!r} is {kind}, not real numbers")
    found: NDArray = values.to_numpy(zero_copy_only=False)
    return found


def _vectors(frames: Columns, name: str) -> NDArray:
    """[N, d], or [N, 1] of numbers: LeRobot stores vectors of one number as numbers."""
    values = frames[name]
    return values.reshape(len(values), -1)


def _is_lerobot(name: str) -> bool:
    return HUB.fullmatch(name) is not None or os.path.isfile(os.path.join(name, INFO_FILE))


READER = Reader(
    "a LeRobot folder or hf://datasets/OWNER/NAME", _is_lerobot, read_lerobot, shapes=read_shapes, takes_filter=True
)
