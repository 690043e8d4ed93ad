"""The matrix unit for every format of the table: codes of any width or meaning, scales of any kind, blocks of 16 or 32, factors.

Not as quick as `matmul.py`, which does the plain ones. A term, floor(D * (ms*2^(es+bias)) * (n*2^(e-e_max))), has at most 39 significant bits in
binary64, so it is exact whatever its size, and goes to int64 by itself.
"""

import numpy as np

from tapeout.numerics.formats import SCALES, Format
from tapeout.numerics.kernels import f32_of, mul32
from tapeout.sim.matmul import power_of_two, split16
from tapeout.sim.native import compiled

KINDS = tuple(SCALES)
"""A kind of scale by its number."""
SCALE_BYTES = np.array([scale.bytes for scale in SCALES.values()], np.int64)
_BINARY16, _E8M0, _E4M3, _WIDE = range(4)
assert KINDS == ("binary16", "e8m0", "e4m3", "wide"), "split_at has one rule per kind, in this order"


def meanings(form: Format) -> list[int]:
    """code + offset of every pattern of `code_bits` bits, and zeros up to 256."""
    count = 1 << form.code_bits
    codes = form.values or [(pattern ^ count // 2) - count // 2 for pattern in range(count)]
    return [code + form.offset for code in codes] + [0] * (256 - count)


@compiled
def split_at(kind, data, p):
    """(m, e) of the scale at byte p of int8 data, value m * 2^e."""
    first = np.int64(np.uint8(data[p]))
    if kind == _E8M0:
        return np.int64(1), first - 128
    if kind == _E4M3:
        field = first >> 3
        return (first & 7) + (8 if field else 0), max(field, np.int64(1)) - 11
    second = np.int64(np.uint8(data[p + 1]))
    if kind == _BINARY16:
        return split16(first, second)
    bits = first | second << 8 | np.int64(np.uint8(data[p + 2])) << 16
    m = bits & 0x3FFFF
    return (-m if bits >> 23 else m), max(bits >> 18 & 31, np.int64(1)) - 25


@compiled
def pattern_at(data, p, bits, i):
    """Pattern i, `bits` bits, of a string of them that begins at byte p of int8 data."""
    first = bits * i
    at, low = p + first // 8, first % 8
    word = np.int64(np.uint8(data[at]))
    if low + bits > 8:
        word |= np.int64(np.uint8(data[at + 1])) << 8
    return word >> low & (1 << bits) - 1


@compiled
def binary32_at(data, p):
    """The binary32 number at byte p of int8 data."""
    word = np.int64(0)
    for k in range(4):
        word |= np.int64(np.uint8(data[p + k])) << (8 * k)
    return np.uint32(word).view(np.float32)


@compiled
def any_matmul(
    weights, unit_rows, lanes, rows, groups, tokens, code_bits, meant, has_minimum, kind, block, has_factor, operand, out, at, stride
):  # fmt: skip
    """As `matmul.matmul`; meant int16 [256]: code + offset of a pattern; kind: of the scales; block: columns per scale."""
    codes, n, e, _, e_max = operand
    blocks, each = 32 // block, SCALE_BYTES[kind]
    scales = unit_rows * blocks * each
    group_bytes = scales * (2 if has_minimum else 1) + 4 * code_bits * unit_rows
    row_block = unit_rows * (5 if has_factor else 1) + groups * group_bytes
    w = np.empty(32, np.int64)
    total = np.empty(tokens, np.int64)
    fine = True
    for row in range(rows):
        begin, r = row // unit_rows * row_block, row % unit_rows
        bias = np.int64(weights[begin + r])
        factor = binary32_at(weights, begin + unit_rows + 4 * r) if has_factor else np.float32(1.0)
        total[:] = 0
        for g in range(groups):
            p = begin + unit_rows * (5 if has_factor else 1) + g * group_bytes
            q = p + scales * (2 if has_minimum else 1)
            for i in range(32):
                of_slice = q + i // lanes * (unit_rows * lanes * code_bits // 8) + r * (lanes * code_bits // 8)
                w[i] = meant[pattern_at(weights, of_slice, code_bits, i % lanes)]
            for b in range(blocks):
                ms, es = split_at(kind, weights, p + (r * blocks + b) * each)
                scale, low = np.float64(ms) * power_of_two(es + bias), 0.0
                if has_minimum:
                    mm, em = split_at(kind, weights, p + scales + (r * blocks + b) * each)
                    low = np.float64(mm) * power_of_two(em + bias)
                for t in range(tokens):
                    dot, a = np.int64(0), np.int64(0)
                    for i in range(block * b, block * b + block):
                        x = np.int64(codes[t, 32 * g + i])
                        dot += w[i] * x
                        a += x
                    part = np.float64(n[t, g]) * power_of_two(e[t, g] - e_max[t])
                    total[t] += np.int64(np.floor(np.float64(dot) * scale * part))
                    if has_minimum:
                        total[t] += np.int64(np.floor(np.float64(a) * low * part))
        for t in range(tokens):
            y = mul32(f32_of(total[t], e_max[t] - bias), factor)
            fine = fine and np.isfinite(y)
            out[at + t * stride + row] = y
    return fine
