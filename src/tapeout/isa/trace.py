"""What happened, when, where: one shape from schedule, simulator and RTL, so that they can be compared line by line."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapeout.base.files import atomic_write
from tapeout.isa.opcodes import OPCODES, Flag, Op, Unit
from tapeout.isa.predict import event_holds
from tapeout.isa.program import Entry, Program, walk
from tapeout.isa.timing import latency

EVENT = np.dtype(
    [
        ("op", "<u4"), ("outer", "<u2"), ("inner", "<u2"), ("issue", "<i8"), ("completion", "<i8"), ("held", "<i8"), ("written", "<u8"),
    ]
)  # fmt: skip
"""One micro-op's execution: its index in the program, its iterations, its issue and completion in compute cycles since the step began, the wall
cycles that compute had been held before it issued, and a hash of the bytes it wrote (0 where the producer of the trace does not compute bits)."""

Trace = NDArray[np.void]

FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
"""The hash is 64-bit FNV-1a over the bytes of the micro-op's write footprints, in the order of `footprints`; within one, outer runs, inner
runs, and the bytes of a run ascending. A byte of a footprint that the micro-op leaves alone (a score of a key that is not valid) counts with
what it holds at completion. No other micro-op may write there between issue and completion (`isa.check` refuses it), so it is the same
whether one hashes at issue, as the simulator does, or at completion, as hardware must. A send to external memory writes no SRAM: FNV_OFFSET."""


def schedule_trace(program: Program, entry: Entry, position: int) -> Trace:
    """What the schedule promises of one step of `entry`: every issue and completion, and the cycles held before. No bits: `written` is 0."""
    held_at = event_holds(program, entry, position)
    rows, start, at, held = [], 0, 0, 0
    for segment, i, k in walk(program, entry, position):
        for index in range(segment.first_op, segment.first_op + segment.ops):
            op = program.op(index)
            if op.flags & Flag.STREAM or (op.op is Op.SEND and op.flags & Flag.EXTERNAL):
                held += held_at[at]
                at += 1
            rows.append((index, i, k, start + op.issue, start + op.issue + latency(op, program.chip), held, 0))
        start += segment.cycles
    return issued_together(np.array(rows, EVENT))


def issued_together(trace: Trace) -> Trace:
    """A trace in the order of issue, with what compute was held for in a cycle counted for all its micro-ops: they issue together, once the last one
    has what it waits for.
    """
    if trace.size:
        first = np.flatnonzero(np.diff(trace["issue"], prepend=trace["issue"][0] - 1))
        latest = np.maximum.reduceat(trace["held"], first)
        trace["held"] = np.repeat(latest, np.diff(first, append=trace.size))
    return trace


def to_perfetto(program: Program, trace: Trace, path: str | Path) -> None:
    """Write a trace for the Perfetto viewer (ui.perfetto.dev): a process per tile, a thread per unit; one cycle is shown at the chip's clock."""
    us = 1 / program.chip.clock_mhz
    events: list[dict] = []
    for tile in range(program.chip.grid.tiles):
        events.append({"ph": "M", "name": "process_name", "pid": tile, "args": {"name": f"tile {tile}"}})
        for unit in Unit:
            name = {"name": unit.name.lower()}
            events.append({"ph": "M", "name": "thread_name", "pid": tile, "tid": int(unit), "args": name})
    for event in trace:
        record = program.ops[int(event["op"])]
        op = Op(int(record["op"]))
        start, held = int(event["issue"]), int(event["held"])
        events.append(
            {
                "ph": "X", "name": op.name.lower(), "pid": int(record["tile"]), "tid": int(OPCODES[op].unit),
                "ts": (start + held) * us, "dur": (int(event["completion"]) - start) * us,
                "args": {"op": int(event["op"]), "layer": int(event["outer"]), "block": int(event["inner"]), "issue": start, "held": held},
            }
        )  # fmt: skip
    with atomic_write(path, "w") as file:
        json.dump({"traceEvents": events, "displayTimeUnit": "ns"}, file)
