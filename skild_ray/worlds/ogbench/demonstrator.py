"""A demonstrator for OGBench's arm: OGBench's own oracles, led from one object to the next."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.worlds.expert import unwrapped
from skild_ray.worlds.ogbench.environment import OGBenchEnv
from skild_ray.worlds.ogbench.oracles import Kind, make_oracles, target_of, thing_of
from skild_ray.worlds.ogbench.package import GlobalRandom


class OGBenchExpert:
    """Solves the task of an `OGBenchEnv` where an arm acts, or plays where it has none.

    In a task it looks at the state, does the first thing of the plan that is left (see `goals`), and looks again: what
    failed is repeated, and what was undone is done again. In play it brings one object after the other to a random
    target, OGBench's own choice; it gives `env.next_target()` the word for that and otherwise acts through `step` only.
    It knows more than the observation tells: it reads OGBench's info.

    Args:
        env: an `OGBenchEnv`, may be wrapped.
        rng: draws key frames, their times and the noise of plans.
        oracle: "plan" or "markov", the oracles of OGBench's "play" and "noisy" data: open-loop plans, or closed-loop
            control, which reacts to every disturbance.
        plan_noise: of the planned path, smoothed over time, in units of an action of 1; it is part of the actions
            (OGBench's play has 0.1).
        direct: share of the objects in play after which the hand goes right to the next one, as in a task, rather than
            first to a random place; of plans only.

    Raises:
        TypeError: if the environment is no `OGBenchEnv`, or one without an arm.
    """

    def __init__(
        self,
        env: gym.Env,
        rng: np.random.Generator,
        oracle: Kind = "plan",
        plan_noise: float = 0.0,
        direct: float = 0.5,
    ):
        self._env = unwrapped(env, OGBenchEnv, "ogbench")
        if not self._env.has_arm:
            raise TypeError("the expert 'ogbench' acts where an arm does, not in OGBench's mazes")
        self._rng, self._direct = rng, direct
        self._random = GlobalRandom(int(rng.integers(2**32)))
        self._oracles = make_oracles(self._env, oracle, plan_noise)
        self._oracle: Any = None
        self._target: Mapping[str, Any] = {}

    def reset(self, observation: NDArray[np.float32]) -> None:
        """Begin with the first object."""
        self._oracle = None

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action of the oracle for the object at hand."""
        if self._oracle is None or self._oracle.done:
            self._begin(observation)
        if self._oracle is None:
            return np.zeros(5, np.float32)  # all is done
        action = self._oracle.select_action(observation, {**self._env.state, **self._target})
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _begin(self, observation: NDArray[np.float32]) -> None:
        """Turn to the next object."""
        env = self._env
        if env.task is None:
            state = env.state if self._oracle is None else env.next_target()
            thing, self._target = state["privileged/target_task"], {}
            is_direct = self._rng.random() < self._direct
        else:
            plan = env.task.plan(env.state)
            if not plan:
                self._oracle = None
                return
            thing, self._target = thing_of(plan[0]), target_of(plan[0], env, self._rng)
            is_direct = True
        self._oracle = self._oracles[thing]
        self._oracle.is_direct = is_direct
        with self._random:
            self._oracle.reset(observation, {**env.state, **self._target})
