"""A chip's memory hierarchy, from the multipliers outwards: what each level holds, and how fast it is read. As SVG, and as lines of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from tapeout.report.picture import Canvas

WIDTH, LEFT, TOP, FOOT = 760, 40, 76, 60
BOX, GAP = 46, 54
NARROW, BAR = 400, 110
FILLS = {"compute": "#3b6fb6", "on chip": "#c9c2b2", "external": "#5a5f66", "links": "#b5495b", "host": "#8a9099"}
CITED, DOUBTED = "#6b7179", "#c9cdd2"
BESIDE = ("links", "host")
"""Levels that hang from the chip side by side, below its memories."""
RATES = 1e8, 3e16
SIZES = 1e6, 2e12
"""Bytes per second and bytes that are drawn smallest and largest: a phone's bus to a wafer's SRAM, a small NPU's SRAM to a server's DDR."""
CELLS = 24


@dataclass(frozen=True, slots=True)
class Level:
    """One level. `rate` is what the chip reads it with; words say what the numbers hold for and how they are marked."""

    kind: str
    """compute, on chip, external, links or host: its colour."""
    name: str
    holds: str
    size: float | None = None
    """Bytes."""
    rate: float | None = None
    """Bytes per second; None where nothing is read, or nothing was published."""
    rate_words: str = ""
    sure: bool = True
    """Whether the rate is cited; else its bar is pale."""


def hierarchy_svg(title: str, subtitle: str, levels: Sequence[Level]) -> str:
    """An SVG: memories below each other, widths on a logarithmic scale; links and host side by side below them."""
    chain = [level for level in levels if level.kind not in BESIDE]
    ends = [level for level in levels if level.kind in BESIDE]
    rows = len(chain) + bool(ends)
    canvas = Canvas(WIDTH, TOP + rows * (BOX + GAP) - GAP + FOOT)
    canvas.word(LEFT, 32, title, 18, weight="bold")
    canvas.word(LEFT, 52, subtitle, 12, fill="#555")
    for at, level in enumerate(chain):
        y, wide = TOP + at * (BOX + GAP), _wide(level)
        if at:
            _bar(canvas, level, WIDTH / 2, y - GAP)
        _level(canvas, level, (WIDTH - wide) / 2, y, wide)
    for at, level in enumerate(ends):
        y, wide = TOP + len(chain) * (BOX + GAP), (WIDTH - 2 * LEFT - 20 * (len(ends) - 1)) / len(ends)
        x = LEFT + at * (wide + 20)
        _bar(canvas, level, x + BAR / 2 + 10 if len(ends) > 1 else WIDTH / 2, y - GAP)
        _level(canvas, level, x, y, wide)
    foot = canvas.height - 22
    canvas.word(
        LEFT,
        foot,
        "Boxes: bytes held. Bars: bytes per second; pale: not cited. Widths on logarithmic scales.",
        11,
        fill="#555",
    )
    return canvas.svg()


def _level(canvas: Canvas, level: Level, x: float, y: float, wide: float) -> None:
    ink = "#222" if level.kind == "on chip" else "#fff"
    canvas.box(x, y, wide, BOX, FILLS[level.kind], f"{level.name}: {level.holds}")
    canvas.word(x + 14, y + BOX / 2 + 5, level.name, 14, fill=ink, weight="bold")
    size = 13 if len(level.name) * 9 + len(level.holds) * 7 < wide - 40 else 10
    canvas.word(x + wide - 14, y + BOX / 2 + 5, level.holds, size, "end", ink)


def _bar(canvas: Canvas, level: Level, middle: float, y: float) -> None:
    if level.rate:
        wide = 4 + (BAR - 4) * place(level.rate, RATES)
        canvas.box(middle - wide / 2, y + 6, wide, GAP - 12, CITED if level.sure else DOUBTED, level.rate_words)
    else:
        canvas.line(middle, y + 6, middle, y + GAP - 6, "#bbb")
    canvas.word(middle + BAR / 2 + 10, y + GAP / 2 + 5, level.rate_words, 13)


def _wide(level: Level) -> float:
    """Pixels of a box: compute as wide as the narrowest memory, one of unknown size too."""
    return NARROW + (WIDTH - 2 * LEFT - NARROW) * (place(level.size, SIZES) if level.size else 0)


def place(value: float, span: tuple[float, float]) -> float:
    """A value's place in a span, 0 to 1, on a logarithmic scale."""
    return min(max(log10(value / span[0]) / log10(span[1] / span[0]), 0.0), 1.0)


def hierarchy_lines(levels: Sequence[Level]) -> list[str]:
    """The same as text: a line per level, and above it a bar for its rate."""
    wide = max(len(level.name) for level in levels)
    lines = []
    for at, level in enumerate(levels):
        if at:
            bar = "#" * max(round(CELLS * place(level.rate, RATES)), 1) if level.rate else "."
            lines.append(f"   | {bar:<{CELLS}} {level.rate_words}".rstrip())
        lines.append(f"{level.name:<{wide}}  {level.holds}".rstrip())
    return lines
