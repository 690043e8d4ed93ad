"""The quick twin of the reference executor: the same bits, fast enough to talk to.

`FastEngine` runs a quantized `Model` op by op; each op is one call of a compiled loop over the tokens of a chunk. It
keeps the KV cache as int8 codes with their (n, e). `flow` generates text and measures perplexity with it. It shares its
scalar kernels with `sim`, and nothing with `graph/reference.py`.

How a matrix is packed: rows in blocks of 32, so that a SIMD lane is a row: codes [blocks, groups, 32 columns, 32 rows].
A group's dot product D is exact in int16 where |code| <= 8 (8 * 127 * 32 < 2^15), else in int32. Its term of the sum,
sh(n*ms*D, F+es+e-e_row-e_max), is computed as floor(D * (ms*2^(F+es-e_row)) * (n*2^(e-e_max))) in binary64: the product
has at most 35 significant bits, so it is exact, and floor is what the shift does. A term is below 2^49.9 and that of a
minimum below 2^43 (n <= 15, |m| <= 2047, |D| <= 2^12 * 127, |A| <= 2^5 * 127, F <= 16, other exponents <= 0), so eight
of each stay below 2^53; after every eight groups the binary64 sum goes to int64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numba
import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput, Overflow
from tapeout.graph.types import Add, Attention, Embed, Linear, Matrix, Model, Op, RMSNorm, Rope, SwiGLU, op_inputs
from tapeout.numerics import kernels
from tapeout.numerics.kernels import (
    add32,
    code_of,
    cosine24,
    embed_value,
    exponent_of,
    f32_of,
    group_scale,
    norm_integer,
    norm_r,
    norm_value,
    probability,
    rotate,
    score,
    sine24,
    swiglu,
    turn24,
    weight_of,
)
from tapeout.numerics.kernels import output as attention_output
from tapeout.numerics.tables import reciprocal_of_width, rope_increments, score_constant

LANES = 32
"""Rows per block of a packed matrix; keys per block of the key cache."""
CHUNK = 64
"""Tokens run through the ops at a time; longer steps are cut. Bits do not depend on it."""
SPILL = 8
"""Groups whose terms are summed in binary64 before they go to int64."""
WORTH_A_THREAD = 100_000
"""Multiplications below which a second thread costs more than it saves."""


def compiled(function: Callable | None = None, *, parallel: bool = False, inline: bool = False) -> Callable:
    """`kernels.compiled`, its cache tied to this file too."""
    return kernels.compiled(function, parallel=parallel, inline=inline, file=__file__)


# ---------------------------------------------------------------------------------------------- packing


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix as the loops read it. Rows are padded to blocks of 32, columns to groups of 32."""

    rows: int
    kind: NDArray[np.integer]
    """Empty; its type holds a group's dot product: int16 where |code| <= 8, else int32."""
    offset: int
    codes: NDArray[np.int8]
    """[blocks, groups, 32 columns, 32 rows]."""
    scale: NDArray[np.float32]
    """[blocks, groups, 32 rows]: ms * 2^(F + es - e_row), exact."""
    minimum: NDArray[np.float32] | None
    """The same of the minima; None where the format has none."""
    exponent: NDArray[np.int64]
    """[blocks * 32]: e_row - F."""

    @property
    def products(self) -> int:
        """Multiplications per token."""
        return self.codes.size


def pack(matrix: Matrix, where: str) -> Packed:
    """Lay out a matrix. Raises `BadInput` where a row's sum cannot be held in 62 bits."""
    rows, columns = matrix.shape
    form = matrix.format
    blocks, groups = -(-rows // LANES), -(-columns // 32)
    parts = [_split_half(_per_32(matrix.scale, form.group, groups))]
    if matrix.minimum is not None:
        parts.append(_split_half(_per_32(matrix.minimum, form.group, groups)))
    e_row = np.max([exponent.max(axis=1) for _, exponent in parts], axis=0)
    fraction = _fraction_bits(matrix, parts, e_row, where)
    shift = fraction - e_row
    scales = [
        _blocked(np.ldexp(m, exponent + shift[:, None]).astype(np.float32), blocks, groups, 1)[:, :, 0]
        for m, exponent in parts
    ]
    exponent = np.zeros(blocks * LANES, np.int64)
    exponent[:rows] = -shift
    codes = _blocked(matrix.codes, blocks, groups, 32)
    return Packed(
        rows,
        np.empty(0, np.int16 if max(-form.low, form.high) <= 8 else np.int32),
        form.offset,
        codes,
        scales[0],
        scales[1] if len(scales) > 1 else None,
        exponent,
    )


def _per_32(values: NDArray[np.float16], group: int, groups: int) -> NDArray[np.float16]:
    """[rows, groups of 32] of a scale stored per `group`, a multiple of 32."""
    return np.repeat(values, group // 32, axis=1)[:, :groups]


def _split_half(values: NDArray[np.float16]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """binary16 as (signed mantissa, exponent), value = m * 2^e, the mantissa as stored with its hidden bit."""
    bits = values.view(np.uint16).astype(np.int64)
    field = (bits >> 10) & 31
    mantissa = (bits & 1023) | np.where(field > 0, 1024, 0)
    return np.where(bits >> 15, -mantissa, mantissa).astype(np.float64), np.maximum(field, 1) - 25


def _blocked(values: NDArray, blocks: int, groups: int, width: int) -> NDArray:
    """[rows, groups * width] -> [blocks, groups, width, 32 rows], padded with zeros."""
    rows, columns = values.shape
    if (rows, columns) != (blocks * LANES, groups * width):
        padded = np.zeros((blocks * LANES, groups * width), values.dtype)
        padded[:rows, :columns] = values
        values = padded
    return np.ascontiguousarray(values.reshape(blocks, LANES, groups, width).transpose(0, 2, 3, 1))


def _fraction_bits(
    matrix: Matrix, parts: list[tuple[NDArray, NDArray]], e_row: NDArray[np.int64], where: str
) -> NDArray[np.int64]:
    """F per row: 16, or less where 16 cannot be proved to keep the sum within 2^62."""
    form = matrix.format
    reach = (32 * max(abs(form.low + form.offset), abs(form.high + form.offset)), 32)
    roof = sum(
        15 * 127 * r * (np.abs(m) * np.exp2(exponent - e_row[:, None])).sum(axis=1)
        for r, (m, exponent) in zip(reach, parts, strict=False)
    )
    bits = np.full(e_row.shape, 16, np.int64)
    for row in np.flatnonzero(roof * 2.0**16 > 2.0**61):
        bits[row] = _exact_fraction_bits(matrix, parts, int(row), int(e_row[row]), where)
    return bits


def _exact_fraction_bits(matrix: Matrix, parts: list[tuple[NDArray, NDArray]], row: int, e_row: int, where: str) -> int:
    """F of one row by the exact bound on its sum."""
    groups = parts[0][0].shape[1]
    codes = np.zeros(groups * 32, np.int64)
    codes[: matrix.shape[1]] = np.abs(matrix.codes[row].astype(np.int64) + matrix.format.offset)
    reach = (codes.reshape(groups, 32).sum(axis=1), np.full(groups, 32))
    bound = sum(
        15 * 127 * abs(int(m[row, g])) * int(r[g]) * Fraction(2) ** int(exponent[row, g] - e_row)
        for r, (m, exponent) in zip(reach, parts, strict=False)
        for g in range(groups)
    )
    for bits in range(16, -1, -1):
        if bound * 2**bits + 2 * groups <= 2**62:
            return bits
    raise BadInput(f"{where} row {row}", "its scaled sum does not fit 62 bits")


# ------------------------------------------------------------------------------------- loops: matrices


@compiled
def _quantize(x, codes, scale, total, e_max):
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
def _group(x, codes):
    """Quantize one group: writes codes[:len(x)], returns (n, e)."""
    largest = np.float32(0.0)
    for i in range(x.size):
        largest = max(largest, abs(x[i]))
    n, e = group_scale(largest)
    for i in range(x.size):
        codes[i] = code_of(x[i], n, e)
    return n, e


@compiled(inline=True)
def _dot(columns, w, x, d):
    """d [32] += w [columns, 32 rows] times x [columns], columns a multiple of 8, in the integers of d (int16, int32)."""
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
def _spill(partial, total):
    """Move binary64 sums, integers below 2^53, to int64."""
    for r in range(LANES):
        total[r] += np.int64(partial[r])
        partial[r] = 0.0


@compiled
def _rows(first, last, kind, offset, codes, scale, minimum, exponent, x, factor, sum_x, e_max, out):
    """out [tokens, rows] of the row blocks first..last-1; see `Packed` and `_Packets`. Returns how many are not finite.

    `kind` is an empty array of the integers that hold D; `minimum` may be None. A block of rows stays in the
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
                _dot(32, codes[block, g], x[t, g], d)
                add = np.float64(offset * sum_x[t, g])
                if minimum is None:
                    _terms(d, add, scale[block, g], factor[t, g], partial)
                else:
                    scaled_sum = np.float64(sum_x[t, g]) * factor[t, g]
                    _terms_and_minima(d, add, scale[block, g], factor[t, g], minimum[block, g], scaled_sum, partial)
                if g % SPILL == SPILL - 1:
                    _spill(partial, total)
            _spill(partial, total)
            for r in range(min(LANES, out.shape[1] - LANES * block)):
                y = f32_of(total[r], exponent[LANES * block + r] + e_max[t])
                out[t, LANES * block + r] = y
                bad += not np.isfinite(y)
    return bad


@compiled
def _piece(count, i, pieces):
    """First and last + 1 of piece `i` where `count` things are cut into `pieces`."""
    return count * i // pieces, count * (i + 1) // pieces


@compiled(parallel=True)
def _rows_threads(threads, kind, offset, codes, scale, minimum, exponent, x, factor, sum_x, e_max, out):
    """`_rows` over all blocks, cut into as many pieces as there are threads."""
    bad, blocks = np.int64(0), codes.shape[0]
    for i in numba.prange(threads):
        first, last = _piece(blocks, np.int64(i), threads)
        bad += _rows(first, last, kind, offset, codes, scale, minimum, exponent, x, factor, sum_x, e_max, out)
    return bad


# ------------------------------------------------------------------------------------- loops: attention


@compiled
def _store(x, first, codes_of_keys, codes_of_values, n, e):
    """Quantize x [tokens, kv_heads, head_dim] per head into a cache from position `first` on: n, e [kv_heads, context],
    codes as keys [kv_heads, blocks, dim, 32] or as values [kv_heads, context, head_dim]; the other of the two is empty.
    """
    tokens, kv_heads, head_dim = x.shape
    codes = np.empty(head_dim, np.int8)
    for t in range(tokens):
        at = first + t
        for h in range(kv_heads):
            n[h, at], e[h, at] = _group(x[t, h], codes)
            if codes_of_values.size > 0:
                codes_of_values[h, at] = codes
            else:
                for d in range(head_dim):
                    codes_of_keys[h, at // LANES, d, at % LANES] = codes[d]


@compiled
def _attend(first, last, position, constant, q, keys, nk, ek, values, nv, ev, out):
    """Attention of the (token, head) pairs first..last-1 (pair = token * heads + head) of q [tokens, heads, head_dim].

    keys [kv_heads, blocks, dim, 32], dim = head_dim padded to 8s; values [kv_heads, context, head_dim]; their n and e
    [kv_heads, context]; out [tokens, heads * head_dim]. Returns how many scores and outputs are not finite.
    """
    heads, head_dim = q.shape[1:]
    share = heads // keys.shape[0]
    bad = np.int64(0)
    codes, sums = np.zeros(keys.shape[2], np.int8), np.empty(head_dim, np.int64)
    scores = np.empty((position + q.shape[0] + LANES - 1) // LANES * LANES, np.float32)
    for pair in range(first, last):
        t, h = pair // heads, pair % heads
        kv, count = h // share, position + t + 1
        nq, eq = _group(q[t, h], codes)
        bad += _scores(count, codes, nq, eq, constant, keys[kv], nk[kv], ek[kv], scores)
        top = ev[kv, 0]
        for i in range(1, count):
            top = max(top, ev[kv, i])
        total = _weigh(count, scores, top, values[kv], nv[kv], ev[kv], sums)
        for d in range(head_dim):
            y = attention_output(sums[d], total, top)
            out[t, h * head_dim + d] = y
            bad += not np.isfinite(y)
    return bad


@compiled(inline=True)
def _scores(count, codes, nq, eq, constant, keys, nk, ek, scores):
    """scores[:count] of the first `count` keys. Returns how many are not finite."""
    bad = np.int64(0)
    dots = np.empty(LANES, np.int32)
    for block in range((count + LANES - 1) // LANES):
        dots[:] = 0
        _dot(codes.size, keys[block], codes, dots)
        for r in range(min(LANES, count - LANES * block)):
            at = LANES * block + r
            s = score(np.int64(dots[r]), nq, np.int64(nk[at]), eq, np.int64(ek[at]), constant)
            scores[at] = s
            bad += not np.isfinite(s)
    return bad


@compiled(inline=True)
def _weigh(count, scores, top, values, nv, ev, sums):
    """sums [head_dim] = sum over keys of c * value codes; returns L, the sum of p. Overwrites nothing else."""
    greatest = scores[0]
    for i in range(1, count):
        greatest = max(greatest, scores[i])
    sums[:] = 0
    total = np.int64(0)
    for i in range(count):
        p = probability(greatest, scores[i])
        c = weight_of(p, np.int64(nv[i]), np.int64(ev[i]), np.int64(top))
        total += p
        if c > 0:
            _add_scaled(np.int32(c), values[i], sums)
    return total


@compiled(inline=True)
def _add_scaled(c, codes, sums):
    """sums += c * codes; c has 19 bits, so a product fits int32."""
    for d in range(sums.size):
        sums[d] += np.int32(c * codes[d])


@compiled(parallel=True)
def _attend_threads(threads, pairs, position, constant, q, keys, nk, ek, values, nv, ev, out):
    """`_attend` over all pairs, cut into as many pieces as there are threads."""
    bad = np.int64(0)
    for i in numba.prange(threads):
        first, last = _piece(pairs, np.int64(i), threads)
        bad += _attend(first, last, position, constant, q, keys, nk, ek, values, nv, ev, out)
    return bad


# ----------------------------------------------------------------------------------- loops: elementwise


@compiled
def _embed(ids, codes, offset, scale, minimum, group, out):
    """out [tokens, width] = rows `ids` of an embedding: codes [rows, width], scale and minimum [tokens, groups] f32."""
    for t in range(ids.size):
        for i in range(out.shape[1]):
            code = np.int64(codes[ids[t], i])
            out[t, i] = embed_value(code, offset, scale[t, i // group], minimum[t, i // group])
    return np.int64(0)


@compiled
def _rmsnorm(x, weight, inverse_width, eps, out):
    """out [tokens, width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(x.shape[0]):
        largest = np.float32(0.0)
        for i in range(x.shape[1]):
            largest = max(largest, abs(x[t, i]))
        exponent, squares = exponent_of(largest), np.int64(0)
        for i in range(x.shape[1]):
            integer = norm_integer(x[t, i], exponent)
            squares += integer * integer
        r = norm_r(squares, exponent, inverse_width, eps)
        bad += not np.isfinite(r)
        for i in range(x.shape[1]):
            y = norm_value(x[t, i], r, weight[i])
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


@compiled
def _turns(position, increments, cosines, sines):
    """cosines, sines [tokens, head_dim/2] f32 of the positions from `position` on."""
    for t in range(cosines.shape[0]):
        for k in range(increments.size):
            phase = (np.int64(position + t) * np.int64(increments[k])) & 0xFFFFFFFF
            cosines[t, k] = turn24(cosine24(phase))
            sines[t, k] = turn24(sine24(phase))


@compiled
def _rope(x, cosines, sines, out):
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
def _swiglu(gate, up, out):
    """out [tokens, width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(gate.shape[0]):
        for i in range(gate.shape[1]):
            y = swiglu(gate[t, i], up[t, i])
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


@compiled
def _add(a, b, out):
    """out [tokens, width]. Returns how many are not finite."""
    bad = np.int64(0)
    for t in range(a.shape[0]):
        for i in range(a.shape[1]):
            y = add32(a[t, i], b[t, i])
            out[t, i] = y
            bad += not np.isfinite(y)
    return bad


# -------------------------------------------------------------------------------------------- the engine


@dataclass(frozen=True, slots=True)
class _Packets:
    """A quantized vector per token, groups of 32: what the matrix loops read."""

    codes: NDArray[np.int8]
    """[tokens, groups, 32]."""
    factor: NDArray[np.float64]
    """[tokens, groups]: n * 2^(e - e_max), exact."""
    total: NDArray[np.int64]
    """[tokens, groups]: A, the sum of the codes."""
    e_max: NDArray[np.int64]
    """[tokens]."""


def _packets(x: NDArray[np.float32]) -> _Packets:
    tokens, width = x.shape
    groups = -(-width // 32)
    codes = np.zeros((tokens, groups, 32), np.int8)
    scale, total = np.empty((tokens, groups), np.float64), np.empty((tokens, groups), np.int64)
    e_max = np.empty(tokens, np.int64)
    _quantize(x, codes, scale, total, e_max)
    return _Packets(codes, scale, total, e_max)


class _Cache:
    """Keys and values of one attention op: int8 codes and their scales n * 2^e per head and position."""

    def __init__(self, op: Attention, context: int):
        blocks, dim = -(-context // LANES), -(-op.head_dim // 8) * 8
        self.keys = np.zeros((op.kv_heads, blocks, dim, LANES), np.int8)
        self.values = np.zeros((op.kv_heads, context, op.head_dim), np.int8)
        self.nk, self.ek, self.nv, self.ev = (np.zeros((op.kv_heads, context), np.int32) for _ in range(4))

    def store(self, position: int, k: NDArray[np.float32], v: NDArray[np.float32]) -> None:
        """Quantize and hold k, v [tokens, kv_heads, head_dim] from `position` on."""
        _store(k, position, self.keys, self.values[:, :0], self.nk, self.ek)
        _store(v, position, self.keys[:, :0], self.values, self.nv, self.ev)


@dataclass(slots=True)
class _Chunk:
    """One pass over the ops: up to CHUNK tokens."""

    ids: NDArray[np.int64]
    position: int
    values: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    packets: tuple[str, _Packets] | None = None
    """The vector quantized last: neighbouring matrices often read the same one."""
    turns: dict[tuple[float, int], tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=dict)
    """(theta, head_dim) -> cosines and sines [tokens, head_dim / 2]."""

    def last(self, count: int) -> "_Chunk":
        """The last `count` tokens of it."""
        first = len(self.ids) - count
        values = {name: value[first:] for name, value in self.values.items()}
        return _Chunk(self.ids[first:], self.position + first, values)


class FastEngine:
    """`base.engine.Engine` by compiled loops. `threads` share what is worth sharing; 1 starts no pool."""

    def __init__(self, model: Model, context: int | None = None, threads: int = 1):
        available = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        if not 1 <= threads <= available:
            raise BadInput("threads", f"{threads} is not in 1..{available}")
        self.model, self.threads = model, threads
        self.context = model.graph.context if context is None else context
        self._width = dict(model.graph.values)
        self._last_use = {name: i for i, op in enumerate(model.graph.ops) for name in op_inputs(op)}
        self._held = 0
        self._packed: dict[str, Packed] = {}
        self._caches: dict[str, _Cache] = {}
        for op in model.graph.ops:
            self._prepare(op)

    def _prepare(self, op: Op) -> None:
        if isinstance(op, Linear) and op.weight not in self._packed:
            self._packed[op.weight] = pack(self._matrix(op.weight), op.weight)
        elif isinstance(op, Embed):
            self._matrix(op.table)
        elif isinstance(op, Attention):
            self._caches[op.out] = _Cache(op, self.context)

    def _matrix(self, name: str) -> Matrix:
        weight = self.model.weights.get(name)
        if not isinstance(weight, Matrix):
            raise BadInput(name, "is not a quantized matrix", "quantize the model, or use float mode")
        return weight

    def step(self, token_ids: Sequence[int], position: int, every: bool = False) -> NDArray[np.float32]:
        """Logits of the last token [vocabulary], or of all [tokens, vocabulary]; see base.engine.Engine.

        Raises `BadInput` for an id outside the vocabulary or a full context, `Overflow` naming the op's value.
        """
        ids = np.asarray(token_ids, np.int64)
        self._check(ids, position)
        before = numba.get_num_threads() if self.threads > 1 else 0
        try:
            if before:
                numba.set_num_threads(self.threads)
            logits = self._passes(ids, position, every)
        finally:
            if before:
                numba.set_num_threads(before)
        self._held = position + len(ids)
        return logits if every else logits[-1]

    def _passes(self, ids: NDArray[np.int64], position: int, every: bool) -> NDArray[np.float32]:
        parts = []
        for first in range(0, len(ids), CHUNK):
            chunk = _Chunk(ids[first : first + CHUNK], position + first)
            wanted = len(chunk.ids) if every else int(first + CHUNK >= len(ids))
            parts.append(self._pass(chunk, wanted))
        return np.concatenate(parts)

    def _pass(self, chunk: _Chunk, wanted: int) -> NDArray[np.float32]:
        """Run the ops on a chunk, the output only for its last `wanted` tokens."""
        output = self.model.graph.output
        for i, op in enumerate(self.model.graph.ops):
            if op.out == output and wanted < len(chunk.ids):
                chunk = chunk.last(wanted)
            out = np.empty((len(chunk.ids), self._width[op.out]), np.float32)
            if self._run(op, chunk, out):
                raise Overflow(op.out)
            chunk.values[op.out] = out
            for name in op_inputs(op):
                if self._last_use[name] == i and name != output:
                    chunk.values.pop(name, None)
        return chunk.values[output]

    def _run(self, op: Op, chunk: _Chunk, out: NDArray[np.float32]) -> int:
        """Write one op's value [tokens, width]; how many numbers overflowed on the way."""
        values = chunk.values
        match op:
            case Embed():
                return self._embed(op, chunk, out)
            case RMSNorm():
                inverse = reciprocal_of_width(out.shape[1])
                return _rmsnorm(values[op.x], self.model.weights[op.weight], inverse, np.float32(op.eps), out)
            case Linear():
                return self._linear(op, chunk, out)
            case Rope():
                return _rope(values[op.x], *_turned(chunk, op.theta, op.head_dim), out)
            case Attention():
                return self._attention(op, chunk, out)
            case SwiGLU():
                return _swiglu(values[op.gate], values[op.up], out)
            case Add():
                return _add(values[op.a], values[op.b], out)

    def _embed(self, op: Embed, chunk: _Chunk, out: NDArray[np.float32]) -> int:
        table = self._matrix(op.table)
        scale = table.scale[chunk.ids].astype(np.float32)
        minimum = np.zeros_like(scale) if table.minimum is None else table.minimum[chunk.ids].astype(np.float32)
        return _embed(chunk.ids, table.codes, table.format.offset, scale, minimum, table.format.group, out)

    def _linear(self, op: Linear, chunk: _Chunk, out: NDArray[np.float32]) -> int:
        if chunk.packets is None or chunk.packets[0] != op.x:
            chunk.packets = (op.x, _packets(chunk.values[op.x]))
        w, x = self._packed[op.weight], chunk.packets[1]
        rest = (w.kind, w.offset, w.codes, w.scale, w.minimum, w.exponent, x.codes, x.factor, x.total, x.e_max, out)
        if self.threads > 1 and w.codes.size * len(chunk.ids) >= WORTH_A_THREAD:
            return _rows_threads(self.threads, *rest)
        return _rows(0, len(w.codes), *rest)

    def _attention(self, op: Attention, chunk: _Chunk, out: NDArray[np.float32]) -> int:
        cache, tokens = self._caches[op.out], len(chunk.ids)
        q, k, v = (chunk.values[name].reshape(tokens, -1, op.head_dim) for name in (op.q, op.k, op.v))
        cache.store(chunk.position, k, v)
        rest = (chunk.position, score_constant(op.head_dim), q, cache.keys, cache.nk, cache.ek, cache.values)
        rest = (*rest, cache.nv, cache.ev, out)
        pairs = tokens * op.heads
        if self.threads > 1 and 2 * pairs * op.head_dim * (chunk.position + tokens) >= WORTH_A_THREAD:
            return _attend_threads(self.threads, pairs, *rest)
        return _attend(0, pairs, *rest)

    def _check(self, ids: NDArray[np.int64], position: int) -> None:
        assert ids.ndim == 1, "token ids are one list"
        assert len(ids) > 0, "step needs at least one token"
        assert 0 <= position <= self._held, f"position {position} leaves a gap: {self._held} positions are held"
        vocabulary = self.model.graph.vocabulary
        outside = ids[(ids < 0) | (ids >= vocabulary)]
        if outside.size:
            raise BadInput("token id", f"{outside[0]} is outside the vocabulary", f"ids are 0..{vocabulary - 1}")
        if position + len(ids) > self.context:
            raise BadInput("context", f"{position + len(ids)} tokens do not fit {self.context} positions")


def _turned(chunk: _Chunk, theta: float, head_dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines [tokens, head_dim / 2] of the chunk's positions, made once for all layers."""
    key = (theta, head_dim)
    if key not in chunk.turns:
        cosines, sines = (np.empty((len(chunk.ids), head_dim // 2), np.float32) for _ in range(2))
        _turns(chunk.position, rope_increments(theta, head_dim), cosines, sines)
        chunk.turns[key] = (cosines, sines)
    return chunk.turns[key]
