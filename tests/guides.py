"""The guides in docs/, taken apart: the files that they show and the commands that they give."""

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def read(name: str) -> str:
    """A guide's text."""
    return (REPOSITORY / "docs" / f"{name}.md").read_text()


def write_files(guide: str, folder: Path) -> None:
    """Write the blocks whose first line is a comment with a file's name, `# folder/name.suffix`, into these files."""
    for name, content in re.findall(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```", guide, re.DOTALL | re.MULTILINE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def commands(guide: str) -> list[list[str]]:
    """The words of each line of the guide's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
