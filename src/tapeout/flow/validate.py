"""`tapeout validate`: our error on results of others, row by row, by family and kind, and over families."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tapeout.base.spec import fingerprint
from tapeout.estimate.calibration import Calibration, calibration
from tapeout.flow.results import Result, load_results
from tapeout.flow.score import Score, by_family, by_figure, score, summary
from tapeout.flow.summary import Summary
from tapeout.report.figure import Report, Table

RATES = ("tokens_per_s_per_user", "tokens_per_s_total")
SILICON = ("groq", "cerebras", "sambanova", "taalas", "dmatrix", "hnlpu", "etched")
"""Specialised silicon: reported apart, nothing was fitted on it."""
CALIBRATED_ROWS = 2
"""A family with fewer scored rows is calibrated or guessed, not validated."""
COLUMNS = ("family", "figure", "rows", "median", "mean", "90 %")
WORST = 12


def validate(path: Path | None = None, numbers: Calibration | None = None) -> Summary:
    """Score our own table, or any file of a form that `flow.results` reads. Raises `BadInput`."""
    numbers = numbers or calibration()
    scores, skipped = score(load_results(path), numbers)
    complete = [one for one in scores if one.row.complete]
    reply = {
        "rows": [one.to_json() for one in scores],
        "families": by_family(complete),
        "summary": by_figure(complete),
        "summary_with_incomplete": by_figure(scores),
        "medians_over_families": over_families(complete),
        "rates": {name: summary([one.error for one in rows]) for name, rows in _kinds_of_silicon(complete).items()},
        "skipped": [{"id": row.id, "why": why, "complete": row.complete} for row, why in skipped],
        "fingerprint": fingerprint(numbers.model_dump(mode="json")),
    }
    return Summary(reply, _report(scores, complete, skipped, str(reply["fingerprint"])))


def over_families(scores: Sequence[Score]) -> dict[str, float]:
    """Of every figure, the median over families of each family's median error."""
    found: dict[str, list[float]] = {}
    for figures in by_family(scores).values():
        for figure, row in figures.items():
            found.setdefault(figure, []).append(row["median_abs_error"])
    return {figure: float(np.median(medians)) for figure, medians in sorted(found.items())}


def _kinds_of_silicon(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Rates of GPUs, of specialised silicon and of the rest, apart."""
    groups: dict[str, Callable[[str], bool]] = {
        "gpu_nvidia": lambda family: family == "gpu_nvidia",
        "specialised_silicon": lambda family: family in SILICON,
        "others": lambda family: family != "gpu_nvidia" and family not in SILICON,
    }
    rates = [one for one in scores if one.figure in RATES]
    found = {name: [one for one in rates if holds(one.family)] for name, holds in groups.items()}
    return {name: rows for name, rows in found.items() if rows}


def _report(
    scores: Sequence[Score], complete: Sequence[Score], skipped: Sequence[tuple[Result, str]], print_: str
) -> Report:
    families = [
        (
            _name(family, complete),
            figure,
            int(row["rows"]),
            *(f"{100 * row[key]:.0f} %" for key in ("median_abs_error", "mean_abs_error", "p90_abs_error")),
        )
        for family, figures in by_family(complete).items()
        for figure, row in figures.items()
    ]
    kinds = sorted({one.row.kind for one in complete})
    by_kind = [(kind, *_line([one for one in complete if one.row.kind == kind])) for kind in kinds]
    tables = (
        Table("by family and figure", COLUMNS, tuple(families)),
        Table("by kind", ("kind", "figures", "median", "mean", "90 %"), tuple(by_kind)),
        Table("farthest off", ("row", "figure", "published", "predicted", "error"), tuple(_rows(complete, WORST))),
        Table("not scored", ("row", "why"), tuple((row.id, why) for row, why in skipped)),
    )
    whole = sum(row.complete for row in {one.row.id: one.row for one in scores}.values()) + sum(
        row.complete for row, _ in skipped
    )
    out = sum(row.complete for row, _ in skipped)
    notes = (
        f"{len({one.row.id for one in complete})} of {whole} complete rows scored, {out} not; medians over families: "
        + ", ".join(f"{figure} {100 * value:.0f} %" for figure, value in over_families(complete).items()),
    )
    return Report("published results against the estimator", (), tables, notes, print_)


def _name(family: str, scores: Sequence[Score]) -> str:
    rows = {one.row.id for one in scores if one.family == family}
    return family if len(rows) >= CALIBRATED_ROWS else f"{family} (one row)"


def _line(scores: Sequence[Score]) -> tuple[int | str, ...]:
    row = summary([one.error for one in scores])
    return (
        int(row["rows"]),
        *(f"{100 * row[key]:.0f} %" for key in ("median_abs_error", "mean_abs_error", "p90_abs_error")),
    )


def _rows(scores: Sequence[Score], count: int) -> list[tuple[str, str, float, float, str]]:
    worst = sorted(scores, key=lambda one: -abs(np.log(one.predicted / one.published)))[:count]
    return [(one.row.id, one.figure, one.published, one.predicted, f"{100 * one.error:+.0f} %") for one in worst]
