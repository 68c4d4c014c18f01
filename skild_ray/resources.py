"""What stages ask of the cluster, and what it lacks: said at once and every minute, never waited for in silence."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import ray
import torch

from skild_ray.cluster import is_local
from skild_ray.config import Experiment
from skild_ray.errors import SkildError

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S, LACK_S, START_S, LINE_INTERVAL_S = 1.0, 5.0, 30.0, 60.0


class Request(NamedTuple):
    """So many `processes`, each on one node that has all of `each`, by Ray's names of resources."""

    who: str
    key: str
    """The setting that says how many."""
    processes: int
    each: Mapping[str, float]


def offline_requests(experiment: Experiment) -> list[Request]:
    """What each offline stage asks for."""
    resources = experiment.resources
    each = {"CPU": float(resources.cpus_per_train_worker)} | ({"GPU": 1.0} if resources.use_gpu else {})
    return [Request("Train workers", "resources.train_workers", resources.train_workers, each)]


def downstream_requests(experiment: Experiment) -> list[Request]:
    """What stage 4 asks for; nothing where it only publishes the policy of an offline stage."""
    if not experiment.algorithm.total_env_steps:
        return []
    resources, rollout = with_gpu_learner(experiment).resources, experiment.rollout
    runner = {"CPU": rollout.cpus_per_env_runner} | rollout.env_runner_resources
    learner = {"CPU": float(resources.learner_threads)} | ({"GPU": 1.0} if resources.use_gpu else {})
    return [
        Request("env runners", "rollout.num_env_runners", rollout.num_env_runners, runner),
        Request("learners", "resources.num_learners", resources.num_learners, learner),
    ]


def with_gpu_learner(experiment: Experiment) -> Experiment:
    """The experiment with a remote learner where `use_gpu` needs one: Ray puts that on a node that has a GPU.

    A learner in the driver would need the driver's own, and the head of a cluster mostly has none.
    """
    resources = experiment.resources
    if not resources.use_gpu or resources.num_learners or torch.cuda.is_available():
        return experiment
    return experiment.model_copy(update={"resources": resources.model_copy(update={"num_learners": 1})})


def missing(requests: Sequence[Request], nodes: Sequence[Mapping[str, float]]) -> list[str]:
    """What a cluster of nodes with these resources lacks to hold all requests at a time; empty if nothing."""
    wanted = [request for request in requests if request.processes]
    lacks = []
    for kind in dict.fromkeys(kind for request in wanted for kind in request.each):
        asking = [request for request in wanted if request.each.get(kind)]
        needed = sum(request.processes * request.each[kind] for request in asking)
        available = sum(node.get(kind, 0.0) for node in nodes)
        if needed > available + 1e-6:
            gpu = ", resources.use_gpu" if kind == "GPU" else ""
            who = " and ".join(f"{request.who} ({request.key} {request.processes}{gpu})" for request in asking)
            lacks.append(f"{_amount(kind, needed)} for {who}, the cluster has {available:g}")
    for request in wanted:
        fits = (all(node.get(kind, 0.0) >= amount for kind, amount in request.each.items()) for node in nodes)
        if not lacks and not any(fits):
            bundle = " and ".join(_amount(kind, amount) for kind, amount in request.each.items())
            lacks.append(f"a node that has {bundle} for one of the {request.who} ({request.key})")
    return lacks


def check(title: str, requests: Sequence[Request]) -> None:
    """Say what the cluster lacks now, in one line that begins with `title`.

    Raises:
        SkildError: it is a local Ray, which never gets more.
    """
    lacks = missing(requests, _nodes())
    if lacks and is_local():
        raise SkildError(
            f"{title} needs {'; '.join(lacks)}: Ray runs on this machine alone and cannot grow; change these "
            "settings, or connect to a cluster (RAY_ADDRESS)"
        )
    if lacks:
        _say(title, lacks)


class Waiting:
    """Within the `with` block a thread says in a line every minute what is waited for.

    That is what the cluster lacks for `requests`, or, if it lacks nothing and `started` is not set after half a minute,
    how much of it is free.

    Args:
        title: what waits; the line begins with it.
        requests: what it has asked for.
        started: whether it has what it needs, as far as is known.
    """

    def __init__(self, title: str, requests: Sequence[Request], started: bool = False) -> None:
        self.started = started
        self._title, self._requests = title, requests
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Waiting":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        begun, said = time.monotonic(), -LINE_INTERVAL_S
        while not self._over.wait(CHECK_INTERVAL_S):
            now = time.monotonic()
            if now - said < LINE_INTERVAL_S or now - begun < LACK_S:
                continue
            if lacks := missing(self._requests, _nodes()):
                _say(self._title, lacks)
                said = now
            elif not self.started and now - begun >= START_S:
                logger.warning(f"{self._title}: not started yet; {self._free()}")
                said = now

    def _free(self) -> str:
        """How much of what is asked for the cluster has, and how much of it nobody uses."""
        has, free = ray.cluster_resources(), ray.available_resources()
        kinds = dict.fromkeys(kind for request in self._requests for kind in request.each if request.processes)
        parts = [f"{free.get(kind, 0):g} of {_amount(kind, has.get(kind, 0))} are free" for kind in kinds]
        return ", ".join(parts) or "everything it needs is there"


def _say(title: str, lacks: Sequence[str]) -> None:
    logger.warning(f"{title}: waiting for {'; '.join(lacks)}")


def _amount(kind: str, amount: float) -> str:
    return f"{amount:g} {kind}{'' if amount == 1 else 's'}"


def _nodes() -> list[dict[str, float]]:
    """Resources of every node that is alive."""
    nodes: list[dict[str, Any]] = ray.nodes()
    return [node["Resources"] for node in nodes if node["Alive"]]
