"""A program cut into what each memory of the chip holds: the words that the host sends before the first step.

Nothing is translated: micro-ops and descriptors are the program's own bytes. Each unit gets its own micro-ops, segment by segment, and a table of
where
each segment's begin and end.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.isa.opcodes import Unit
from tapeout.isa.program import BLOCKS, Program, Segment
from tapeout.rtl.host import Command
from tapeout.rtl.load_bus import ROW_WORDS, Register, Space
from tapeout.rtl.ports import ops_of
from tapeout.rtl.records import BASE_ROW, RANGE_ROW, SEGMENT_ROW

Words = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Microcode:
    """`rows`: entry name -> its first row in the segment table. `index` [tiles, units, pointer]: which micro-op of the program a pointer is, -1:
    none."""

    rows: dict[str, int]
    loads: Words
    index: NDArray[np.int32]


def load(space: Space, words: Words, tile: int = 0, unit: int = 0, first: int = 0) -> Words:
    """The host's words for rows of one memory."""
    head = Command.LOAD.value << 28 | space.value << 20 | tile << 12 | unit << 8
    flat = np.ascontiguousarray(words).view(np.uint32).reshape(-1)
    return np.concatenate([np.array([head, first, flat.size // ROW_WORDS[space]], np.uint32), flat])


def start(row: int) -> Words:
    """The host's words that start an entry."""
    return np.array([Command.START.value << 28, row], np.uint32)


def step_words(position: int, last: int, token_ids: tuple[int, ...]) -> Words:
    """The host's words that set POS, LAST and TOKEN."""
    registers = load(Space.REGISTERS, np.array([position, last], np.uint32), first=Register.POSITION)
    return np.concatenate([registers, load(Space.TOKENS, np.array(token_ids or (0,), np.uint32))])


def microcode(program: Program) -> Microcode:
    """Cut a program. `isa.limits` and `rtl.limits` have been applied."""
    segments = _segments(program)
    parts = [
        _images(program),
        _segment_table(program, segments),
        load(
            Space.BASES,
            np.stack([_bits(BASE_ROW, outer=b.outer, inner=b.inner, pos=b.pos, last=b.last) for b in program.bases]),
        ),
        load(Space.DESCRIPTORS, program.descriptors.view(np.uint32)),
    ]
    index = []
    for tile in range(program.chip.grid.tiles):
        for unit in Unit:
            words, mine = _unit(program, segments, tile, unit)
            parts.append(words)
            index.append(mine)
    depth = max(1, max(map(len, index)))
    padded = np.array([[*mine, *[-1] * (depth - len(mine))] for mine in index], np.int32)
    return Microcode(_rows(program), np.concatenate(parts), padded.reshape(program.chip.grid.tiles, len(Unit), depth))


def _segments(program: Program) -> list[Segment]:
    """Every segment once: entries share them."""
    found: dict[tuple[int, int, int, int, int], Segment] = {}
    for entry in program.entries:
        for loop in entry.loops:
            for segment in loop.segments:
                found.setdefault(_key(segment), segment)
    return list(found.values())


def _key(segment: Segment) -> tuple[int, int, int, int, int]:
    return segment.first_op, segment.ops, segment.first_descriptor, segment.descriptors, segment.cycles


def _rows(program: Program) -> dict[str, int]:
    rows, at = {}, 0
    for entry in program.entries:
        rows[entry.name] = at
        at += sum(len(loop.segments) for loop in entry.loops)
    return rows


def _segment_table(program: Program, segments: list[Segment]) -> Words:
    number = {_key(segment): at for at, segment in enumerate(segments)}
    rows: list[Words] = []
    for entry in program.entries:
        for loop in entry.loops:
            first = len(rows)
            for segment in loop.segments:
                ends = segment is loop.segments[-1]
                rows.append(
                    _bits(
                        SEGMENT_ROW, segment=number[_key(segment)], repeat=max(segment.repeat, 0), cycles=segment.cycles, count=loop.count,
                        first_row=first, ends_loop=int(ends), ends_entry=int(ends and loop is entry.loops[-1]), begins_loop=int(first == len(rows)),
                        per_block=int(segment.repeat == BLOCKS), first_descriptor=segment.first_descriptor, descriptors=segment.descriptors,
                    )
                )  # fmt: skip
    return load(Space.SEGMENTS, np.stack(rows))


def _unit(program: Program, segments: list[Segment], tile: int, unit: Unit) -> tuple[Words, list[int]]:
    """The micro-ops of one unit and where each segment's stand, as words; and their numbers in the program."""
    ops, index, ranges = program.ops, [], []
    wanted = ops_of(unit)
    for segment in segments:
        part = ops[segment.first_op : segment.first_op + segment.ops]
        mine = np.flatnonzero((part["tile"] == tile) & np.isin(part["op"], wanted)) + segment.first_op
        ranges.append(_bits(RANGE_ROW, start=len(index), end=len(index) + mine.size))
        index += mine.tolist()
    words = [load(Space.RANGES, np.stack(ranges), tile, int(unit))]
    if index:
        words.append(load(Space.MICRO_OPS, ops[index].view(np.uint32), tile, int(unit)))
    return np.concatenate(words), index


def _images(program: Program) -> Words:
    """What the SRAMs hold before the first step, in whole words."""
    parts = [np.zeros(0, np.uint32)]
    for image in program.images:
        assert image.address % 4 == 0, f"image of tile {image.tile} begins within a word"
        data = np.concatenate([image.data, np.zeros(-image.data.size % 4, np.uint8)])
        parts.append(load(Space.SRAM, data, image.tile, first=image.address // 4))
    return np.concatenate(parts)


def _bits(layout: object, **fields: int) -> Words:
    """A row as words."""
    row = layout.const(fields)  # type: ignore[attr-defined]
    width = layout.size  # type: ignore[attr-defined]
    return np.frombuffer(row.as_value().value.to_bytes(width // 8, "little"), np.uint32)
