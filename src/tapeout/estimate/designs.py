"""Millions of designs: the same call as for one, a run of them at a time, so that intermediate values stay in the cache and memory is bounded."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.chip.machine import Machine
from tapeout.estimate.calibration import Calibration
from tapeout.estimate.estimate import Estimate, estimate
from tapeout.estimate.workload import Plan, Workload
from tapeout.graph.shapes import ModelShape

AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Designs:
    """Figures of every design, in order; NaN where the model does not fit."""

    ttft_ms: NDArray[np.float64]
    tpot_ms: NDArray[np.float64]
    tokens_per_s_total: NDArray[np.float64]
    joules_per_token: NDArray[np.float64]
    watts: NDArray[np.float64]
    batch: NDArray[np.float64]


def estimate_designs(
    shape: ModelShape,
    machine: Machine,
    work: Workload,
    plan: Plan,
    numbers: Calibration | None = None,
    *,
    at_once: int = AT_ONCE,
    threads: int = 1,
) -> Designs:
    """Fields of machine and workload are numbers or arrays of one length. Raises `BadInput` where lengths differ."""
    count = _count(machine, work)
    made = {field.name: np.empty(count) for field in fields(Designs)}

    def run(rows: slice) -> None:
        found: Estimate = estimate(shape, machine.chunk(rows), work.chunk(rows), plan, numbers)
        for name, column in made.items():
            column[rows] = getattr(found, name)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, _runs(count, at_once)))
    return Designs(**made)


def _count(machine: Machine, work: Workload) -> int:
    lengths = {
        len(value)
        for spec in (machine, work, *([machine.tiles] if machine.tiles else []))
        for f in fields(spec)
        if isinstance(value := getattr(spec, f.name), np.ndarray)
    }
    if len(lengths) > 1:
        raise BadInput(
            "designs",
            f"arrays have {' and '.join(map(str, sorted(lengths)))} entries",
            "give every array one entry per design",
        )
    return lengths.pop() if lengths else 1


def _runs(count: int, at_once: int) -> Iterator[slice]:
    return (slice(start, min(start + at_once, count)) for start in range(0, count, at_once))
