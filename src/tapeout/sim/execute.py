"""What every micro-op does to the chip: one function per opcode, called when it issues (hazards are refused, so nobody sees it early).

All take the micro-op's row `op`, the addresses of its operands with bases added, and the chip; they return False where a binary32 result
is not finite.
"""

import numpy as np

from tapeout.isa.opcodes import FORMAT_IDS, Flag, Op
from tapeout.numerics.formats import BINARY16, FORMATS, greatest_code
from tapeout.numerics.kernels import (
    add32,
    capped_score,
    code_of,
    embed_value,
    geglu,
    gelu,
    group_scale,
    layernorm_to,
    mul32,
    output,
    probability,
    rmsnorm_to,
    rope,
    score,
    softcap,
    swiglu,
    weight_of,
)
from tapeout.sim.any_matmul import KINDS, SCALE_BYTES, any_matmul, binary32_at, meanings, pattern_at, split_at
from tapeout.sim.matmul import matmul
from tapeout.sim.native import compiled
from tapeout.sim.tables import COLUMNS

TILE, FORMAT, FLAGS, ROWS, WIDE, TOKENS = (COLUMNS[x] for x in ("tile", "format", "flags", "rows", "columns", "tokens"))
HEADS, GROUP, SLOT = (COLUMNS[name] for name in ("heads", "group", "slot"))
C = COLUMNS["c"]
S0, S1, S2, S3, S4 = (COLUMNS[f"s{k}"] for k in range(5))
OP = COLUMNS["op"]
STREAM, ADD, AUX, FIRST, RECENT = (int(flag) for flag in (Flag.STREAM, Flag.ADD, Flag.AUX, Flag.FIRST, Flag.RECENT))
PAIRS, EXTERNAL, NIBBLES = int(Flag.PAIRS), int(Flag.EXTERNAL), int(Flag.NIBBLES)
MOST_8, MOST_4 = greatest_code(8), greatest_code(4)

OP_OPERAND, OP_MATMUL, OP_NORM, OP_ROPE, OP_QUANT, OP_SWIGLU = (
    int(x) for x in (Op.OPERAND, Op.MATMUL, Op.NORM, Op.ROPE, Op.QUANT, Op.SWIGLU)
)
OP_EMBED, OP_ARGMAX, OP_SCORE, OP_VALUE, OP_ATTNOUT, OP_SEND = (
    int(x) for x in (Op.EMBED, Op.ARGMAX, Op.SCORE, Op.VALUE, Op.ATTNOUT, Op.SEND)
)
OP_BIAS, OP_HEADNORM, OP_LAYERNORM, OP_GELU, OP_GEGLU = (
    int(x) for x in (Op.BIAS, Op.HEADNORM, Op.LAYERNORM, Op.GELU, Op.GEGLU)
)
OP_POSITION, OP_SCALE, OP_SOFTCAP, OP_NEARSCORE, OP_NEARVALUE = (
    int(x) for x in (Op.POSITION, Op.SCALE, Op.SOFTCAP, Op.NEARSCORE, Op.NEARVALUE)
)

FORMS = [FORMATS[name] for name in FORMAT_IDS]
CODE_BITS = np.array([form.code_bits for form in FORMS], np.int64)
OFFSET = np.array([form.offset for form in FORMS], np.int64)
MINIMUM = np.array([form.has_minimum for form in FORMS], np.bool_)
KIND = np.array([KINDS.index(form.scale.name) for form in FORMS], np.int64)
BLOCK = np.array([form.block for form in FORMS], np.int64)
FACTOR = np.array([form.has_factor for form in FORMS], np.bool_)
PLAIN = np.array(
    [form.scale == BINARY16 and not form.values and form.code_bits in (2, 4, 8) for form in FORMS], np.bool_
)
"""Formats that the quick loops of `matmul.py` know; `any_matmul.py` takes them all."""
MEANT = np.array([meanings(form) for form in FORMS], np.int16)
"""[formats, 256]: code + offset of every bit pattern."""
GREATEST_E_BELOW = -128
"""E of a query state before its first key."""


@compiled
def _f32(number):
    """The binary32 with these bits."""
    return np.uint32(number).view(np.float32)


@compiled
def quantize_to(x, at, count, group, out, to, most=MOST_8):
    """One group: f32 x[at:at+count] into `group` codes of at most `most` (zeros behind count), n, e at int8 out[to]."""
    greatest = np.float32(0.0)
    for i in range(count):
        greatest = max(greatest, abs(x[at + i]))
    n, e = group_scale(greatest, most)
    for i in range(count):
        out[to + i] = code_of(x[at + i], n, e, most)
    for i in range(count, group):
        out[to + i] = 0
    out[to + group] = n
    out[to + group + 1] = e


@compiled
def record_to(op, x, at, count, group, out, to):
    """`quantize_to`, or with NIBBLES the same in codes of 4 bits, two to a byte."""
    if not op[FLAGS] & NIBBLES:
        quantize_to(x, at, count, group, out, to)
        return
    wide = np.empty(group + 2, np.int8)
    quantize_to(x, at, count, group, wide, 0, MOST_4)
    for i in range(group // 2):
        out[to + i] = (wide[2 * i + 1] << 4) | (wide[2 * i] & 15)
    out[to + group // 2], out[to + group // 2 + 1] = wide[group], wide[group + 1]


@compiled
def widened(packed, rows, dim, tail):
    """Records with two codes to a byte, and `tail` bytes behind them, as records with a byte per code."""
    out, size = np.empty(rows * (dim + tail), np.int8), dim // 2 + tail
    for r in range(rows):
        for x in range(dim):
            byte = np.int64(packed[r * size + x // 2])
            out[r * (dim + tail) + x] = byte >> 4 if x % 2 else ((byte & 15) ^ 8) - 8
        for i in range(tail):
            out[r * (dim + tail) + dim + i] = packed[r * size + dim // 2 + i]
    return out


@compiled
def operand(op, a, chip):
    """Load packets; e_max is the largest e of each vector."""
    tile, signed = op[TILE], chip.signed[op[TILE]]
    for t in range(op[TOKENS]):
        e_max = np.int64(-128)
        for g in range(op[WIDE] // 32):
            p = a + t * op[S0] + 34 * g
            total = np.int64(0)
            for i in range(32):
                code = signed[p + i]
                total += code
                chip.codes[tile, t, 32 * g + i] = code
            chip.n[tile, t, g], chip.e[tile, t, g], chip.sums[tile, t, g] = signed[p + 32], signed[p + 33], total
            e_max = max(e_max, np.int64(signed[p + 33]))
        chip.e_max[tile, t] = e_max
    return True


@compiled
def run_matmul(op, dst, weights, unit_rows, lanes, chip):
    """The operand buffer times `weights` (int8 bytes of the row blocks)."""
    tile, form = op[TILE], op[FORMAT]
    held = (chip.codes[tile], chip.n[tile], chip.e[tile], chip.sums[tile], chip.e_max[tile])
    if not PLAIN[form]:
        return any_matmul(
            weights, unit_rows, lanes, op[ROWS], op[WIDE] // 32, op[TOKENS], CODE_BITS[form], MEANT[form], MINIMUM[form], KIND[form],
            BLOCK[form], FACTOR[form], held, chip.words[tile], dst // 4, op[S0] // 4,
        )  # fmt: skip
    return matmul(
        weights, unit_rows, lanes, op[ROWS], op[WIDE] // 32, op[TOKENS], CODE_BITS[form], OFFSET[form], MINIMUM[form], held,
        chip.words[tile], dst // 4, op[S0] // 4,
    )  # fmt: skip


@compiled
def norm(op, dst, a, b, weight, chip):
    """RMSNorm or LayerNorm, with the residual added before where ADD is set; weight f32 [columns], of LayerNorm twice as many."""
    words, signed, count = chip.words[op[TILE]], chip.signed[op[TILE]], op[WIDE]
    y = np.empty(count, np.float32)
    fine = True
    for t in range(op[TOKENS]):
        x, other = (a + t * op[S0]) // 4, (b + t * op[S0]) // 4
        if op[FLAGS] & ADD:
            for i in range(count):
                words[x + i] = add32(words[x + i], words[other + i])
        if op[OP] == OP_LAYERNORM:
            bad = layernorm_to(words[x : x + count], weight[:count], weight[count:], _f32(op[S3]), _f32(op[S2]), y)
        else:
            bad = rmsnorm_to(words[x : x + count], weight, _f32(op[S3]), _f32(op[S2]), y)
        if bad:
            return False
        for g in range((count + 31) // 32):
            quantize_to(y, 32 * g, min(32, count - 32 * g), 32, signed, dst + t * op[S1] + 34 * g)
    return fine


@compiled
def run_rope(op, dst, a, c, position, chip):
    """Rotate and quantize every head."""
    words, signed, dim = chip.words[op[TILE]], chip.signed[op[TILE]], op[WIDE]
    y = np.empty(dim, np.float32)
    fine = True
    for t in range(op[TOKENS]):
        for h in range(op[HEADS]):
            x = (a + t * op[S0]) // 4 + h * dim
            for k in range(dim // 2):
                increment = np.int64(chip.numbers[op[TILE], c // 4 + k])
                y[2 * k], y[2 * k + 1] = rope(words[x + 2 * k], words[x + 2 * k + 1], position + t, increment)
                fine = fine and np.isfinite(y[2 * k]) and np.isfinite(y[2 * k + 1])
            record_to(op, y, 0, dim, dim, signed, dst + t * op[S1] + h * op[S2])
    return fine


@compiled
def quant(op, dst, a, b, chip):
    """Quantize in groups; with AUX the scale a second time."""
    words, signed, group = chip.words[op[TILE]], chip.signed[op[TILE]], op[GROUP]
    size = group // 2 if op[FLAGS] & NIBBLES else group
    for t in range(op[TOKENS]):
        x = (a + t * op[S0]) // 4
        for g in range((op[WIDE] + group - 1) // group):
            to = dst + t * op[S1] + g * (size + 2)
            record_to(op, words, x + g * group, min(group, op[WIDE] - g * group), group, signed, to)
            if op[FLAGS] & AUX:
                signed[b + t * op[S2]] = signed[to + size]
                signed[b + t * op[S2] + 1] = signed[to + size + 1]
    return True


@compiled
def run_swiglu(op, dst, a, b, chip):
    """silu(gate) * up, gelu(gate) * up or gelu(a), quantized."""
    words, signed = chip.words[op[TILE]], chip.signed[op[TILE]]
    y = np.empty(op[WIDE], np.float32)
    fine = True
    for t in range(op[TOKENS]):
        gate, up = (a + t * op[S0]) // 4, (b + t * op[S0]) // 4
        for i in range(op[WIDE]):
            if op[OP] == OP_SWIGLU:
                y[i] = swiglu(words[gate + i], words[up + i])
            elif op[OP] == OP_GEGLU:
                y[i] = geglu(words[gate + i], words[up + i])
            else:
                y[i] = gelu(words[gate + i])
            fine = fine and np.isfinite(y[i])
        for g in range((op[WIDE] + 31) // 32):
            quantize_to(y, 32 * g, min(32, op[WIDE] - 32 * g), 32, signed, dst + t * op[S1] + 34 * g)
    return fine


@compiled
def in_place(op, a, vector, chip):
    """bias, headnorm, scale, softcap: f32 at `a`, changed where it stands; vector: bias or weight f32 [columns]."""
    words, count, kind = chip.words[op[TILE]], op[WIDE], op[OP]
    bad = np.int64(0)
    for t in range(max(op[TOKENS], 1)):
        for h in range(max(op[HEADS], 1)):
            first = (a + t * op[S0]) // 4 + h * count
            x = words[first : first + count]
            if kind == OP_HEADNORM:
                bad += rmsnorm_to(x, vector, _f32(op[S3]), _f32(op[S2]), x)
            else:
                for i in range(count):
                    if kind == OP_BIAS:
                        x[i] = add32(x[i], vector[i])
                    elif kind == OP_SCALE:
                        x[i] = mul32(x[i], _f32(op[S2]))
                    else:
                        x[i] = softcap(x[i], _f32(op[S2]), _f32(op[S3]))
                    bad += not np.isfinite(x[i])
    return bad == 0


@compiled
def embed(op, dst, t, row, chip):
    """Token t of the micro-op: dequantize `row` (int8 bytes) into f32 [columns]; position adds it to what stands there."""
    form, fine = op[FORMAT], True
    bits, kind, block, minimum = CODE_BITS[form], KIND[form], BLOCK[form], MINIMUM[form]
    out, each = (dst + t * op[S1]) // 4, SCALE_BYTES[kind]
    size = 4 * bits + 32 // block * each * (2 if minimum else 1)
    size += size % 2
    whole, p = (binary32_at(row, 0), np.int64(4)) if FACTOR[form] else (np.float32(1.0), np.int64(0))
    for g in range(op[WIDE] // 32):
        for i in range(32):
            at = p + 4 * bits + i // block * each
            ms, es = split_at(kind, row, at)
            low = 0.0
            if minimum:
                mm, em = split_at(kind, row, at + 32 // block * each)
                low = np.float64(mm) * 2.0**em
            code = np.int64(MEANT[form, pattern_at(row, p, bits, i)])
            y = mul32(embed_value(code, 0, np.float64(ms) * 2.0**es, low), whole)
            if op[OP] == OP_POSITION:
                y = add32(chip.words[op[TILE], out + 32 * g + i], y)
            fine = fine and np.isfinite(y)
            chip.words[op[TILE], out + 32 * g + i] = y
        p += size
    return fine


@compiled
def argmax(op, dst, a, chip):
    """Greatest of f32 [columns], or of pairs; ties to the smallest id."""
    words, numbers = chip.words[op[TILE]], chip.numbers[op[TILE]]
    step = 2 if op[FLAGS] & PAIRS else 1
    best, value = np.int64(0), words[a // 4]
    for i in range(1, op[WIDE]):
        if words[a // 4 + step * i] > value:
            best, value = i, words[a // 4 + step * i]
    words[dst // 4] = value
    numbers[dst // 4 + 1] = numbers[a // 4 + 2 * best + 1] if step == 2 else op[S0] + best
    return True


@compiled
def valid_keys(op, t, position, j):
    """How many of the micro-op's keys query token t may attend to."""
    if op[FLAGS] & RECENT:
        return min(t + 1, op[ROWS])
    return max(min(position - j * op[ROWS], op[ROWS]), 0)


@compiled
def first_key(op, t, position, j):
    """The first of the micro-op's keys that the window of query token t holds; it may lie behind the valid ones."""
    if (op[OP] != OP_NEARSCORE and op[OP] != OP_NEARVALUE) or op[GROUP] == 0:
        return np.int64(0)
    behind = np.int64(0) if op[FLAGS] & RECENT else position - j * op[ROWS]
    return max(behind + t + 1 - op[GROUP], np.int64(0))


@compiled
def run_score(op, dst, a, keys, position, j, chip):
    """Scores of every query state against the key records in int8 `keys`; m and E of the states."""
    cap = _f32(op[C]) if op[OP] == OP_NEARSCORE else np.float32(0.0)
    tile, dim = op[TILE], op[WIDE]
    signed, words, constant = chip.signed[tile], chip.words[tile], _f32(op[S3])
    fine = True
    for h in range(op[HEADS]):
        for t in range(op[TOKENS]):
            state = op[SLOT] + h * op[TOKENS] + t
            if op[FLAGS] & FIRST:
                chip.greatest[tile, state] = np.float32(-np.inf)
                chip.e_values[tile, state] = GREATEST_E_BELOW
                chip.length[tile, state] = 0
                chip.weighted[tile, state, :] = 0
            q = a + h * op[S0] + t * op[S1]
            nq, eq = np.int64(signed[q + dim]), np.int64(signed[q + dim + 1])
            out = (dst + state * op[S2]) // 4
            for i in range(first_key(op, t, position, j), valid_keys(op, t, position, j)):
                k = i * (dim + 4)
                total = np.int32(0)
                for x in range(dim):
                    total += np.int32(signed[q + x]) * np.int32(keys[k + x])
                nk, ek = np.int64(keys[k + dim]), np.int64(keys[k + dim + 1])
                if cap > 0:
                    s = capped_score(np.int64(total), nq, nk, eq, ek, constant, cap)
                else:
                    s = score(np.int64(total), nq, nk, eq, ek, constant)
                fine = fine and np.isfinite(s)
                words[out + i] = s
                chip.greatest[tile, state] = max(chip.greatest[tile, state], s)
                chip.e_values[tile, state] = max(chip.e_values[tile, state], np.int64(keys[k + dim + 3]))
    return fine


@compiled
def run_value(op, a, values, position, j, chip):
    """Weigh the value records in int8 `values` into the query states."""
    tile, dim = op[TILE], op[WIDE]
    words = chip.words[tile]
    for h in range(op[HEADS]):
        for t in range(op[TOKENS]):
            state = op[SLOT] + h * op[TOKENS] + t
            scores = (a + state * op[S2]) // 4
            top, e_values = chip.greatest[tile, state], chip.e_values[tile, state]
            for i in range(first_key(op, t, position, j), valid_keys(op, t, position, j)):
                v = i * (dim + 2)
                p = probability(top, words[scores + i])
                chip.length[tile, state] += p
                c = weight_of(p, np.int64(values[v + dim]), np.int64(values[v + dim + 1]), e_values)
                if c:
                    for x in range(dim):
                        chip.weighted[tile, state, x] += c * np.int64(values[v + x])
    return True


@compiled
def attnout(op, dst, chip):
    """N / L * 2^E of every query state."""
    tile, dim = op[TILE], op[WIDE]
    fine = True
    for h in range(op[HEADS]):
        for t in range(op[TOKENS]):
            state = op[SLOT] + h * op[TOKENS] + t
            for x in range(dim):
                y = output(chip.weighted[tile, state, x], chip.length[tile, state], chip.e_values[tile, state])
                fine = fine and np.isfinite(y)
                chip.words[tile, (dst + t * op[S1]) // 4 + h * dim + x] = y
    return fine


@compiled
def send(op, dst, a, chip):
    """Copy the pieces into every target tile."""
    for target in range(chip.signed.shape[0]):
        if op[S2] >> target & 1:
            for r in range(op[ROWS]):
                for i in range(op[WIDE]):
                    chip.signed[target, dst + r * op[S1] + i] = chip.signed[op[TILE], a + r * op[S0] + i]
    return True


@compiled
def send_out(op, a, address, chip):
    """Copy the pieces to external memory, one behind the other."""
    for r in range(op[ROWS]):
        for i in range(op[WIDE]):
            chip.external[address + r * op[WIDE] + i] = chip.signed[op[TILE], a + r * op[S0] + i]
    return True
