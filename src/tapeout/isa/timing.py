"""How long every micro-op takes: the only source of cycles. The compiler schedules by it, the simulator adds it up, the RTL is held to it.

*Occupancy*: cycles until its unit can issue the next micro-op. *Latency*: cycles until its results exist; latency >= occupancy.
The pipeline depths below are what the RTL is to be built with.
"""

from tapeout.chip.routes import route
from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import Flag, MicroOp, Op

OPERAND_PIPE = 4
MATMUL_PIPE = 16
NORM_SCALARS = 72
"""Per token: divide and square root one after the other (iterative, 28 cycles each) and their roundings."""
VECTOR_PIPE = 24
ROPE_PIPE = 40
SWIGLU_PIPE = 32
ARGMAX_PIPE = 8
ATTENTION_PIPE = 40
DIVIDE = 28
"""An iterative binary32 divider; attention has one per lane."""
SEND_PIPE = 2


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def _operand(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.tokens * ceil_div(op.columns, chip.tile.matrix.lanes)
    return busy, busy + OPERAND_PIPE


def _matmul(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    unit = chip.tile.matrix
    busy = ceil_div(op.rows, unit.rows) * ceil_div(op.columns, unit.lanes) * op.tokens
    return busy, busy + MATMUL_PIPE


def _norm(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    # Three passes: add and find the largest; sum the squares; scale, find the group's scale, quantize.
    busy = op.tokens * (3 * ceil_div(op.columns, chip.tile.vector.lanes) + NORM_SCALARS)
    return busy, busy + VECTOR_PIPE


def _rope(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    # Two passes: rotate and find the largest; quantize.
    busy = op.tokens * op.heads * 2 * ceil_div(op.columns, chip.tile.vector.lanes)
    return busy, busy + ROPE_PIPE


def _quant(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.tokens * 2 * ceil_div(op.columns, chip.tile.vector.lanes)
    return busy, busy + VECTOR_PIPE


def _swiglu(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.tokens * 2 * ceil_div(op.columns, chip.tile.vector.lanes)
    return busy, busy + SWIGLU_PIPE


def _embed(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.tokens * ceil_div(op.columns, chip.tile.vector.lanes)
    return busy, busy + VECTOR_PIPE


def _argmax(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = ceil_div(op.columns, chip.tile.vector.lanes)
    return busy, busy + ARGMAX_PIPE


def _context(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    unit = chip.tile.attention
    busy = op.heads * op.tokens * ceil_div(op.rows, unit.keys) * ceil_div(op.columns, unit.lanes)
    return busy, busy + ATTENTION_PIPE


def _attnout(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.heads * op.tokens * ceil_div(op.columns, chip.tile.attention.lanes) * DIVIDE
    return busy, busy + ATTENTION_PIPE


def _send(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.rows * ceil_div(op.columns, chip.link.bytes_per_cycle)
    hops = 1 if op.flags & Flag.EXTERNAL else 1 + route(chip.grid, op.tile, op.s2)[-1].depth
    return busy, busy + SEND_PIPE + hops * chip.link.hop_cycles


_TIMES = {
    Op.OPERAND: _operand, Op.MATMUL: _matmul, Op.NORM: _norm, Op.ROPE: _rope, Op.QUANT: _quant, Op.SWIGLU: _swiglu,
    Op.EMBED: _embed, Op.ARGMAX: _argmax, Op.SCORE: _context, Op.VALUE: _context, Op.ATTNOUT: _attnout, Op.SEND: _send,
}  # fmt: skip


def occupancy(op: MicroOp, chip: ChipSpec) -> int:
    """Cycles until the unit can issue its next micro-op."""
    return _TIMES[op.op](op, chip)[0]


def latency(op: MicroOp, chip: ChipSpec) -> int:
    """Cycles from issue until the results exist in SRAM (everywhere they are sent to)."""
    return _TIMES[op.op](op, chip)[1]
