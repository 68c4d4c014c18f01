"""Data sets that scripted experts make on the spot, as parallel Ray tasks."""

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import ray

from skild_ray.cluster import connect
from skild_ray.config import Environment, Generate
from skild_ray.data.episode import Episode
from skild_ray.data.minari_store import EXECUTED_KEY, MinariWriter, dataset_exists, read_metadata
from skild_ray.data.orders import Order, describe_orders
from skild_ray.errors import DataError, SkildError, one_line
from skild_ray.generation.collect import Failure, Request, Spent, collect, prepared
from skild_ray.interruption import Interrupted, interrupted
from skild_ray.resources import Request as ResourceRequest
from skild_ray.resources import Waiting
from skild_ray.runs.fingerprint import fingerprint

ProgressCallback = Callable[[int, int], None]

MAX_CHUNK = 8
# Small enough that the tasks never wait for the writing.
WRITE_BATCH = 32
# So many attempts, or twice the episodes if that is less, before too many failures end a generation.
FAIR_TRIAL = 20


def dataset_id(source: Generate, environment: Environment, seed: int) -> str:
    """Minari id of what `generate` makes: equal requests have equal ids, others have others."""
    request = Request.of(source, environment, seed)
    short = re.sub(r"-v\d+$", "", re.split(r"[/:.]", environment.id)[-1])
    return f"skild/{re.sub(r'[^a-z0-9]+', '_', short.lower())}-{fingerprint(request)}-v0"


def generate(
    source: Generate,
    environment: Environment,
    seed: int,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    name: str | None = None,
) -> str:
    """Let an expert play episodes and store them as a Minari data set, unless that was done before.

    Episodes in which not all sub-tasks were solved are dropped and others played instead. The content is the same for
    any number of workers. An interrupted generation leaves no data set.

    Args:
        source: the expert and how many episodes to keep.
        environment: where it acts.
        seed: episode i depends on (seed, i), where the source has no seed of its own.
        workers: Ray tasks at a time, one core each; default: as many as the cluster has cores.
        progress: called with (episodes kept so far, episodes wanted).
        name: Minari id of the data set; default: `dataset_id`.

    Returns:
        The Minari id.

    Raises:
        ConfigError: if there is no such environment or expert.
        DataError: if there is another data set of this name, more than half of the episodes fail, the environment or
            the expert raises (the message names the episode and its seed), or the data set cannot be written.
    """
    request = Request.of(source, environment, seed)
    derived = dataset_id(source, environment, seed)
    name = name or derived
    if dataset_exists(name):
        if name != derived and read_metadata(name).get("skild_ray", {}).get("request") != request.model_dump():
            raise DataError(
                f"there is a data set {name!r} already, with other content: choose another name, or delete it with "
                f"'minari delete {name}'"
            )
        return name
    expert_kwargs = prepared(request)
    env = request.make_env()
    provenance = {"version": _version(), "request": request.model_dump(mode="json")}
    metadata = {
        "algorithm_name": f"scripted expert {request.expert}",
        "author": {"skild_ray"},
        "skild_ray": provenance,
    }
    connect()
    done = 0
    try:
        with (
            MinariWriter(name, env.observation_space, env.action_space, metadata, env.spec) as writer,
            Waiting(name, [ResourceRequest("experts", "resources.data_workers", 1, {"CPU": 1.0})], started=True),
        ):
            batch: list[Episode] = []
            orders: list[Order] = []
            dropped: list[Failure] = []
            kept_steps = 0
            for done, episode in enumerate(_solved(request, expert_kwargs, workers, dropped), start=1):
                batch.append(episode)
                orders.append(episode.subtasks)
                kept_steps += len(episode.actions)
                if len(batch) == WRITE_BATCH or done == request.episodes:
                    writer.append(batch)
                    batch = []
                if progress:
                    progress(done, request.episodes)
            spent = Spent(kept_steps, sum(failure.env_steps for failure in dropped), len(dropped))
            writer.update_metadata(
                {
                    "description": f"{_describe(request)} It took {spent}.{describe_orders(orders)}",
                    "skild_ray": provenance | {"spent": asdict(spent)},
                }
            )
    except (Interrupted, SystemError) as error:
        stopped = f"{name}: stopped at {done} of {request.episodes} episodes; none of them is kept"
        raise interrupted(error, stopped) or error from None
    finally:
        env.close()
    return name


def _solved(
    request: Request, expert_kwargs: dict[str, Any], workers: int | None, dropped: list[Failure]
) -> Iterator[Episode]:
    """The first `request.episodes` successful episodes of the sequence; those between them go to `dropped`."""
    kept = 0
    for attempts, outcome in enumerate(_outcomes(request, expert_kwargs, workers), start=1):
        if isinstance(outcome, Failure):
            if outcome.error:
                raise DataError(
                    f"environment {request.environment!r} with expert {request.expert!r}: episode {outcome.index} "
                    f"(seed {outcome.seed}) failed: {outcome.error}"
                )
            dropped.append(outcome)
        else:
            kept += 1
            yield outcome
        if kept == request.episodes:
            return
        if attempts >= min(FAIR_TRIAL, 2 * request.episodes) and 2 * kept < attempts:
            raise DataError(
                f"environment {request.environment!r}: expert {request.expert!r} solved only {kept} of {attempts} "
                "episodes"
            )


def _outcomes(request: Request, expert_kwargs: dict[str, Any], workers: int | None) -> Iterator[Episode | Failure]:
    """Outcomes of episodes 0, 1, 2, ... in order, while Ray tasks play further ones."""
    workers = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
    chunk = min(max(request.episodes // (8 * workers), 1), MAX_CHUNK)
    play = ray.remote(num_cpus=1)(collect)
    shared, kwargs = ray.put(request), ray.put(expert_kwargs)
    running: dict[ray.ObjectRef, tuple[int, int]] = {}
    finished: dict[int, list[Episode | Failure]] = {}
    submitted = due = solved = 0
    try:
        while True:
            # No more than can still be needed, if what is running succeeds.
            while (
                len(running) < workers
                and (missing := request.episodes - solved - sum(count for _, count in running.values())) > 0
            ):
                count = min(chunk, missing)
                running[play.remote(shared, submitted, count, kwargs)] = (submitted, count)
                submitted += count
            if not running:
                return
            (reference,), _ = ray.wait(list(running), num_returns=1)
            first, _ = running.pop(reference)
            finished[first] = ray.get(reference)
            solved += sum(isinstance(outcome, Episode) for outcome in finished[first])
            while due in finished:
                outcomes = finished.pop(due)
                due += len(outcomes)
                yield from outcomes
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, SkildError):
            raise type(cause)(f"in a Ray worker: {cause}") from None
        raise DataError(
            f"playing episodes of {request.environment!r} failed in a Ray worker: {one_line(cause)}"
        ) from error
    finally:
        for reference in running:
            ray.cancel(reference)


def _describe(request: Request) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in request.env_kwargs.items())
    noise = (
        f"; noise of std {request.action_noise:g} on the executed actions, which are `{EXECUTED_KEY}` in the infos of "
        "each episode, not on `actions`"
    )
    return (
        f"{request.episodes:,} episodes of the scripted expert `{request.expert}` in `{request.environment}` with "
        f"{arguments or 'its default arguments'}, seed {request.seed}{noise if request.action_noise else ''}."
    )


def _version() -> str:
    try:
        return version("skild_ray")
    except PackageNotFoundError:
        return "unknown"
