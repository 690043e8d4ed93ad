"""The compiled loops of the quick engine: one per op, over the tokens of a chunk, calling the kernels of `numerics`.

Vectors are f32 [tokens, width]. A loop writes its last argument and returns how many numbers on the way were not
finite; the engine then raises `Overflow`. All release the interpreter lock.

How a matrix is multiplied: a group's dot product D is exact in int16 where |code| <= 8 (8 * 127 * 32 < 2^15), else in
int32. Its term of the sum, sh(n*ms*D, F+es+e-e_row-e_max), is floor(D * (ms*2^(F+es-e_row)) * (n*2^(e-e_max))) in
binary64: the product has at most 35 significant bits, so it is exact, and floor is what the shift does. A term is below
2^49.9 and that of a minimum below 2^43 (n <= 15, |m| <= 2047, |D| <= 2^12 * 127, |A| <= 2^5 * 127, F <= 16, the other
exponents <= 0), so eight of each stay below 2^53; after every eight groups the binary64 sum goes to int64. A term with a scale of
18 bits has at most 39 significant bits but may be above 2^53: it is exact by itself, and goes to int64 by itself.
"""

from collections.abc import Callable

import numpy as np

from tapeout.graph.packing import LANES, SPILL
from tapeout.numerics import kernels
from tapeout.numerics.kernels import (
    add32,
    capped_score,
    code_of,
    cosine24,
    embed_value,
    f32_of,
    geglu,
    gelu,
    group_scale,
    layernorm_to,
    mul32,
    output,
    probability,
    rmsnorm_to,
    rotate,
    score,
    sine24,
    softcap,
    swiglu,
    turn24,
    weight_of,
)


def compiled(function: Callable | None = None, *, inline: bool = False) -> Callable:
    """`kernels.compiled`, its cache tied to this file too."""
    return kernels.compiled(function, inline=inline, file=__file__)


# ------------------------------------------------------------------------------------- loops: matrices


@compiled
def quantize_loop(x, codes, scale, total, e_max):
    """Quantize x [tokens, width] in groups of 32: codes [tokens, groups, 32]; scale [tokens, groups] = n*2^(e-e_max),
    exactly; total [tokens, groups] = sum of codes; e_max [tokens].
    """
    tokens, width = x.shape
    groups = codes.shape[1]
    exponents = np.empty(groups, np.int64)
    for t in range(tokens):
        top = np.int64(kernels.SMALLEST_E)
        for g in range(groups):
            first, last = 32 * g, min(32 * g + 32, width)
            n, e = _group(x[t, first:last], codes[t, g])
            sum_of_codes = np.int64(0)
            for k in range(32):
                sum_of_codes += codes[t, g, k]
            scale[t, g], exponents[g], total[t, g] = n, e, sum_of_codes
            top = max(top, e)
        for g in range(groups):
            scale[t, g] = np.ldexp(scale[t, g], exponents[g] - top)
        e_max[t] = top


@compiled
def _group(x, codes, most=127):
    """Quantize one group: writes codes[:len(x)] of at most `most`, returns (n, e)."""
    largest = np.float32(0.0)
    for i in range(x.size):
        largest = max(largest, abs(x[i]))
    n, e = group_scale(largest, most)
    for i in range(x.size):
        codes[i] = code_of(x[i], n, e, most)
    return n, e


@compiled(inline=True)
def _dot(columns, w, x, d):
    """d [32] += w [columns, 32 rows] times x [columns], columns a multiple of 8; int16 or int32 as d is."""
    kind = d.dtype.type
    for k in range(0, columns, 8):
        x0, x1, x2, x3 = kind(x[k]), kind(x[k + 1]), kind(x[k + 2]), kind(x[k + 3])
        x4, x5, x6, x7 = kind(x[k + 4]), kind(x[k + 5]), kind(x[k + 6]), kind(x[k + 7])
        for r in range(LANES):
            low = w[k, r] * x0 + w[k + 1, r] * x1 + w[k + 2, r] * x2 + w[k + 3, r] * x3
            high = w[k + 4, r] * x4 + w[k + 5, r] * x5 + w[k + 6, r] * x6 + w[k + 7, r] * x7
            d[r] += kind(low + high)


@compiled(inline=True)
def _terms(d, add, scale, factor, partial):
    """partial [32] += the floored terms of a group: D = d + add, scale [32] of the rows, factor of the vector."""
    for r in range(LANES):
        partial[r] += np.floor((np.float64(d[r]) + add) * np.float64(scale[r]) * factor)


@compiled(inline=True)
def _terms_and_minima(d, add, scale, factor, minimum, scaled_sum, partial):
    """`_terms`, and the floored terms of the minima [32]; scaled_sum = A * n * 2^(e-e_max)."""
    for r in range(LANES):
        term = np.floor((np.float64(d[r]) + add) * np.float64(scale[r]) * factor)
        partial[r] += term + np.floor(np.float64(minimum[r]) * scaled_sum)


@compiled(inline=True)
def _minima(minimum, scaled_sum, partial):
    """partial [32] += the floored terms of the minima [32]."""
    for r in range(LANES):
        partial[r] += np.floor(np.float64(minimum[r]) * scaled_sum)


@compiled(inline=True)
def _spill(partial, total):
    """Move binary64 sums, integers below 2^53, to int64."""
    for r in range(LANES):
        total[r] += np.int64(partial[r])
        partial[r] = 0.0


@compiled
def matrix_loop(first, last, kind, offset, codes, scale, minimum, exponent, spill, whole, x, factor, sum_x, e_max, out):
    """out [tokens, rows] of the row blocks first..last-1; see `Packed` and `_Packets`. Returns how many are not finite.

    `kind` is an empty array of the integers that hold D; `minimum` may be None; `whole` multiplies every output. A block of rows stays in the
    processor's cache while all tokens pass over it.
    """
    groups, bad = codes.shape[1], np.int64(0)
    d = np.empty(LANES, kind.dtype)
    partial, total = np.zeros(LANES, np.float64), np.empty(LANES, np.int64)
    for block in range(first, last):
        for t in range(x.shape[0]):
            total[:] = 0
            for g in range(groups):
                d[:] = 0
                if codes.shape[2] == 32:
                    _dot(32, codes[block, g], x[t, g], d)
                else:
                    _dot(16, codes[block, g], x[t, g], d)
                add = np.float64(offset * sum_x[t, g])
                if minimum is None:
                    _terms(d, add, scale[block, g], factor[t, g], partial)
                else:
                    scaled_sum = np.float64(sum_x[t, g]) * factor[t, g]
                    if spill == SPILL:
                        _terms_and_minima(d, add, scale[block, g], factor[t, g], minimum[block, g], scaled_sum, partial)
                    else:
                        _terms(d, add, scale[block, g], factor[t, g], partial)
                        _spill(partial, total)
                        _minima(minimum[block, g], scaled_sum, partial)
                if g % spill == spill - 1:
                    _spill(partial, total)
            _spill(partial, total)
            for r in range(min(LANES, out.shape[1] - LANES * block)):
                y = mul32(f32_of(total[r], exponent[LANES * block + r] + e_max[t]), whole)
                out[t, LANES * block + r] = y
                bad += not np.isfinite(y)
    return bad


# ------------------------------------------------------------------------------------- loops: attention


@compiled
def store_loop(x, first, most, codes_of_keys, codes_of_values, n, e):
    """Quantize x [tokens, kv_heads, head_dim] per head into a cache from position `first` on: n, e [kv_heads, context],
    codes of at most `most` as keys [kv_heads, blocks, dim, 32] or as values [kv_heads, context, head_dim]; the other of the two is empty.
    """
    tokens, kv_heads, head_dim = x.shape
    codes = np.empty(head_dim, np.int8)
    for t in range(tokens):
        at = first + t
        for h in range(kv_heads):
            n[h, at], e[h, at] = _group(x[t, h], codes, most)
            if codes_of_values.size > 0:
                codes_of_values[h, at] = codes
            else:
                for d in range(head_dim):
                    codes_of_keys[h, at // LANES, d, at % LANES] = codes[d]


@compiled
def attention_loop(first, last, position, constant, window, cap, q, keys, nk, ek, values, nv, ev, out):
    """Attention of the (token, head) pairs first..last-1 (pair = token * heads + head) of q [tokens, heads, head_dim].

    window: tokens a query attends to, 0 for all; cap: binary32(softcap * log2(e)), 0 for none.

    keys [kv_heads, blocks, dim, 32], dim = head_dim padded to 8s; values [kv_heads, context padded to 8s, head_dim];
    their n and e [kv_heads, context]; out [tokens, heads * head_dim]. Counts scores and outputs that are not finite.
    """
    heads, head_dim = q.shape[1:]
    share = heads // keys.shape[0]
    bad = np.int64(0)
    codes, sums = np.zeros(keys.shape[2], np.int8), np.empty(head_dim, np.int64)
    scores = np.empty((position + q.shape[0] + LANES - 1) // LANES * LANES, np.float32)
    for pair in range(first, last):
        t, h = pair // heads, pair % heads
        kv, count = h // share, position + t + 1
        start = max(count - window, 0) if window > 0 else 0
        nq, eq = _group(q[t, h], codes)
        bad += _scores(start, count, codes, nq, eq, constant, cap, keys[kv], nk[kv], ek[kv], scores)
        top = ev[kv, start]
        for i in range(start + 1, count):
            top = max(top, ev[kv, i])
        total = _weigh(start, count, scores, top, values[kv], nv[kv], ev[kv], sums)
        for d in range(head_dim):
            y = output(sums[d], total, top)
            out[t, h * head_dim + d] = y
            bad += not np.isfinite(y)
    return bad


@compiled(inline=True)
def _scores(start, count, codes, nq, eq, constant, cap, keys, nk, ek, scores):
    """scores[start:count] of those keys. Returns how many are not finite."""
    bad = np.int64(0)
    dots = np.empty(LANES, np.int32)
    for block in range(start // LANES, (count + LANES - 1) // LANES):
        dots[:] = 0
        _dot(codes.size, keys[block], codes, dots)
        for r in range(max(start - LANES * block, 0), min(LANES, count - LANES * block)):
            at = LANES * block + r
            if cap > 0:
                s = capped_score(np.int64(dots[r]), nq, np.int64(nk[at]), eq, np.int64(ek[at]), constant, cap)
            else:
                s = score(np.int64(dots[r]), nq, np.int64(nk[at]), eq, np.int64(ek[at]), constant)
            scores[at] = s
            bad += not np.isfinite(s)
    return bad


@compiled(inline=True)
def _weigh(start, count, scores, top, values, nv, ev, sums):
    """sums [head_dim] = sum over the keys start..count-1 of c * value codes; returns L, the sum of p."""
    greatest = scores[start]
    for i in range(start + 1, count):
        greatest = max(greatest, scores[i])
    sums[:] = 0
    total = np.int64(0)
    c = np.empty(8, np.int32)
    for first in range(start // 8 * 8, count, 8):
        some = np.int32(0)
        for i in range(8):
            c[i] = 0
            if start <= first + i < count:
                p = probability(greatest, scores[first + i])
                c[i] = weight_of(p, np.int64(nv[first + i]), np.int64(ev[first + i]), np.int64(top))
                total += p
            some |= c[i]
        if some != 0:
            _add_scaled(c, values[first : first + 8], sums)
    return total


@compiled(inline=True)
def _add_scaled(c, codes, sums):
    """sums += c [8] * codes [8, head_dim]; c <= 15 * 2^15, so eight products fit int32."""
    c0, c1, c2, c3, c4, c5, c6, c7 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]
    for d in range(sums.size):
        low = c0 * codes[0, d] + c1 * codes[1, d] + c2 * codes[2, d] + c3 * codes[3, d]
        high = c4 * codes[4, d] + c5 * codes[5, d] + c6 * codes[6, d] + c7 * codes[7, d]
        sums[d] += np.int32(low + high)


# ----------------------------------------------------------------------------------- loops: elementwise


@compiled
def embed_loop(ids, codes, offset, scale, minimum, group, whole, out):
    """out [tokens, width] = rows `ids` of an embedding: codes [rows, width], scale and minimum [tokens, groups] f64; `whole` multiplies
    all. Returns how many are not finite.
    """
    bad = np.int64(0)
    for t in range(ids.size):
        for i in range(out.shape[1]):
            code = np.int64(codes[ids[t], i])
            y = mul32(embed_value(code, offset, scale[t, i // group], minimum[t, i // group]), whole)
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


@compiled
def rmsnorm_loop(x, weight, inverse_width, eps, out):
    """out [tokens, width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(x.shape[0]):
        bad += rmsnorm_to(x[t], weight, inverse_width, eps, out[t])
    return bad


@compiled
def layernorm_loop(x, weight, bias, inverse_width, eps, out):
    """out [tokens, width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(x.shape[0]):
        bad += layernorm_to(x[t], weight, bias, inverse_width, eps, out[t])
    return bad


@compiled
def turns_loop(positions, increments, cosines, sines):
    """cosines, sines [tokens, head_dim/2] f32 of the positions int64 [tokens]."""
    for t in range(cosines.shape[0]):
        for k in range(increments.size):
            phase = (positions[t] * np.int64(increments[k])) & 0xFFFFFFFF
            cosines[t, k] = turn24(cosine24(phase))
            sines[t, k] = turn24(sine24(phase))


@compiled
def rope_loop(x, cosines, sines, out):
    """out [tokens, width]: the pairs (2k, 2k+1) of every head turned. Returns how many are not finite."""
    bad, half = np.int64(0), cosines.shape[1]
    for t in range(x.shape[0]):
        for i in range(x.shape[1] // 2):
            k = i % half
            a, b = rotate(x[t, 2 * i], x[t, 2 * i + 1], cosines[t, k], sines[t, k])
            out[t, 2 * i], out[t, 2 * i + 1] = a, b
            bad += not (np.isfinite(a) and np.isfinite(b))
    return bad


@compiled
def swiglu_loop(gate, up, out):
    """out [tokens, width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(gate.shape[0]):
        for i in range(gate.shape[1]):
            y = swiglu(gate[t, i], up[t, i])
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


@compiled
def add_loop(a, b, out):
    """out [tokens, width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(a.shape[0]):
        for i in range(a.shape[1]):
            y = add32(a[t, i], b[t, i])
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


@compiled
def add_bias_loop(x, bias, out):
    """out [tokens, width] = x + bias [width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            y = add32(x[t, i], bias[i])
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


@compiled
def scale_loop(x, factor, out):
    """out [tokens, width] = x * factor. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            y = mul32(x[t, i], factor)
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


@compiled
def gelu_loop(x, out):
    """out [tokens, width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            y = gelu(x[t, i])
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


@compiled
def geglu_loop(gate, up, out):
    """out [tokens, width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(gate.shape[0]):
        for i in range(gate.shape[1]):
            y = geglu(gate[t, i], up[t, i])
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


@compiled
def softcap_loop(x, into, back, out):
    """out [tokens, width] = tanh(x * into) * back. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            y = softcap(x[t, i], into, back)
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad
