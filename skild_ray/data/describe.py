"""What is in a data set, in a few rows."""

from collections import Counter
from pathlib import Path

import gymnasium as gym

from skild_ray.data.formats import load_dataset
from skild_ray.data.minari_store import dataset_exists, read_subtasks

MAX_ORDERS = 10


def describe_dataset(name: str, environment: gym.Env | None = None) -> list[tuple[str, str]]:
    """Rows (what, value) for people: sizes, ranges, orders of sub-tasks where known, fingerprint.

    Args:
        name: see `load_dataset`.
        environment: see `load_dataset`; without it the data are described as they are stored.

    Raises:
        DataError: see `load_dataset`.
    """
    data = load_dataset(name, environment)
    lengths = data.lengths
    rows = [
        ("episodes", f"{data.num_episodes:,}"),
        ("transitions", f"{len(data):,}"),
        ("episode length", f"min {lengths.min()}, mean {lengths.mean():.1f}, max {lengths.max()}"),
    ]
    for label, values in (("observations", data.observations), ("actions", data.actions)):
        rows.append((label, f"{values.shape[1]} dimensions, {values.min():.4g} to {values.max():.4g}"))
    if not Path(name).exists() and dataset_exists(name):
        orders = Counter(read_subtasks(name)).most_common(MAX_ORDERS)
        rows += [("sub-tasks", f"{', '.join(order)}: {count:,} episodes") for order, count in orders]
    return [*rows, ("fingerprint", data.fingerprint())]
