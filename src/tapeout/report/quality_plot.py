"""What formats lose against what they take: a panel per text, a dot with its interval per format."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tapeout.report.picture import Canvas

PANEL, HIGH, LEFT, TOP, GAP, BOTTOM = 470, 420, 74, 62, 66, 58
DOT, BAR, GRID = "#3b6fb6", "#7f9fcb", "#e2e2e2"
LINE_HIGH = 12
"""Of a word."""


class Dot(NamedTuple):
    """A format: what it takes, and its KL to float in nats per token (above 0) with an interval."""

    name: str
    cost: float
    kl: float
    low: float
    high: float


def quality_plot(panels: Mapping[str, Sequence[Dot]], cost: str, title: str) -> str:
    """SVG. panels: text -> its formats; all share both axes, the KL's is logarithmic. cost: what the horizontal axis says."""
    dots = [dot for panel in panels.values() for dot in panel]
    span = (min(dot.cost for dot in dots) * 0.9, max(dot.cost for dot in dots) * 1.05)
    lowest = math.floor(math.log10(min(dot.low for dot in dots)))
    decades = (lowest, max(lowest + 1, math.ceil(math.log10(max(dot.high for dot in dots)))))
    canvas = Canvas(LEFT + (PANEL + GAP) * len(panels) - GAP + 24, TOP + HIGH + BOTTOM)
    canvas.word(12, 22, title, 15, weight="bold")
    for at, (text, panel) in enumerate(panels.items()):
        _panel(canvas, LEFT + at * (PANEL + GAP), text, panel, span, decades, cost)
    return canvas.svg()


def _panel(
    canvas: Canvas, left: float, text: str, dots: Sequence[Dot], span: tuple[float, float], decades: tuple[int, int], cost: str
) -> None:  # fmt: skip
    def x(value: float) -> float:
        return left + PANEL * (value - span[0]) / (span[1] - span[0])

    def y(value: float) -> float:
        return TOP + HIGH * (decades[1] - math.log10(value)) / (decades[1] - decades[0])

    canvas.word(left, TOP - 12, f"{text}: KL to float, nats per token", 13)
    for decade in range(decades[0], decades[1] + 1):
        canvas.line(left, y(10.0**decade), left + PANEL, y(10.0**decade), GRID)
        canvas.word(left - 8, y(10.0**decade) + 4, f"{10.0**decade:g}", 11, "end")
    for tick in _ticks(*span):
        canvas.line(x(tick), TOP, x(tick), TOP + HIGH, GRID)
        canvas.word(x(tick), TOP + HIGH + 18, f"{tick:g}", 11, "middle")
    canvas.word(left + PANEL / 2, TOP + HIGH + 40, cost, 12, "middle", "#555")
    taken = [(x(dot.cost) - 5, x(dot.cost) + 5, y(dot.kl) + 4) for dot in dots]
    for dot in sorted(dots, key=lambda dot: -dot.kl):
        canvas.line(x(dot.cost), y(dot.low), x(dot.cost), y(dot.high), BAR)
        canvas.box(
            x(dot.cost) - 3, y(dot.kl) - 3, 6, 6, DOT, f"{dot.name}: {dot.kl:.4f}, {dot.low:.4f} to {dot.high:.4f}"
        )
        place = _free(taken, x(dot.cost), y(dot.kl) + 4, 7.0 * len(dot.name), left + PANEL)
        canvas.word(*place, dot.name, 11)


def _free(
    taken: list[tuple[float, float, float]], x: float, y: float, wide: float, right: float
) -> tuple[float, float]:
    """Beside the dot, right or left of it, some lines lower or higher where other names and dots are; adds it to the taken."""
    sides = [start for start in (x + 7, x - 7 - wide) if start + wide < right]
    for start, shift in ((start, shift) for shift in (0, 1, -1, 2, -2, 3, -3, 4, -4) for start in sides):
        low = y + shift * LINE_HIGH
        if all(
            abs(low - there) >= LINE_HIGH or start + wide < a or b < start
            for a, b, there in taken
            if (a, there) != (x - 5, y)
        ):
            taken.append((start, start + wide, low))
            return start, low
    return sides[0], y


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, four to nine of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(step * k for k in (0.5, 1, 2, 5) if (high - low) / (step * k) <= 8)
    return [round(k * step, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
