"""Predicted over published, one dot per figure, one row per family: where the dots stand is how wrong we are."""

import math
from collections.abc import Mapping, Sequence

from tapeout.report.picture import Canvas

SPAN = 8.0
"""The axis runs from 1/SPAN to SPAN; what lies outside is drawn at its end."""
LEFT, RIGHT, ROW, TOP = 190, 60, 30, 46
COLOUR, MEDIAN = "#3b6fb6", "#b5495b"


def error_plot(ratios: Mapping[str, Sequence[float]], title: str, width: float = 900) -> str:
    """SVG. ratios: row name -> predicted / published of its figures, all positive."""
    canvas = Canvas(width, TOP + ROW * len(ratios) + 40)
    bottom = TOP + ROW * len(ratios)
    canvas.word(12, 22, title, 15, weight="bold")
    for tick in (1 / 8, 1 / 4, 1 / 2, 2 / 3, 1, 1.5, 2, 4, 8):
        x = _x(tick, width)
        canvas.line(x, TOP, x, bottom, "#444" if tick == 1 else "#ddd")
        canvas.word(x, bottom + 18, f"1/{1 / tick:g}" if tick < 1 else f"{tick:g}", 11, "middle")
    canvas.word(width - RIGHT, bottom + 34, "predicted / published", 11, "end", "#666")
    for number, (name, values) in enumerate(ratios.items()):
        y = TOP + ROW * (number + 0.5)
        canvas.word(LEFT - 12, y + 4, f"{name} ({len(values)})", 12, "end")
        for k, value in enumerate(values):
            canvas.box(_x(value, width) - 2.5, y - 2.5 + (k * 7 % 13 - 6), 5, 5, COLOUR + "88", f"{value:.2f}")
        middle = _x(sorted(values)[len(values) // 2], width)
        canvas.box(middle - 1.5, y - 11, 3, 22, MEDIAN, "median")
    return canvas.svg()


def _x(ratio: float, width: float) -> float:
    place = max(-1.0, min(1.0, math.log(ratio) / math.log(SPAN)))
    return LEFT + (width - LEFT - RIGHT) * (place + 1) / 2
