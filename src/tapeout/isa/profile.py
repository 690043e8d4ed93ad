"""Where the cycles of a step go: every cycle is given to one cause, so that the parts add up to the whole."""

from collections import Counter

import numpy as np

from tapeout.isa.opcodes import OPCODES, MicroOp, Op, Unit
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
    marks = {0, segment.cycles}
    for op in ops:
        marks |= {op.issue, op.issue + occupancy(op, program.chip), op.issue + latency(op, program.chip)}
    edges = sorted(mark for mark in marks if mark <= segment.cycles)
    at = {edge: number for number, edge in enumerate(edges)}
    owner = np.full(len(edges) - 1, 2 * none, np.int64)

    def give(op: MicroOp, cycles: int, to: int) -> None:
        owner[at.get(op.issue, len(edges)) : at.get(op.issue + cycles, len(edges))] = to

    for op in sorted(ops, key=lambda op: -op.issue - latency(op, program.chip)):
        give(op, latency(op, program.chip), none + int(op.op))
    for unit in reversed(PRIORITY):
        for op in ops:
            if op.unit is unit:
                give(op, occupancy(op, program.chip), int(op.op))
    total: Counter[str] = Counter()
    for value, length in zip(owner.tolist(), np.diff(edges).tolist(), strict=True):
        total[_cause(value)] += length
    return total


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
