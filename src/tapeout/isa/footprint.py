"""Which bytes a micro-op touches and when: one definition for the scheduler, the static checker and the simulator.

A footprint is `outer` x `inner` runs of `size` bytes, at base + offset + i*outer_stride + k*inner_stride, read or written in the window
[start, end) of cycles after issue. Reads of a run must not begin before its writer completes; a write window must not begin before the
readers of the old bytes are done. Two windows on one port (read or write) of one SRAM bank must not overlap.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tapeout.chip.routes import route
from tapeout.chip.spec import PACKET_BYTES, ChipSpec
from tapeout.isa.layout import block_bytes
from tapeout.isa.opcodes import FORMAT_IDS, SCORES, Flag, MicroOp, Op
from tapeout.isa.program import Region
from tapeout.isa.timing import NORM_SCALARS, SEND_PIPE, ceil_div, latency, occupancy, score_pipe


@dataclass(frozen=True, slots=True)
class Footprint:
    """See the module. `tile` is where the SRAM is (a send writes in other tiles)."""

    tile: int
    base: int
    offset: int
    size: int
    write: bool
    start: int
    end: int
    outer: int = 1
    outer_stride: int = 0
    inner: int = 1
    inner_stride: int = 0

    @property
    def span(self) -> int:
        """Bytes from the first to behind the last."""
        return (self.outer - 1) * self.outer_stride + (self.inner - 1) * self.inner_stride + self.size


def overlap(one: Footprint, two: Footprint) -> bool:
    """Whether the two touch a common byte, both taken from the same base. Exact for equal strides, else by spans and runs."""
    if one.tile != two.tile:
        return False
    low, high = (one, two) if one.offset <= two.offset else (two, one)
    if low.offset + low.span <= high.offset:
        return False
    runs, others = _runs(one), _runs(two)
    after = (bisect_right(others, a - two.size) for a in runs)  # the first of the others that ends behind a
    return any(at < len(others) and others[at] < a + one.size for a, at in zip(runs, after, strict=True))


def may_touch(one: Footprint, two: Footprint, region_of: Callable[[int], Region | None]) -> bool:
    """Whether the two may touch a common byte in some iteration: exact from one base, by regions from different ones."""
    if one.tile != two.tile:
        return False
    return overlap(one, two) if one.base == two.base else region_of(one.offset) is region_of(two.offset)


def waits_for_states(one: MicroOp, two: MicroOp) -> bool:
    """Whether attention micro-op `two` must not issue before `one`, issued earlier in its tile, completes: they share query states, and do not
    simply go on with the same kind of work."""
    going_on = one.op is two.op and not two.flags & Flag.FIRST
    apart = (
        two.slot >= one.slot + one.heads * one.tokens or one.slot >= two.slot + two.heads * two.tokens
    )  # fmt: skip
    return not going_on and not apart


def banks_of(mark: Footprint, chip: ChipSpec, region_of: Callable[[int], Region | None]) -> range:
    """The banks it may touch: those of its bytes, or of its whole region where a base register moves it."""
    start, end, size = mark.offset, mark.offset + mark.span, chip.tile.sram.bank_bytes
    region = region_of(mark.offset) if mark.base else None
    if region is not None:
        start, end = region.start, region.end
    return range(start // size, (end - 1) // size + 1)


def region_finder(regions: Iterable[Region]) -> Callable[[int], Region | None]:
    """A function from an address to the region that holds it."""
    ordered = sorted((region for region in regions if region.size), key=lambda region: region.start)
    starts = [region.start for region in ordered]

    def find(address: int) -> Region | None:
        at = bisect_right(starts, address) - 1
        return ordered[at] if at >= 0 and address < ordered[at].end else None

    return find


def _runs(mark: Footprint) -> list[int]:
    """Where its runs begin, each once, in order."""
    outer = range(mark.outer if mark.outer_stride else 1)
    inner = range(mark.inner if mark.inner_stride else 1)
    return sorted({mark.offset + i * mark.outer_stride + k * mark.inner_stride for i in outer for k in inner})


def footprints(op: MicroOp, chip: ChipSpec) -> tuple[Footprint, ...]:
    """Every SRAM byte that `op` reads or writes, with windows. Stream buffers and operand registers are not SRAM addresses."""
    return tuple(_FOOTPRINTS[op.op](op, chip))


def _read(op: MicroOp, slot: str, size: int, start: int, end: int, **runs: int) -> Footprint:
    return Footprint(op.tile, getattr(op, f"{slot}_base"), getattr(op, slot), size, False, start, end, **runs)


def _write(op: MicroOp, size: int, chip: ChipSpec, **runs: int) -> Footprint:
    done, busy = latency(op, chip), occupancy(op, chip)
    return Footprint(op.tile, op.dst_base, op.dst, size, True, done - busy, done, **runs)


def _tokens(op: MicroOp, stride: int) -> dict[str, int]:
    return {"outer": op.tokens, "outer_stride": stride}


def packed(columns: int) -> int:
    """Bytes of a vector of `columns` as packets."""
    return ceil_div(columns, 32) * PACKET_BYTES


def _operand(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    return [_read(op, "a", packed(op.columns), 0, occupancy(op, chip), **_tokens(op, op.s0))]


def _matmul(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    marks = [_write(op, 4 * op.rows, chip, **_tokens(op, op.s0))]
    if not op.flags & Flag.STREAM:
        size = block_bytes(op.rows, op.columns, FORMAT_IDS[op.format])
        marks.append(_read(op, "b", size, 0, occupancy(op, chip)))
    return marks


def _norm(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    busy, size, parts = occupancy(op, chip), 4 * op.columns, 2 if op.op is Op.LAYERNORM else 1
    marks = [
        _write(op, packed(op.columns), chip, **_tokens(op, op.s1)),
        _read(op, "a", size, 0, busy, **_tokens(op, op.s0)),
    ]
    if op.flags & Flag.ADD:
        marks.append(_read(op, "b", size, 0, busy, **_tokens(op, op.s0)))
        marks.append(Footprint(op.tile, op.a_base, op.a, size, True, 0, latency(op, chip), **_tokens(op, op.s0)))
    if not op.flags & Flag.STREAM:
        marks.append(_read(op, "c", parts * size, min(busy, NORM_SCALARS), busy))
    return marks


def _in_place(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    """x is read and written back."""
    size, tokens = 4 * op.columns * max(op.heads, 1), {"outer": max(op.tokens, 1), "outer_stride": op.s0}
    return [
        Footprint(op.tile, op.a_base, op.a, size, True, 0, latency(op, chip), **tokens),
        _read(op, "a", size, 0, occupancy(op, chip), **tokens),
    ]


def _with_vector(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    marks = _in_place(op, chip)
    if not op.flags & Flag.STREAM:
        marks.append(_read(op, "c", 4 * op.columns, 0, occupancy(op, chip)))
    return marks


def _gelu(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    return [
        _write(op, packed(op.columns), chip, **_tokens(op, op.s1)),
        _read(op, "a", 4 * op.columns, 0, occupancy(op, chip), **_tokens(op, op.s0)),
    ]


def _position(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    busy, tokens = occupancy(op, chip), _tokens(op, op.s1)
    marks = [
        Footprint(op.tile, op.dst_base, op.dst, 4 * op.columns, True, 0, latency(op, chip), **tokens),
        _read(op, "dst", 4 * op.columns, 0, busy, **tokens),
    ]
    if not op.flags & Flag.STREAM:
        marks.append(_read(op, "b", op.s0 * op.tokens, 0, busy))
    return marks


def _rope(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    heads = {"inner": op.heads, "inner_stride": op.s2}
    return [
        _write(op, code_bytes(op, op.columns) + 2, chip, **_tokens(op, op.s1), **heads),
        _read(op, "a", 4 * op.columns * op.heads, 0, occupancy(op, chip), **_tokens(op, op.s0)),
        _read(op, "c", 2 * op.columns, 0, occupancy(op, chip)),
    ]


def code_bytes(op: MicroOp, columns: int) -> int:
    """Bytes of so many codes that `op` writes or reads as records."""
    return ceil_div(columns, 2) if op.flags & Flag.NIBBLES else columns


def record_bytes(op: MicroOp) -> int:
    """Bytes of a key or value record that a score or value reads: the codes and n, e; of a key also n, e of its value."""
    return code_bytes(op, op.columns) + (4 if op.op in SCORES else 2)


def quantized_bytes(op: MicroOp) -> int:
    """Bytes that quant writes per token."""
    return ceil_div(op.columns, op.group) * (code_bytes(op, op.group) + 2)


def _quant(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    marks = [
        _write(op, quantized_bytes(op), chip, **_tokens(op, op.s1)),
        _read(op, "a", 4 * op.columns, 0, occupancy(op, chip), **_tokens(op, op.s0)),
    ]
    if op.flags & Flag.AUX:
        done, busy = latency(op, chip), occupancy(op, chip)
        marks.append(Footprint(op.tile, op.b_base, op.b, 2, True, done - busy, done, **_tokens(op, op.s2)))
    return marks


def _swiglu(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    busy, tokens = occupancy(op, chip), _tokens(op, op.s0)
    return [
        _write(op, packed(op.columns), chip, **_tokens(op, op.s1)),
        _read(op, "a", 4 * op.columns, 0, busy, **tokens),
        _read(op, "b", 4 * op.columns, 0, busy, **tokens),
    ]


def _embed(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    marks = [_write(op, 4 * op.columns, chip, **_tokens(op, op.s1))]
    if not op.flags & Flag.STREAM:
        marks.append(_read(op, "b", op.s0 * op.s3, 0, occupancy(op, chip)))
    return marks


def _argmax(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    size = (8 if op.flags & Flag.PAIRS else 4) * op.columns
    done = latency(op, chip)
    return [
        Footprint(op.tile, op.dst_base, op.dst, 8, True, done - 1, done),
        _read(op, "a", size, 0, occupancy(op, chip)),
    ]


def _states(op: MicroOp) -> dict[str, int]:
    return {"outer": op.heads * op.tokens, "outer_stride": op.s2}


def _score(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    busy = occupancy(op, chip)
    out = Footprint(
        op.tile,
        op.dst_base,
        op.dst + op.slot * op.s2,
        4 * op.rows,
        True,
        score_pipe(op),
        busy + score_pipe(op),
        **_states(op),
    )
    queries = _read(
        op, "a", op.columns + 2, 0, busy, outer=op.heads, outer_stride=op.s0, inner=op.tokens, inner_stride=op.s1
    )
    marks = [out, queries]
    if not op.flags & Flag.STREAM:
        marks.append(_read(op, "b", op.rows * record_bytes(op), 0, busy))
    return marks


def _value(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    busy = occupancy(op, chip)
    marks = [Footprint(op.tile, op.a_base, op.a + op.slot * op.s2, 4 * op.rows, False, 0, busy, **_states(op))]
    if not op.flags & Flag.STREAM:
        marks.append(_read(op, "b", op.rows * record_bytes(op), 0, busy))
    return marks


def _attnout(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    return [_write(op, 4 * op.columns * op.heads, chip, **_tokens(op, op.s1))]


def _send(op: MicroOp, chip: ChipSpec) -> list[Footprint]:
    busy = occupancy(op, chip)
    marks = [_read(op, "a", op.columns, 0, busy, outer=op.rows, outer_stride=op.s0)]
    if op.flags & Flag.EXTERNAL:
        return marks
    depth = {hop.target: hop.depth + 1 for hop in route(chip.grid, op.tile, op.s2)}
    for tile in range(chip.grid.tiles):
        if op.s2 >> tile & 1:
            start = SEND_PIPE + depth[tile] * chip.link.hop_cycles
            marks.append(
                Footprint(
                    tile, op.dst_base, op.dst, op.columns, True, start, start + busy, outer=op.rows, outer_stride=op.s1
                )
            )
    return marks


_FOOTPRINTS = {
    Op.OPERAND: _operand, Op.MATMUL: _matmul, Op.NORM: _norm, Op.ROPE: _rope, Op.QUANT: _quant, Op.SWIGLU: _swiglu,
    Op.EMBED: _embed, Op.ARGMAX: _argmax, Op.SCORE: _score, Op.VALUE: _value, Op.ATTNOUT: _attnout, Op.SEND: _send,
    Op.BIAS: _with_vector, Op.HEADNORM: _with_vector, Op.LAYERNORM: _norm, Op.GELU: _gelu, Op.GEGLU: _swiglu,
    Op.POSITION: _position, Op.SCALE: _in_place, Op.SOFTCAP: _in_place, Op.NEARSCORE: _score, Op.NEARVALUE: _value,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LinkUse:
    """One directed link is busy in [start, end) cycles after issue."""

    source: int
    target: int
    start: int
    end: int


def link_uses(op: MicroOp, chip: ChipSpec) -> tuple[LinkUse, ...]:
    """The links a send takes and when. Empty for everything else."""
    if op.op is not Op.SEND or op.flags & Flag.EXTERNAL:
        return ()
    busy, hop_cycles = occupancy(op, chip), chip.link.hop_cycles
    return tuple(
        LinkUse(hop.source, hop.target, SEND_PIPE + hop.depth * hop_cycles, SEND_PIPE + hop.depth * hop_cycles + busy)
        for hop in route(chip.grid, op.tile, op.s2)
    )
