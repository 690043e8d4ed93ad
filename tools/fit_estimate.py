"""Fit the estimator's numbers on results of others, and say how it does on what it was not fitted on.

    python tools/fit_estimate.py SERVING.yaml        writes data/estimate/fitted.yaml and left_out.yaml

Serving points fit the three numbers of `gpu_nvidia` and the eight shared ones; every other family's one efficiency (and a layer's time, where the
table LAYERS says so) is fitted on its own published rows, with all else kept. Whole sweeps are left out, never single points of one.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tapeout.base.files import atomic_write
from tapeout.chip.catalogue import datasheet, one_chip
from tapeout.chip.lowering import machine_of
from tapeout.estimate.calibration import Calibration, calibration
from tapeout.estimate.estimate import estimate
from tapeout.estimate.workload import Plan, Workload
from tapeout.flow.results import Result, load_results
from tapeout.flow.score import score, summary
from tapeout.graph.shapes import load_shape

DATA = Path(__file__).parents[1] / "src" / "tapeout" / "data" / "estimate"
SEED = 1
FOLDS = 5
TTFT_WEIGHT = 0.1
FAMILY = ("memory_efficiency", "compute_efficiency", "layer_us")
LAYERS = ("tenstorrent", "tpu")
"""Families that fit a layer's time beside their efficiency."""
FITTED_FAMILIES = ("gpu_amd", "npu", "tenstorrent", "tpu", "trainium")


class Points:
    """Serving points in groups that one array call answers."""

    def __init__(self, rows: Sequence[Result]):
        self.rows = rows
        groups: dict[tuple[Any, ...], list[int]] = {}
        for k, row in enumerate(rows):
            plan = Plan(row.tensor or 1, row.pipeline or 1, row.data or 1, row.expert)
            groups.setdefault((row.model, row.chip, row.weights, plan, row.recipe, row.kv_bytes), []).append(k)
        self.groups = [
            (
                load_shape(model),
                machine_of(one_chip(datasheet(chip)), "external"),
                plan,
                self._work(index, weights, kv_bytes, recipe),
                index,
            )
            for (model, chip, weights, plan, recipe, kv_bytes), index in groups.items()
        ]
        self.output = np.array([row.output_tokens for row in rows])
        self.ttft, self.tpot = (np.array([row.figures[name] for row in rows]) for name in ("ttft_ms", "tpot_ms"))

    def _work(self, index: list[int], weights: str, kv_bytes: float | None, recipe: str) -> Workload:
        columns = [
            np.array([getattr(self.rows[k], name) for k in index])
            for name in ("concurrency", "prompt_tokens", "output_tokens")
        ]
        return Workload(*columns, weights, kv_bytes, recipe)

    def ratios(self, numbers: Calibration) -> tuple[np.ndarray, np.ndarray]:
        """Predicted over measured: TTFT, TPOT."""
        ttft, tpot = np.empty(len(self.rows)), np.empty(len(self.rows))
        for shape, machine, plan, work, index in self.groups:
            made = estimate(shape, machine, work, plan, numbers)
            ttft[index], tpot[index] = made.ttft_ms, made.tpot_ms
        return ttft / self.ttft, tpot / self.tpot


def descend(start: dict[str, float], loss: Callable[[dict[str, float]], float], rounds: int) -> dict[str, float]:
    """Coordinate descent in the logarithms: a step up or down while it helps, else a smaller one."""
    best, lowest, step = dict(start), loss(start), dict.fromkeys(start, 0.2)
    for _ in range(rounds):
        for name in start:
            for factor in (1 + step[name], 1 / (1 + step[name])):
                tried = best | {name: best[name] * factor}
                found = loss(tried)
                if found < lowest:
                    best, lowest = tried, found
                    break
            else:
                step[name] *= 0.6
    return best


def with_numbers(base: Calibration, family: str, changes: dict[str, float]) -> Calibration | None:
    """A calibration with some numbers changed; None where one is out of its range."""
    data = base.model_dump()
    for name, value in changes.items():
        (data["families"][family] if name in FAMILY else data["shared"])[name] = float(f"{value:.4g}")
        if (name.endswith("efficiency") and value > 1) or (name in ("emulation", "expert_spread") and value > 1):
            return None
    return Calibration.model_validate(data)


def fit_serving(points: Points, chosen: np.ndarray, base: Calibration, rounds: int) -> Calibration:
    """The numbers of `gpu_nvidia` and the shared ones, on the chosen points."""

    def loss(changes: dict[str, float]) -> float:
        numbers = with_numbers(base, "gpu_nvidia", changes)
        if numbers is None:
            return np.inf
        ttft, tpot = (np.abs(np.log(ratio[chosen])) for ratio in points.ratios(numbers))
        return float(tpot.mean() + TTFT_WEIGHT * np.minimum(ttft, 2).mean())

    start = {name: getattr(base.families["gpu_nvidia"], name) for name in FAMILY} | base.shared.model_dump()
    made = with_numbers(base, "gpu_nvidia", descend(start, loss, rounds))
    assert made is not None, "the best numbers are in their ranges"
    return made


def fit_family(rows: Sequence[Result], family: str, base: Calibration, rounds: int) -> Calibration:
    """One efficiency of a family on its published rates, and a layer's time where LAYERS says so."""

    def numbers(changes: dict[str, float]) -> Calibration | None:
        shares = {name: changes["efficiency"] for name in FAMILY[:2]}
        return with_numbers(base, family, shares | {k: v for k, v in changes.items() if k in FAMILY})

    def loss(changes: dict[str, float]) -> float:
        made = numbers(changes)
        if made is None:
            return np.inf
        scores, _ = score(rows, made)
        return float(
            np.mean([abs(np.log(one.predicted / one.published)) for one in scores if one.figure.startswith("tokens")])
        )

    start = {"efficiency": 0.5} | ({"layer_us": base.families[family].layer_us} if family in LAYERS else {})
    made = numbers(descend(start, loss, rounds))
    assert made is not None, "the best numbers are in their ranges"
    count = sum(not row.unscored for row in rows)
    text = {
        "rows": f"{count} published rows",
        "source": "one efficiency and layer_us fitted"
        if family in LAYERS
        else "one efficiency fitted; layer_us an assumption",
    }
    families = made.families | {family: made.families[family].model_copy(update=text)}
    return made.model_copy(update={"families": families})


def errors(points: Points, numbers: Calibration) -> dict[str, np.ndarray]:
    """Of every point: TTFT, TPOT, and the whole request."""
    ttft, tpot = points.ratios(numbers)
    measured = points.ttft + points.output * points.tpot
    request = (ttft * points.ttft + points.output * tpot * points.tpot) / measured
    return {"ttft_ms": ttft - 1, "tpot_ms": tpot - 1, "request_ms": request - 1}


def summaries(found: dict[str, np.ndarray], chosen: np.ndarray | slice = slice(None)) -> dict[str, Any]:
    return {name: {k: float(f"{v:.4g}") for k, v in summary(value[chosen]).items()} for name, value in found.items()}


def left_out(points: Points, groups: Iterable[Any], base: Calibration, rounds: int, name: str) -> dict[str, np.ndarray]:
    """Errors of every point under numbers that were fitted without its group."""
    labels = np.array([str(group) for group in groups])
    found = {figure: np.empty(len(labels)) for figure in ("ttft_ms", "tpot_ms", "request_ms")}
    for label in sorted(set(labels)):
        print(f"{name}: without {label}", file=sys.stderr)
        held = labels == label
        made = errors(points, fit_serving(points, ~held, base, rounds))
        for figure, values in made.items():
            found[figure][held] = values[held]
    return found


def main() -> None:
    """Fit, leave out, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("serving", type=Path)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    points = Points([row for row in load_results(options.serving) if not row.unscored])
    base, everything = calibration(), np.ones(len(points.rows), bool)
    fitted = fit_serving(points, everything, base, options.rounds)
    published = [row for row in load_results() if row.complete]
    for family in FITTED_FAMILIES:
        print(f"family {family}", file=sys.stderr)
        fitted = fit_family(
            [row for row in published if row.chip and datasheet(row.chip).family == family],
            family,
            fitted,
            options.rounds,
        )
    sweeps = sorted({row.sweep for row in points.rows}, key=str)
    order = np.random.default_rng(SEED).permutation(len(sweeps))
    fold = {sweep: int(k) % FOLDS for sweep, k in zip(sweeps, order, strict=True)}
    out = {
        "fitted_on_all": summaries(errors(points, fitted)),
        "sourced": summaries(errors(points, calibration("sourced"))),
        "sweeps_left_out": summaries(
            left_out(points, [fold[row.sweep] for row in points.rows], base, options.rounds, "sweeps")
        ),
    }
    for key, name in (("chip", "chips_left_out"), ("model", "models_left_out")):
        labels = [getattr(row, key) for row in points.rows]
        found = left_out(points, labels, base, options.rounds, name)
        out[name] = {label: summaries(found, np.array(labels) == label) for label in sorted(set(labels))}
        out[name]["all"] = summaries(found)
    header = (DATA / "fitted.yaml").read_text().split("families:")[0]
    body = yaml.safe_dump(fitted.model_dump(exclude_none=True), sort_keys=False, width=140, default_flow_style=None)
    note = f"# Measured by tools/fit_estimate.py, seed {SEED}, {FOLDS} folds of whole sweeps.\n"
    for name, text in (("fitted", header + body), ("left_out", note + yaml.safe_dump(out, sort_keys=False))):
        with atomic_write(DATA / f"{name}.yaml", "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
