"""The processes of this machine's env runners, seen from outside: their memory, and their death."""

import psutil

from skild_ray.algorithms.env_runners import BoundedEnvRunner

MIB = 2**20


def env_runner_processes() -> list[psutil.Process]:
    """The env runners of all raylets that this process has started, the oldest first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command, since = process.cmdline(), process.create_time()
        except psutil.Error:
            continue
        if command and command[0].startswith(f"ray::{BoundedEnvRunner.__name__}"):
            found.append((since, process.pid, process))
    return [process for _, _, process in sorted(found)]


def memory_mib(process: psutil.Process) -> dict[str, float]:
    """Resident memory, shared pages included (rss) and not (uss)."""
    memory = process.memory_full_info()
    return {"rss_mib": round(memory.rss / MIB, 1), "uss_mib": round(memory.uss / MIB, 1)}


def kill(process: psutil.Process) -> None:
    """Kill it and all it has started without warning: a raylet as when its node dies."""
    for part in (process, *process.children(recursive=True)):
        try:
            part.kill()
        except psutil.NoSuchProcess:
            continue
