"""Errors meant for people: one line that says what is wrong, where, and what to do about it."""

import contextlib
import re
from collections.abc import Iterator


def one_line(error: BaseException) -> str:
    """What it says, without line breaks; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def described(error: BaseException) -> str:
    """Its type and what it says, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def last_line(error: BaseException) -> str:
    """The last line of what it says: the cause, where Ray has wrapped a worker's traceback around it."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """The last line of what a Ray worker raised, without Ray's wrapping and the name of our own errors."""
    return re.sub(r"^skild_ray\.errors\.\w+: ", "", last_line(error))


class SkildError(Exception):
    """Something the user can mend. The command line prints its message as one line and exits with `exit_code`."""

    exit_code = 1


class ConfigError(SkildError):
    """A wrong experiment file or override."""

    exit_code = 2


class DataError(SkildError):
    """A missing, corrupt or mismatched data set."""


class ArtifactError(SkildError):
    """A missing, truncated or mismatched artifact of a stage, or a run directory that cannot be written."""


class EnvironmentFault(SkildError):
    """An environment raised in the middle of an episode, or returned what nothing can be learned from."""


@contextlib.contextmanager
def about(subject: str) -> Iterator[None]:
    """Put what a DataError is about in front of its message."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{subject}: {error}") from error
