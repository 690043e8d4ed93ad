"""A timeline: a row per tile and unit, a box per micro-op."""

from collections.abc import Sequence

from tapeout.report.picture import COLOURS, Canvas

ROW, LEFT, WIDTH, TOP = 16, 120, 1100, 60
LETTER = 6.2


def timeline_svg(title: str, events: Sequence[tuple[str, int, int, int, str]]) -> str:
    """An SVG of (unit, tile, start, end, label) events; times in cycles. Labels show where they fit; all show when pointed at."""
    rows = sorted({(tile, unit) for unit, tile, *_ in events}, key=lambda row: (row[0], list(COLOURS).index(row[1])))
    length = max((end for *_, end, _ in events), default=1)
    scale = WIDTH / length
    canvas = Canvas(LEFT + WIDTH + 40, TOP + ROW * len(rows) + 50)
    canvas.word(16, 28, title, 16, weight="bold")
    place = {row: TOP + ROW * at for at, row in enumerate(rows)}
    for at, (tile, unit) in enumerate(rows):
        if at == 0 or rows[at - 1][0] != tile:
            canvas.line(16, TOP + ROW * at, LEFT + WIDTH, TOP + ROW * at, "#ccc")
            canvas.word(16, TOP + ROW * at + 12, f"tile {tile}", 11)
        canvas.word(LEFT - 8, TOP + ROW * at + 12, unit, 11, "end", "#555")
    for unit, tile, start, end, label in events:
        x, w = LEFT + start * scale, max((end - start) * scale, 0.6)
        canvas.box(x, place[tile, unit] + 2, w, ROW - 4, COLOURS[unit], f"{label}: cycles {start} to {end}", "#fff")
        if w > LETTER * len(label) + 4:
            canvas.word(x + 3, place[tile, unit] + 12, label, 10, fill="#fff")
    _axis(canvas, TOP + ROW * len(rows), length, scale)
    return canvas.svg()


def _axis(canvas: Canvas, y: float, length: int, scale: float) -> None:
    """Cycles along the bottom, at round numbers."""
    step = next(s * 10**p for p in range(12) for s in (1, 2, 5) if length / (s * 10**p) <= 12)
    canvas.line(LEFT, y, LEFT + WIDTH, y)
    for cycle in range(0, length + 1, step):
        canvas.line(LEFT + cycle * scale, y, LEFT + cycle * scale, y + 5)
        canvas.word(LEFT + cycle * scale, y + 18, f"{cycle:,}", 10, "middle", "#555")
    canvas.word(LEFT + WIDTH, y + 36, "cycles", 11, "end", "#555")
