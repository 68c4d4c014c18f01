"""How stage 4 scales: env runners, learners, memory, and what losing a runner or a node costs.

    python -m benchmarks.scaling --json scaling.json
    python -m benchmarks.scaling lost_runner lost_node --seconds 30

Runners are measured with an environment that sleeps as long as the kitchen computes, so that the cores of one machine
do not bound them. Everything else is real: the algorithm, its networks, Ray's actors, and nodes where one is lost.
Models have random weights and the sizes of the paper; nothing needs to be trained before.
"""

import logging
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import psutil
import ray
import typer
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from benchmarks.env_runner_processes import env_runner_processes, kill, memory_mib
from benchmarks.measure import alternate, check_folder, cores, medians, run_command, write_json
from benchmarks.throughput import UNLIMITED, measured_experiment
from benchmarks.trace import Trace, replay_bytes
from benchmarks.training_loop import TrainingLoop
from benchmarks.untrained import publish_untrained
from skild_ray.algorithms.env_runners import EnvRunners, Fragment
from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.config import Experiment
from skild_ray.errors import ConfigError

Results = dict[str, Any]

PARTS = ("runners", "driver", "kitchen", "learners", "lost_runner", "lost_node")
STEP_S = 0.002  # a step of the kitchen takes 1.8 ms
FRAGMENT = 64
SPARE_CPUS = 64
PLACE = "env_runner_place"


def sleeping_experiment(
    runs: str, runners: int, step_s: float = STEP_S, fragment: int = FRAGMENT, place: str | None = None
) -> Experiment:
    """The paper's networks over an environment that sleeps, and so few updates that the learner does not bound it."""
    kitchen = measured_experiment("kitchen", runs, runners, 16, 1.0)
    environment = {"id": "benchmarks.sleeping_env:SleepingEnv", "kwargs": {"step_s": step_s}}
    rollout = kitchen.rollout.model_dump() | {
        "decisions_per_fragment": fragment,
        "env_runner_resources": {place: 1.0} if place else {},
    }
    return Experiment.model_validate(
        kitchen.model_dump()
        | {
            "name": "sleeping",
            "environment": environment,
            "rollout": rollout,
            "algorithm": kitchen.algorithm.model_dump() | {"samples_per_skill_step": 4.0, "total_env_steps": UNLIMITED},
            "progress": kitchen.progress.model_dump() | {"report_interval_s": 0.2},
        }
    )


@contextmanager
def _algorithm(experiment: Experiment) -> Iterator[SkiLD]:
    publish_untrained(experiment)
    algo = SkiLDConfig.from_experiment(experiment).build_algo()
    assert isinstance(algo, SkiLD)
    try:
        yield algo
    finally:
        algo.stop()


def _at_work(algo: SkiLD) -> int:
    assert algo.env_runner_group is not None
    return int(algo.env_runner_group.num_healthy_remote_workers())


def _warmed_up(algo: SkiLD, runners: int) -> Trace:
    """A trace of the algorithm that begins when twice as many fragments as there are runners have come in."""
    trace = Trace(algo)
    trace.until(lambda: algo.counts["decisions"] >= 2 * FRAGMENT * runners)
    return trace


def measure_runners(runs: str, counts: Sequence[int], step_s: float, seconds: float, rounds: int) -> Results:
    """Env steps/s by number of env runners, relative to so many times one; what they and the driver spend on it.

    Rates count from one arrival of experience to another, so that no fragment is counted in part.
    """
    found: dict[str, Results] = {}
    for count in counts:
        with _algorithm(sleeping_experiment(runs, count, step_s)) as algo:
            trace = _warmed_up(algo, count)
            processes = env_runner_processes()
            driver, before = psutil.Process(), algo.counts["decisions"]
            spent = [_cpu_s(driver), sum(map(_cpu_s, processes))]
            rates = []
            for _ in range(rounds):
                start = trace.points[-1][0]
                rates.append(trace.rate(start, trace.run(seconds)))
            fragments = (algo.counts["decisions"] - before) / FRAGMENT
            spent = [_cpu_s(driver) - spent[0], sum(map(_cpu_s, processes)) - spent[1]]
            rate = statistics.median(rates)
            env_steps_of_a_fragment = FRAGMENT * algo.counts["env_steps"] / algo.counts["decisions"]
            found[str(count)] = {
                "env_steps_per_s": round(rate, 1),
                "rounds": rates,
                "driver_cpu_ms_of_a_fragment": round(1e3 * spent[0] / fragments, 2),
                "runner_cpu_ms_of_a_fragment": round(1e3 * spent[1] / fragments, 2),
                "runner_works_s": round(statistics.median(algo._runners._took_s), 4),
                "runner_cycle_s": round(count * env_steps_of_a_fragment / rate, 4),
                "memory_of_a_runner": memory_mib(processes[-1]),
            }
    first = counts[0]
    for count in counts:
        linear = count / first * found[str(first)]["env_steps_per_s"]
        found[str(count)]["of_linear"] = round(found[str(count)]["env_steps_per_s"] / linear, 3)
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure_driver(runs: str, fragments: Sequence[int], seconds: float) -> Results:
    """The driver's work on fragments of so many skill steps: the constants of docs/scaling.md. All else is waiting."""
    return {f"{size} skill steps": _driver(sleeping_experiment(runs, 1, 0.0, size), seconds) for size in fragments}


def _driver(experiment: Experiment, seconds: float) -> Results:
    """Milliseconds that each of its works takes, and how many bytes they move."""
    with _algorithm(experiment) as algo:
        Trace(algo).run(seconds / 2)
        runners = algo._runners
        (fragment,) = _answer(runners)
        stored = ray.put(fragment)

        def request() -> float:
            started = time.perf_counter()
            runners.request(algo._weights, 1)
            took = time.perf_counter() - started
            _answer(runners)
            return took

        def update() -> None:
            algo._owed = float(experiment.algorithm.batch_size)
            algo._learn()

        # Nothing is affordable any more: a step that finds nothing and asks for nothing.
        broke = algo.pace._replace(total_env_steps=1)
        times = {
            "request_ms": _milliseconds(request, seconds / 4),
            "of_that_weights_ms": _milliseconds(_timed(lambda: ray.put(algo._weights())), seconds / 4),
            "unpickle_ms": _milliseconds(_timed(lambda: ray.get(stored)), seconds / 4),
            "take_in_ms": _milliseconds(_timed(lambda: algo._take_in(fragment)), seconds / 4),
            "update_ms": _milliseconds(_timed(update), seconds / 4),
        }
        algo.pace = broke
        times["empty_step_ms"] = _milliseconds(_timed(algo.training_step), seconds / 4)
        return {
            **times,
            "fragment_bytes": len(pickle.dumps(fragment)),
            "weights_bytes": len(pickle.dumps(algo._weights())),
            "replay_bytes_of_a_skill_step": replay_bytes(algo) // len(algo.replay),
        }


def _answer(runners: EnvRunners) -> list[Fragment]:
    while not (fragments := runners.fetch()):
        continue
    return fragments


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return timed


def _milliseconds(call: Callable[[], float], seconds: float) -> float:
    """Median of what `call` returns, called for so long, after a call that does not count."""
    call()
    times, end = [call()], time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(call())
    return round(1e3 * statistics.median(times), 3)


def measure_kitchen(runs: str, counts: Sequence[int], seconds: float, rounds: int) -> Results:
    """The kitchen with so many env runners: sampling alone, and training at 128 replayed transitions a new one."""
    return {
        str(count): _loop(measured_experiment("kitchen", runs, count, None, seconds), seconds, rounds)
        for count in counts
    }


def measure_learners(runs: str, counts: Sequence[int], seconds: float, rounds: int) -> Results:
    """The maze, which the learner bounds, with the learner in the driver (0) or in so many processes of their own."""
    maze = measured_experiment("maze", runs, 1, None, seconds)
    return {
        str(count): _loop(
            maze.model_copy(update={"resources": maze.resources.model_copy(update={"num_learners": count})}),
            seconds,
            rounds,
        )
        for count in counts
    }


def _loop(experiment: Experiment, seconds: float, rounds: int) -> Results:
    publish_untrained(experiment)
    loop = TrainingLoop(experiment)
    try:
        return medians(alternate([loop.sampling_only, loop.learning_only, loop.loop], seconds, rounds))
    finally:
        loop.close()


def measure_lost_runner(runs: str, runners: int, step_s: float, seconds: float) -> Results:
    """What it costs to lose the process of one of so many env runners."""
    with _algorithm(sleeping_experiment(runs, runners, step_s)) as algo:
        trace = _warmed_up(algo, runners)
        start = trace.points[-1][0]
        before = trace.rate(start, trace.run(seconds))
        victim = env_runner_processes()[-1]
        return {"env_steps_per_s": round(before, 1)} | _loss(
            algo, trace, lambda: kill(victim), before, seconds, runners
        )


def measure_lost_node(runs: str, cluster: Cluster, runners: int, step_s: float, seconds: float) -> Results:
    """What it costs to lose one of two nodes, with half of the env runners, and what a new node gives back."""
    half = {"num_cpus": runners, "resources": {PLACE: runners / 2}}
    nodes = [cluster.add_node(**half) for _ in range(2)]
    with _algorithm(sleeping_experiment(runs, runners, step_s, place=PLACE)) as algo:
        trace = _warmed_up(algo, runners)
        start = trace.points[-1][0]
        before = trace.rate(start, trace.run(seconds))
        dying = nodes[-1]
        raylet = psutil.Process(dying.all_processes["raylet"][0].process.pid)
        lost = _loss(
            algo,
            trace,
            lambda: kill(raylet),
            before / 2,
            seconds,
            runners // 2,
        )
        joined = time.monotonic()
        nodes.append(cluster.add_node(**half))
        back = trace.until(lambda: _at_work(algo) == runners)
        start = trace.run(seconds / 2)
        after = trace.rate(start, trace.run(seconds))
    for node in nodes:
        cluster.remove_node(node)
    return {
        "env_steps_per_s": round(before, 1),
        **lost,
        "all_at_work_after_another_joined_s": round(back - joined, 2),
        "rate_after_another_joined": round(after / before, 3),
    }


def _loss(
    algo: SkiLD, trace: Trace, lose: Callable[[], None], expected: float, seconds: float, runners: int
) -> Results:
    """What happens when something is lost, after which `runners` can be at work, at the rate `expected` in all.

    Returns:
        longest_gap_s: without experience from anywhere.
        recovery_s: until all that can be are at work.
        cost_s: what was lost until half of `seconds` after that, in seconds at the expected rate.
        rate_after: from then on, relative to the expected rate.
    """
    last, known = trace.points[-1][0], algo.faults["lost_runners"]
    lose()
    trace.until(lambda: algo.faults["lost_runners"] > known)
    back = trace.until(lambda: _at_work(algo) >= runners)
    settled = trace.run(seconds / 2)
    end = trace.run(seconds)
    return {
        "longest_gap_s": round(trace.longest_gap(last, end), 2),
        "recovery_s": round(back - last, 2),
        "cost_s": round((settled - last) - trace.env_steps(last, settled) / expected, 2),
        "rate_after": round(trace.rate(settled, end) / expected, 3),
    }


def show(results: Results) -> None:
    """Print all results: a table for what was measured for several numbers, a list for the rest."""
    for part, found in results.items():
        if not isinstance(found, dict):
            continue
        columns = found if all(isinstance(value, dict) for value in found.values()) else {"": found}
        table = Table(part.replace("_", " "), *columns, title_justify="left")
        for name in next(iter(columns.values())):
            values = [column[name] for column in columns.values()]
            if not isinstance(values[0], list):
                table.add_row(name.replace("_", " "), *map(_text, values))
        Console().print(table)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return f"{value:,.1f}" if isinstance(value, float) and value >= 100 else f"{value:.4g}"


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """A cluster of one node whose cores are not counted, and of which this process is the driver."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": SPARE_CPUS, "include_dashboard": False})
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray.rllib").setLevel(logging.CRITICAL)  # what is lost gets one line of ours
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"some of {', '.join(PARTS)}; default: all")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the results here")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="of each measurement in each round")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="rounds, of which medians are taken")] = 2,
    runners: Annotated[int, typer.Option(min=2, help="the most env runners")] = 8,
    step_s: Annotated[float, typer.Option(min=0, help="how long a step of the environment sleeps")] = STEP_S,
) -> None:
    """Measure how stage 4 scales with env runners and learners, and what faults cost."""
    check_folder(json_file)
    chosen = parts or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise ConfigError(f"{', '.join(sorted(unknown))}: there is {', '.join(PARTS)}")
    counts = [2**power for power in range(runners.bit_length())]
    results: Results = {"cores": cores(), "step_s": step_s, "seconds": seconds}
    with _cluster() as cluster, tempfile.TemporaryDirectory(prefix="skild_ray_benchmark_") as runs:
        measurements: dict[str, Callable[[], Results]] = {
            "runners": lambda: measure_runners(runs, counts, step_s, seconds, rounds),
            "driver": lambda: measure_driver(runs, (FRAGMENT, 8 * FRAGMENT), seconds / 4),
            "kitchen": lambda: measure_kitchen(runs, (1, 2), seconds / 4, rounds),
            "learners": lambda: measure_learners(runs, (0, 1, 2), seconds / 4, rounds),
            "lost_runner": lambda: measure_lost_runner(runs, runners, step_s, seconds),
            "lost_node": lambda: measure_lost_node(runs, cluster, runners, step_s, seconds),
        }
        for part in chosen:
            results[part] = measurements[part]()
            show({part: results[part]})
            if json_file:
                write_json(json_file, results)


if __name__ == "__main__":
    run_command(main)
