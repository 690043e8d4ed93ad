"""What a micro-op may not ask for whatever its cycle: rules that the static checker, the simulator and the RTL's harness apply alike.

A program that keeps them never leaves the arrays of compiled code, nor the address paths of the hardware.
"""

from collections import Counter
from itertools import pairwise

from tapeout.base.errors import Hazard
from tapeout.chip.spec import PACKET_BYTES
from tapeout.isa.footprint import record_bytes
from tapeout.isa.layout import block_bytes, row_bytes
from tapeout.isa.opcodes import ADDRESSES, FORMAT_IDS, ON_STATES, OPCODES, Flag, MicroOp, Op, Unit
from tapeout.isa.program import Program, Segment
from tapeout.isa.timing import SEGMENT_MIN

ALIGNED: dict[Op, dict[str, int]] = {
    Op.OPERAND: {"a": 2, "s0": 2},
    Op.MATMUL: {"dst": 4, "s0": 4, "b": 4},
    Op.NORM: {"a": 4, "b": 4, "c": 4, "s0": 4, "dst": 2, "s1": 2},
    Op.ROPE: {"a": 4, "c": 4, "s0": 4, "dst": 2, "s1": 2, "s2": 2, "columns": 2},
    Op.QUANT: {"a": 4, "s0": 4, "dst": 2, "s1": 2, "b": 2, "s2": 2, "group": 2},
    Op.SWIGLU: {"a": 4, "b": 4, "s0": 4, "dst": 2, "s1": 2},
    Op.EMBED: {"dst": 4, "s1": 4, "b": 2, "s0": 2},
    Op.ARGMAX: {"a": 4, "dst": 4},
    Op.SCORE: {"dst": 4, "s2": 4, "a": 2, "s0": 2, "s1": 2, "b": 2, "columns": 2},
    Op.VALUE: {"a": 4, "s2": 4, "b": 2, "columns": 2},
    Op.ATTNOUT: {"dst": 4, "s1": 4, "columns": 2},
    Op.SEND: {"a": 2, "s0": 2, "dst": 2, "s1": 2, "columns": 2},
    Op.BIAS: {"a": 4, "c": 4, "s0": 4},
    Op.HEADNORM: {"a": 4, "c": 4, "s0": 4},
    Op.LAYERNORM: {"a": 4, "b": 4, "c": 4, "s0": 4, "dst": 2, "s1": 2},
    Op.GELU: {"a": 4, "s0": 4, "dst": 2, "s1": 2},
    Op.GEGLU: {"a": 4, "b": 4, "s0": 4, "dst": 2, "s1": 2},
    Op.POSITION: {"dst": 4, "s1": 4, "b": 2, "s0": 2},
    Op.SCALE: {"a": 4, "s0": 4},
    Op.SOFTCAP: {"a": 4},
    Op.NEARSCORE: {"dst": 4, "s2": 4, "a": 2, "s0": 2, "s1": 2, "b": 2, "columns": 2},
    Op.NEARVALUE: {"a": 4, "s2": 4, "b": 2, "columns": 2},
}
"""What slots must be multiples of: 4 for binary32 words and blocks of weights, 2 for packets, records and whatever is copied."""

SIZES = ("rows", "columns", "tokens", "heads", "group")
"""Slots of which nobody may have none: timing divides by some, and nothing would be touched."""

UNITS = len(Unit)


def check_limits(program: Program) -> None:
    """Raises `Hazard` on the first micro-op that no state of the chip could execute, and where instruction memory overflows."""
    for index in range(program.ops.size):
        op = program.op(index)
        for problem in problems(op, program):
            raise Hazard(f"[{_shown(op)}] {problem}")
    for problem, _ in instruction_memory(program):
        raise Hazard(problem)


def check_order(program: Program) -> None:
    """Raises `Hazard` where a segment is too short, or its micro-ops do not stand in the order of their issue: the clock never runs back."""
    for entry in program.entries:
        for loop in entry.loops:
            for segment in loop.segments:
                _check_segment(program, segment)


def _check_segment(program: Program, segment: Segment) -> None:
    where = f"segment {segment.name!r}"
    if segment.cycles < SEGMENT_MIN:
        raise Hazard(f"{where} lasts {segment.cycles} cycles; {too_short()}")
    streamed: dict[int, MicroOp] = {}
    for one, two in pairwise(program.segment_ops(segment)):
        if two.issue < one.issue:
            raise Hazard(f"{where}: [{_shown(two)}] stands behind [{_shown(one)}], which issues later")
    for op in program.segment_ops(segment):
        if op.flags & Flag.STREAM:
            last = streamed.get(op.tile)
            if last and last.issue == op.issue:
                raise Hazard(f"{where}: [{_shown(op)}] takes from the stream in the same cycle as [{_shown(last)}]")
            streamed[op.tile] = op


def too_short() -> str:
    """Why a segment may not be shorter."""
    return f"the sequencer needs {SEGMENT_MIN} to fetch the next segment"


def _shown(op: MicroOp) -> str:
    return " ".join(str(op).split())


def instruction_memory(program: Program) -> list[tuple[str, int]]:
    """Units whose micro-ops overfill their instruction memory, a quarter of the tile's: (what is wrong, `tile.micro_ops` that would do)."""
    have = program.chip.tile.micro_ops // UNITS
    counts = Counter((int(record["tile"]), OPCODES[Op(int(record["op"]))].unit) for record in program.ops)
    return [
        (
            f"tile {tile} needs {count:,} micro-ops for its {unit.name.lower()} unit of {have:,}: {count - have:,} too many",
            UNITS * count,
        )
        for (tile, unit), count in sorted(counts.items(), key=lambda item: -item[1])
        if count > have
    ]


def problems(op: MicroOp, program: Program) -> list[str]:
    """What is wrong with one micro-op, to be read behind its text; empty where nothing is."""
    tiles = program.chip.grid.tiles
    if op.tile >= tiles:
        return [f"is for tile {op.tile} of {tiles}"]
    rules = [
        (not op.flags & ~OPCODES[op.op].flags, f"has flags {op.flags & ~OPCODES[op.op].flags!r} that are not for it"),
        (op.format < len(FORMAT_IDS), f"has format {op.format} of {len(FORMAT_IDS)}"),
        (
            all(getattr(op, f"{slot}_base") < len(program.bases) for slot in ADDRESSES),
            "names a base register that is not there",
        ),
        (
            not op.columns % 32 or op.op not in (Op.OPERAND, Op.MATMUL, Op.EMBED, Op.POSITION),
            f"has {op.columns} columns, not groups of 32",
        ),
        (
            not op.flags & Flag.NIBBLES or not (op.group if op.op is Op.QUANT else op.columns) % 4,
            "packs codes in halves of bytes and has heads that are no multiple of 4",
        ),
    ]
    found = [problem for fine, problem in rules if not fine]
    found = found or [problem for fine, problem in _unit_rules(op, program) if not fine]
    found = found or [f"has no {size}" for size in SIZES if _needs(op.op, size) and not getattr(op, size)]
    return found or _operand_problems(op, program)


def _needs(op: Op, size: str) -> bool:
    """Whether an opcode has a size; a window may be none."""
    return any(slot == size and name != "window" for name, slot in OPCODES[op].slots.items())


def _unit_rules(op: MicroOp, program: Program) -> list[tuple[bool, str]]:
    chip = program.chip
    if op.op in (Op.OPERAND, Op.MATMUL):
        return _matrix_rules(op, program)
    if op.op in ON_STATES:
        states, top = chip.tile.attention.queries, op.slot + op.heads * op.tokens
        return [(top <= states, f"uses query state {top - 1} of {states}")]
    if op.op is Op.QUANT and op.flags & Flag.AUX:
        return [
            (
                op.columns <= op.group,
                f"writes a scale twice and has {op.columns} columns, more than a group of {op.group}",
            )
        ]
    if op.op is Op.SEND and op.flags & Flag.EXTERNAL:
        return [(op.rows == 1, f"sends {op.rows} pieces to external memory, not 1")]
    if op.op is Op.SEND:
        tiles = chip.grid.tiles
        fine = bool(op.s2) and not op.s2 >> tiles and not op.s2 >> op.tile & 1
        return [(fine, f"has targets {op.s2:#x}, not other tiles of {tiles}")]
    return []


def _matrix_rules(op: MicroOp, program: Program) -> list[tuple[bool, str]]:
    unit = program.chip.tile.matrix
    size, room = op.tokens * op.columns // 32 * PACKET_BYTES, unit.operand_kib * 1024
    rules = [
        (1 <= op.tokens <= unit.tokens, f"has {op.tokens} tokens; the matrix unit takes 1 to {unit.tokens}"),
        (size <= room, f"needs {size} bytes of the operand buffer's {room}"),
    ]
    if op.op is Op.MATMUL:
        name = FORMAT_IDS[op.format]
        rules += [
            (op.rows > 0 and not op.rows % unit.rows, f"has {op.rows} rows, not blocks of {unit.rows}"),
            (name in unit.formats, f"has weights in {name}, not a format of the matrix unit"),
        ]
    return rules


def _operand_problems(op: MicroOp, program: Program) -> list[str]:
    """Addresses, strides and sizes that are not aligned, and operands that the stream does not bring whole."""
    for slot, to in ALIGNED[op.op].items():
        base = program.bases[getattr(op, f"{slot}_base")] if slot in ADDRESSES else program.bases[0]
        value = getattr(op, slot)
        if any(part % to for part in (value, base.outer, base.inner, base.pos, base.last)):
            what = f"{value:#x}" + (f" + base {base.name}" if base is not program.bases[0] else "")
            return [f"has {slot} {what}, not a multiple of {to}"]
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
        Op.SCORE: op.rows * record_bytes(op),
        Op.VALUE: op.rows * record_bytes(op),
        Op.BIAS: 4 * op.columns,
        Op.HEADNORM: 4 * op.columns,
        Op.LAYERNORM: 8 * op.columns,
        Op.POSITION: op.tokens * row_bytes(op.columns, name),
        Op.NEARSCORE: op.rows * record_bytes(op),
        Op.NEARVALUE: op.rows * record_bytes(op),
    }[op.op]
