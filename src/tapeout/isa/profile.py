"""Where the cycles of a step go: every cycle is given to one cause, so that the parts add up to the whole."""

from collections import Counter

import numpy as np

from tapeout.isa.opcodes import MicroOp, Unit
from tapeout.isa.program import Entry, Program, Segment, segment_times
from tapeout.isa.timing import occupancy

PRIORITY = (Unit.MATRIX, Unit.ATTENTION, Unit.VECTOR, Unit.LINK)
"""A cycle in which several units work is given to the first of these: what it hides costs nothing."""
LATENCY = "latency"
"""Cycles in which no unit starts anything new: pipelines drain."""


def segment_profile(program: Program, segment: Segment) -> Counter[str]:
    """Cycles of one run of a segment by cause: "unit opcode", or "latency"."""
    owner = np.full(segment.cycles, -1, np.int64)
    ops = list(program.segment_ops(segment))
    for unit in reversed(PRIORITY):
        for op in ops:
            if op.unit is unit:
                owner[op.issue : op.issue + occupancy(op, program.chip)] = int(op.op)
    causes: Counter[str] = Counter()
    kinds = {int(op.op): _cause(op) for op in ops}
    for value, cycles in zip(*np.unique(owner, return_counts=True), strict=True):
        causes[kinds.get(int(value), LATENCY)] += int(cycles)
    return causes


def _cause(op: MicroOp) -> str:
    return f"{op.unit.name.lower()} {op.op.name.lower()}"


def profile(program: Program, entry: Entry, position: int) -> Counter[str]:
    """Compute-domain cycles of one step of `entry` by cause; they add up to `issue_cycles`."""
    total: Counter[str] = Counter()
    for segment, times in segment_times(program, entry, position):
        for cause, cycles in segment_profile(program, segment).items():
            total[cause] += times * cycles
    return total


def busy_cycles(program: Program, entry: Entry, position: int) -> dict[Unit, float]:
    """Cycles that each kind of unit is busy, mean over tiles (overlaps counted for each)."""
    busy = dict.fromkeys(Unit, 0.0)
    for segment, times in segment_times(program, entry, position):
        for op in program.segment_ops(segment):
            busy[op.unit] += times * occupancy(op, program.chip) / program.chip.grid.tiles
    return busy
