"""The clock: runs an entry's segments in lockstep, holds compute where the stream is late, checks and executes each micro-op as it issues."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tapeout.chip.memory import FREED, PUSHED, USED, advance, beats_of, wait_for_beats, wait_for_end, wait_for_room
from tapeout.isa.trace import FNV_OFFSET, FNV_PRIME
from tapeout.sim.execute import (
    CODE_BITS,
    EXTERNAL,
    FLAGS,
    FORMAT,
    MINIMUM,
    NIBBLES,
    OP_ARGMAX,
    OP_ATTNOUT,
    OP_BIAS,
    OP_EMBED,
    OP_GEGLU,
    OP_GELU,
    OP_HEADNORM,
    OP_LAYERNORM,
    OP_MATMUL,
    OP_NEARSCORE,
    OP_NEARVALUE,
    OP_NORM,
    OP_OPERAND,
    OP_POSITION,
    OP_QUANT,
    OP_ROPE,
    OP_SCALE,
    OP_SCORE,
    OP_SOFTCAP,
    OP_SWIGLU,
    OP_VALUE,
    ROWS,
    S0,
    S4,
    STREAM,
    TILE,
    TOKENS,
    WIDE,
    argmax,
    attnout,
    embed,
    in_place,
    norm,
    operand,
    quant,
    run_matmul,
    run_rope,
    run_score,
    run_swiglu,
    run_value,
    send,
    send_out,
    widened,
)
from tapeout.sim.hazard import (
    END,
    FINE,
    ISSUE,
    LATENCY,
    M_BASE,
    M_INNER,
    M_INNER_STRIDE,
    M_OFFSET,
    M_OUTER,
    M_OUTER_STRIDE,
    M_SIZE,
    M_TILE,
    M_WRITE,
    MISMATCH,
    OP,
    OVERFLOW,
    ROOM,
    UNFED,
    check_alone,
    check_pair,
)
from tapeout.sim.native import compiled
from tapeout.sim.tables import COLUMNS

SLOT = COLUMNS["slot"]
DST, A, B, C = (COLUMNS[name] for name in ("dst", "a", "b", "c"))
DST_BASE, A_BASE, B_BASE, C_BASE = (COLUMNS[f"{name}_base"] for name in ("dst", "a", "b", "c"))
HASH_START, HASH_FACTOR = np.uint64(FNV_OFFSET), np.uint64(FNV_PRIME)


class Static(NamedTuple):
    """What does not change from step to step: the tables, and some numbers of the chip."""

    ops: NDArray[np.int64]
    marks: NDArray[np.int64]
    mark_at: NDArray[np.int64]
    uses: NDArray[np.int64]
    use_at: NDArray[np.int64]
    constant: NDArray[np.int64]
    limits: NDArray[np.int64]
    """SRAM bytes, bank bytes, rows and lanes of the matrix unit, bytes per beat."""


class Feed(NamedTuple):
    """The streamer (see chip.memory), the descriptor list it works through, and how far each tile has used it."""

    timing: NDArray[np.int64]
    kinds: NDArray[np.int64]
    masks: NDArray[np.int64]
    sizes: NDArray[np.int64]
    scalars: NDArray[np.int64]
    tiles: NDArray[np.int64]
    ring: NDArray[np.int64]
    addresses: NDArray[np.int64]
    reads: NDArray[np.int64]
    read_at: NDArray[np.int64]
    writes: NDArray[np.int64]
    write_at: NDArray[np.int64]
    read_next: NDArray[np.int64]
    write_next: NDArray[np.int64]


class Log(NamedTuple):
    """What is written down: wall cycles held per micro-op (one more for the end), and a row per event where traced.

    events [events, (op, i, k, issue, completion, held)], hashes [events]; position[0]: rows filled.
    """

    held: NDArray[np.int64]
    events: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    position: NDArray[np.int64]


@compiled
def _settle(until, start, held, pending, count, feed):
    """Complete, in order of cycle, what completes up to cycle `until` of the segment: free beats, push bytes. Returns what is left."""
    while count:
        first = 0
        for i in range(1, count):
            if pending[i, 0] < pending[first, 0]:
                first = i
        if pending[first, 0] > until:
            break
        cycle, row, tile, amount = pending[first, 0], pending[first, 1], pending[first, 2], pending[first, 3]
        advance(
            start + cycle + held, feed.timing, feed.kinds, feed.masks, feed.sizes, feed.scalars, feed.tiles, feed.ring
        )
        feed.tiles[row, tile] += amount
        count -= 1
        pending[first] = pending[count]
    return count


@compiled
def _take(op, feed, static):
    """Check the descriptors that a STREAM micro-op is to use, and use them: (address of the first, beats) or (-1, 0) on a mismatch."""
    tile, pieces = op[TILE], (op[TOKENS] if op[OP] == OP_EMBED else 1)
    first, beats = np.int64(-1), np.int64(0)
    for piece in range(pieces):
        at = feed.read_at[tile] + feed.read_next[tile] + piece
        if at >= feed.read_at[tile + 1]:
            return np.int64(-1), np.int64(0)
        number = feed.reads[at]
        if feed.sizes[number] != op[S4] // pieces:
            return np.int64(-1), np.int64(0)
        if piece == 0:
            first = feed.addresses[number]
        beats += beats_of(feed.sizes[number], static.limits[4])
    return first, beats


@compiled
def _hold(op, cycle, pending, count, feed, static):
    """Wait for the stream or for room, in wall cycle `cycle`: (code, cycles held, address, entries in pending)."""
    args = (feed.timing, feed.kinds, feed.masks, feed.sizes, feed.scalars, feed.tiles, feed.ring)
    done, tile = op[ISSUE] + op[LATENCY], op[TILE]
    if op[FLAGS] & STREAM:
        address, beats = _take(op, feed, static)
        if address < 0:
            return MISMATCH, np.int64(0), address, count
        advance(cycle, *args)
        held = wait_for_beats(tile, beats, *args)
        feed.tiles[USED, tile] += beats
        for at in range(count):
            if pending[at, 1] == FREED and pending[at, 2] == tile:
                done = max(done, pending[at, 0])
        pending[count, 0], pending[count, 1], pending[count, 2], pending[count, 3] = done, FREED, tile, beats
        return (FINE if held >= 0 else UNFED), np.int64(held), address, count + 1
    at = feed.write_at[tile] + feed.write_next[tile]
    size = op[ROWS] * op[WIDE]
    if at >= feed.write_at[tile + 1] or feed.sizes[feed.writes[at]] != size:
        return MISMATCH, np.int64(0), np.int64(0), count
    feed.write_next[tile] += 1
    advance(cycle, *args)
    held = wait_for_room(tile, size, *args)
    pending[count, 0], pending[count, 1], pending[count, 2], pending[count, 3] = done, PUSHED, tile, size
    return (FINE if held >= 0 else ROOM), np.int64(held), feed.addresses[feed.writes[at]], count + 1


@compiled
def _weight32(op, c, address, chip):
    """The weight or bias f32 [columns], of LayerNorm both, from SRAM or from the stream."""
    count = 2 * op[WIDE] if op[OP] == OP_LAYERNORM else op[WIDE]
    if op[FLAGS] & STREAM:
        return chip.external[address : address + 4 * count].copy().view(np.float32)
    return chip.words[op[TILE], c // 4 : c // 4 + count]


@compiled
def _bytes(op, b, address, size, chip):
    """The operand that may come from the stream: int8 [size]."""
    if op[FLAGS] & STREAM:
        return chip.external[address : address + size]
    return chip.signed[op[TILE], b : b + size]


@compiled
def _records(op, b, address, tail, chip):
    """Key or value records, a byte per code and `tail` bytes behind them: int8 [rows * (columns + tail)]."""
    rows, dim = op[ROWS], op[WIDE]
    if op[FLAGS] & NIBBLES:
        return widened(_bytes(op, b, address, rows * (dim // 2 + tail), chip), rows, dim, tail)
    return _bytes(op, b, address, rows * (dim + tail), chip)


@compiled
def _block_size(op):
    """Bytes of a matrix piece (isa.layout.block_bytes)."""
    form = op[FORMAT]
    scales = 4 if MINIMUM[form] else 2
    return op[ROWS] * (1 + op[WIDE] // 32 * (4 * CODE_BITS[form] + scales))


@compiled
def _embed(op, dst, b, tokens, feed, chip):
    """Every token's row, from the table or from its own descriptor."""
    size = op[S4] // op[TOKENS] if op[FLAGS] & STREAM else op[S0]
    fine = True
    for t in range(op[TOKENS]):
        if op[FLAGS] & STREAM:
            at = feed.addresses[feed.reads[feed.read_at[op[TILE]] + feed.read_next[op[TILE]] + t]]
            row = chip.external[at : at + size]
        else:
            at = b + tokens[op[SLOT] + t] * op[S0]
            row = chip.signed[op[TILE], at : at + size]
        fine = embed(op, dst, t, row, chip) and fine
    return fine


@compiled
def _position(op, dst, b, address, chip):
    """Add the table's rows, the first at `b` or where the stream's bytes stand."""
    fine = True
    for t in range(op[TOKENS]):
        row = _bytes(op, b + t * op[S0], address + t * op[S0], op[S0], chip)
        fine = embed(op, dst, t, row, chip) and fine
    return fine


@compiled
def _execute(op, bases, j, position, tokens, address, feed, static, chip):
    """Dispatch one micro-op. Returns False where a result is not finite."""
    dst, a = op[DST] + bases[op[DST_BASE]], op[A] + bases[op[A_BASE]]
    b, c = op[B] + bases[op[B_BASE]], op[C] + bases[op[C_BASE]]
    kind = op[OP]
    if kind == OP_MATMUL:
        weights = _bytes(op, b, address, _block_size(op), chip)
        return run_matmul(op, dst, weights, static.limits[2], static.limits[3], chip)
    if kind == OP_OPERAND:
        return operand(op, a, chip)
    if kind == OP_SCORE or kind == OP_NEARSCORE:
        return run_score(op, dst, a, _records(op, b, address, 4, chip), position, j, chip)
    if kind == OP_VALUE or kind == OP_NEARVALUE:
        return run_value(op, a, _records(op, b, address, 2, chip), position, j, chip)
    if kind == OP_ATTNOUT:
        return attnout(op, dst, chip)
    if kind == OP_NORM or kind == OP_LAYERNORM:
        return norm(op, dst, a, b, _weight32(op, c, address, chip), chip)
    if kind == OP_ROPE:
        return run_rope(op, dst, a, c, position, chip)
    if kind == OP_QUANT:
        return quant(op, dst, a, b, chip)
    if kind == OP_SWIGLU or kind == OP_GEGLU or kind == OP_GELU:
        return run_swiglu(op, dst, a, b, chip)
    if kind == OP_EMBED:
        return _embed(op, dst, b, tokens, feed, chip)
    if kind == OP_BIAS or kind == OP_HEADNORM:
        return in_place(op, a, _weight32(op, c, address, chip), chip)
    if kind == OP_SCALE or kind == OP_SOFTCAP:
        return in_place(op, a, chip.words[op[TILE], :0], chip)
    if kind == OP_POSITION:
        return _position(op, dst, b, address, chip)
    if kind == OP_ARGMAX:
        return argmax(op, dst, a, chip)
    if op[FLAGS] & EXTERNAL:
        return send_out(op, a, address, chip)
    return send(op, dst, a, chip)


@compiled
def _hash_written(index, bases, static, chip):
    """FNV-1a over the bytes that the micro-op wrote, footprint by footprint."""
    digest = HASH_START
    for at in range(static.mark_at[index], static.mark_at[index + 1]):
        mark = static.marks[at]
        if mark[M_WRITE]:
            start = mark[M_OFFSET] + bases[mark[M_BASE]]
            for i in range(mark[M_OUTER]):
                for k in range(mark[M_INNER]):
                    p = start + i * mark[M_OUTER_STRIDE] + k * mark[M_INNER_STRIDE]
                    for x in range(mark[M_SIZE]):
                        byte = np.uint64(np.uint8(chip.signed[mark[M_TILE], p + x]))
                        digest = (digest ^ byte) * HASH_FACTOR
    return digest


@compiled
def _segment(turn, segments, bases, start, held, position, tokens, pending, active, static, feed, log, chip):
    """One segment run: (code, micro-op, the other micro-op, wall cycles held so far)."""
    first, count, cycles = segments[turn, 0], segments[turn, 1], segments[turn, 2]
    registers, j = bases[turn], segments[turn, 5]
    waiting, flying = 0, 0
    for index in range(first, first + count):
        op = static.ops[index]
        waiting = _settle(op[ISSUE], start, held, pending, waiting, feed)
        code = check_alone(
            index, static.ops, static.marks, static.mark_at, static.constant, registers, cycles, static.limits[0]
        )
        if code:
            return code, index, np.int64(-1), held
        kept = 0
        for at in range(flying):
            old = active[at]
            if static.ops[old, ISSUE] + static.ops[old, LATENCY] > op[ISSUE]:
                code = check_pair(
                    old,
                    index,
                    static.ops,
                    static.marks,
                    static.mark_at,
                    static.uses,
                    static.use_at,
                    registers,
                    static.limits[1],
                )
                if code:
                    return code, index, old, held
                active[kept] = old
                kept += 1
        active[kept] = index
        flying = kept + 1
        address = np.int64(0)
        if op[FLAGS] & (STREAM | EXTERNAL):
            code, wait, address, waiting = _hold(op, start + op[ISSUE] + held, pending, waiting, feed, static)
            if code:
                return code, index, np.int64(-1), held
            held += wait
            log.held[index] += wait
        fine = _execute(op, registers, j, position, tokens, address, feed, static, chip)
        if not fine:
            return OVERFLOW, index, np.int64(-1), held
        if op[FLAGS] & STREAM:
            feed.read_next[op[TILE]] += op[TOKENS] if op[OP] == OP_EMBED else 1
        if log.events.shape[0]:
            row = log.position[0]
            log.position[0] += 1
            log.events[row, 0], log.events[row, 1], log.events[row, 2] = index, segments[turn, 3], segments[turn, 4]
            log.events[row, 3], log.events[row, 4], log.events[row, 5] = (
                start + op[ISSUE],
                start + op[ISSUE] + op[LATENCY],
                held,
            )
            log.hashes[row] = _hash_written(index, registers, static, chip)
    _settle(cycles, start, held, pending, waiting, feed)
    return FINE, np.int64(-1), np.int64(-1), held


@compiled
def run_entry(segments, bases, position, tokens, static, feed, log, chip):
    """All segment runs of an entry: (code, micro-op, other micro-op, turn, compute cycles, held cycles)."""
    pending = np.zeros((2 * static.ops.shape[0] + 1, 4), np.int64)
    active = np.zeros(static.ops.shape[0] + 1, np.int64)
    start, held = np.int64(0), np.int64(0)
    for turn in range(segments.shape[0]):
        code, index, other, held = _segment(
            turn, segments, bases, start, held, position, tokens, pending, active, static, feed, log, chip
        )
        if code:
            return code, index, other, turn, start, held
        start += segments[turn, 2]
    args = (feed.timing, feed.kinds, feed.masks, feed.sizes, feed.scalars, feed.tiles, feed.ring)
    advance(start + held, *args)
    wait = wait_for_end(*args)
    if wait < 0:
        return END, static.ops.shape[0] - 1, np.int64(-1), segments.shape[0] - 1, start, held
    log.held[static.ops.shape[0]] += wait
    return FINE, np.int64(-1), np.int64(-1), np.int64(-1), start, held + wait
