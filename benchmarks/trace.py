"""A training as time and env steps: rates, standstills, and what a loss costs."""

import itertools
import time
from collections.abc import Callable

from skild_ray.algorithms.skild.skild import SkiLD


class Trace:
    """Drives an algorithm and remembers when its env steps came in.

    Args:
        algo: its iterations should be short (`progress.report_interval_s`), they are what time is told in.
    """

    def __init__(self, algo: SkiLD) -> None:
        self._algo = algo
        self.points: list[tuple[float, int]] = [(time.monotonic(), algo.counts["env_steps"])]
        """Whenever env steps came in: when, and how many there were then."""

    def until(self, reached: Callable[[], bool], watch: Callable[[], None] = lambda: None) -> float:
        """Train until it is so, and until the next env steps come in; returns when they did.

        `watch` is called after every iteration.
        """
        while True:
            done = reached()
            self._algo.train()
            watch()
            if self._algo.counts["env_steps"] > self.points[-1][1]:
                self.points.append((time.monotonic(), self._algo.counts["env_steps"]))
                if done:
                    return self.points[-1][0]

    def run(self, seconds: float, watch: Callable[[], None] = lambda: None) -> float:
        """Train for so long, and until the next env steps come in; returns when they did."""
        end = time.monotonic() + seconds
        return self.until(lambda: time.monotonic() >= end, watch)

    def rate(self, start: float, end: float) -> float:
        """Env steps a second between two arrivals, as `until` returns them."""
        return self.env_steps(start, end) / (end - start)

    def env_steps(self, start: float, end: float) -> int:
        """Env steps that came in after `start`, until `end`."""
        counts = [count for at, count in self.points if start <= at <= end]
        return counts[-1] - counts[0]

    def longest_gap(self, start: float, end: float) -> float:
        """Longest time between two arrivals, in seconds."""
        times = [at for at, _ in self.points if start <= at <= end]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


def replay_bytes(algo: SkiLD) -> int:
    """Bytes of the replay that are in use."""
    replay = algo.replay
    return sum(column.nbytes for column in replay._data.values()) // replay.capacity * len(replay)
