"""Issue cycles: each micro-op as early as its unit, its operands, the bank ports and the links allow, in the order of lowering.

The rules are those of `isa.footprint`, which the simulator and the static checker enforce; nothing here knows what a micro-op means.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tapeout.chip.spec import ChipSpec
from tapeout.compiler.lower import Feed, Stage, StageLoop
from tapeout.isa.footprint import Footprint, banks_of, footprints, link_uses, may_touch, waits_for_states
from tapeout.isa.opcodes import ON_STATES, Flag, MicroOp, Op
from tapeout.isa.predict import StreamRoom
from tapeout.isa.program import Region
from tapeout.isa.timing import SEGMENT_MIN, latency, occupancy


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A stage with its issue cycles: ops in order of issue, feeds in the order in which they are used."""

    name: str
    cycles: int
    ops: tuple[MicroOp, ...]
    feeds: tuple[tuple[Feed, int], ...]
    """With each descriptor, the op (position in `ops`) that it is for; writes last."""
    repeat: int


@dataclass(frozen=True, slots=True)
class ScheduledLoop:
    """A loop of scheduled stages."""

    name: str
    count: int
    stages: tuple[Scheduled, ...]


def schedule_loops(
    loops: tuple[StageLoop, ...], chip: ChipSpec, region_of: Callable[[int], Region | None]
) -> tuple[ScheduledLoop, ...]:
    """Schedule every stage on its own: a segment begins with nothing in flight."""
    return tuple(
        ScheduledLoop(loop.name, loop.count, tuple(_schedule(stage, chip, region_of) for stage in loop.stages))
        for loop in loops
    )


def _schedule(stage: Stage, chip: ChipSpec, region_of: Callable[[int], Region | None]) -> Scheduled:
    board = _Board(chip, region_of)
    placed: list[tuple[int, int, MicroOp, int]] = []  # issue, order, op, step
    for number, step in enumerate(stage.steps):
        issue = board.place(step.ops)
        placed += [(issue, len(placed) + k, replace(op, issue=issue), number) for k, op in enumerate(step.ops)]
    placed.sort(key=lambda item: item[:2])
    ops = tuple(item[2] for item in placed)
    cycles = max((op.issue + latency(op, chip) for op in ops), default=0)
    cycles = max(cycles, SEGMENT_MIN)
    return Scheduled(stage.name, cycles, ops, _feeds(stage, [item[3] for item in placed]), stage.repeat)


def _feeds(stage: Stage, steps: list[int]) -> tuple[tuple[Feed, int], ...]:
    """Descriptors in the order in which the first op of their step issues."""
    feeds: list[tuple[Feed, int]] = []
    seen: set[int] = set()
    for position, number in enumerate(steps):
        if number not in seen:
            seen.add(number)
            feeds += [(feed, position) for feed in stage.steps[number].feeds]
    return (*feeds, *((feed, 0) for feed in stage.writes))


@dataclass(slots=True)
class _Access:
    mark: Footprint
    issue: int
    completion: int


@dataclass(slots=True)
class _Board:
    """What is taken when, in one segment."""

    chip: ChipSpec
    region_of: Callable[[int], Region | None]
    unit_free: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    stream_next: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Per tile: the cycle behind its last STREAM micro-op; one may issue per cycle."""
    rooms: dict[int, StreamRoom] = field(default_factory=dict)
    accesses: dict[int, list[_Access]] = field(default_factory=lambda: defaultdict(list))
    ports: dict[tuple[int, int, bool], list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    links: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    loaded: dict[int, int] = field(default_factory=dict)
    """Per tile: completion of the last OPERAND."""
    attention: dict[int, list[MicroOp]] = field(default_factory=lambda: defaultdict(list))
    """Per tile: the micro-ops on query states, with their issue cycles."""

    def place(self, ops: tuple[MicroOp, ...]) -> int:
        """The first cycle in which all of `ops` can issue; takes what they use."""
        marks = [footprints(op, self.chip) for op in ops]
        issue = max(self._ready(op, mark) for op, mark in zip(ops, marks, strict=True))
        while True:
            later = max(self._port_free(op, mark, issue) for op, mark in zip(ops, marks, strict=True))
            if later == issue:
                break
            issue = later
        for op, mark in zip(ops, marks, strict=True):
            self._take(op, mark, issue)
        return issue

    def _ready(self, op: MicroOp, marks: tuple[Footprint, ...]) -> int:
        issue = self.unit_free[op.tile, op.unit]
        if op.op is Op.MATMUL:
            issue = max(issue, self.loaded.get(op.tile, 0))
        if op.op in ON_STATES:
            for old in self.attention[op.tile]:
                if waits_for_states(old, op):
                    issue = max(issue, old.issue + latency(old, self.chip))
        if op.flags & Flag.STREAM:
            issue = max(issue, self.stream_next[op.tile], self._room(op.tile).earliest(op))
        for mark in marks:
            for old in self.accesses[mark.tile]:
                if (mark.write or old.mark.write) and may_touch(old.mark, mark, self.region_of):
                    # Issue order is the order of meaning: the first of two that touch a byte issues first, even if their windows allow more.
                    free = old.completion if old.mark.write else old.issue + old.mark.end
                    issue = max(issue, old.issue, free - mark.start)
        return issue

    def _port_free(self, op: MicroOp, marks: tuple[Footprint, ...], issue: int) -> int:
        """`issue`, or a later cycle to try where a port or link is taken."""
        for mark in marks:
            for bank in banks_of(mark, self.chip, self.region_of):
                for start, end in self.ports[mark.tile, bank, mark.write]:
                    if start < issue + mark.end and issue + mark.start < end:
                        issue = end - mark.start
        for use in link_uses(op, self.chip):
            for start, end in self.links[use.source, use.target]:
                if start < issue + use.end and issue + use.start < end:
                    issue = end - use.start
        return issue

    def _take(self, op: MicroOp, marks: tuple[Footprint, ...], issue: int) -> None:
        done = issue + latency(op, self.chip)
        self.unit_free[op.tile, op.unit] = issue + occupancy(op, self.chip)
        for mark in marks:
            self.accesses[mark.tile].append(_Access(mark, issue, done))
            for bank in banks_of(mark, self.chip, self.region_of):
                self.ports[mark.tile, bank, mark.write].append((issue + mark.start, issue + mark.end))
        for use in link_uses(op, self.chip):
            self.links[use.source, use.target].append((issue + use.start, issue + use.end))
        if op.op is Op.OPERAND:
            self.loaded[op.tile] = done
        if op.op in ON_STATES:
            self.attention[op.tile].append(replace(op, issue=issue))
        if op.flags & Flag.STREAM:
            self.stream_next[op.tile] = max(self.stream_next[op.tile], issue + 1)
            self._room(op.tile).take(replace(op, issue=issue))

    def _room(self, tile: int) -> StreamRoom:
        return self.rooms.setdefault(tile, StreamRoom(self.chip))
