"""What the package says: to whom it runs as a program, and to whom it is a library."""

import logging
import subprocess
import sys

import pytest

from skild_ray.log import LOGGER, show_lines, shows_lines
from skild_ray.progress import TaskProgress

USE = """
import logging
{before}
from skild_ray.progress import TaskProgress
with TaskProgress("walk", 2, "steps") as progress:
    progress.update(2)
logging.getLogger("skild_ray.data.formats").warning("three episodes are left out")
logging.getLogger("another.package").info("hello")
"""
WARNING = "three episodes are left out\n"


@pytest.mark.parametrize(
    ("before", "out", "err"),
    [
        ("", "", WARNING),
        ("logging.getLogger('skild_ray').setLevel('ERROR')", "", ""),
        ("logging.basicConfig(level='INFO', format='%(name)s')", "", "skild_ray.progress\nskild_ray.data"),
        ("from skild_ray.log import show_lines; show_lines(); show_lines()", "walk: 2/2 steps", ""),
        ("from skild_ray.log import show_lines; show_lines(logging.WARNING)", WARNING, ""),
    ],
)
def test_a_library_warns_and_a_program_shows_lines(before: str, out: str, err: str) -> None:
    program = [sys.executable, "-c", USE.format(before=before)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(out) and done.stderr.startswith(err)
    assert bool(done.stdout) == bool(out) and bool(done.stderr) == bool(err)
    assert done.stdout.count(WARNING) + done.stderr.count(WARNING) <= 1


def test_lines_go_to_what_is_standard_output_now(capsys: pytest.CaptureFixture[str]) -> None:
    show_lines()
    assert shows_lines() and not LOGGER.propagate
    logging.getLogger("skild_ray.anything").info("100 %d of a line")
    with TaskProgress("walk", 2, "steps"):
        pass
    first, second = capsys.readouterr().out.splitlines()
    assert first == "100 %d of a line" and second.startswith("walk: 0/2 steps, ")
