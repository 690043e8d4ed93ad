"""What the chip may not do: checked for every micro-op as it issues, against those still in flight. Messages name both."""

import numpy as np

from tapeout.isa.opcodes import ON_STATES, Flag, Op
from tapeout.sim.native import compiled
from tapeout.sim.tables import COLUMNS, MARK_COLUMNS

(
    FINE,
    READ_IN_FLIGHT,
    OVERWRITTEN,
    PORT,
    LINK,
    BUSY,
    OPERAND_ORDER,
    STATES,
    OUTSIDE,
    CONSTANT,
    LATE,
    UNFED,
    MISMATCH,
    OVERFLOW,
    ROOM,
    END,
) = range(16)

MESSAGES = {
    READ_IN_FLIGHT: "reads bytes that are still in flight from",
    OVERWRITTEN: "overwrites bytes that are still in use by",
    PORT: "uses an SRAM bank port that is taken by",
    LINK: "uses a link slot that is taken by",
    BUSY: "issues while its unit is busy with",
    OPERAND_ORDER: "multiplies before the operand is loaded by",
    STATES: "uses query states that are in flight from",
    OUTSIDE: "addresses bytes outside the SRAM",
    CONSTANT: "writes into a constant region",
    LATE: "completes after its segment has ended",
    UNFED: "waits for bytes that can never come: stream buffer overrun, or no descriptor brings them",
    MISMATCH: "takes other bytes from the stream than its descriptor brings",
    ROOM: "waits for room in the write buffer that never comes free",
    END: "ends while the streamer cannot finish its list, before it",
}
"""What each code says; those with a second micro-op end in its name."""


(M_TILE, M_BASE, M_OFFSET, M_SIZE, M_WRITE, M_START, M_END, M_OUTER, M_OUTER_STRIDE, M_INNER, M_INNER_STRIDE) = range(
    len(MARK_COLUMNS)
)
OP, TILE, FLAGS, ISSUE, SLOT, HEADS, TOKENS = (
    COLUMNS[x] for x in ("op", "tile", "flags", "issue", "slot", "heads", "tokens")
)
OCCUPANCY, LATENCY, UNIT = (COLUMNS[name] for name in ("occupancy", "latency", "unit"))
OPERAND, MATMUL = int(Op.OPERAND), int(Op.MATMUL)
ATTENTION = np.array([op in ON_STATES for op in Op])
"""Whether an opcode works on query states."""
FIRST = int(Flag.FIRST)


@compiled
def _overlap(a, a_start, b, b_start):
    """Whether two footprints, at these absolute addresses, touch a common byte."""
    a_end = a_start + (a[M_OUTER] - 1) * a[M_OUTER_STRIDE] + (a[M_INNER] - 1) * a[M_INNER_STRIDE] + a[M_SIZE]
    b_end = b_start + (b[M_OUTER] - 1) * b[M_OUTER_STRIDE] + (b[M_INNER] - 1) * b[M_INNER_STRIDE] + b[M_SIZE]
    if a_end <= b_start or b_end <= a_start:
        return False
    for i in range(a[M_OUTER]):
        for k in range(a[M_INNER]):
            one = a_start + i * a[M_OUTER_STRIDE] + k * a[M_INNER_STRIDE]
            for x in range(b[M_OUTER]):
                for y in range(b[M_INNER]):
                    two = b_start + x * b[M_OUTER_STRIDE] + y * b[M_INNER_STRIDE]
                    if one < two + b[M_SIZE] and two < one + a[M_SIZE]:
                        return True
    return False


@compiled
def _last_byte(mark, start):
    return (
        start
        + (mark[M_OUTER] - 1) * mark[M_OUTER_STRIDE]
        + (mark[M_INNER] - 1) * mark[M_INNER_STRIDE]
        + mark[M_SIZE]
        - 1
    )


@compiled
def check_alone(index, ops, marks, mark_at, constant, bases, cycles, sram_bytes):
    """What a micro-op can do wrong on its own."""
    if ops[index, ISSUE] + ops[index, LATENCY] > cycles:
        return LATE
    for at in range(mark_at[index], mark_at[index + 1]):
        start = marks[at, M_OFFSET] + bases[marks[at, M_BASE]]
        last = _last_byte(marks[at], start)
        if start < 0 or last >= sram_bytes:
            return OUTSIDE
        if marks[at, M_WRITE]:
            for region in range(constant.shape[0]):
                if start < constant[region, 1] and last >= constant[region, 0]:
                    return CONSTANT
    return FINE


@compiled
def _units(old, new):
    """Unit, operand and query-state order of two micro-ops of one tile."""
    if old[UNIT] == new[UNIT] and new[ISSUE] < old[ISSUE] + old[OCCUPANCY]:
        return BUSY
    if old[OP] == OPERAND and new[OP] == MATMUL and new[ISSUE] < old[ISSUE] + old[LATENCY]:
        return OPERAND_ORDER
    if ATTENTION[old[OP]] and ATTENTION[new[OP]]:
        apart = new[SLOT] >= old[SLOT] + old[HEADS] * old[TOKENS] or old[SLOT] >= new[SLOT] + new[HEADS] * new[TOKENS]
        going_on = old[OP] == new[OP] and not new[FLAGS] & FIRST
        if not apart and not going_on and new[ISSUE] < old[ISSUE] + old[LATENCY]:
            return STATES
    return FINE


@compiled
def _memory(a, a_at, old, b, b_at, new, bank_bytes):
    """Two footprints of different micro-ops, in one tile: bytes in flight, or a bank port used twice."""
    starts, ends = new[ISSUE] + b[M_START], new[ISSUE] + b[M_END]
    if a[M_WRITE] or b[M_WRITE]:
        free = old[ISSUE] + (old[LATENCY] if a[M_WRITE] else a[M_END])
        if starts < free and _overlap(a, a_at, b, b_at):
            return READ_IN_FLIGHT if a[M_WRITE] and not b[M_WRITE] else OVERWRITTEN
    if a[M_WRITE] == b[M_WRITE] and starts < old[ISSUE] + a[M_END] and old[ISSUE] + a[M_START] < ends:
        first, last = a_at // bank_bytes, _last_byte(a, a_at) // bank_bytes
        if first <= _last_byte(b, b_at) // bank_bytes and b_at // bank_bytes <= last:
            return PORT
    return FINE


@compiled
def check_pair(old_index, new_index, ops, marks, mark_at, uses, use_at, bases, bank_bytes):
    """What micro-op `new_index` does wrong to `old_index`, issued before it in the same segment run."""
    old, new = ops[old_index], ops[new_index]
    if old[TILE] == new[TILE]:
        code = _units(old, new)
        if code:
            return code
    for i in range(mark_at[old_index], mark_at[old_index + 1]):
        for k in range(mark_at[new_index], mark_at[new_index + 1]):
            if marks[i, M_TILE] == marks[k, M_TILE]:
                a_at, b_at = marks[i, M_OFFSET] + bases[marks[i, M_BASE]], marks[k, M_OFFSET] + bases[marks[k, M_BASE]]
                code = _memory(marks[i], a_at, old, marks[k], b_at, new, bank_bytes)
                if code:
                    return code
    for i in range(use_at[old_index], use_at[old_index + 1]):
        for k in range(use_at[new_index], use_at[new_index + 1]):
            if uses[i, 0] == uses[k, 0] and new[ISSUE] + uses[k, 1] < old[ISSUE] + uses[i, 2]:
                if old[ISSUE] + uses[i, 1] < new[ISSUE] + uses[k, 2]:
                    return LINK
    return FINE
