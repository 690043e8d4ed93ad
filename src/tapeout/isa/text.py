"""The text form of a program: for people to read and to diff; `parse_op` reads a micro-op back."""

import re
from collections.abc import Iterator

from tapeout.base.errors import BadInput
from tapeout.isa.opcodes import ADDRESSES, FORMAT_IDS, OPCODES, Flag, MicroOp, Op
from tapeout.isa.program import BLOCKS, READ, ROW, Program, Segment

_KINDS = {READ: "read", ROW: "row"}


def program_lines(program: Program) -> Iterator[str]:
    """The whole program, line by line; segments that several entries share are printed once."""
    yield f"program {program.model} ({program.weights}) on {program.chip.name}, context {program.context}"
    for number, base in enumerate(program.bases):
        yield f"base B{number} {base.name}: {base.outer}*i + {base.inner}*k + {base.pos}*POS + {base.last}*LAST"
    seen: set[int] = set()
    for entry in program.entries:
        yield f"entry {entry.name} tokens={entry.tokens}"
        for loop in entry.loops:
            yield f"  loop {loop.name!r} x {loop.count}"
            for segment in loop.segments:
                yield f"    segment {segment.name!r} cycles={segment.cycles} repeat={'blocks' if segment.repeat == BLOCKS else segment.repeat}"
                if segment.first_op not in seen:
                    seen.add(segment.first_op)
                    yield from _segment_lines(program, segment)


def _segment_lines(program: Program, segment: Segment) -> Iterator[str]:
    for op in program.segment_ops(segment):
        yield f"      {op}"
    for d in program.descriptors[segment.first_descriptor : segment.first_descriptor + segment.descriptors]:
        kind = _KINDS.get(int(d["kind"]), "write")
        row = f" + TOKEN[{d['token']}]*{d['row_bytes']}" if d["kind"] == ROW else ""
        yield f"      descriptor {kind:<5} tiles={int(d['mask']):#x} bytes={d['size']} address={int(d['address']):#x}+B{d['base']}{row}"


_OP = re.compile(r"\s*(\d+)\s+tile(\d+)\s+(\w+)\s*(.*)")


def parse_op(text: str) -> MicroOp:
    """Read back what `str(MicroOp)` prints. Raises `BadInput` naming the word that does not belong."""
    match = _OP.fullmatch(text)
    if not match or match[3].upper() not in Op.__members__:
        raise BadInput(
            "micro-op",
            f"{text.strip()!r} does not begin with cycle, tile and one of {', '.join(op.name.lower() for op in Op)}",
        )
    op = Op[match[3].upper()]
    values: dict[str, int] = {"issue": int(match[1]), "tile": int(match[2])}
    flags = Flag.NONE
    for word in match[4].split():
        name, equals, value = word.partition("=")
        if not equals and name.upper() in Flag.__members__:
            flags |= Flag[name.upper()]
        elif equals and name in OPCODES[op].slots:
            _field(values, OPCODES[op].slots[name], value)
        else:
            raise BadInput(
                "micro-op",
                f"{word!r} is no field or flag of {op.name.lower()}",
                f"fields: {', '.join(OPCODES[op].slots)}",
            )
    return MicroOp(op, flags=flags, **values)


def _field(values: dict[str, int], slot: str, text: str) -> None:
    try:
        if slot == "format":
            values[slot] = FORMAT_IDS.index(text)
        elif slot in ADDRESSES:
            offset, _, base = text.partition("+B")
            values[slot], values[f"{slot}_base"] = int(offset, 0), int(base or 0)
        else:
            values[slot] = int(text, 0)
    except ValueError as error:
        raise BadInput("micro-op", f"{text!r} is no value of {slot}") from error
