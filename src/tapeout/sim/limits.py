"""What a micro-op may not ask for whatever its cycle: checked once, before a program runs, so that compiled code never leaves its arrays."""

from itertools import pairwise

from tapeout.isa.layout import block_bytes, row_bytes
from tapeout.isa.opcodes import ADDRESSES, FORMAT_IDS, OPCODES, Flag, MicroOp, Op
from tapeout.isa.program import Program
from tapeout.sim.hazard import Hazard

BINARY32 = {
    Op.MATMUL: ("dst", "s0"), Op.NORM: ("a", "b", "c", "s0"), Op.ROPE: ("a", "c", "s0"), Op.QUANT: ("a", "s0"),
    Op.SWIGLU: ("a", "b", "s0"), Op.EMBED: ("dst", "s1"), Op.ARGMAX: ("a", "dst"), Op.SCORE: ("dst", "s2"), Op.VALUE: ("a", "s2"),
    Op.ATTNOUT: ("dst", "s1"),
}  # fmt: skip
"""Slots that hold addresses or strides of binary32 words: multiples of 4."""


def check_limits(program: Program) -> None:
    """Raises `Hazard` on the first micro-op that no state of the chip could execute."""
    for index in range(program.ops.size):
        op = program.op(index)
        for problem in _problems(op, program):
            raise Hazard(f"[{' '.join(str(op).split())}] {problem}")


def check_order(program: Program) -> None:
    """Raises `Hazard` where a segment's micro-ops do not stand in the order of their issue: the clock never runs back."""
    for entry in program.entries:
        for loop in entry.loops:
            for segment in loop.segments:
                for one, two in pairwise(range(segment.first_op, segment.first_op + segment.ops)):
                    if program.ops[two]["issue"] < program.ops[one]["issue"]:
                        first, second = (" ".join(str(program.op(at)).split()) for at in (one, two))
                        raise Hazard(
                            f"segment {segment.name!r}: [{second}] stands behind [{first}], which issues later"
                        )


def _problems(op: MicroOp, program: Program) -> list[str]:
    tiles = program.chip.grid.tiles
    if op.tile >= tiles:
        return [f"is for tile {op.tile} of {tiles}"]
    rules = [
        (not op.flags & ~OPCODES[op.op].flags, "has flags that are not for it"),
        (op.format < len(FORMAT_IDS), f"has format {op.format} of {len(FORMAT_IDS)}"),
        (
            all(getattr(op, f"{slot}_base") < len(program.bases) for slot in ADDRESSES),
            "names a base register that is not there",
        ),
        (
            not op.columns % 32 or op.op not in (Op.OPERAND, Op.MATMUL, Op.EMBED),
            f"has {op.columns} columns, not groups of 32",
        ),
        *_unit_rules(op, program),
    ]
    found = [problem for fine, problem in rules if not fine]
    return found or _operand_problems(op, program)


def _unit_rules(op: MicroOp, program: Program) -> list[tuple[bool, str]]:
    unit, states = program.chip.tile.matrix, program.chip.tile.attention.queries
    tiles, top = program.chip.grid.tiles, op.slot + op.heads * op.tokens
    if op.op in (Op.OPERAND, Op.MATMUL):
        return [
            (op.tokens <= unit.tokens, f"has {op.tokens} tokens; the matrix unit holds {unit.tokens}"),
            (op.op is Op.OPERAND or not op.rows % unit.rows, f"has {op.rows} rows, not blocks of {unit.rows}"),
        ]
    if op.op in (Op.SCORE, Op.VALUE, Op.ATTNOUT):
        return [(top <= states, f"uses query state {top - 1} of {states}")]
    if op.op is Op.SEND and not op.flags & Flag.EXTERNAL:
        fine = bool(op.s2) and not op.s2 >> tiles and not op.s2 >> op.tile & 1
        return [(fine, f"has targets {op.s2:#x}, not other tiles of {tiles}")]
    return []


def _operand_problems(op: MicroOp, program: Program) -> list[str]:
    """Addresses of binary32 that no word has, and operands that the stream does not bring whole."""
    for slot in BINARY32.get(op.op, ()):
        base = program.bases[getattr(op, f"{slot}_base")] if slot in ADDRESSES else program.bases[0]
        if any(part % 4 for part in (getattr(op, slot), base.outer, base.inner, base.pos, base.last)):
            return [f"has binary32 words at {slot} {getattr(op, slot):#x}, not a multiple of 4"]
    if op.flags & Flag.STREAM and op.stream_bytes != _stream_need(op):
        return [f"takes {op.stream_bytes} bytes of the stream and needs {_stream_need(op)}"]
    return []


def _stream_need(op: MicroOp) -> int:
    """Bytes of the operand that comes from the stream."""
    name = FORMAT_IDS[op.format]
    return {
        Op.MATMUL: block_bytes(op.rows, op.columns, name),
        Op.NORM: 4 * op.columns,
        Op.EMBED: op.tokens * row_bytes(op.columns, name),
        Op.SCORE: op.rows * (op.columns + 4),
        Op.VALUE: op.rows * (op.columns + 2),
    }[op.op]
