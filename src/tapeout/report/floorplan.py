"""A floorplan: tiles in their grid, in each its boxes by area, interfaces along the edge. Areas are to scale, places are not a layout."""

from collections.abc import Sequence
from typing import Protocol

from tapeout.report.figure import number
from tapeout.report.picture import COLOURS, Canvas

SIDE, LEFT, TOP = 620, 40, 70
EDGE = ("external PHY and controller", "host interface")
SPARE = "whitespace"


class Area(Protocol):
    """What is drawn: a component and its mm2."""

    @property
    def component(self) -> str:
        """Its name."""
        ...

    @property
    def value(self) -> float:
        """Its mm2."""
        ...


def floorplan_svg(name: str, columns: int, rows: int, areas: Sequence[Area]) -> str:
    """An SVG of a chip of columns x rows tiles; whitespace is spread over everything in proportion."""
    total = sum(area.value for area in areas)
    filled = sum(area.value for area in areas if area.component != SPARE)
    edge = {area.component: area.value / filled for area in areas if area.component in EDGE}
    inside = {area.component: area.value / filled for area in areas if area.component not in (*EDGE, SPARE)}
    canvas = Canvas(LEFT + SIDE + 300, TOP + SIDE + 70)
    canvas.word(LEFT, 34, f"{name}: {number(total)} mm² (first-order model)", 18, weight="bold")
    canvas.box(LEFT, TOP, SIDE, SIDE, COLOURS[SPARE], stroke="#444")
    strip = SIDE * sum(edge.values())
    _edge(canvas, edge, strip)
    _tiles(canvas, columns, rows, inside, TOP + strip, SIDE - strip)
    _legend(canvas, areas)
    _scale_bar(canvas, total**0.5)
    return canvas.svg()


def _edge(canvas: Canvas, edge: dict[str, float], strip: float) -> None:
    x = float(LEFT)
    for component, share in edge.items():
        width = SIDE * share / sum(edge.values())
        canvas.box(x, TOP, width, strip, COLOURS[component], component, "#fff")
        if width > 8 * len(component) and strip > 16:
            canvas.word(x + width / 2, TOP + strip / 2 + 4, component, 13, "middle", "#fff")
        x += width


def _tiles(canvas: Canvas, columns: int, rows: int, inside: dict[str, float], top: float, height: float) -> None:
    width, tall = SIDE / columns, height / rows
    ordered = sorted(inside.items(), key=lambda item: -item[1])
    for tile in range(columns * rows):
        x, y = LEFT + tile % columns * width, top + tile // columns * tall
        canvas.box(x, y, width, tall, "#ffffff", stroke="#444")
        _slice(canvas, ordered, x + 4, y + 4, width - 8, tall - 8)
        canvas.word(x + 10, y + 20, f"tile {tile}", 11, fill="#333")


def _slice(canvas: Canvas, boxes: list[tuple[str, float]], x: float, y: float, w: float, h: float) -> None:
    """Cut the largest box off along the longer side, then the rest: areas stay in proportion."""
    left = sum(share for _, share in boxes)
    for component, share in boxes:
        part = share / left
        wide = w >= h
        a, b = (w * part, h) if wide else (w, h * part)
        canvas.box(x, y, a, b, COLOURS.get(component, "#bbb"), component, "#fff")
        if a > 7 * len(component) and b > 26:
            canvas.word(
                x + a / 2,
                y + b / 2 + 4,
                component,
                11,
                "middle",
                "#222" if component in ("SRAM", "stream buffers") else "#fff",
            )
        x, y, w, h = (x + a, y, w - a, h) if wide else (x, y + b, w, h - b)
        left -= share


def _legend(canvas: Canvas, areas: Sequence[Area]) -> None:
    x, y = LEFT + SIDE + 24, TOP + 8
    for area in sorted(areas, key=lambda area: -area.value):
        canvas.box(x, y - 10, 14, 14, COLOURS.get(area.component, "#bbb"), stroke="#888")
        canvas.word(x + 22, y + 2, f"{area.component}  {number(area.value)} mm²", 12)
        y += 22


def _scale_bar(canvas: Canvas, side_mm: float) -> None:
    length = next(s * 10.0**p for p in range(2, -4, -1) for s in (5, 2, 1) if s * 10.0**p <= side_mm / 3)
    pixels, y = SIDE * length / side_mm, TOP + SIDE + 30
    canvas.box(LEFT, y, pixels, 5, "#222")
    canvas.word(LEFT + pixels + 10, y + 7, f"{number(length)} mm", 12)
