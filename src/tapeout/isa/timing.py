"""How long every micro-op takes: the only source of cycles. The compiler schedules by it, the simulator adds it up, the RTL is held to it.

*Occupancy*: cycles until its unit can issue the next micro-op. *Latency*: cycles until its results exist; latency >= occupancy.
The pipeline depths below are what the RTL is built with; they depend on no size.
"""

from tapeout.chip.routes import route
from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import SCORES, Flag, MicroOp, Op

OPERAND_PIPE = 2
MATMUL_PIPE = 7
NORM_SCALARS = 49
"""Per token: the drains between the three passes, and square root and divide one after the other, each iterative."""
VECTOR_PIPE = 18
"""From the last value of a group to its packet: the longest function, the group's scale, the quantizer."""
LANE_PIPE = 12
"""Vector micro-ops that write binary32: no group to wait for."""
SCORE_PIPE = 9
CAP_PIPE = 8
"""What a table and a product add to it."""
VALUE_PIPE = 1
LAYER_PASSES = 5
"""Passes of LayerNorm: the residual and the largest; the sum; the mean away and the largest again; the squares; the values."""
ATTNOUT_PIPE = 27
SEND_PIPE = 2
"""To the first link; every hop adds the link's own cycles."""
EXTERNAL_PIPE = 4
"""To the write buffer: the last bytes stand there two cycles before the streamer may take them."""

SEGMENT_MIN = 16
"""Cycles that a segment lasts at least: the sequencer fetches the next one meanwhile."""

GROUP = 32
"""Columns of a group: the quantizer works on one while the lanes fill the next."""


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


def _fill(chip: ChipSpec) -> int:
    """Cycles in which the lanes take in one group of 32."""
    return ceil_div(GROUP, chip.tile.vector.lanes)


def _packed(work: int, group: int, chip: ChipSpec) -> tuple[int, int]:
    """`work` cycles of values that leave as groups of `group` codes: the last group is whole before its scale is known."""
    fill = _fill(chip)
    busy = work + max(0, ceil_div(group, chip.tile.vector.lanes) - fill)
    return busy, busy + fill + VECTOR_PIPE


def _norm(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    # Three passes: add and find the largest; sum the squares; scale, find the group's scale, quantize.
    return _packed(op.tokens * (3 * ceil_div(op.columns, chip.tile.vector.lanes) + NORM_SCALARS), GROUP, chip)


def _layernorm(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    each = LAYER_PASSES * ceil_div(op.columns, chip.tile.vector.lanes) + 2 * NORM_SCALARS
    return _packed(op.tokens * each, GROUP, chip)


def _headnorm(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.tokens * op.heads * (3 * ceil_div(op.columns, chip.tile.vector.lanes) + NORM_SCALARS)
    return busy, busy + LANE_PIPE


def _rope(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    return _packed(op.tokens * op.heads * ceil_div(op.columns, chip.tile.vector.lanes), op.columns, chip)


def _quant(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    each = ceil_div(op.group, chip.tile.vector.lanes)
    return _packed(op.tokens * ceil_div(op.columns, op.group) * each, op.group, chip)


def _swiglu(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    return _packed(op.tokens * ceil_div(op.columns, chip.tile.vector.lanes), GROUP, chip)


def _embed(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.tokens * ceil_div(op.columns, chip.tile.vector.lanes)
    return busy, busy + LANE_PIPE


def _argmax(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = ceil_div(op.columns, chip.tile.vector.lanes)
    return busy, busy + LANE_PIPE


def _softcap(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = ceil_div(op.columns, chip.tile.vector.lanes)
    return busy, busy + VECTOR_PIPE


def score_pipe(op: MicroOp) -> int:
    """Cycles from a score's last key to its last score."""
    return SCORE_PIPE + (CAP_PIPE if op.op is Op.NEARSCORE else 0)


def _context(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    unit = chip.tile.attention
    busy = op.heads * op.tokens * ceil_div(op.rows, unit.keys) * ceil_div(op.columns, unit.lanes)
    return busy, busy + (score_pipe(op) if op.op in SCORES else VALUE_PIPE)


def _attnout(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.heads * op.tokens * ceil_div(op.columns, chip.tile.attention.dividers)
    return busy, busy + ATTNOUT_PIPE


def _send(op: MicroOp, chip: ChipSpec) -> tuple[int, int]:
    busy = op.rows * ceil_div(op.columns, chip.link.bytes_per_cycle)
    if op.flags & Flag.EXTERNAL:
        return busy, busy + EXTERNAL_PIPE
    hops = 1 + route(chip.grid, op.tile, op.s2)[-1].depth
    return busy, busy + SEND_PIPE + hops * chip.link.hop_cycles


_TIMES = {
    Op.OPERAND: _operand, Op.MATMUL: _matmul, Op.NORM: _norm, Op.ROPE: _rope, Op.QUANT: _quant, Op.SWIGLU: _swiglu,
    Op.EMBED: _embed, Op.ARGMAX: _argmax, Op.SCORE: _context, Op.VALUE: _context, Op.ATTNOUT: _attnout, Op.SEND: _send,
    Op.BIAS: _embed, Op.HEADNORM: _headnorm, Op.LAYERNORM: _layernorm, Op.GELU: _swiglu, Op.GEGLU: _swiglu,
    Op.POSITION: _embed, Op.SCALE: _embed, Op.SOFTCAP: _softcap, Op.NEARSCORE: _context, Op.NEARVALUE: _context,
}  # fmt: skip


def occupancy(op: MicroOp, chip: ChipSpec) -> int:
    """Cycles until the unit can issue its next micro-op."""
    return _TIMES[op.op](op, chip)[0]


def latency(op: MicroOp, chip: ChipSpec) -> int:
    """Cycles from issue until the results exist in SRAM (everywhere they are sent to)."""
    return _TIMES[op.op](op, chip)[1]
