"""Rewards and ends of stored episodes: those of the task at hand, not of the one they were recorded for."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.data.episode import Episode
from skild_ray.data.orders import solved_in
from skild_ray.envs.conventions import offered, subtasks_of
from skild_ray.errors import DataError


def for_task(episodes: Sequence[Episode], metadata: Mapping[str, Any], environment: gym.Env) -> list[Episode]:
    """The episodes with the rewards and the ends that they have in the environment's task.

    An environment that offers `solved` and pays `subtask_reward` for each sub-task judges by the states: rewards are
    those of `credit`, and an episode ends where all sub-tasks are credited. `solved` sees readings, which may be noisy,
    so an episode that was generated in this environment, for its task, keeps what the environment itself gave.
    Other environments cannot judge: what is stored stays, unless it is known to be of another task.

    Args:
        episodes: of one data set, in the environment's layout, with their `subtasks` where they are known.
        metadata: of the data set, as Minari has it; empty where there is none.
        environment: of the task at hand.

    Raises:
        DataError: the environment cannot judge, and the data set is of another environment or task.
    """
    subtasks = subtasks_of(environment)
    if not judges(environment):
        other = _other_environment(metadata, environment) or _other_task(episodes, metadata, environment)
        if other:
            raise DataError(
                f"it was recorded {other}, so its rewards are not this task's; name one of this task, or let the "
                "environment offer 'solved' and 'subtask_reward', which give rewards to any states"
            )
        return list(episodes)
    pay = float(offered(environment, "subtask_reward"))
    other = _other_environment(metadata, environment) or _other_argument(metadata, environment)
    generated = "request" in metadata.get("skild_ray", {}) and other is None
    return [e if generated and e.subtasks == subtasks else _rewarded(e, pay, environment) for e in episodes]


def judges(environment: gym.Env) -> bool:
    """Whether the environment gives rewards to any states, by `solved` and `subtask_reward`."""
    pays = all(offered(environment, name) is not None for name in ("subtask_reward", "solved"))
    return pays and bool(subtasks_of(environment))


def credit(observations: NDArray, environment: gym.Env) -> NDArray[np.int64]:
    """Sub-tasks that are credited in each step [T], from the states s_0 .. s_T of an episode, [T + 1, d].

    Sub-task i of 1 .. n is credited in step t_i, the first from t_{i-1} on (t_0 = 1) after which it is solved:

        t_i = min {t >= t_{i-1}: solved_i(s_t)},   credited_t = #{i: t_i = t}

    so the order counts, what is solved early is credited when its turn comes, and one step may credit several. Where an
    environment says that the order does not count, by an attribute `is_ordered` that is false, t_{i-1} = 1 for all i.

    Raises:
        DataError: see `solved_in`; or `solved` does not know a sub-task.
    """
    credited = np.zeros(len(observations) - 1, np.int64)
    solved = solved_in(observations, environment)
    is_ordered = offered(environment, "is_ordered") is not False
    step = 1
    for name in subtasks_of(environment):
        if name not in solved:
            raise DataError(f"the environment's 'solved' does not tell of its sub-task {name!r}")
        begin = step if is_ordered else 1
        after = np.flatnonzero(solved[name][begin:])
        if len(after):
            step = begin + int(after[0])
            credited[step - 1] += 1
        elif is_ordered:
            break
    return credited


def _rewarded(episode: Episode, pay: float, environment: gym.Env) -> Episode:
    """With rewards from its states; an action whose outcome is unknown, or behind the end, is dropped."""
    credited = credit(episode.observations, environment)
    solved_all = int(credited.sum()) == len(subtasks_of(environment))
    length = int(np.flatnonzero(credited)[-1]) + 1 if solved_all else len(credited)
    executed = episode.executed_actions
    return replace(
        episode,
        observations=episode.observations[: length + 1],
        actions=episode.actions[:length],
        executed_actions=None if executed is None else executed[:length],
        rewards=(pay * credited[:length]).astype(np.float32),
        terminated=solved_all,
    )


def _other_environment(metadata: Mapping[str, Any], environment: gym.Env) -> str | None:
    """In which other environment the data were recorded, where that is known."""
    recorded, spec = _recorded(metadata), environment.spec
    return f"in {recorded['id']}, not in {spec.id}" if recorded and spec and recorded["id"] != spec.id else None


def _other_task(episodes: Sequence[Episode], metadata: Mapping[str, Any], environment: gym.Env) -> str | None:
    """For which other task of the environment the data were recorded, where that is known."""
    if other := _other_argument(metadata, environment):
        return other
    recorded, spec = _recorded(metadata), environment.spec
    if recorded and spec and recorded["kwargs"] == spec.kwargs:  # also where the sub-tasks are others in every episode
        return None
    subtasks = subtasks_of(environment)
    if not subtasks:
        return None
    others = (episode.subtasks for episode in episodes if episode.subtasks not in ((), subtasks))
    return next((f"for {', '.join(other)}, not for {', '.join(subtasks)}" for other in others), None)


def _other_argument(metadata: Mapping[str, Any], environment: gym.Env) -> str | None:
    """For which other argument `task` of the environment the data were recorded, where that is known.

    In our worlds it chooses the task, by its default where it is not given.
    """
    recorded, spec = _recorded(metadata), environment.spec
    if not (recorded and spec):
        return None
    parameter = inspect.signature(type(environment.unwrapped)).parameters.get("task")
    default = parameter.default if parameter else None
    there, here = (json.dumps(kwargs.get("task", default), default=str) for kwargs in (recorded["kwargs"], spec.kwargs))
    return f"for task {there}, not {here}" if there != here else None


def _recorded(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """The specification of the environment that the data were recorded in."""
    spec = metadata.get("env_spec")
    return json.loads(spec) if spec else None
