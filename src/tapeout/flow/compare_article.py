"""`tapeout compare article`: the table of the article that set the project off, beside what its figures measured and what we predict.

A published result that leaves something out is predicted at every corner of what is assumed for it, and with every doubtful figure of its chip
at its worst and at its best; the answer is the range of all of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from itertools import product
from typing import Any

import yaml

from tapeout.base.errors import BadInput
from tapeout.base.spec import Spec, fingerprint
from tapeout.chip.catalogue import datasheet
from tapeout.chip.lowering import SIDES
from tapeout.estimate.calibration import Calibration, calibration
from tapeout.flow.estimates import on_side
from tapeout.flow.predict import predict
from tapeout.flow.results import Result, load_results
from tapeout.flow.summary import Summary
from tapeout.report.figure import Report, Table

BASELINE = "seed1_dgx_h100_llama2_70b_b1"
"""What the article multiplies by: Llama-2-70B on a DGX H100."""
ARTICLE_RATE = (80.0, 100.0)
"""Its tokens per second, as the article has them: decode rates."""
ARTICLE_TTFT_MS = 1700.0
DGX = {"chip": "nvidia_h100_sxm", "chips": 8.0, "weights": "fp8", "tensor": None, "pipeline": None, "data": None}
"""The same workload on the machine of row 1, by its fastest plan."""
LATENCIES = ("ttft_ms", "request_ms")
SHOWN = {"tokens_per_s_per_user": "tok/s", "ttft_ms": "ttft ms", "request_ms": "req. ms"}
COLUMNS = ("row", "model, chips", "figure", "published", "predicted", "range", "error")
TIMES = ("row", "model, chips", "figure", "published", "x article", "x kind", "x model")
WHAT_MULTIPLIES = (
    "x article: published, against row 1 as the article has it (80 to 100 tokens/s, 1.7 s), whatever was measured",
    "x kind: published, against the published DGX H100 figure of the same kind (decode 80 to 100 tokens/s, whole request 75.3)",
    "x model: both predicted, the same model, lengths and kind of figure, one after the other on the row's chips and on 8 H100 in fp8",
)  # fmt: skip


class Claim(Spec):
    """A figure of the article; `measured` is what it really is."""

    figure: str
    value: float
    measured: str


class Row(Spec):
    """A row of data/results/article.yaml."""

    result: str
    article: str
    measured: str
    claims: tuple[Claim, ...] = ()
    caution: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """What is predicted of a row, figure by figure: likeliest, least and most; and how many corners were refused, of how many."""

    value: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    corners: int
    refused: int


def article_report(numbers: Calibration | None = None) -> Summary:
    """The whole command."""
    numbers = numbers or calibration()
    results = {result.id: result for result in load_results() if result.seed_row}
    text = (resources.files("tapeout") / "data" / "results" / "article.yaml").read_text(encoding="utf-8")
    rows = [Row.from_data(data, "article") for data in yaml.safe_load(text)]
    reply = [line for row in rows for line in _lines(row, results[row.result], results[BASELINE], numbers)]
    answer = {"rows": reply, "fingerprint": fingerprint([text, numbers.model_dump(mode="json")])}
    tables = (
        Table("the article's table", COLUMNS, tuple((*_head(line), *_cells(line)) for line in reply)),
        Table("how many times the DGX H100", TIMES, tuple((*_head(line), *_multipliers(line)) for line in reply)),
    )
    notes = (*(_note(row, results[row.result]) for row in rows), *_assumptions(results.values()), *WHAT_MULTIPLIES)
    title = "published, what it measured, predicted"
    return Summary(answer, Report(title, (), tables, notes, str(answer["fingerprint"])))


def spread(result: Result, numbers: Calibration) -> Spread:
    """The likeliest prediction, and the range over all corners. Corners that do not fit are counted and left out."""
    likeliest = predict(result, numbers).figures
    seen, refused, corners = [likeliest], 0, 0
    for corner, side in product(_corners(result), SIDES[1:]):
        corners += 1
        try:
            seen.append(predict(corner, on_side(numbers, side), side).figures)
        except BadInput:
            refused += 1
    low = {name: min(figures[name] for figures in seen) for name in likeliest}
    high = {name: max(figures[name] for figures in seen) for name in likeliest}
    return Spread(likeliest, low, high, corners, refused)


def _corners(result: Result) -> Iterator[Result]:
    """The result with each assumption at its low and at its high end, in every combination."""
    names = [made.field for made in result.assumptions]
    for values in product(*((made.low, made.high) for made in result.assumptions)):
        yield replace(result, **dict(zip(names, values, strict=True)))


def _lines(row: Row, result: Result, baseline: Result, numbers: Calibration) -> Iterator[dict[str, Any]]:
    """A line per published figure, and one per figure that the article calls by another name."""
    made = spread(result, numbers)
    on_dgx = predict(replace(result, **DGX), numbers).figures
    published = [(name, value, name) for name, value in result.figures.items()]
    published += [(claim.figure, claim.value, claim.measured) for claim in row.claims]
    for called, value, figure in published:
        predicted, low, high = (float(side[figure]) for side in (made.value, made.low, made.high))
        yield {
            "seed_row": result.seed_row, "id": result.id, "model": result.model, "chip": result.chip, "chips": result.chips, "kind": result.kind,
            "figure": figure, "called": called, "article": row.article, "measured": row.measured, "caution": row.caution,
            "published": value, "predicted": predicted,
            "low": low, "high": high, "within": low <= value <= high, "error": predicted / value - 1.0, "complete": result.complete,
            "assumptions": [str(each) for each in result.assumptions], "corners": made.corners, "corners_refused": made.refused,
            "multiplier_article": _multiplier(value, figure, ARTICLE_RATE, ARTICLE_TTFT_MS),
            "multiplier_same_kind": _same_kind(value, figure, result, baseline),
            "multiplier_same_model": _over(float(on_dgx[figure]), predicted, figure), "source": result.source,
        }  # fmt: skip


def _over(base: float, value: float, figure: str) -> float:
    """How many times better `value` is: more of a rate, less of a time."""
    return base / value if figure in LATENCIES else value / base


def _multiplier(value: float, figure: str, rates: tuple[float, float], ttft_ms: float) -> list[float]:
    """Least and most against the article's first row, whose rate is a range."""
    bases = (ttft_ms,) if figure in LATENCIES else rates
    found = sorted(_over(base, value, figure) for base in bases)
    return [found[0], found[-1]]


def _same_kind(value: float, figure: str, result: Result, baseline: Result) -> list[float] | None:
    """Against the published figure of row 1 that was measured alike; None where there is none."""
    if figure in LATENCIES:
        return [1.0, 1.0] if result.id == baseline.id else None
    alike = baseline.figures[figure]
    same = (alike, alike) if result.kind == baseline.kind else ARTICLE_RATE
    return _multiplier(value, figure, same, 0.0)


def _head(line: dict[str, Any]) -> tuple[Any, ...]:
    """Row, model on chips, figure, published."""
    chip = datasheet(line["chip"])
    model = line["model"].removesuffix("-4096").removesuffix("-chat")
    name = f"{model}, {line['chips']:g} {(chip.aliases or (chip.id,))[0].removesuffix('rack')}"
    return (line["seed_row"], name, SHOWN[line["figure"]], line["published"])


def _cells(line: dict[str, Any]) -> tuple[Any, ...]:
    """Predicted, its range where it has one, error."""
    wide = line["high"] - line["low"] > 1e-3 * line["high"]
    span = "-".join(f"{end / 1e3:.3g}k" if end >= 1e4 else f"{end:.4g}" for end in (line["low"], line["high"]))
    return (line["predicted"], span if wide else "", f"{100 * line['error']:+.0f} %")


def _multipliers(line: dict[str, Any]) -> tuple[str, ...]:
    ours = line["multiplier_same_model"]
    return (_times(line["multiplier_article"]), _times(line["multiplier_same_kind"]), _times([ours, ours]))


def _times(span: list[float] | None) -> str:
    if span is None:
        return "-"
    low, high = (f"{value:.1f}" if value < 20 else f"{value:.0f}" for value in span)
    return low if low == high else f"{low}-{high}"


def _note(row: Row, result: Result) -> str:
    return f"row {result.seed_row}, {result.model}: {row.measured}{'; ' if row.caution else ''}{row.caution}"


def _assumptions(results: Any) -> Iterator[str]:
    """What the ranges stand on, each once."""
    found: dict[str, list[str]] = {}
    for result in results:
        for made in result.assumptions:
            rows = found.setdefault(str(made), [])
            if str(result.seed_row) not in rows:
                rows.append(str(result.seed_row))
    for text, rows in found.items():
        yield f"assumed, row {' and '.join(rows)}: {text}"
