"""What must hold of a program that came from a file before any of it is looked at: types, ranges, and nothing without measure.

It is quick (arrays are checked as arrays) and says nothing about hazards: that is `check.py`'s. What passes can be printed, walked and
unrolled without leaving an array and in a time that a chip's program may take.
"""

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tapeout.isa.opcodes import ADDRESSES, FORMAT_IDS, Flag, Op
from tapeout.isa.program import BLOCKS, WRITE, Base, Entry, Program, Region, Segment

MOST_BASES = 256
"""A base register's number is one byte."""
MOST_COUNT = 2**31 - 1
"""Of tokens, positions and repeats."""
MOST_ADDRESS = 2**48
"""Bytes that any memory of a chip has."""
MOST_CYCLES = 2**34
"""Of a segment: an issue cycle has 32 bits, and its micro-op still has to complete."""
MOST_TURNS = 2**23
"""Segments run in one step. 80 layers at a context of 128 k in blocks of 32 are 2^20."""
MOST_RUN = 2**28
"""Micro-ops and descriptors run in one step."""
ENTRIES = ("token", "token_head", "head")
"""What every program can be asked for."""


def check_form(program: Program) -> None:
    """Raises `ValueError` that says what is out of range, or of the wrong type."""
    _texts(
        model=program.model, weights=program.weights, model_fingerprint=program.model_fingerprint,
        **{f"note {at}": note for at, note in enumerate(program.notes)},
    )  # fmt: skip
    if not isinstance(program.extra, dict):
        _refuse("extra", program.extra)
    _texts(**{f"extra {key}": text for key, text in program.extra.items()})
    _whole("vocabulary", program.vocabulary, 1, MOST_COUNT)
    _whole("context", program.context, 1, MOST_COUNT)
    _whole("block_keys", program.block_keys, 1, MOST_COUNT)
    _whole("external_bytes", program.external_bytes, program.external_image.size, MOST_ADDRESS)
    _whole("result_address", program.result_address, 0, program.chip.tile.sram.kib * 1024)
    for part in program.sram:
        _region(part, program.chip.tile.sram.kib * 1024)
    for part in program.external:
        _region(part, MOST_ADDRESS)
    _bases(program.bases)
    _records(program)
    _descriptors(program)
    _memory(program)
    names = [entry.name for entry in program.entries]
    if len(set(map(str, names))) < len(names) or not set(ENTRIES) <= set(map(str, names)):
        _refuse("the names of its entries", names)
    for entry in program.entries:
        _entry(program, entry)


def _refuse(what: str, came: Any) -> NoReturn:
    raise ValueError(f"{what} is {str(came)[:80]!r}")


def _texts(**texts: Any) -> None:
    for what, text in texts.items():
        if not isinstance(text, str):
            _refuse(what, text)


def _whole(what: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int:
        _refuse(what, value)
    if not least <= value <= most:
        raise ValueError(f"{what} is {value}, not {least} to {most}")


def _within(what: str, values: NDArray, most: int) -> None:
    """No value is greater than `most`."""
    if values.size and int(values.max()) > most:
        raise ValueError(f"{what} {int(values.argmax())} is {int(values.max())}, more than {most}")


def _region(region: Region, memory: int) -> None:
    _texts(region=region.name)
    _whole(f"the start of region {region.name}", region.start, 0, memory)
    _whole(f"the size of region {region.name}", region.size, 0, memory - region.start)
    if not isinstance(region.constant, bool):
        _refuse(f"constant of region {region.name}", region.constant)


def _bases(bases: tuple[Base, ...]) -> None:
    _whole("the number of base registers", len(bases), 1, MOST_BASES)
    for base in bases:
        _texts(base=base.name)
        for part in ("outer", "inner", "pos", "last"):
            _whole(f"{part} of base register {base.name}", getattr(base, part), 0, MOST_ADDRESS)
    if any((bases[0].outer, bases[0].inner, bases[0].pos, bases[0].last)):
        _refuse("base register 0, which is always 0,", bases[0])


def _records(program: Program) -> None:
    ops, flags = program.ops, sum(Flag)
    _within("the opcode of micro-op", ops["op"], len(Op) - 1)
    _within("the tile of micro-op", ops["tile"], program.chip.grid.tiles - 1)
    _within("the format of micro-op", ops["format"], len(FORMAT_IDS) - 1)
    _within("the flags of micro-op", ops["flags"], flags)
    for slot in ADDRESSES:
        _within(f"the base register of {slot} of micro-op", ops[f"{slot}_base"], len(program.bases) - 1)


def _descriptors(program: Program) -> None:
    rows, tiles = program.descriptors, program.chip.grid.tiles
    _within("the kind of descriptor", rows["kind"], 2)
    _within("the base register of descriptor", rows["base"], len(program.bases) - 1)
    _within("the tiles of descriptor", rows["mask"], (1 << tiles) - 1)
    _within("the micro-op of descriptor", rows["op"], max(program.ops.size - 1, 0))
    _within("the address of descriptor", rows["address"], MOST_ADDRESS)
    if rows.size and not rows["mask"].min():
        _refuse("the tiles of a descriptor", 0)
    writers = rows["mask"][rows["kind"] == WRITE]
    if np.any(writers & (writers - np.uint32(1))):
        raise ValueError("a descriptor takes bytes from more than one tile")


def _memory(program: Program) -> None:
    """Images and logits lie in tiles and memories that the chip has."""
    tiles, room = program.chip.grid.tiles, program.chip.tile.sram.kib * 1024
    for image in program.images:
        _whole("the tile of an image", image.tile, 0, tiles - 1)
        _whole("the address of an image", image.address, 0, room - image.data.size)
    for piece in program.logits:
        _whole("the tile of logits", piece.tile, 0, tiles - 1)
        _whole("the rows of logits", piece.rows, 0, program.vocabulary)
        _whole("the address of logits", piece.address, 0, room - 4 * piece.rows)
        _whole("the first id of logits", piece.first_id, 0, program.vocabulary - piece.rows)


def _entry(program: Program, entry: Entry) -> None:
    _texts(entry=entry.name)
    _whole(f"tokens of entry {entry.name}", entry.tokens, 1, 65_535)
    blocks, turns, run = program.blocks(program.context), 0, 0
    for loop in entry.loops:
        _texts(loop=loop.name)
        _whole(f"count of loop {loop.name}", loop.count, 0, MOST_COUNT)
        for segment in loop.segments:
            _segment(program, segment)
            times = loop.count * segment.times(blocks)
            turns += times + loop.count
            run += times * (segment.ops + segment.descriptors)
            _reach(program, loop.count, max(segment.times(blocks), 1), entry.tokens)
    _whole(f"segments run in one step of entry {entry.name}", turns, 0, MOST_TURNS)
    _whole(f"micro-ops and descriptors run in one step of entry {entry.name}", run, 0, MOST_RUN)


def _reach(program: Program, turns: int, times: int, tokens: int) -> None:
    """No base register goes further than any memory does."""
    for base in program.bases:
        far = base.value(turns, times, program.context, tokens)
        _whole(f"the greatest content of base register {base.name}", far, 0, MOST_ADDRESS)


def _segment(program: Program, segment: Segment) -> None:
    _texts(segment=segment.name)
    _whole(f"cycles of segment {segment.name}", segment.cycles, 1, MOST_CYCLES)
    _whole(f"repeat of segment {segment.name}", segment.repeat, BLOCKS, MOST_COUNT)
    for what, first, count, size in (
        ("micro-ops", segment.first_op, segment.ops, program.ops.size),
        ("descriptors", segment.first_descriptor, segment.descriptors, program.descriptors.size),
    ):
        _whole(f"the first of the {what} of segment {segment.name}", first, 0, size)
        _whole(f"the number of {what} of segment {segment.name}", count, 0, size - first)
