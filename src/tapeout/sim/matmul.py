"""The matrix unit and its group stage: packed row blocks (isa/layout.py) times the vectors in the operand buffer.

The codes of a group are unpacked once to int16 and used for every token. A dot product of 32 is exact in int32. A term of the sum,
sh(n*ms*D, F+es+e-e_row-e_max), is computed as floor(D * (ms*2^es * 2^bias) * (n*2^(e-e_max))) in binary64: the product has at most 35
significant bits, so it is exact, and floor is what the shift does. A term is below 2^49.9 and that of a minimum below 2^43, so eight of each
stay below 2^53; then the binary64 sums go to int64.

Codes are unpacked as they lie: slice by slice and, where a byte holds several, in planes: the low parts of all bytes, then the next parts. The
operand vector is put in the same order. 4- and 2-bit codes are made unsigned by flipping their sign bit, which adds half = 8 or 2 to each:
D = D' - half*A.
"""

import numpy as np

from tapeout.numerics.kernels import f32_of
from tapeout.sim.native import compiled

SPILL = 8
"""Groups whose terms are summed in binary64 before they go to int64."""
_TWO_112 = np.float32(2.0**112)


@compiled
def split16(low, high):
    """(m, e) of the binary16 in two bytes: value = m * 2^e, e = max(exponent field, 1) - 25; a zero has e = -24."""
    bits = np.int64(low) | (np.int64(high) << 8)
    field, mantissa = (bits >> 10) & 31, bits & 1023
    if field:
        mantissa |= 1024
    else:
        field = np.int64(1)
    return (-mantissa if bits & 0x8000 else mantissa), field - 25


@compiled
def power_of_two(k):
    """2^k in binary64, -1022 <= k <= 1023."""
    return np.int64((k + 1023) << 52).view(np.float64)


@compiled(inline=True)
def _unpack8(packed, w):
    for k in range(w.size):
        w[k] = np.int16(packed[k])


@compiled(inline=True)
def _unpack4(packed, low, high):
    for k in range(low.size):
        byte = np.uint8(packed[k])
        low[k] = np.int16((byte & np.uint8(15)) ^ np.uint8(8))
        high[k] = np.int16((byte >> np.uint8(4)) ^ np.uint8(8))


@compiled(inline=True)
def _unpack2(packed, a, b, c, d):
    for k in range(a.size):
        byte = np.uint8(packed[k])
        a[k] = np.int16((byte & np.uint8(3)) ^ np.uint8(2))
        b[k] = np.int16(((byte >> np.uint8(2)) & np.uint8(3)) ^ np.uint8(2))
        c[k] = np.int16(((byte >> np.uint8(4)) & np.uint8(3)) ^ np.uint8(2))
        d[k] = np.int16((byte >> np.uint8(6)) ^ np.uint8(2))


@compiled(inline=True)
def _dots(width, pitch, w, x, d):
    """d int32 [rows] += rows of w int16, `width` codes every `pitch`, times x int16 [width]."""
    for r in range(d.size):
        total = np.int32(0)
        for k in range(width):
            total = np.int32(total + np.int32(np.int32(w[pitch * r + k]) * np.int32(x[k])))
        d[r] = np.int32(d[r] + total)


@compiled(inline=True)
def _halves(bits, factor, out):
    """out f64 [rows] = the binary16 with these bits, exactly (moved into a binary32, times 2^112), times factor."""
    for r in range(bits.size):
        half = np.int32(bits[r])
        moved = np.int32((half & np.int32(0x7FFF)) << np.int32(13) | (half & np.int32(0x8000)) << np.int32(16))
        out[r] = np.float64(moved.view(np.float32) * _TWO_112) * factor[r]


@compiled(inline=True)
def _terms(d, add, scale, factor, partial):
    """partial [rows] += the floored terms of a group: D = d + add."""
    for r in range(d.size):
        partial[r] += np.floor((np.float64(d[r]) + add) * scale[r] * factor)


@compiled(inline=True)
def _minima(minimum, scaled_sum, partial):
    """partial [rows] += the floored terms of the minima; scaled_sum = A * n * 2^(e-e_max)."""
    for r in range(minimum.size):
        partial[r] += np.floor(minimum[r] * scaled_sum)


@compiled(inline=True)
def _spill(partial, total):
    """Move binary64 sums, integers below 2^53, to int64."""
    for t in range(partial.shape[0]):
        for r in range(partial.shape[1]):
            total[t, r] += np.int64(partial[t, r])
            partial[t, r] = 0.0


@compiled
def _vectors(codes, n, e, e_max, tokens, groups, parts, lanes):
    """The operand as the loops take it: int16 [tokens, columns], each slice in the order of `parts` codes per byte; n*2^(e-e_max)."""
    x, factor, each = np.empty((tokens, groups * 32), np.int16), np.empty((tokens, groups)), lanes // parts
    for t in range(tokens):
        for g in range(groups):
            factor[t, g] = np.float64(n[t, g]) * power_of_two(e[t, g] - e_max[t])
        for start in range(0, groups * 32, lanes):
            for part in range(parts):
                for k in range(each):
                    x[t, start + part * each + k] = codes[t, start + k * parts + part]
    return x, factor


@compiled(inline=True)
def _unpack(code_bits, packed, w):
    """w int16 [planes, codes]: the planes of one slice after the other."""
    if code_bits == 8:
        _unpack8(packed, w.reshape(-1))
        return
    parts = 8 // code_bits
    for at in range(w.shape[0] // parts):
        piece = packed[at * w.shape[1] : (at + 1) * w.shape[1]]
        if code_bits == 4:
            _unpack4(piece, w[2 * at], w[2 * at + 1])
        else:
            _unpack2(piece, w[4 * at], w[4 * at + 1], w[4 * at + 2], w[4 * at + 3])


@compiled(inline=True)
def _multiply(w, x, d):
    """d [rows] = the unpacked group times x [32]. The widths of a plane are spelt out: constants are what is vectorised."""
    d[:] = 0
    planes = w.shape[0]
    if planes == 1:
        _dots(16, 32, w[0], x[:16], d)
        _dots(16, 32, w[0, 16:], x[16:], d)
    elif planes == 2:
        _dots(16, 16, w[0], x[:16], d)
        _dots(16, 16, w[1], x[16:], d)
    elif planes == 4:
        for at in range(4):
            _dots(8, 8, w[at], x[8 * at : 8 * at + 8], d)
    elif planes == 8:
        for at in range(8):
            _dots(4, 4, w[at], x[4 * at : 4 * at + 4], d)
    else:
        for at in range(16):
            _dots(2, 2, w[at], x[2 * at : 2 * at + 2], d)


@compiled
def matmul(weights, unit_rows, lanes, rows, groups, tokens, code_bits, offset, has_minimum, operand, out, at, stride):
    """rows x groups*32 times `tokens` vectors; `weights` int8 [bytes] in row blocks of a unit of unit_rows x lanes.

    out f32 [words], row r of token t at at + t*stride + r.
    operand = (codes int8 [tokens, columns], n, e, sums int64 [tokens, groups], e_max [tokens]). Returns False where a result is not finite.
    """
    codes, n, e, sums, e_max = operand
    parts = 8 // code_bits
    x, factor = _vectors(codes, n, e, e_max, tokens, groups, parts, lanes)
    shifted = offset - (0 if code_bits == 8 else 1 << (code_bits - 1))
    packed, halves = 4 * code_bits * unit_rows, 2 * unit_rows
    w = np.empty((32 * parts // lanes, lanes // parts * unit_rows), np.int16)
    d = np.empty(unit_rows, np.int32)
    bias, scale, minimum = np.empty(unit_rows), np.empty(unit_rows), np.empty(unit_rows)
    partial, total = np.zeros((tokens, unit_rows)), np.empty((tokens, unit_rows), np.int64)
    fine, p = True, np.int64(0)
    for block in range(rows // unit_rows):
        header = weights[p : p + unit_rows]
        for r in range(unit_rows):
            bias[r] = power_of_two(np.int64(header[r]))
        p += unit_rows
        total[:] = 0
        for g in range(groups):
            _halves(weights[p : p + halves].view(np.uint16), bias, scale)
            p += halves
            if has_minimum:
                _halves(weights[p : p + halves].view(np.uint16), bias, minimum)
                p += halves
            _unpack(code_bits, weights[p : p + packed], w)
            p += packed
            for t in range(tokens):
                _multiply(w, x[t, 32 * g : 32 * g + 32], d)
                _terms(d, np.float64(shifted * sums[t, g]), scale, factor[t, g], partial[t])
                if has_minimum:
                    _minima(minimum, np.float64(sums[t, g]) * factor[t, g], partial[t])
            if g % SPILL == SPILL - 1:
                _spill(partial, total)
        _spill(partial, total)
        for t in range(tokens):
            for r in range(unit_rows):
                y = f32_of(total[t, r], e_max[t] - np.int64(header[r]))
                fine = fine and np.isfinite(y)
                out[at + t * stride + block * unit_rows + r] = y
    return fine
