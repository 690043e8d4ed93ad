"""`tapeout compare MODEL --chips A,B,C`: one model on several chips, at batch 1 and at the batch with the most tokens per second; or as a page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tapeout.base.errors import BadInput
from tapeout.base.files import atomic_write
from tapeout.base.spec import fingerprint
from tapeout.chip.lowering import SIDES, Side
from tapeout.chip.presets import load
from tapeout.estimate.calibration import Calibration, calibration
from tapeout.estimate.estimate import Estimate, bound, estimate
from tapeout.estimate.formats import number_format
from tapeout.estimate.recipes import RECIPES, recipe
from tapeout.estimate.workload import Workload
from tapeout.flow.estimates import Answer, doubts, on_side, usd_of, usual_recipe
from tapeout.flow.machines import family_of, machine_on
from tapeout.flow.models import find_shape
from tapeout.flow.rooflines import roofline
from tapeout.flow.summary import Summary
from tapeout.flow.sweeps import Curve, Deployment, Sweep, deploy, silicon_mm2, sweep
from tapeout.graph.shapes import ModelShape
from tapeout.report.figure import Figure, Origin, Report, Table, number
from tapeout.report.plots import Page, Panel, Roofline, Series, needs_plotly, page_html

SPEED = ("tokens_per_s_per_user", "tokens_per_s_total", "ttft_ms")
COST = ("joules_per_token", "usd_per_million_tokens", "tokens_per_s_per_mm2")
SPEED_COLUMNS = ("chip", "batch", "tokens/s/user", "tokens/s", "ttft ms", "bound by")
COST_COLUMNS = ("chip", "batch", "J/token", "USD/M tokens", "tokens/s per mm²")
POINTS = ("smallest batch", "most tokens/s")
"""Batch 1, or the smallest that gives every replica a request; and what the most tokens per second are at."""
MEASURES = (
    ("tokens_per_usd", "per dollar", "tokens per USD of capital, operations and power", "no price was published"),
    ("tokens_per_joule", "per watt", "tokens/s per W (tokens per joule)", "no power is known"),
    ("tokens_per_s_per_mm2", "per mm² of silicon", "tokens/s per mm² of logic dies", "no die area was published"),
)
"""Field of a sweep, title of its plot, its axis, and why a chip is not in it."""


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What was asked. `chips`: names, each with `*8` behind it where so many are meant; `count`: of those without; 0: see `sweeps.deploy`."""

    model: str
    chips: tuple[str, ...]
    count: int = 0
    prompt_tokens: int = 512
    output_tokens: int = 128
    weights: str = "stored"
    recipe: str = ""
    html: Path | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One chip of a comparison: its whole sweep, and the two batches of the table, as `tapeout estimate` answers them."""

    sweep: Sweep
    answers: tuple[Answer, ...]


def compare_report(request: CompareRequest, note: Callable[[str], None], numbers: Calibration | None = None) -> Summary:
    """The whole command. Raises `BadInput`: unknown names, or no chip that holds the model."""
    _check(request)
    numbers, shape = numbers or calibration(), find_shape(request.model)
    entries = [entry(text, request.count) for text in request.chips]
    found: list[Compared] = []
    left_out: list[tuple[str, str]] = []
    for name, count in entries:
        chip = load(name)
        try:
            found.append(compared(shape, deploy(shape, name, chip, count, _work(request, "engine")), request, numbers))
        except BadInput as reason:
            left_out.append((name, str(reason)))
    if not found:
        raise BadInput("--chips", f"none of them takes {shape.name}: {left_out[0][1]}")
    rows = [row for one in found for row in rows_of(shape, one)]
    reply = {
        "model": shape.name, "weights": request.weights, "prompt_tokens": request.prompt_tokens, "output_tokens": request.output_tokens,
        "rows": rows, "left_out": [{"chip": name, "why": why} for name, why in left_out],
        "not_plotted": {panel.title: list(panel.left_out) for panel in panels(found)},
        "fingerprint": fingerprint([shape.fingerprint(), repr(replace(request, html=None)), numbers.fingerprint()]),
    }  # fmt: skip
    notes = _notes(request, found, left_out)
    if request.html:
        reply["html"] = str(request.html)
        write_page(
            page(
                f"{shape.name}: {', '.join(str(one.sweep.on) for one in found)}",
                shape,
                request,
                found,
                notes,
                rows,
                numbers,
            ),
            request.html,
        )
        note(f"wrote {request.html}")
    title = (
        f"{shape.name}, {request.prompt_tokens} tokens in and {request.output_tokens} out, weights {request.weights}"
    )
    speed = tuple((*cells(row, SPEED), row["bound"]["decode"]) for row in rows)
    tables = (
        Table("speed at the smallest batch, and at the batch with the most tokens/s that fits", SPEED_COLUMNS, speed),
        Table("cost", COST_COLUMNS, tuple(cells(row, COST) for row in rows)),
    )
    return Summary(reply, Report(title, (), tables, notes, str(reply["fingerprint"])))


def _check(request: CompareRequest) -> None:
    for name in ("prompt_tokens", "output_tokens"):
        if getattr(request, name) < 1:
            raise BadInput(f"--{name.replace('_', '-')}", f"{getattr(request, name)}", "ask for 1 or more")
    if request.count < 0:
        raise BadInput("--chip-count", f"{request.count}", "ask for 1 or more")
    if not request.chips:
        raise BadInput("--chips", "no chip given", "for example --chips h100,groq*72,hc1 (tapeout chips lists them)")
    number_format(request.weights)
    if request.recipe:
        recipe(request.recipe)
    if request.html:
        needs_plotly()
        if request.html.is_dir():
            raise BadInput(str(request.html), "is a folder", "name a file, for example compare.html")


def entry(text: str, count: int) -> tuple[str, int]:
    """`h100*8`: a chip and how many of it; `count` where the text does not say. Raises `BadInput`."""
    name, star, many = (part.strip() for part in text.partition("*"))
    if star and not (many.isdecimal() and int(many)):
        raise BadInput("--chips", f"{text!r} does not say how many", f"for example {name or 'h100'}*8")
    return name, int(many) if star else count


def _work(request: CompareRequest, how: str) -> Workload:
    return Workload(1.0, float(request.prompt_tokens), float(request.output_tokens), request.weights, None, how)


def compared(shape: ModelShape, on: Deployment, request: CompareRequest, numbers: Calibration) -> Compared:
    """The sweep, and the figures with their ranges at batch 1 and at its best batch. Raises `BadInput`."""
    family = family_of(on.chip)
    made = sweep(shape, on, _work(request, request.recipe or usual_recipe(family, 2)), numbers)
    ends = dict.fromkeys((0, made.best))
    return Compared(made, tuple(_answer(shape, made, at, request, numbers) for at in ends))


def _answer(shape: ModelShape, made: Sweep, at: int, request: CompareRequest, numbers: Calibration) -> Answer:
    """One batch of a sweep by its plan, with every doubtful figure of the chip at its likeliest, worst and best."""
    batch, chip = float(made.batches[at]), made.on.chip
    work = replace(
        _work(request, request.recipe or usual_recipe(family_of(chip), batch)), concurrency=batch, weights=made.weights
    )
    sides: dict[Side, Estimate] = {
        side: estimate(shape, machine_on(chip, made.store, side), work, made.plans[at], on_side(numbers, side))
        for side in SIDES
    }
    usd: dict[Side, float | None] = {side: usd_of(made.machine, one, side, numbers) for side, one in sides.items()}
    return Answer(shape, chip, made.store, work, sides, usd)


def rows_of(shape: ModelShape, one: Compared) -> list[dict[str, Any]]:
    """A row of JSON per batch of the table."""
    made, rows = one.sweep, []
    for point, answer in zip(POINTS, one.answers, strict=False):
        one_batch = answer.estimate
        shown = {figure.name: figure.to_json() for figure in (*answer.figures(), *_ratios(answer, made))}
        rows.append(
            {
                "model": shape.name, "chip": made.on.name, "chips": made.on.count, "why_so_many": made.on.why, "point": point,
                "batch": float(one_batch.batch),
                "largest_batch": float(made.batches[-1]), "weights": answer.work.weights, "weights_in": answer.store,
                "recipe": answer.work.recipe,
                "plan": {part: getattr(one_batch.plan, part) for part in ("tensor", "pipeline", "data")},
                "bound": {"prefill": bound(one_batch.prefill), "decode": bound(one_batch.decode)}, "figures": shown,
                "doubts": list(doubts(made.on.chip)),
            }
        )  # fmt: skip
    return rows


def _ratios(answer: Answer, made: Sweep) -> list[Figure]:
    """Throughput per dollar, watt and mm², where they are known."""
    total, at = float(answer.estimate.tokens_per_s_total), {figure.name: figure.value for figure in answer.figures()}
    found = []
    if "usd_per_million_tokens" in at:
        found.append(Figure("tokens_per_usd", 1e6 / at["usd_per_million_tokens"], "tokens/USD", Origin.MODELLED))
    if "watts" in at:
        found.append(Figure("tokens_per_joule", total / at["watts"], "tokens/J", Origin.MODELLED))
    area = silicon_mm2(made.on.chip)
    if area:
        found.append(Figure("tokens_per_s_per_mm2", total / (area * made.on.count), "tokens/s/mm2", Origin.MODELLED))
    return found


def cells(row: dict[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """A row of a table for people: which chip, the batch, and figures by name."""
    figures = [row["figures"].get(name) for name in names]
    return (named(row), row["batch"], *(figure["value"] if figure else "-" for figure in figures))


def named(row: dict[str, Any]) -> str:
    """A chip, and how many of it where there are several."""
    return f"{row['chip']} x{row['chips']}" if row["chips"] > 1 else row["chip"]


def _notes(request: CompareRequest, found: Sequence[Compared], left_out: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    recipes = dict.fromkeys(answer.work.recipe for one in found for answer in one.answers)
    return (
        *(f"{one.sweep.on}: {one.sweep.on.why}{'; ' if one.sweep.limit else ''}{one.sweep.limit}" for one in found),
        *(f"left out: {name}: {why}" for name, why in left_out),
        *(f"requests, {name}: {RECIPES[name].about}" for name in recipes),
        *(f"{one.sweep.on}, {line}" for one in found for line in doubts(one.sweep.on.chip)),
        "a row says what `tapeout estimate` says of that chip, count, batch and plan; plans and ranges are in the JSON",
    )


def panels(found: Sequence[Compared]) -> tuple[Panel, ...]:
    """Speed per user against what a token costs in dollars, joules and silicon."""
    made = []
    for field, title, axis, why in MEASURES:
        known = {str(one.sweep.on): getattr(one.sweep, field) for one in found}
        series = tuple(_series(one, known[str(one.sweep.on)]) for one in found if known[str(one.sweep.on)] is not None)
        made.append(
            Panel(title, axis, series, tuple(f"{name}: {why}" for name, curve in known.items() if curve is None))
        )
    return tuple(made)


def _series(one: Compared, y: Curve) -> Series:
    made = one.sweep
    x = made.figures["tokens_per_s_per_user"]
    return Series(str(made.on), x.tolist(), y.tolist(), made.batches.tolist(), bool(doubts(made.on.chip)))


def page(
    title: str, shape: ModelShape, request: CompareRequest, found: Sequence[Compared], notes: Sequence[str], rows: Sequence[dict[str, Any]],
    numbers: Calibration,
) -> Page:  # fmt: skip
    """What the page shows."""
    work = _work(request, request.recipe or "steady")
    roofs = [
        roofline(
            shape,
            one.sweep,
            replace(work, recipe=request.recipe or usual_recipe(family_of(one.sweep.on.chip), 2)),
            numbers,
        )
        for one in found
    ]
    lead = (
        f"{request.prompt_tokens} tokens in and {request.output_tokens} out, weights {request.weights}. A curve is a batch sweep: its right end is "
        "one request at a time, its left end the largest batch that fits; every point has the fastest plan for its batch. Dotted: assumed figures.",
    )
    return Page(
        title, lead, panels(found), tuple(roof for roof in roofs if isinstance(roof, Roofline)),
        tuple(roof for roof in roofs if isinstance(roof, str)),
        (*SPEED_COLUMNS[:-1], *COST_COLUMNS[2:], SPEED_COLUMNS[-1]), tuple(tuple(map(number, _whole(row))) for row in rows), tuple(notes),
    )  # fmt: skip


def _whole(row: dict[str, Any]) -> tuple[Any, ...]:
    return (*cells(row, (*SPEED, *COST)), row["bound"]["decode"])


def write_page(made: Page, path: Path) -> None:
    """One self-contained file, whole or not at all. Raises `BadInput` where plotly is missing."""
    text = page_html(made)
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))
