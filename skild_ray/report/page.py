"""The looks of the report: a few HTML elements, escaped by default, and one style sheet for light and dark."""

import html
from collections.abc import Iterable, Sequence
from itertools import cycle

SERIES = tuple(f"--series-{number}" for number in range(1, 8))
"""Style-sheet names of the colours of lines, in order."""

COLOURS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --card: #f6f7f9; --ink: #1c2128; --muted: #667080; --line: #dfe3e8; --accent: #2563c9;
  --warn: #9a5b00; --wall: #b9c0ca; --mark: #1c2128;
  --series-1: #2563c9; --series-2: #d9730d; --series-3: #0f8a72; --series-4: #9a4fc4;
  --series-5: #c23a5e; --series-6: #6b7a12; --series-7: #4a6577;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --card: #1c2027; --ink: #e4e8ee; --muted: #98a2b0; --line: #2e343d; --accent: #79aef8;
    --warn: #e5ab56; --wall: #4b5462; --mark: #f2f4f7;
    --series-1: #6ea8fe; --series-2: #f0a04b; --series-3: #45c9ad; --series-4: #c792ea;
    --series-5: #f2809d; --series-6: #b9c65a; --series-7: #9db4c4;
  }
}
"""

STYLE = (
    COLOURS
    + """\
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 var(--font); --font: system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.02em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 20px; letter-spacing: -.01em; margin: 52px 0 6px; padding-top: 18px;
  border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 28px 0 8px; }
p { margin: 6px 0 12px; max-width: 78ch; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
code, pre { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.kind, .note { color: var(--muted); }
.warning { color: var(--warn); }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 14px; font-size: 14px; }
.bar { display: flex; gap: 2px; height: 10px; margin: 8px 0; border-radius: 5px; overflow: hidden; }
.bar i { flex-basis: 0; min-width: 2px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 12px 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px 13px; }
.card dt { color: var(--muted); font-size: 13px; }
.card dd { margin: 0; }
.card .value { font-size: 25px; font-weight: 620; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.card .detail { color: var(--muted); font-size: 13px; }
.scroll { overflow-x: auto; margin: 10px 0 14px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 550; color: var(--muted); font-size: 13px; white-space: nowrap; }
th, td { padding: 7px 18px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
td { white-space: nowrap; }
td:first-child { font-weight: 550; }
.number { text-align: right; }
details { border: 1px solid var(--line); border-radius: 10px; background: var(--card); margin: 10px 0; }
summary { cursor: pointer; padding: 9px 14px; font-size: 14px; font-weight: 550; }
details pre { margin: 0; padding: 4px 16px 14px; overflow-x: auto; }
h4 { font-size: 13.5px; font-weight: 550; color: var(--muted); margin: 20px 0 6px; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 18px 22px; margin: 10px 0;
  align-items: end; }
.panels.wide { grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 13.5px; font-weight: 550; line-height: 1.4; }
.legend { display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 12.5px; color: var(--muted); min-height: 18px;
  line-height: 1.5; }
.legend i { display: inline-block; width: 12px; height: 3px; border-radius: 2px; margin-right: 5px;
  vertical-align: middle; }
.legend i.dot { width: 8px; height: 8px; border-radius: 50%; }
.film { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 12px 22px;
  margin: 6px 0 22px; align-items: start; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; }
.strip figcaption { font-size: 12.5px; font-weight: 400; color: var(--muted); }
video, img { display: block; width: 100%; height: auto; border-radius: 8px; }
video { max-width: 420px; }
.scale { font-size: 13px; color: var(--muted); }
.ramp { display: inline-block; width: 120px; height: 9px; border-radius: 3px; margin: 0 8px; vertical-align: middle; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: var(--font) !important; }
svg image { image-rendering: pixelated; }
@media print { main { max-width: none; } figure, tr { break-inside: avoid; } }
"""
)


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str) -> Markup:
    """`<tag ...>children</tag>`; whatever is not Markup is escaped. `class` is written `class_`, `a-b` is `a_b`."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    return Markup(f"<{tag}{shown}>{join(children)}</{tag}>")


def join(children: Iterable[str]) -> Markup:
    """One after the other; whatever is not Markup is escaped."""
    return Markup("".join(child if isinstance(child, Markup) else html.escape(child) for child in children))


def note(text: str, class_: str = "note") -> Markup:
    """A paragraph in a quiet colour."""
    return element("p", text, class_=class_)


def card(label: str, value: str, detail: str = "") -> Markup:
    """One headline number."""
    parts = [element("div", value, class_="value"), element("div", detail, class_="detail")]
    return element("div", element("dt", label), element("dd", *parts), class_="card")


def shares(parts: Sequence[tuple[str, float]]) -> Markup:
    """A bar that is divided in proportion to the parts' amounts, with their labels below."""
    coloured = [(label, amount, series) for (label, amount), series in zip(parts, cycle(SERIES), strict=False)]
    segments = (
        element("i", style=f"flex-grow: {amount:g}; background: var({series})") for _, amount, series in coloured
    )
    return join([element("div", *segments, class_="bar"), legend((label, series) for label, _, series in coloured)])


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: bool = True) -> Markup:
    """A table whose first column names the rows; with `numeric`, the other columns are aligned to the right."""

    def line(tag: str, cells: Sequence[str]) -> Markup:
        aligned = {"class_": "number"} if numeric else {}
        return element("tr", element(tag, cells[0]), *(element(tag, cell, **aligned) for cell in cells[1:]))

    body = element("tbody", *(line("td", row) for row in rows))
    return element("div", element("table", element("thead", line("th", head)), body), class_="scroll")


def folded(summary: str, text: str) -> Markup:
    """Preformatted text that is shown on demand."""
    return element("details", element("summary", summary), element("pre", text))


def legend(entries: Iterable[tuple[str, str]], dots: Iterable[tuple[str, str]] = ()) -> Markup:
    """Labels with the style-sheet colours of their lines and dots."""

    def entry(label: str, colour: str, **kind: str) -> Markup:
        return element("span", element("i", style=f"background: var({colour})", **kind), label)

    lines = [entry(label, colour) for label, colour in entries]
    return element("div", *lines, *(entry(label, colour, class_="dot") for label, colour in dots), class_="legend")


def ramp(low: str, high: str, colours: Sequence[str]) -> Markup:
    """A horizontal colour scale."""
    gradient = element("span", class_="ramp", style=f"background: linear-gradient(90deg, {', '.join(colours)})")
    return element("div", low, gradient, high, class_="scale")


def caption(text: str) -> Markup:
    """A line between a figure's title and its drawing."""
    return element("div", text, class_="legend")


def figure(title: str, svg: Markup, *captions: Markup) -> Markup:
    """A titled drawing."""
    return element("figure", element("figcaption", title), *captions, svg)


def image(source: str, description: str) -> Markup:
    """A picture from a URI."""
    return Markup(f'<img src="{html.escape(source)}" alt="{html.escape(description)}">')


def video(source: str, description: str) -> Markup:
    """A player for a video from a URI."""
    return element("video", src=source, aria_label=description, controls="", loop="", muted="", playsinline="")


def panels(figures: Iterable[Markup], wide: bool = False) -> Markup:
    """Figures side by side, as many as fit."""
    return element("div", *figures, class_="panels wide" if wide else "panels")


def section(anchor: str, title: str, *content: Markup) -> Markup:
    """A part of the page that the navigation can jump to."""
    return element("section", element("h2", title), *content, id=anchor)


def standalone(svg: Markup) -> str:
    """A drawing as a file of its own, with the colours of the page."""
    root = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    font = "svg text { font-family: system-ui, sans-serif !important; }"
    return svg.replace("<svg", root, 1).replace(">", f"><style>{COLOURS}{font}</style>", 1) + "\n"


def document(title: str, *content: Markup) -> str:
    """The whole page."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{element('title', title)}<style>{STYLE}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{element("main", *content)}</body></html>\n'
