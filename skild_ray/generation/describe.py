"""What is in a data set, in a few rows."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import gymnasium as gym

from skild_ray.config import Environment
from skild_ray.data.formats import Dataset, load_with_orders, metadata_of, observation_shapes, title_of
from skild_ray.data.keyed import described_keys
from skild_ray.data.orders import Order, count_transitions, indices_of
from skild_ray.errors import about
from skild_ray.generation.collect import Spent
from skild_ray.worlds.named import world_of

MAX_ORDERS = 20


def describe_dataset(
    dataset: Dataset, environment: gym.Env | None = None, select: Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """Rows (what, value) for people: sizes, ranges, fingerprint, and the orders of sub-tasks where they are known.

    Args:
        dataset: see `load_dataset`.
        environment: finds the orders that the data set does not tell, see `load_with_orders`.
        select: only the episodes with exactly this order; a row says how many they are.

    Raises:
        DataError: see `load_dataset`.
    """
    data, orders = load_with_orders(dataset, environment)
    total, indices = len(orders), list(range(len(orders)))
    if select is not None:
        with about(title_of(dataset)):
            indices = indices_of(orders, select)
        data, orders = data.select(indices), [orders[index] for index in indices]
    lengths = data.lengths
    rows = [
        ("episodes", f"{data.num_episodes:,}" if select is None else f"{data.num_episodes:,} of {total:,}"),
        ("transitions", f"{len(data):,}"),
        ("episode length", f"min {lengths.min()}, mean {lengths.mean():.1f}, max {lengths.max()}"),
    ]
    for label, values in (("observations", data.observations), ("actions", data.actions)):
        rows.append((label, f"{values.shape[1]} dimensions, {values.min():.4g} to {values.max():.4g}"))
    if shapes := observation_shapes(dataset):
        rows.append(("observation keys", described_keys(shapes)))
    rows.append(("fingerprint", data.fingerprint()))
    if spent := Spent.of(metadata_of(dataset)):
        rows.append(("generated in", str(spent)))
    return [*rows, *_order_rows(orders, indices)] if any(orders) else rows


def environment_of(name: str) -> Environment | None:
    """The environment of the world that a data set names as its own, or that understands its observations.

    Raises:
        DataError: see `load_dataset`.
    """
    spec = metadata_of(name).get("env_spec")
    world = world_of(json.loads(spec)["id"]) if spec else None
    return world.experiment.environment if world else None


def _order_rows(orders: Sequence[Order], indices: Sequence[int]) -> list[tuple[str, str]]:
    """Histograms of orders and of what follows what, and the order of every episode, abbreviated."""
    counts = Counter(orders).most_common()
    lines = [f"{_share(count, len(orders))}  {', '.join(order) or 'none'}" for order, count in counts[:MAX_ORDERS]]
    if len(counts) > MAX_ORDERS:
        rest = len(counts) - MAX_ORDERS
        lines.append(f"and {rest:,} other orders, of at most {counts[MAX_ORDERS][1]} episodes each")
    rows = [("orders", "\n".join(lines))]
    followed = count_transitions(orders)
    if followed:
        lines = [f"{_share(count, followed.total())}  {a} -> {b}" for (a, b), count in followed.most_common()]
        rows.append(("sub-task to sub-task", "\n".join(lines)))
    short = _abbreviations({name for order in orders for name in order})
    separator = "" if all(len(text) == 1 for text in short.values()) else "-"
    legend = ", ".join(f"{text} {name}" for name, text in short.items())
    spelled = [separator.join(short[name] for name in order) or "none" for order in orders]
    return [*rows, ("order of each episode", f"{legend}\n{'; '.join(_runs(indices, spelled))}")]


def _share(count: int, total: int) -> str:
    return f"{count:7,} ({count / total:6.1%})"


def _abbreviations(names: Iterable[str]) -> dict[str, str]:
    """Each name's shortest beginning that no other name has."""
    names = sorted(names)
    return {
        name: next(
            (name[:end] for end in range(1, len(name)) if sum(other.startswith(name[:end]) for other in names) == 1),
            name,
        )
        for name in names
    }


def _runs(indices: Sequence[int], values: Sequence[str]) -> Iterator[str]:
    """Indices with their values, successive indices of equal value as one range."""
    places = enumerate(zip(indices, values, strict=True))
    for (_, value), run in groupby(places, lambda place: (place[1][0] - place[0], place[1][1])):
        episodes = [index for _, (index, _) in run]
        yield f"{episodes[0]} {value}" if len(episodes) == 1 else f"{episodes[0]}-{episodes[-1]} {value}"
