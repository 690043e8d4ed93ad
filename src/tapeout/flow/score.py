"""Our error on results of others: row by row, by family and figure, and over families."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import datasheet
from tapeout.estimate.calibration import Calibration
from tapeout.estimate.estimate import bound
from tapeout.flow.predict import predict
from tapeout.flow.results import Result


@dataclass(frozen=True, slots=True)
class Score:
    """One figure of one row. error: predicted / published - 1."""

    row: Result
    family: str
    figure: str
    published: float
    predicted: float
    binds: str

    @property
    def error(self) -> float:
        """Signed fraction."""
        return self.predicted / self.published - 1.0

    def to_json(self) -> dict[str, Any]:
        """The keys of the command line's contract, and what was assumed."""
        row = self.row
        return {
            "id": row.id, "family": self.family, "kind": row.kind, "figure": self.figure, "published": self.published,
            "predicted": self.predicted, "error": self.error, "complete": row.complete, "binds": self.binds,
            "assumptions": [str(made) for made in row.assumptions],
        }  # fmt: skip


def score(
    results: Iterable[Result], numbers: Calibration | None = None
) -> tuple[list[Score], list[tuple[Result, str]]]:
    """Every figure of every row that can be scored, and the rows that cannot, each with the reason."""
    scores, skipped = [], []
    for row in results:
        if row.unscored:
            skipped.append((row, row.unscored))
            continue
        try:
            made = predict(row, numbers)
            family = datasheet(row.chip).family
        except BadInput as reason:
            skipped.append((row, str(reason)))
            continue
        binds = bound(made.estimate.prefill if row.kind == "first_token_latency" else made.estimate.decode)
        scores += [Score(row, family, name, value, made.figures[name], binds) for name, value in row.figures.items()]
    return scores, skipped


def summary(errors: Sequence[float]) -> dict[str, float]:
    """rows, median, mean and 90th percentile of the absolute errors."""
    size = np.abs(np.asarray(errors, float))
    return {
        "rows": len(errors),
        "median_abs_error": float(np.median(size)),
        "mean_abs_error": float(size.mean()),
        "p90_abs_error": float(np.quantile(size, 0.9)),
    }


def by_figure(scores: Iterable[Score]) -> dict[str, dict[str, float]]:
    """Summary of every figure."""
    groups: dict[str, list[float]] = {}
    for one in scores:
        groups.setdefault(one.figure, []).append(one.error)
    return {figure: summary(errors) for figure, errors in sorted(groups.items())}


def by_family(scores: Iterable[Score]) -> dict[str, dict[str, dict[str, float]]]:
    """Summary of every figure, family by family."""
    groups: dict[str, list[Score]] = {}
    for one in scores:
        groups.setdefault(one.family, []).append(one)
    return {family: by_figure(rows) for family, rows in sorted(groups.items())}
