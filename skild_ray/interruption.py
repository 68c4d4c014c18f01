"""SIGTERM and Ctrl-C: noted where work can end in good order, and an exception everywhere else."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from skild_ray.errors import SkildError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO_S = 1.0


class Stopped(SkildError):
    """A signal ended the work in good order; the message says where it resumes. `exit_code` is the shell's for it."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Interrupted(BaseException):
    """A signal ended the program where it was; not an Exception, so that nobody mistakes it for a failure.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int, message: str | None = None) -> None:
        super().__init__(message or f"stopped by {signal.Signals(number).name}")
        self.number = number


def interrupted(error: BaseException, message: str | None = None) -> Interrupted | None:
    """The `Interrupted` that `error` is, with another message; None where no signal is behind it.

    Ray's compiled code turns what a handler raises within it into a SystemError.
    """
    origin = error.__cause__ if isinstance(error, SystemError) else error
    if not isinstance(origin, Interrupted):
        return None
    return Interrupted(origin.number, message or str(origin))


@contextlib.contextmanager
def raising_on_signals() -> Iterator[None]:
    """Within the `with` block SIGTERM and Ctrl-C raise `Interrupted` in the main thread."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    _set(_interrupt)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in previous.items():
                signal.signal(number, handler)


def keep_raising() -> None:
    """Take SIGTERM back from Ray, which replaces its handler when it starts, within `raising_on_signals`."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        _set(_interrupt)


def end_at_once() -> None:
    """From here on the next signal kills the process: what is left to do is to end."""
    _set(signal.SIG_DFL)


def _set(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, handler)


class _Echo:
    """Tells a signal from its echo: `timeout`, Slurm and terminals signal a process and, at once, its group."""

    def __init__(self) -> None:
        self._last_s = -ECHO_S

    def __call__(self) -> bool:
        """Whether the signal that is being handled repeats the one before."""
        now = time.monotonic()
        if now - self._last_s < ECHO_S:
            return True
        self._last_s = now
        return False


_is_echo = _Echo()


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _is_echo():
        raise Interrupted(number)


class Interruption:
    """Within the `with` block the first signal is noted only, so that a loop can end in good order.

    A second one, a second or more after it, raises `Interrupted`.

    Attributes:
        number: of the signal that asked for the end, if one did.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if _is_echo():
            return
        if self.number is not None:
            raise Interrupted(number)
        self.number = number
        os.write(1, b"stopping in good order; a second signal ends it at once\n")  # print cannot be used in a handler
