"""A page of what weight formats cost and what they lose: quality against energy and silicon. One file, like the pages of `plots`."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tapeout.report.figure import Table
from tapeout.report.plots import COLOURS, STYLE, html_table, needs_plotly, paragraphs

HIGH = 460


@dataclass(frozen=True, slots=True)
class Point:
    """A format. KL to float in nats per token, above 0, with an interval, and the loss; area: mm² of the chip per token/s that it makes."""

    name: str
    kl: float
    low: float
    high: float
    loss: float
    joules_per_token: float
    mm2_s_per_token: float


def eval_page(title: str, points: Sequence[Point], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """The whole page as one self-contained text. Raises `BadInput` where plotly is missing."""
    needs_plotly()
    from plotly.io import to_html

    plot = to_html(eval_figure(points), full_html=False, include_plotlyjs=True, config={"displaylogo": False})
    shown = [
        part for table in tables for part in (f"<h2>{escape(table.title)}</h2>", html_table(table.columns, table.rows))
    ]
    return "\n".join(
        (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head><body>',
            f"<h1>{escape(title)}</h1>", *paragraphs(["Lower and further left is better; bars are 95 % intervals of the KL."]),
            plot, *shown, "<h2>How it was measured</h2>", *paragraphs(notes), "</body></html>\n",
        )
    )  # fmt: skip


def eval_figure(points: Sequence[Point]) -> Any:
    """Two panels with one vertical axis, a colour per format."""
    graph = needs_plotly()
    from plotly.subplots import make_subplots

    titles = ["against energy", "against silicon"]
    figure: Any = make_subplots(rows=1, cols=2, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.05)
    for at, (field, axis) in enumerate(
        (("joules_per_token", "joules per token"), ("mm2_s_per_token", "mm² of the chip per token/s")), 1
    ):
        for point, colour in zip(points, COLOURS, strict=False):
            figure.add_trace(_mark(graph, point, getattr(point, field), colour, first=at == 1), row=1, col=at)
        figure.update_xaxes(rangemode="tozero", title=axis, row=1, col=at)
    figure.update_yaxes(type="log", dtick=1, row=1)
    figure.update_yaxes(title="KL to float, nats per token", row=1, col=1)
    figure.update_layout(template="plotly_white", height=HIGH, margin={"l": 60, "r": 20, "t": 50, "b": 60})
    return figure


def _mark(graph: Any, point: Point, x: float, colour: str, first: bool) -> Any:
    spread = {"type": "data", "array": [point.high - point.kl], "arrayminus": [point.kl - point.low], "color": colour}
    said = f"KL {point.kl:.4f} ({point.low:.4f} to {point.high:.4f})<br>loss {point.loss:+.4f}"
    return graph.Scatter(
        x=[x], y=[point.kl], name=point.name, legendgroup=point.name, showlegend=first, mode="markers+text", text=[point.name],
        textposition="top center", marker={"size": 9, "color": colour}, error_y=spread,
        hovertemplate=f"{point.name}<br>%{{x:.4~g}}<br>{said}<extra></extra>",
    )  # fmt: skip
