"""Matplotlib figures as inline SVG that takes its colours and fonts from the page around it."""

import html
import io
import math
import re
from itertools import cycle, islice, product
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from skild_ray.report.page import SERIES, Markup

# Matplotlib needs concrete colours. These stand for the style sheet's and are replaced by them in the SVG.
_NAMES = ("--ink", "--muted", "--line", "--paper", "--wall", "--mark", *SERIES)
_PLACEHOLDERS = {name: f"#0102{index:02x}" for index, name in enumerate(_NAMES, 3)}

_DASHES: tuple[Any, ...] = ("solid", "dashdot", (0, (1, 1)))

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.facecolor": "none",
    "axes.edgecolor": _PLACEHOLDERS["--line"],
    "axes.labelcolor": _PLACEHOLDERS["--muted"],
    "axes.labelsize": 8,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _PLACEHOLDERS["--line"],
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.labelcolor": _PLACEHOLDERS["--muted"],
    "ytick.labelcolor": _PLACEHOLDERS["--muted"],
    "figure.facecolor": "none",
}


def colour(name: str) -> str:
    """What to give Matplotlib for a colour of the style sheet, such as '--ink'."""
    return _PLACEHOLDERS[name]


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of that size in inches, in the page's style."""
    with matplotlib.rc_context(_STYLE):
        drawing = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
        return drawing, drawing.add_subplot()


def new_grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure with that many axes of that size each, row by row, in the page's style."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    with matplotlib.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
        drawing = Figure(figsize=(columns * width, rows * height), layout=layout)
        return drawing, [drawing.add_subplot(rows, columns, index) for index in range(1, count + 1)]


def line_styles(count: int) -> list[tuple[str, Any]]:
    """Colour and dashes of lines, in order: all colours in one kind of line, then in the next."""
    styles = cycle((colour(series), dashes) for dashes, series in product(_DASHES, SERIES))
    return list(islice(styles, count))


def to_svg(drawing: Figure, name: str, description: str) -> Markup:
    """The figure as an `<svg>` element.

    Args:
        drawing: from `new_axes`.
        name: unique on the page, from which the ids inside are made.
        description: for those who cannot see it.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        drawing.savefig(buffer, format="svg", metadata=dict.fromkeys(("Format", "Type", "Creator", "Date")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # What a stand-alone file needs and a part of a page must not have: namespaces, global styles, repeated ids.
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->', "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z.]+\w*_\d+"', "", svg)
    for variable, placeholder in _PLACEHOLDERS.items():
        svg = svg.replace(placeholder, f"var({variable})")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1))
