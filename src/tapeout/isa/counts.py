"""What a step costs in countable things: MACs, bytes per memory, hops. `silicon` turns them into joules."""

from collections import Counter

from tapeout.chip.routes import route
from tapeout.chip.spec import PACKET_BYTES, ChipSpec
from tapeout.isa.footprint import footprints
from tapeout.isa.opcodes import FORMAT_IDS, Flag, MicroOp, Op
from tapeout.isa.program import WRITE, Entry, Program, segment_times
from tapeout.isa.timing import ceil_div
from tapeout.numerics.formats import FORMATS

LANE_MACS = {8: "macs_int8", 6: "macs_int8", 5: "macs_int8", 4: "macs_int4", 3: "macs_int4", 2: "macs_ternary"}
"""By the bits of a code at the multiplier: what has no price of its own is counted as the next wider lane."""
VECTOR_OPS = {Op.NORM: 8, Op.ROPE: 8, Op.QUANT: 3, Op.SWIGLU: 8, Op.EMBED: 2, Op.ARGMAX: 1}
VECTOR_OPS |= {
    Op.BIAS: 1, Op.HEADNORM: 5, Op.LAYERNORM: 12, Op.GELU: 7, Op.GEGLU: 8, Op.POSITION: 3, Op.SCALE: 1, Op.SOFTCAP: 6,
}  # fmt: skip
"""Binary32 lane operations per element, counted from the rules of docs/numerics.md (multiply, add, compare, table, quantize)."""


def op_counts(op: MicroOp, chip: ChipSpec) -> Counter[str]:
    """The counts of one execution of `op`. Lanes that multiply padding count: they toggle."""
    counts: Counter[str] = Counter({"micro_ops": 1})
    for mark in footprints(op, chip):
        counts["sram_write_bytes" if mark.write else "sram_read_bytes"] += mark.outer * mark.inner * mark.size
    if op.flags & Flag.STREAM:
        counts["sram_read_bytes"] += op.stream_bytes
    _UNIT_COUNTS.get(op.op, _vector)(op, chip, counts)
    return counts


def _operand(op: MicroOp, chip: ChipSpec, counts: Counter[str]) -> None:
    counts["operand_bytes"] += op.tokens * op.columns // 32 * PACKET_BYTES


def _matmul(op: MicroOp, chip: ChipSpec, counts: Counter[str]) -> None:
    form = FORMATS[FORMAT_IDS[op.format]]
    groups = op.columns // 32
    counts[LANE_MACS[form.lane_bits]] += op.rows * op.columns * op.tokens
    counts["group_terms"] += op.rows * op.columns // form.block * op.tokens * (2 if form.has_minimum else 1)
    counts["operand_bytes"] += ceil_div(op.rows, chip.tile.matrix.rows) * groups * PACKET_BYTES * op.tokens


def _vector(op: MicroOp, chip: ChipSpec, counts: Counter[str]) -> None:
    counts["vector_flops"] += VECTOR_OPS[op.op] * op.columns * max(op.heads, 1) * max(op.tokens, 1)
    if op.op in (Op.NORM, Op.HEADNORM, Op.LAYERNORM):
        counts["divides"] += 2 * op.tokens * max(op.heads, 1)


def _context(op: MicroOp, chip: ChipSpec, counts: Counter[str]) -> None:
    counts["attention_macs"] += op.heads * op.tokens * op.rows * op.columns
    counts["vector_flops"] += 4 * op.heads * op.tokens * op.rows


def _attnout(op: MicroOp, chip: ChipSpec, counts: Counter[str]) -> None:
    counts["divides"] += op.heads * op.tokens * op.columns


def _send(op: MicroOp, chip: ChipSpec, counts: Counter[str]) -> None:
    hops = 1 if op.flags & Flag.EXTERNAL else len(route(chip.grid, op.tile, op.s2))
    counts["link_byte_hops"] += op.rows * op.columns * hops


_UNIT_COUNTS = {
    Op.OPERAND: _operand, Op.MATMUL: _matmul, Op.SCORE: _context, Op.VALUE: _context, Op.ATTNOUT: _attnout, Op.SEND: _send,
    Op.NEARSCORE: _context, Op.NEARVALUE: _context,
}  # fmt: skip


def entry_counts(program: Program, entry: Entry, position: int) -> Counter[str]:
    """The counts of one step of `entry` at `position`."""
    total: Counter[str] = Counter()
    for segment, times in segment_times(program, entry, position):
        for op in program.segment_ops(segment):
            for name, count in op_counts(op, program.chip).items():
                total[name] += times * count
        first = segment.first_descriptor
        for descriptor in program.descriptors[first : first + segment.descriptors]:
            _transfer(descriptor, times, total)
    return total


def _transfer(descriptor, times: int, total: Counter[str]) -> None:
    size = int(descriptor["size"]) * times
    if descriptor["kind"] == WRITE:
        total["external_write_bytes"] += size
        return
    total["external_read_bytes"] += size
    reached = int(descriptor["mask"]).bit_count()
    total["stream_bytes"] += size * reached
    total["sram_write_bytes"] += size * reached
