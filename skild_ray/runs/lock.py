"""One process at a time works on a run: a lock in its folder, which also works on shared file systems."""

import contextlib
import json
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from skild_ray.errors import SkildError

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
HEARTBEAT_S, SILENCE_S, WATCH_INTERVAL_S = 10.0, 60.0, 1.0
_held: Counter[Path] = Counter()
_guard = threading.RLock()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made; within this process it may be held more than once.

    The lock of a process that has ended is taken over: on this host at once, on another one when the lock has not been
    renewed for 60 s, as its holder does every 10 s. A folder in which nothing can be written needs no lock.

    Raises:
        SkildError: another process works on the run.
    """
    path = folder.resolve() / LOCK_FILE
    with _guard:
        heartbeat = None if _held[path] else _acquire(path, folder)
        _held[path] += 1
    try:
        yield
    finally:
        with _guard:
            _held[path] -= 1
        if heartbeat:
            heartbeat.end()


def _acquire(path: Path, shown: Path) -> "_Heartbeat | None":
    watched, since = None, 0.0  # a lock whose holder is not known to live, and since when it has not been renewed
    while True:
        own = json.dumps(_description())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                file.write(own)
            return _Heartbeat(path, own)
        except FileExistsError:
            if not path.parent.is_dir():
                return None
        except OSError:
            return None
        try:
            with path.open() as file:  # to open it asks the server, on a network's file system
                found = file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:  # it has just been released
            continue
        content, holder = found[0], _parsed(found[0])
        state = _state(holder)
        if state == "unknown" and watched is None:
            logger.warning(
                f"{shown} is in use by {_who(holder)}; waiting for a sign of life, {SILENCE_S:.0f} s at most",
            )
        renewed = watched is not None and watched != found and watched[0] == content
        if state == "alive" or renewed:
            raise SkildError(
                f"{shown} is in use by {_who(holder)}; wait for it, or give this one another name: --set name=..."
            )
        if watched != found:
            watched, since = found, time.monotonic()
        if state == "dead" or time.monotonic() - since > SILENCE_S:
            logger.warning(f"{shown} was in use by {_who(holder)}, which has ended; taken over")
            _remove(path, content)
            watched = None
        else:
            time.sleep(WATCH_INTERVAL_S)


def _remove(path: Path, content: str) -> None:
    """Remove the lock with this content; nothing if another process was faster."""
    aside = path.with_name(f"{LOCK_FILE}.{uuid4().hex[:8]}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if aside.read_text() == content:
            aside.unlink()
        else:
            aside.rename(path)


class _Heartbeat:
    """Renews a lock until it is released; ends the process if it was taken over, as after a long suspension."""

    def __init__(self, path: Path, content: str) -> None:
        self._path, self._content = path, content
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        _remove(self._path, self._content)

    def _renew(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # an overloaded server; it is tried again
                if self._path.read_text() != self._content:
                    logger.warning(f"{self._path}: was taken over by another process; this one ends")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                os.utime(self._path)


def _description() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "process_started": process.create_time(),
        "pid_namespace": _pid_namespace(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "id": uuid4().hex,
    }


def _pid_namespace() -> str:
    """Containers of one host name count processes each for itself."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _parsed(content: str) -> dict[str, Any]:
    """Its holder; empty while the file is being written, or was when its writer ended."""
    try:
        holder = json.loads(content)
        return holder if isinstance(holder, dict) else {}
    except ValueError:
        return {}


def _state(holder: dict[str, Any]) -> str:
    """Whether the holder is 'alive' or 'dead', or 'unknown', as on another host."""
    if (holder.get("host"), holder.get("pid_namespace")) != (socket.gethostname(), _pid_namespace()):
        return "unknown"
    try:
        process = psutil.Process(holder["pid"])
        same = abs(process.create_time() - holder["process_started"]) < 1.0
        return "alive" if same and process.status() != psutil.STATUS_ZOMBIE else "dead"
    except psutil.NoSuchProcess:
        return "dead"


def _who(holder: dict[str, Any]) -> str:
    """The holder, for messages."""
    if not holder:
        return "a process that has not said which"
    since = datetime.fromisoformat(holder["since"])
    day = "" if since.date() == datetime.now().date() else f"{since:%Y-%m-%d} "
    return f"process {holder['pid']} on host {holder['host']} since {day}{since:%H:%M} ({holder['command']})"
