"""How long a step takes, from the program alone: issue cycles, and the cycles held by the memory model. No bit is computed."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.chip.memory import END, FREE, NEED, PUSH, ROOM, beats_of, memory_timing, new_streamer, play
from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import Flag, MicroOp, Op
from tapeout.isa.program import Entry, Program, Segment, cut_into_bodies, issue_cycles, transfers, walk
from tapeout.isa.timing import latency

NEVER = 1 << 40
"""A cycle that no segment reaches."""

_EVENT = np.dtype([("cycle", "i8"), ("order", "i8"), ("kind", "i8"), ("tile", "i8"), ("amount", "i8"), ("op", "i8")])


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step: compute cycles, held cycles, and which micro-op was waited for (index -> wall cycles; -1: the end of the step)."""

    cycles: int
    held: int
    held_by_op: dict[int, int]

    @property
    def wall(self) -> int:
        """Cycles of the chip's clock, holds counted."""
        return self.cycles + self.held


def predict(program: Program, entry: Entry, position: int) -> StepTime:
    """Time one step of `entry` with POS = `position`. Raises `BadInput` where the stream runs dry for good."""
    cycles = issue_cycles(program, entry, position)
    events, held = _played(program, entry, position, cycles)
    by_op: dict[int, int] = {}
    for index in np.flatnonzero(held):
        op = int(events["op"][index])
        by_op[op] = by_op.get(op, 0) + int(held[index])
    return StepTime(cycles, int(held.sum()), by_op)


def event_holds(program: Program, entry: Entry, position: int) -> list[int]:
    """Wall cycles held before each micro-op that can be held (STREAM, or a send to external memory), in the order of time."""
    events, held = _played(program, entry, position, issue_cycles(program, entry, position))
    return held[np.isin(events["kind"], (NEED, ROOM))].tolist()


def _played(program: Program, entry: Entry, position: int, cycles: int) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """All events of the step, and the wall cycles held before each."""
    events = _events(program, entry, position, cycles)
    moved = transfers(program, entry, position)
    streamer = new_streamer(memory_timing(program.chip), program.chip.grid.tiles, moved.kinds, moved.masks, moved.sizes)
    held, stuck = play(
        streamer, *(np.ascontiguousarray(events[name]) for name in ("cycle", "kind", "tile", "amount"))
    )  # fmt: skip
    if stuck >= 0:
        waits = " ".join(str(program.op(int(events["op"][stuck]))).split())
        raise BadInput(f"program, entry {entry.name!r}", f"[{waits}] waits for ever: what it waits for is never sent")
    return events, held


def _events(program: Program, entry: Entry, position: int, cycles: int) -> NDArray[np.void]:
    """Every event of the step in order of cycle; at one cycle completions come before issues."""
    templates: dict[int, NDArray[np.void]] = {}
    parts, start = [], 0
    for segment, _, _ in walk(program, entry, position):
        if segment.first_op not in templates:
            templates[segment.first_op] = _template(program, segment)
        part = templates[segment.first_op].copy()
        part["cycle"] += start
        parts.append(part)
        start += segment.cycles
    parts.append(np.array([(cycles, 2, END, 0, 0, -1)], _EVENT))
    events = np.concatenate(parts)
    return events[np.lexsort((np.arange(events.size), events["order"], events["cycle"]))]


def _template(program: Program, segment: Segment) -> NDArray[np.void]:
    """The events of one run of a segment, by cycle within it. A tile's beats are freed in the order of use."""
    rows: list[tuple[int, int, int, int, int, int]] = []
    rooms: dict[int, StreamRoom] = defaultdict(lambda: StreamRoom(program.chip))
    for index in range(segment.first_op, segment.first_op + segment.ops):
        op = program.op(index)
        done = op.issue + latency(op, program.chip)
        if op.flags & Flag.STREAM:
            rooms[op.tile].take(op)
            free, beats = rooms[op.tile].taken[-1]
            rows += [(op.issue, 1, NEED, op.tile, beats, index), (free, 0, FREE, op.tile, beats, index)]
        elif op.op is Op.SEND and op.flags & Flag.EXTERNAL:
            size = op.rows * op.columns
            rows += [(op.issue, 1, ROOM, op.tile, size, index), (done, 0, PUSH, op.tile, size, index)]
    return np.array(rows, _EVENT)


def stream_beats(op: MicroOp, chip: ChipSpec) -> int:
    """Beats that a STREAM micro-op takes: an embedding is one descriptor per token."""
    beat = chip.external.beat_bytes if chip.external else 64
    pieces = op.tokens if op.op is Op.EMBED else 1
    return pieces * int(beats_of.py_func(op.stream_bytes // pieces, beat))


class StreamRoom:
    """The stream buffer of one tile as a segment's STREAM micro-ops, given in the order of use, fill it: who is still to give room back."""

    def __init__(self, chip: ChipSpec) -> None:
        self.chip, self.capacity = chip, memory_timing(chip).buffer_beats
        self.taken: list[tuple[int, int]] = []
        """(cycle in which it comes free, beats), both in the order of use."""

    def fits(self, op: MicroOp) -> bool:
        """Whether `op` finds room in its issue cycle; where it does not, it would wait for ever: nothing completes while compute is held."""
        return self.earliest(op) <= op.issue

    def earliest(self, op: MicroOp) -> int:
        """The first cycle in which there is room for `op`; beyond all reason where the buffer is too small for it alone."""
        room = self.capacity - stream_beats(op, self.chip)
        if room < 0:
            return NEVER
        for free, beats in reversed(self.taken):
            room -= beats
            if room < 0:
                return free
        return 0

    def take(self, op: MicroOp) -> None:
        """`op` uses its beats, and gives them back when it and all before it have completed."""
        done = op.issue + latency(op, self.chip)
        self.taken.append((max(done, self.taken[-1][0] if self.taken else 0), stream_beats(op, self.chip)))


def predict_steps(program: Program, steps: Iterable[tuple[Entry, int]]) -> tuple[StepTime, ...]:
    """`predict` for many (entry, position): a step's time depends on its position only through the context blocks in the cache."""
    known: dict[tuple[str, int], StepTime] = {}
    times = []
    for entry, position in steps:
        key = entry.name, program.blocks(position)
        if key not in known:
            known[key] = predict(program, entry, position)
        times.append(known[key])
    return tuple(times)


def steps_for(program: Program, tokens: int, position: int) -> list[tuple[Entry, int, int]]:
    """How `tokens` tokens from `position` on are cut into entry runs: (entry, position, real tokens); logits for the last token only."""
    return [
        (program.entry(f"{body.name}_head") if offset + count == tokens else body, position + offset, count)
        for body, offset, count in cut_into_bodies(program, tokens)
    ]
