"""Where the cycles of a step go: every cycle is given to one cause, so that the parts add up to the whole."""

from collections import Counter

import numpy as np

from tapeout.isa.opcodes import OPCODES, Op, Unit
from tapeout.isa.program import Entry, Program, Segment, segment_times
from tapeout.isa.timing import latency, occupancy

PRIORITY = (Unit.MATRIX, Unit.ATTENTION, Unit.VECTOR, Unit.LINK)
"""A cycle in which several units work is given to the first of these: what it hides costs nothing."""
MULTIPLYING = "matrix matmul"
"""The cause of cycles in which a matrix unit multiplies; all others are waits."""
PIPELINE = " pipeline"
"""Behind a micro-op's name: cycles in which no unit takes anything new, and of all results in flight its is the next to come."""
PADDING = "segment's end"
"""Cycles in which nothing is in flight: the sequencer needs them to fetch the next segment."""


def segment_profile(program: Program, segment: Segment) -> Counter[str]:
    """Cycles of one run of a segment by cause: "unit opcode", the same with `PIPELINE` behind it, or `PADDING`."""
    ops, none = list(program.segment_ops(segment)), len(Op)
    owner = np.full(segment.cycles, 2 * none, np.int64)
    for op in sorted(ops, key=lambda op: -op.issue - latency(op, program.chip)):
        owner[op.issue : op.issue + latency(op, program.chip)] = none + int(op.op)
    for unit in reversed(PRIORITY):
        for op in ops:
            if op.unit is unit:
                owner[op.issue : op.issue + occupancy(op, program.chip)] = int(op.op)
    return Counter(
        {_cause(int(value)): int(count) for value, count in zip(*np.unique(owner, return_counts=True), strict=True)}
    )


def _cause(owner: int) -> str:
    """The name of an opcode, of `len(Op)` + an opcode for its pipeline, or of nothing."""
    behind, opcode = divmod(owner, len(Op))
    if behind > 1:
        return PADDING
    op = Op(opcode)
    return f"{OPCODES[op].unit.name.lower()} {op.name.lower()}" + PIPELINE * behind


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
