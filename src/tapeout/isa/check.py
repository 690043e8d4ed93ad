"""The static checker: proves from the program alone, for every iteration and position, what the simulator would refuse at run time.

Addresses are affine in the loop counters and in POS and LAST, so each is checked at its least and its greatest; two operands from different base
registers count as touching if they lie in one region. A program that passes cannot meet a hazard; that its stream never waits for ever is
shown by `predict`, which plays the memory model.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tapeout.base.errors import BadInput
from tapeout.isa.footprint import (
    Footprint,
    LinkUse,
    banks_of,
    footprints,
    link_uses,
    may_touch,
    region_finder,
    waits_for_states,
)
from tapeout.isa.limits import instruction_memory, problems, too_short
from tapeout.isa.opcodes import ON_STATES, Flag, MicroOp, Op
from tapeout.isa.predict import StreamRoom
from tapeout.isa.program import BLOCKS, ROW, WRITE, Loop, Program, Region, Segment
from tapeout.isa.timing import SEGMENT_MIN, latency, occupancy


@dataclass(frozen=True, slots=True)
class _Placed:
    """A micro-op of a segment with all that the rules ask of it."""

    op: MicroOp
    busy: int
    done: int
    marks: tuple[Footprint, ...]
    links: tuple[LinkUse, ...]


def check_program(program: Program) -> None:
    """Raises `BadInput` naming the segment and the micro-ops at fault, with their neighbours."""
    region_of = region_finder(program.sram)
    seen: set[int] = set()
    for entry in program.entries:
        for loop in entry.loops:
            for segment in loop.segments:
                if segment.first_op not in seen:
                    seen.add(segment.first_op)
                    _check_segment(program, loop, segment, region_of)
            _check_writes(program, loop)
    _check_instruction_memory(program)


def _check_segment(program: Program, loop: Loop, segment: Segment, region_of: Callable[[int], Region | None]) -> None:
    chip = program.chip
    placed = [
        _Placed(
            op, op.issue + occupancy(op, chip), op.issue + latency(op, chip), footprints(op, chip), link_uses(op, chip)
        )
        for op in program.segment_ops(segment)
        if _legal(program, segment, op)
    ]
    if segment.cycles < SEGMENT_MIN:
        raise BadInput(f"program, segment {segment.name!r}", f"lasts {segment.cycles} cycles; {too_short()}")
    for one, two in pairwise(placed):
        if two.op.issue < one.op.issue:
            raise _fault(segment, "is not in order of issue", one.op, two.op)
    for item in placed:
        if item.done > segment.cycles:
            raise _fault(segment, f"completes in cycle {item.done}, after the segment's {segment.cycles}", item.op)
        for mark in item.marks:
            _check_address(program, loop, segment, item.op, mark, region_of)
    for rule in (_unit_clash, _order_clash):
        _check_pairs(segment, _by_tile(placed), rule)
    _check_bytes(program, segment, placed, region_of)
    _check_ports(program, segment, placed, region_of)
    _check_links(segment, placed)
    _check_stream(program, segment, placed)
    _check_descriptors(program, loop, segment)


def _fault(segment: Segment, problem: str, *ops: MicroOp) -> BadInput:
    return BadInput(
        f"program, segment {segment.name!r}", f"{problem}: " + " | ".join(" ".join(str(op).split()) for op in ops)
    )


# --- one micro-op -----------------------------------------------------------------------------------


def _legal(program: Program, segment: Segment, op: MicroOp) -> bool:
    for problem in problems(op, program):
        raise _fault(segment, problem, op)
    return True


def _extremes(program: Program, loop: Loop, segment: Segment, base: int) -> tuple[int, int]:
    """Least and greatest content of a base register in this segment."""
    blocks = program.blocks(program.context)
    turns = segment.times(blocks) if segment.repeat == BLOCKS else segment.repeat
    register = program.bases[base]
    greatest = register.value(loop.count - 1, max(turns - 1, 0), max(program.context - 1, 0), max(program.chunk - 1, 0))
    return 0, greatest


def _check_address(
    program: Program, loop: Loop, segment: Segment, op: MicroOp, mark: Footprint, region_of: Callable[[int], Region | None]
) -> None:  # fmt: skip
    if mark.base >= len(program.bases):
        raise _fault(segment, f"base register {mark.base} of {len(program.bases)}", op)
    if not mark.outer or not mark.inner or not mark.size:
        raise _fault(segment, "touches no bytes", op)
    low, high = _extremes(program, loop, segment, mark.base)
    region = region_of(mark.offset + low)
    end = mark.offset + high + mark.span
    if region is None or end > region.end:
        name = "no region" if region is None else f"region {region.name}, which ends at {region.end:#x}"
        raise _fault(segment, f"bytes {mark.offset + low:#x}..{end:#x} leave {name}", op)
    if mark.write and region.constant:
        raise _fault(segment, f"writes into constant region {region.name}", op)
    if end > program.chip.tile.sram.kib * 1024:
        raise _fault(segment, f"byte {end:#x} is outside the SRAM", op)


# --- pairs ------------------------------------------------------------------------------------------


def _by_tile(placed: list[_Placed]) -> dict[int, list[_Placed]]:
    tiles: dict[int, list[_Placed]] = defaultdict(list)
    for item in placed:
        tiles[item.op.tile].append(item)
    return tiles


def _check_pairs(
    segment: Segment, tiles: dict[int, list[_Placed]], rule: Callable[[_Placed, _Placed], str]
) -> None:  # fmt: skip
    for items in tiles.values():
        for late, two in enumerate(items):
            for one in items[:late]:
                problem = rule(one, two)
                if problem:
                    raise _fault(segment, problem, one.op, two.op)


def _unit_clash(one: _Placed, two: _Placed) -> str:
    if one.op.unit is two.op.unit and two.op.issue < one.busy:
        return f"unit {one.op.unit.name.lower()} is busy until cycle {one.busy}"
    return ""


def _order_clash(one: _Placed, two: _Placed) -> str:
    if two.op.op is Op.MATMUL and one.op.op is Op.OPERAND and two.op.issue < one.done:
        return f"the operand is loaded in cycle {one.done}"
    if one.op.op not in ON_STATES or two.op.op not in ON_STATES:
        return ""
    if two.op.issue < one.done and waits_for_states(one.op, two.op):
        return f"the query states are in flight until cycle {one.done}"
    return ""


def _accesses(placed: list[_Placed]) -> Iterator[tuple[_Placed, Footprint]]:
    return ((item, mark) for item in placed for mark in item.marks)


def _check_bytes(
    program: Program, segment: Segment, placed: list[_Placed], region_of: Callable[[int], Region | None]
) -> None:  # fmt: skip
    tiles: dict[int, list[tuple[_Placed, Footprint]]] = defaultdict(list)
    for two, new in _accesses(placed):
        start = two.op.issue + new.start
        for one, old in tiles[new.tile]:
            if one is two or not (old.write or new.write):
                continue
            free = one.done if old.write else one.op.issue + old.end
            if start < free and may_touch(old, new, region_of):
                kind = "is read" if old.write and not new.write else "is overwritten"
                raise _fault(segment, f"a byte {kind} in cycle {start}, in use until {free}", one.op, two.op)
        tiles[new.tile].append((two, new))


def _check_ports(
    program: Program, segment: Segment, placed: list[_Placed], region_of: Callable[[int], Region | None]
) -> None:  # fmt: skip
    ports: dict[tuple[int, int, bool], list[tuple[int, int, _Placed]]] = defaultdict(list)
    for item, mark in _accesses(placed):
        for bank in banks_of(mark, program.chip, region_of):
            ports[mark.tile, bank, mark.write].append((item.op.issue + mark.start, item.op.issue + mark.end, item))
    for (tile, bank, write), uses in ports.items():
        _check_windows(segment, uses, f"the {'write' if write else 'read'} port of bank {bank} of tile {tile}")


def _check_links(segment: Segment, placed: list[_Placed]) -> None:
    links: dict[tuple[int, int], list[tuple[int, int, _Placed]]] = defaultdict(list)
    for item in placed:
        for use in item.links:
            links[use.source, use.target].append((item.op.issue + use.start, item.op.issue + use.end, item))
    for (source, target), uses in links.items():
        _check_windows(segment, uses, f"the link from tile {source} to tile {target}")


def _check_windows(segment: Segment, uses: list[tuple[int, int, _Placed]], what: str) -> None:
    """No two windows of different micro-ops overlap."""
    latest: tuple[int, int, _Placed] | None = None
    for use in sorted(uses, key=lambda item: item[:2]):
        if latest and latest[2] is not use[2] and use[0] < latest[1]:
            raise _fault(segment, f"{what} is used twice in cycle {use[0]}", latest[2].op, use[2].op)
        if latest is None or use[1] > latest[1]:
            latest = use


# --- the stream -------------------------------------------------------------------------------------


def _check_stream(program: Program, segment: Segment, placed: list[_Placed]) -> None:
    """Each tile's STREAM micro-ops find the bytes that their descriptors bring, in order; with what is not given back they fit the buffer."""
    brought: dict[int, list[int]] = defaultdict(list)
    for descriptor in program.descriptors[segment.first_descriptor : segment.first_descriptor + segment.descriptors]:
        if descriptor["kind"] != WRITE:
            for tile in range(program.chip.grid.tiles):
                if int(descriptor["mask"]) >> tile & 1:
                    brought[tile].append(int(descriptor["size"]))
    capacity = program.chip.tile.stream_kib * 1024
    last: dict[int, MicroOp] = {}
    rooms: dict[int, StreamRoom] = defaultdict(lambda: StreamRoom(program.chip))
    for item in placed:
        op = item.op
        if not op.flags & Flag.STREAM:
            continue
        if op.tile in last and last[op.tile].issue == op.issue:
            raise _fault(segment, "take from the stream in one cycle", last[op.tile], op)
        last[op.tile] = op
        pieces = op.tokens if op.op is Op.EMBED else 1
        if [op.stream_bytes // pieces] * pieces != brought[op.tile][:pieces]:
            came = brought[op.tile][0] if brought[op.tile] else 0
            raise _fault(segment, f"takes {op.stream_bytes} bytes of the stream, the next descriptor brings {came}", op)
        del brought[op.tile][:pieces]
        if not rooms[op.tile].fits(op):
            raise _fault(segment, f"overruns the stream buffer of {capacity} bytes", op)
        rooms[op.tile].take(op)
    for tile, rest in brought.items():
        if rest:
            raise BadInput(
                f"program, segment {segment.name!r}", f"brings tile {tile} {sum(rest)} bytes that nobody takes"
            )


def _check_descriptors(program: Program, loop: Loop, segment: Segment) -> None:
    """In every iteration each descriptor stays inside external memory."""
    for descriptor in program.descriptors[segment.first_descriptor : segment.first_descriptor + segment.descriptors]:
        _, high = _extremes(program, loop, segment, int(descriptor["base"]))
        first = int(descriptor["address"])
        last_row = (program.vocabulary - 1) * int(descriptor["row_bytes"]) if descriptor["kind"] == ROW else 0
        end = first + high + last_row + int(descriptor["size"])
        if end > program.external_bytes:
            where = f"a descriptor's bytes {first:#x}..{end:#x} leave the {program.external_bytes} of external memory"
            raise BadInput(f"program, segment {segment.name!r}", where)


def _check_writes(program: Program, loop: Loop) -> None:
    """In one turn of a loop every tile writes out what its descriptors carry away."""
    sent: Counter[int] = Counter()
    for segment in loop.segments:
        for op in program.segment_ops(segment):
            if op.op is Op.SEND and op.flags & Flag.EXTERNAL:
                sent[op.tile] += op.rows * op.columns
        for descriptor in program.descriptors[
            segment.first_descriptor : segment.first_descriptor + segment.descriptors
        ]:
            if descriptor["kind"] == WRITE:
                sent[int(descriptor["mask"]).bit_length() - 1] -= int(descriptor["size"])
    for tile, rest in sent.items():
        if rest:
            raise BadInput(
                f"program, loop {loop.name!r}", f"tile {tile} writes {rest:+d} bytes more than its descriptors carry"
            )


def _check_instruction_memory(program: Program) -> None:
    for problem, enough in instruction_memory(program):
        raise BadInput(
            f"chip {program.chip.name}, tile.micro_ops",
            problem,
            f"use tile.micro_ops of {enough} or more, or a shorter prefill chunk",
        )
