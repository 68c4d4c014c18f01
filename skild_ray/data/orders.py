"""The orders in which episodes solve sub-tasks: found from states, counted, selected."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.envs.conventions import offered
from skild_ray.errors import DataError, described

Order = tuple[str, ...]

FREQUENT = 3


def order_from_states(observations: NDArray, environment: gym.Env | None) -> Order:
    """Names of the sub-tasks in the order in which they are first solved, without those solved from the beginning.

    Args:
        observations: of one episode, [T, d].
        environment: tells which sub-tasks are solved, see `solved_in`; without one the order is empty.

    Raises:
        DataError: see `solved_in`.
    """
    solved = solved_in(observations, environment) if environment is not None else {}
    first = {name: int(flags.argmax()) for name, flags in solved.items() if flags.any()}
    return tuple(sorted((name for name, row in first.items() if row > 0), key=first.__getitem__))


def solved_in(observations: NDArray, environment: gym.Env) -> dict[str, NDArray[np.bool_]]:
    """Whether each sub-task is solved in each state, [T] for each name.

    An environment tells it by a method `solved(observations)`; the result is empty where there is none.

    Raises:
        DataError: the method does not understand the observations, fails, or gives something else.
    """
    solved = offered(environment, "solved")
    if solved is None:
        return {}
    try:
        told = {str(name): np.asarray(flags, bool) for name, flags in solved(observations).items()}
    except ValueError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # whatever a user's environment raises
        raise DataError(f"the environment's solved fails: {described(error)}") from error
    for name, flags in told.items():
        if flags.shape != (len(observations),):
            raise DataError(
                f"the environment's solved gives shape {list(flags.shape)} for {name!r} and {len(observations)} states"
            )
    return told


def count_transitions(orders: Iterable[Order]) -> Counter[tuple[str, str]]:
    """How often each sub-task is directly followed by each other one."""
    return Counter(pair for order in orders for pair in pairwise(order))


def indices_of(orders: Sequence[Order], select: Sequence[str]) -> list[int]:
    """Indices of the episodes with exactly this order.

    Raises:
        DataError: if there are none; the message names the most frequent orders.
    """
    wanted = tuple(select)
    indices = [index for index, order in enumerate(orders) if order == wanted]
    if not indices:
        frequent = Counter(filter(None, orders)).most_common(FREQUENT)
        named = "; ".join(f"{', '.join(order)} ({count:,} episodes)" for order, count in frequent)
        reason = f"the most frequent orders are: {named}" if named else "no order of its episodes is known"
        raise DataError(f"no episode solves exactly {', '.join(wanted)}; {reason}")
    return indices


def describe_orders(orders: Iterable[Order]) -> str:
    """A sentence for a data set's description, empty where no order is known."""
    known = set(filter(None, orders))
    names = sorted({name for order in known for name in order})
    if not names:
        return ""
    order = f"{len(known):,} different orders of: {', '.join(names)}"
    if len(known) == 1:
        order = ", ".join(*known)
    return f" Sub-tasks: {order}. The order of each episode is its metadata `subtasks`."
