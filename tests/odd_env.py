"""An environment that announces nothing and, from some step on, answers as it should not."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

Answer = tuple[Any, ...]

FAULTS: dict[str, Callable[..., Answer]] = {
    "reward in an array": lambda o, r, *rest: (o, np.array([r]), *rest),
    "reward None": lambda o, r, *rest: (o, None, *rest),
    "reward complex": lambda o, r, *rest: (o, 1j, *rest),
    "reward nan": lambda o, r, *rest: (o, np.nan, *rest),
    "reward infinite": lambda o, r, *rest: (o, -np.inf, *rest),
    "observation nan": lambda o, *rest: (np.array([0.0, np.nan], np.float32), *rest),
    "observation beyond float32": lambda o, *rest: (np.array([1e300, 0.0]), *rest),
    "observation in a row": lambda o, *rest: (o[None], *rest),
    "observation a dictionary": lambda o, *rest: ({"line": o}, *rest),
    "observation ragged": lambda o, *rest: ([[0.0], [0.0, 1.0]], *rest),
    "observation text": lambda o, *rest: (np.array(["a", "b"]), *rest),
    "terminated None": lambda o, r, t, c, i: (o, r, None, c, i),
    "truncated in an array": lambda o, r, t, c, i: (o, r, t, np.array([c]), i),
    "truncated a text": lambda o, r, t, c, i: (o, r, t, "no", i),
    "info None": lambda *answer: (*answer[:4], None),
    "info a list": lambda *answer: (*answer[:4], []),
    "old step": lambda o, r, t, c, i: (o, r, t or c, i),
    "no tuple": lambda *answer: list(answer),
    "solved a fraction": lambda *answer: (*answer[:4], {"subtasks_solved": 0.5}),
    "solved in an array": lambda *answer: (*answer[:4], {"subtasks_solved": np.array([0])}),
    "solved too many": lambda *answer: (*answer[:4], {"subtasks_solved": 3}),
    "solved missing": lambda *answer: (*answer[:4], {}),
    "raises": lambda *answer: (*answer, 1 / 0),
}
"""What becomes of observation, reward, terminated, truncated and info."""

STARTS: dict[str, Callable[[Any], Any]] = {
    "old reset": lambda o: o,
    "reset with three": lambda o: (o, {}, None),
    "reset without info": lambda o: (o, None),
    "reset nan": lambda o: (o * np.nan, {}),
}
"""What `reset` returns instead of (observation, info)."""


class OddEnv(gym.Env):
    """Adds the action to the first of two numbers.

    Args:
        fault: a key of FAULTS, from step `at` of every episode on, or of STARTS.
        at: the step.
        length: of an episode; None: it never ends.
        names: of sub-tasks, anything.
    """

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(
        self, fault: str | None = None, at: int = 1, length: int | None = 40, names: Any = ("one", "two")
    ) -> None:
        self.fault, self.at, self.length, self.subtasks = fault, at, length, names

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.normal(size=2).astype(np.float32), 0
        return STARTS.get(self.fault or "", lambda o: (o, {}))(self.state.copy())

    def step(self, action):  # type: ignore[no-untyped-def]
        self.steps += 1
        self.state[0] += action[0]
        answer = self.state.copy(), 1.0, False, self.steps == self.length, {"subtasks_solved": 0}
        odd = self.fault in FAULTS and self.steps >= self.at
        return FAULTS[self.fault or ""](*answer) if odd else answer
