"""Captions of videos: above the picture, where no player puts its controls, which sub-tasks are solved, which one is
next, and the env step."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

FONT = "fonts/ttf/DejaVuSans.ttf"  # Matplotlib brings it along
FONT_SIZE, LINE, MARGIN = 14, 21, 9
PAPER, MUTED, INK, SOLVED = "#14171c", "#8b95a3", "#ffffff", "#5fd38a"
DONE, NEXT = "\N{CHECK MARK} ", "\N{BLACK RIGHT-POINTING SMALL TRIANGLE} "


class Captions:
    """Lays out the captions of one episode once: every frame of a video has the same size.

    Args:
        subtasks: in the order in which they count; there may be none.
        env_steps: length of the episode.
        size: of the pictures, in pixels.
    """

    def __init__(self, subtasks: Sequence[str], env_steps: int, size: tuple[int, int]) -> None:
        self._subtasks, self._env_steps = subtasks, env_steps
        self._font = ImageFont.truetype(Path(matplotlib.get_data_path()) / FONT, FONT_SIZE)
        self._places: list[tuple[float, int]] = []
        x, y = float(MARGIN), MARGIN
        for subtask in subtasks:
            width = self._font.getlength(DONE + subtask)
            if x > MARGIN and x + width > size[0] - MARGIN:
                x, y = float(MARGIN), y + LINE
            self._places.append((x, y))
            x += width + 14
        self._step_y = y + LINE if subtasks else y
        self._height = self._step_y + LINE + MARGIN
        # Video wants even sides.
        self._frame_size = (size[0] + size[0] % 2, (self._height + size[1] + 1) // 2 * 2)

    def above(self, picture: Image.Image, env_step: int, credited_at: Sequence[int]) -> Image.Image:
        """The picture with the caption of that env step above it."""
        frame = Image.new("RGB", self._frame_size, PAPER)
        frame.paste(picture, (0, self._height))
        draw = ImageDraw.Draw(frame)
        solved = sum(step <= env_step for step in credited_at)
        for index, (subtask, place) in enumerate(zip(self._subtasks, self._places, strict=True)):
            if index < solved:
                draw.text(place, DONE + subtask, SOLVED, self._font)
            elif index == solved:
                draw.text(place, NEXT + subtask, INK, self._font)
            else:
                draw.text(place, subtask, MUTED, self._font)
        text = f"env step {env_step} of {self._env_steps}"
        draw.text((MARGIN, self._step_y), text, MUTED, self._font)
        return frame
