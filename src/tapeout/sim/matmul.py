"""The matrix unit and its group stage: packed row blocks times the vectors in the operand buffer."""

import numpy as np

from tapeout.numerics.kernels import compiled, f32_of, sh


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
def dot8(weights, at, x):
    """Sum of 32 int8 codes at `at` times x [32] int32."""
    total = np.int32(0)
    for i in range(32):
        total += np.int32(weights[at + i]) * np.int32(x[i])
    return np.int64(total)


@compiled
def dot4(weights, at, even, odd):
    """Sum of 32 packed 4-bit codes at `at` times x, its even and odd columns apart [16] each."""
    total = np.int32(0)
    for i in range(16):
        byte = np.int32(weights[at + i])
        low, high = ((byte & 15) ^ 8) - 8, byte >> 4
        total += low * np.int32(even[i]) + high * np.int32(odd[i])
    return np.int64(total)


@compiled
def dot2(weights, at, x):
    """Sum of 32 packed ternary codes at `at` times x [32]."""
    total = np.int32(0)
    for i in range(8):
        byte = np.int32(weights[at + i])
        for k in range(4):
            total += ((((byte >> (2 * k)) & 3) ^ 2) - 2) * np.int32(x[4 * i + k])
    return np.int64(total)


@compiled
def matmul(weights, unit_rows, rows, groups, tokens, code_bits, offset, has_minimum, operand, out, at, stride):
    """rows x groups*32 times `tokens` vectors; `weights` int8 [bytes] in row blocks; out f32 [words], row r of token t at at + t*stride + r.

    operand = (codes int8 [tokens, columns], even and odd columns int8 [tokens, columns/2], n, e, sums int64 [tokens, groups], e_max [tokens]).
    Returns False where a result is not finite.
    """
    codes, even, odd, n, e, sums, e_max = operand
    code_bytes = 4 * code_bits
    accumulators = np.zeros((unit_rows, tokens), np.int64)
    fine, p = True, 0
    for block in range(rows // unit_rows):
        bias_at = p
        p += unit_rows
        accumulators[:] = 0
        for g in range(groups):
            scale_at = p + unit_rows * code_bytes
            minimum_at = scale_at + 2 * unit_rows
            for r in range(unit_rows):
                at_codes, s = p + r * code_bytes, scale_at + 2 * r
                ms, es = split16(np.uint8(weights[s]), np.uint8(weights[s + 1]))
                bias = np.int64(weights[bias_at + r])
                for t in range(tokens):
                    if code_bits == 8:
                        d = dot8(weights, at_codes, codes[t, 32 * g : 32 * g + 32])
                    elif code_bits == 4:
                        d = dot4(weights, at_codes, even[t, 16 * g : 16 * g + 16], odd[t, 16 * g : 16 * g + 16])
                    else:
                        d = dot2(weights, at_codes, codes[t, 32 * g : 32 * g + 32])
                    d += offset * sums[t, g]
                    accumulators[r, t] += sh(n[t, g] * ms * d, bias + es + e[t, g] - e_max[t])
                    if has_minimum:
                        m = minimum_at + 2 * r
                        mm, em = split16(np.uint8(weights[m]), np.uint8(weights[m + 1]))
                        accumulators[r, t] += sh(n[t, g] * mm * sums[t, g], bias + em + e[t, g] - e_max[t])
            p = minimum_at + (2 * unit_rows if has_minimum else 0)
        for r in range(unit_rows):
            for t in range(tokens):
                y = f32_of(accumulators[r, t], e_max[t] - np.int64(weights[bias_at + r]))
                fine = fine and np.isfinite(y)
                out[at + t * stride + block * unit_rows + r] = y
    return fine
