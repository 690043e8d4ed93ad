"""A page that compares chips: curves of speed against what a token costs, and rooflines. plotly is imported here and in `eval_plot` only.

The page is one file: plotly's script is in it, nothing is loaded from elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tapeout.base.errors import BadInput
from tapeout.report.figure import number

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9", "#5a5f66", "#b5495b", "#6a3d9a", "#222222")
"""Apart also for eyes that do not see red and green."""
CURVES_HIGH, ROOF_HIGH, ROOFS_WIDE = 460, 330, 3
SHORT = 160
"""Points of a curve that are drawn; more would not be seen."""
STYLE = (
    "body{font:15px/1.5 Helvetica,Arial,sans-serif;color:#222;max-width:1240px;margin:24px auto;padding:0 16px}"
    "h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:28px 0 4px}p{margin:4px 0;color:#444}"
    "table{border-collapse:collapse;font-size:13px;margin-top:8px}td,th{padding:3px 12px 3px 0;text-align:right}"
    "td:first-child,th:first-child{text-align:left}th{border-bottom:1px solid #999}.scroll{overflow-x:auto}"
)


@dataclass(frozen=True, slots=True)
class Series:
    """A chip's batch sweep. `x`: tokens/s per user; `y`: the other axis; `batches`: one per point. `guessed`: stands on assumed figures."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    batches: Sequence[float]
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot of many chips; who is not in it, and why, stands under it."""

    title: str
    y_title: str
    series: tuple[Series, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase on a roofline: FLOP per byte read, TFLOP/s of a chip, and what each point is."""

    name: str
    flop_per_byte: Sequence[float]
    tflops: Sequence[float]
    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class Roofline:
    """A chip's roof by its datasheet, the roof that chips of its family reach, and where the phases are under them."""

    name: str
    peak_tflops: float
    tb_per_s: float
    reached_tflops: float
    reached_tb_per_s: float
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that is shown. `rows` under `columns` come as text."""

    title: str
    lead: tuple[str, ...]
    panels: tuple[Panel, ...]
    rooflines: tuple[Roofline, ...]
    without_roof: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def needs_plotly() -> Any:
    """plotly's graph objects. Raises `BadInput` that says how to install it."""
    try:
        from plotly import graph_objects
    except ImportError as error:
        raise BadInput("--html", "plotly is not installed", 'pip install "tapeout[plots]"') from error
    return graph_objects


def page_html(page: Page) -> str:
    """The whole page as one self-contained text. Raises `BadInput` where plotly is missing."""
    needs_plotly()
    from plotly.io import to_html

    curves = to_html(curves_figure(page.panels), full_html=False, include_plotlyjs=True, config={"displaylogo": False})
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(page.title)}</title><style>{STYLE}</style></head><body>',
        f"<h1>{escape(page.title)}</h1>", *paragraphs(page.lead), "<h2>Speed for one user against what the tokens cost</h2>", curves,
        *paragraphs(f"Not in “{panel.title}”: {'; '.join(panel.left_out)}." for panel in page.panels if panel.left_out),
    ]  # fmt: skip
    if page.rooflines or page.without_roof:
        parts.append("<h2>Rooflines: prefill and decode on each chip</h2>")
    if page.rooflines:
        figure = rooflines_figure(page.rooflines)
        parts.append(to_html(figure, full_html=False, include_plotlyjs=False, config={"displaylogo": False}))
    parts += paragraphs(page.without_roof)
    parts += ["<h2>Figures</h2>", html_table(page.columns, page.rows), *paragraphs(page.notes), "</body></html>\n"]
    return "\n".join(parts)


def curves_figure(panels: Sequence[Panel]) -> Any:
    """The panels side by side, a colour per chip, one legend. The left end of a curve is its largest batch."""
    graph = needs_plotly()
    from plotly.subplots import make_subplots

    figure: Any = make_subplots(
        rows=1, cols=len(panels), subplot_titles=[panel.title for panel in panels], horizontal_spacing=0.07
    )
    names = list(dict.fromkeys(series.name for panel in panels for series in panel.series))
    shown: set[str] = set()
    for at, panel in enumerate(panels, 1):
        for series in panel.series:
            figure.add_trace(_curve(graph, series, names, series.name not in shown), row=1, col=at)
            shown.add(series.name)
        figure.update_xaxes(type="log", title="tokens/s per user", row=1, col=at)
        figure.update_yaxes(type="log", title=panel.y_title, row=1, col=at)
    figure.update_layout(template="plotly_white", height=CURVES_HIGH, margin={"l": 60, "r": 20, "t": 50, "b": 110})
    figure.update_layout(legend={"orientation": "h", "y": -0.2, "yanchor": "top"})
    return figure


def rooflines_figure(rooflines: Sequence[Roofline]) -> Any:
    """A panel per chip, all on the same axes."""
    graph = needs_plotly()
    from plotly.subplots import make_subplots

    wide = min(ROOFS_WIDE, len(rooflines))
    high = -(-len(rooflines) // wide)
    titles = [roof.name for roof in rooflines]
    shared: dict[str, Any] = {"shared_xaxes": "all", "shared_yaxes": "all"}
    figure: Any = make_subplots(
        rows=high,
        cols=wide,
        subplot_titles=titles,
        **shared,
        vertical_spacing=0.28 / high,
    )
    seen = [x for roof in rooflines for phase in roof.phases for x in phase.flop_per_byte]
    ridges = [roof.peak_tflops / roof.tb_per_s for roof in rooflines]
    left, right = min([*seen, *ridges]) / 3, max([*seen, *ridges]) * 3
    for at, roof in enumerate(rooflines):
        place = {"row": at // wide + 1, "col": at % wide + 1}
        for trace in _roof(graph, roof, left, right, first=at == 0):
            figure.add_trace(trace, **place)
        figure.update_xaxes(type="log", title="FLOP per byte read", showticklabels=True, **place)
        figure.update_yaxes(type="log", title="TFLOP/s of a chip" if place["col"] == 1 else None, **place)
    figure.update_layout(
        template="plotly_white", height=ROOF_HIGH * high + 90, margin={"l": 60, "r": 20, "t": 50, "b": 90}
    )
    figure.update_layout(legend={"orientation": "h", "y": -0.28 / high, "yanchor": "top"})
    return figure


def _curve(graph: Any, series: Series, names: Sequence[str], legend: bool) -> Any:
    colour = COLOURS[names.index(series.name) % len(COLOURS)]
    keep = _thin(len(series.x))
    x, y, batches = ([values[at] for at in keep] for values in (series.x, series.y, series.batches))
    return graph.Scatter(
        x=x, y=y, name=series.name, legendgroup=series.name, showlegend=legend, mode="lines+markers" if len(x) < 12 else "lines",
        line={"color": colour, "dash": "dot" if series.guessed else "solid"}, marker={"size": 6}, customdata=batches,
        hovertemplate=f"{series.name}<br>batch %{{customdata:,.0f}}<br>%{{x:,.4~g}} tokens/s per user<br>%{{y:.4~g}}<extra></extra>",
    )  # fmt: skip


def _thin(count: int) -> list[int]:
    """Every point, or `SHORT` of them with both ends."""
    return list(range(count)) if count <= SHORT else [round(at * (count - 1) / (SHORT - 1)) for at in range(SHORT)]


def _roof(graph: Any, roof: Roofline, left: float, right: float, first: bool) -> list[Any]:
    lines = (
        ("datasheet", roof.peak_tflops, roof.tb_per_s, {"color": "#222", "width": 1.5}),
        ("what its family reaches", roof.reached_tflops, roof.reached_tb_per_s, {"color": "#888", "width": 1.5, "dash": "dash"}),
    )  # fmt: skip
    made = [
        graph.Scatter(
            x=[left, peak / rate, right], y=[left * rate, peak, peak], mode="lines", line=line, name=name, legendgroup=name,
            showlegend=first, hoverinfo="skip",
        )
        for name, peak, rate, line in lines
    ]  # fmt: skip
    for phase, colour, symbol in zip(roof.phases, COLOURS, ("circle", "diamond"), strict=False):
        keep = _thin(len(phase.labels))
        made.append(
            graph.Scatter(
                x=[phase.flop_per_byte[at] for at in keep], y=[phase.tflops[at] for at in keep], mode="lines+markers", name=phase.name,
                legendgroup=phase.name, showlegend=first, line={"color": colour}, marker={"size": 5, "symbol": symbol},
                text=[phase.labels[at] for at in keep], hovertemplate="%{text}<br>%{x:,.4~g} FLOP/byte<br>%{y:,.4~g} TFLOP/s<extra></extra>",
            )
        )  # fmt: skip
    return made


def paragraphs(lines: Any) -> list[str]:
    """Each line a paragraph of HTML."""
    return [f"<p>{escape(line)}</p>" for line in lines]


def html_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; numbers as the terminal shows them."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(number(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
