"""SVG by hand: a canvas of rectangles, lines and words, and the colours of the chip's boxes."""

from dataclasses import dataclass, field
from html import escape

COLOURS = {
    "matrix unit": "#3b6fb6", "matrix": "#3b6fb6", "group stage": "#6f9bd8", "operand buffer": "#9cbfe8", "vector unit": "#d9822b",
    "vector": "#d9822b", "attention unit": "#3a8f5c", "attention": "#3a8f5c", "SRAM": "#c9c2b2", "stream buffers": "#b3a98f",
    "sequencer": "#8b6bb1", "routers": "#b5495b", "link": "#b5495b", "external PHY and controller": "#5a5f66", "host interface": "#8a9099",
    "whitespace": "#f1efe9",
}  # fmt: skip
"""One colour per box of the chip, in every picture."""


@dataclass(slots=True)
class Canvas:
    """A growing SVG of `width` x `height` pixels."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, w: float, h: float, fill: str, title: str = "", stroke: str = "none") -> None:
        """A rectangle; `title` shows when pointed at."""
        inside = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" fill="{fill}" stroke="{stroke}">{inside}</rect>'
        )

    def word(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 12,
        anchor: str = "start",
        fill: str = "#222",
        weight: str = "normal",
    ) -> None:
        """A line of text with its baseline at y."""
        self.parts.append(
            f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">{escape(text)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str = "#999") -> None:
        """A thin line."""
        self.parts.append(f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{stroke}"/>')

    def svg(self) -> str:
        """The document."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:.0f}" height="{self.height:.0f}" '
            f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" font-family="Helvetica, Arial, sans-serif">'
        )
        return "\n".join(
            [
                head,
                f'<rect width="{self.width:.0f}" height="{self.height:.0f}" fill="#ffffff"/>',
                *self.parts,
                "</svg>\n",
            ]
        )
