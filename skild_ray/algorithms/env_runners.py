"""Env runners as stage 4 uses them: one request each, bounded rebuilding of environments, the lost and the silent."""

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
from ray.exceptions import RayError
from ray.rllib.env.env_runner import ENV_STEP_FAILURE
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.debug import update_global_seed_if_necessary

from skild_ray.algorithms.rllib_internals import InterceptedEnvRunner, RunnerActors
from skild_ray.errors import SkildError, described

logger = logging.getLogger(__name__)

REBUILDS_PER_REQUEST = 10
REBUILDS, REBUILD_WINDOW = 20, 2_000  # fewer rebuilds than this within this many decisions
SILENCE_FACTOR = 10.0
FETCH_WAIT_S = 0.1
ASK_INTERVAL_S = 1.0
TAG = "sample"

Weights = Callable[[], dict[str, Any]]
"""Gives the newest weights; not called where nobody needs them."""


class Fragment(NamedTuple):
    """What an env runner answers to one request."""

    episodes: list[SingleAgentEpisode]
    metrics: Any
    seconds: float
    """How long it took there."""
    failures: list[tuple[str, str]]
    """What went wrong with the environment meanwhile, kind and description, once for each time it was rebuilt."""


class EnvironmentKeepsFailing(Exception):
    """The environment failed again and again within one request."""


class BoundedEnvRunner(InterceptedEnvRunner):
    """RLlib's env runner, but an environment that raises is not rebuilt for ever, and never with the same seed.

    A rebuild drops the episodes in progress of all the runner's environments.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.failures: list[tuple[str, str]] = []
        super().__init__(**kwargs)

    def answer(self, state: dict[str, Any]) -> Fragment:
        """Take these weights and collect a fragment."""
        self.set_state(state)
        started = time.monotonic()
        try:
            episodes = self.sample()
        except EnvironmentKeepsFailing:
            episodes = []
        failures, self.failures = self.failures, []
        return Fragment(episodes, self.get_metrics(), time.monotonic() - started, failures)

    def begin_anew(self, entropy: Iterable[int]) -> None:
        """Drop the episodes in progress and seed environments and policy from `entropy` and the runner's index."""
        self.environment_seed = _draw(*entropy, self.worker_index)
        self.drop_episodes()
        update_global_seed_if_necessary("torch", self.environment_seed)

    def reset_environment(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, Any]:
        while True:
            try:
                observations, infos = self.env.reset(seed=seed, options=options)
            except Exception as error:  # whatever a user's environment raises
                self._rebuild(error)
                seed = self.environment_seed
            else:
                return observations, infos

    def step_environment(self, actions: Any) -> Any:
        try:
            return self.env.step(actions)
        except Exception as error:  # whatever a user's environment raises
            self._rebuild(error)
            return ENV_STEP_FAILURE

    def _rebuild(self, error: Exception) -> None:
        kind = type(error.__cause__ or error).__name__
        self.failures.append((kind, str(error) if isinstance(error, SkildError) else described(error)))
        if len(self.failures) > REBUILDS_PER_REQUEST:
            self.drop_episodes()
            raise EnvironmentKeepsFailing
        self.environment_seed = _draw(self.environment_seed, 1)
        try:
            self.make_env()
        except Exception as failure:  # whatever a user's environment raises
            self._rebuild(failure)


def _draw(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0]) >> 2


class EnvRunners:
    """The env runners from where their fragments arrive: which are idle, at work, lost, or silent for too long.

    A runner that is lost, with its process or its node, is started again by Ray as soon as there is room; until then
    the others go on alone, and asking whether it is back never waits for it. A runner that has not answered a request
    for `patience_s`, and ten times as long as requests usually take, is taken to hang; it is killed and so replaced.

    Attributes:
        faults: `lost_runners`, of those `silent_runners`; `lost_fragments`, requests that died with their runner;
            `environment_rebuilds`.
    """

    def __init__(self, group: EnvRunnerGroup, patience_s: float | None) -> None:
        self._group, self._actors = group, RunnerActors(group)
        self._patience_s = float("inf") if patience_s is None else patience_s
        self._requested: dict[int, float] = {}  # runner at work -> since when
        self._known = set(self._group.healthy_env_runner_ids())
        self._took_s: deque[float] = deque([0.0], maxlen=50)
        self._silent_in_a_row = 0
        self._asked: dict[int, Any] = {}  # lost runner -> the open question whether it is back
        self._ask_at = 0.0
        self._reasons: set[str] = set()
        self._rebuilt_at: list[int] = []
        self.faults = dict.fromkeys(("lost_runners", "silent_runners", "lost_fragments", "environment_rebuilds"), 0)

    @property
    def remote(self) -> bool:
        """Whether there are runners in processes of their own."""
        return bool(self._group.num_remote_env_runners())

    @property
    def at_work(self) -> int:
        """Requests that have not been answered."""
        return len(self._requested)

    def nodes(self) -> int:
        """On how many nodes the runners are."""
        return len(set(self._group.foreach_env_runner(_node, local_env_runner=not self.remote)))

    def request(self, weights: Weights, limit: int) -> None:
        """Let idle runners, at most `limit`, take the weights and collect a fragment."""
        idle = sorted(self._known - self._requested.keys())[:limit]
        if idle:  # an empty list would mean all runners to RLlib
            self._group.foreach_env_runner_async(
                _answer, TAG, kwargs={"state": ray.put(weights())}, remote_worker_ids=idle
            )
            self._requested |= dict.fromkeys(idle, time.monotonic())

    def fetch(self, wait_s: float = FETCH_WAIT_S, of_all: bool = False) -> list[Fragment]:
        """The fragments that are ready, by runner; waits at most `wait_s` for the first, or for that `of_all`."""
        if calls := self._actors.pending(TAG):  # RLlib's own wait would last until all runners have finished
            ray.wait(calls, num_returns=len(calls) if of_all else 1, timeout=wait_s)
        ready = self._group.fetch_ready_async_reqs(tags=TAG)
        for index, fragment in ready:
            self._requested.pop(index, None)
            self._took_s.append(fragment.seconds)
            self._silent_in_a_row = 0
        self._notice_silent()
        self._notice_lost("its process was killed, or its node is gone")
        return [fragment for _, fragment in sorted(ready, key=lambda pair: pair[0])]

    def answer_all(self, weights: Weights, limit: int) -> list[Fragment]:
        """One fragment of each runner, at most `limit`, waiting for all of them; of the local one if it is the only."""
        if not self.remote:
            local: BoundedEnvRunner = self._group.local_env_runner
            return [local.answer(weights())]
        self.request(weights, limit)
        fragments: list[Fragment] = []
        while self._requested:
            fragments += self.fetch(ASK_INTERVAL_S, of_all=True)
        return fragments

    def forget_requests(self) -> None:
        """Throw away the answers to what was asked for. All must be there: whatever runs on the runners comes after."""
        self._group.fetch_ready_async_reqs(tags=TAG)
        self._requested.clear()

    def returned(self) -> list[int]:
        """Lost runners that are back. Does not wait for them, unless none is left."""
        missing = [index for index in self._actors.indices if index not in self._known]
        if not missing:
            return []
        if time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + ASK_INTERVAL_S
            for index in missing:
                if index not in self._asked:
                    self._asked[index] = self._actors.handle(index).ping.remote()
        if not self._known:
            time.sleep(0.1)  # nobody could be at work
        questions = list(self._asked.values())
        answered = ray.wait(questions, num_returns=len(questions), timeout=0)[0] if questions else []
        back = []
        for index in [index for index, question in self._asked.items() if question in answered]:
            try:
                ray.get(self._asked.pop(index))
            except RayError:
                continue
            self._actors.mark(index, healthy=True)
            back.append(index)
        self._known |= set(back)
        return back

    def count_rebuilds(self, failures: Sequence[tuple[str, str]], decisions: int) -> None:
        """Count the environment's failures within one request, see `Fragment`; `decisions` is when.

        Raises:
            SkildError: the environment fails again and again.
        """
        for kind, description in failures:
            if kind not in self._reasons:
                self._reasons.add(kind)
                logger.warning(f"{description}; it is rebuilt, counted as environment_rebuilds")
        self.faults["environment_rebuilds"] += len(failures)
        self._rebuilt_at = [*self._rebuilt_at, *[decisions] * len(failures)][-REBUILDS:]
        in_window = sum(decisions - at < REBUILD_WINDOW for at in self._rebuilt_at)
        if in_window == REBUILDS or len(failures) > REBUILDS_PER_REQUEST:
            raise SkildError(
                f"the environment fails too often: {in_window} times within the last {REBUILD_WINDOW} decisions; "
                f"last: {failures[-1][1]}"
            )

    def _notice_lost(self, why: str) -> None:
        healthy = set(self._group.healthy_env_runner_ids())
        lost = sorted(self._known - healthy)
        self._known &= healthy
        if lost:
            fragments = sum(self._requested.pop(index, None) is not None for index in lost)
            self.faults["lost_runners"] += len(lost)
            self.faults["lost_fragments"] += fragments
            logger.warning(
                f"env runners lost ({why}): {', '.join(map(str, lost))}, and {fragments} fragments with them; "
                f"{len(healthy)} of {len(self._actors.indices)} go on, the rest come back as soon as the cluster "
                "has room",
            )

    def _notice_silent(self) -> None:
        now, limit = time.monotonic(), max(self._patience_s, SILENCE_FACTOR * statistics.median(self._took_s))
        for index in [index for index, since in self._requested.items() if now - since > limit]:
            ray.kill(self._actors.handle(index), no_restart=False)
            self._actors.mark(index, healthy=False)
            self._silent_in_a_row += 1
            self.faults["silent_runners"] += 1
            self._notice_lost(f"it did not answer for {limit:.0f} s and was killed: its environment hangs")
        if self._silent_in_a_row > 2 * len(self._actors.indices):
            raise SkildError(
                f"no env runner answers within {limit:.0f} s: the environment hangs, or it is that slow; in that case "
                "raise rollout.answer_timeout_s or lower rollout.decisions_per_fragment"
            )


def _answer(runner: BoundedEnvRunner, state: dict[str, Any]) -> Fragment:
    return runner.answer(state)


def _node(runner: BoundedEnvRunner) -> str:
    return str(ray.get_runtime_context().get_node_id())
