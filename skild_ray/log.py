"""The lines of the package: modules log them to `skild_ray.<module>`, and a program shows them on standard output.

As a library it shows warnings only, as Python does by default; `logging.getLogger("skild_ray")` changes that.
"""

import logging

LOGGER = logging.getLogger("skild_ray")


class _Lines(logging.Handler):
    """Prints messages to what is standard output at that moment: progress bars, for one, replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


def show_lines(level: int = logging.INFO) -> None:
    """Print what the package logs from this level on, messages only; other packages' loggers stay as they are."""
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    if not shows_lines():
        LOGGER.addHandler(_Lines())


def shows_lines() -> bool:
    """Whether this process is a program that shows the lines."""
    return any(isinstance(handler, _Lines) for handler in LOGGER.handlers)
