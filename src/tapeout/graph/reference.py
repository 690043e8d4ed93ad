"""The obvious executor: a quantized `Model` run in the arithmetic of docs/numerics.md, one short function per op.

It is the definition that every other executor is compared with, bit for bit, so it is written to be read: NumPy, int64
and binary32, nothing reordered for speed that the contract does not make free. It imports formats and tables only and
shares no kernel with anybody. Vectors are [tokens, width] binary32; integers are int64 unless a line says why fewer
bits do. `where` is always the name that an `Overflow` carries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput, Overflow
from tapeout.graph.check import check_step
from tapeout.graph.types import (
    Add,
    AddBias,
    AddPosition,
    Attention,
    Embed,
    GeGLU,
    Gelu,
    HeadNorm,
    LayerNorm,
    Linear,
    Matrix,
    Model,
    Op,
    RMSNorm,
    Rope,
    Scale,
    SoftCap,
    SwiGLU,
)
from tapeout.numerics.formats import KV_FORMATS, greatest_code
from tapeout.numerics.tables import (
    EXP2,
    GELU,
    RECIPROCAL,
    SIGMOID,
    SINE,
    cap_constants,
    capped_score_constants,
    reciprocal_of_width,
    rope_increments,
    score_constant,
)

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

GROUP = 32
LEAST_NORMAL = np.float32(2.0**-126)
EMPTY_EXPONENT = -100


# --- binary32: every operation rounds to nearest even, then flushes; infinity is an error ---------


def add(where: str, a: F32 | np.float32, b: F32 | np.float32) -> F32:
    """a + b. A binary32 sum below 2^-126 is exact, so only a nonzero one is flushed and a zero keeps its sign."""
    with np.errstate(over="ignore"):
        y = a + b
    return finite(where, np.where((np.abs(y) < LEAST_NORMAL) & (y != 0), np.float32(0), y))


def mul(where: str, a: F32 | np.float32, b: F32 | np.float32) -> F32:
    """a * b. Exactly zero, sign kept, only where a factor is zero."""
    with np.errstate(over="ignore", under="ignore"):
        y = a * b
    return finite(where, np.where((np.abs(y) < LEAST_NORMAL) & (a != 0) & (b != 0), np.float32(0), y))


def div(where: str, a: F32 | np.float32, b: F32 | np.float32) -> F32:
    """a / b, b not zero. Exactly zero, sign kept, only where a is zero."""
    with np.errstate(over="ignore", under="ignore"):
        y = a / b
    return finite(where, np.where((np.abs(y) < LEAST_NORMAL) & (a != 0), np.float32(0), y))


def finite(where: str, y: F32) -> F32:
    """`y`, unless a value overflowed. Raises Overflow."""
    if not np.isfinite(y).all():
        raise Overflow(where)
    return y


def exponent_add(where: str, x: F32, k: I64) -> F32:
    """X(x, k): x * 2^k, rounded once. binary64 holds the exact product, so the narrowing is the one rounding."""
    with np.errstate(over="ignore", under="ignore"):
        y = np.ldexp(x.astype(np.float64), k).astype(np.float32)
    return finite(where, np.where((np.abs(y) < LEAST_NORMAL) & (x != 0), np.float32(0), y))


def from_integer(where: str, i: I64, k: I64 | int) -> F32:
    """F(i, k): i * 2^k, value and exponent rounded together once.

    The int64 is converted directly; a power of two then changes nothing unless the result is below the normal numbers.
    There only i * 2^k >= 2^-126 - 2^-150 survives, by rounding up to 2^-126; that is decided in Python integers.
    """
    i, k = np.broadcast_arrays(i, np.int64(k))
    y = np.ldexp(i.astype(np.float32).astype(np.float64), k)
    for at in zip(*np.nonzero((np.abs(y) < 2.0**-125) & (i != 0)), strict=True):
        y[at] = _from_small_integer(int(i[at]), int(k[at]))
    with np.errstate(over="ignore"):
        return finite(where, y.astype(np.float32))


def _from_small_integer(i: int, k: int) -> float:
    """F(i, k) for 0 < |i * 2^k| < 2^-125: binary32 steps by 2^-149 there."""
    steps = abs(i) << max(k + 149, 0)
    if k < -149:
        down, rest = divmod(abs(i), 1 << (-149 - k))
        half = 1 << (-150 - k)
        steps = down + (rest > half or (rest == half and down % 2 == 1))
    value = float(steps) * 2.0**-149 if steps >= 1 << 23 else 0.0
    return -value if i < 0 and value else value


def shift(i: I64, k: I64) -> I64:
    """sh(i, k): left by k, or right with floor by at most 63, so that -1 stays -1."""
    return (i << np.maximum(k, 0)) >> np.minimum(np.maximum(-k, 0), 63)


# --- quantized vectors ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Groups:
    """Vectors as codes [..., groups, size] and their scales n * 2^e [..., groups]."""

    codes: NDArray[np.int8]
    n: I64
    e: I64


def quantize(where: str, x: F32, most: int = 127) -> Groups:
    """Quantize groups x [..., size]: the least scale n * 2^e with most * n * 2^e >= max|x|, then the nearest codes. most: 127 or 7."""
    greatest = np.abs(x).max(axis=-1)
    fraction, top = np.frexp(greatest)  # greatest = fraction * 2^top, 1/2 <= fraction < 1
    mantissa = np.ldexp(fraction, 24).astype(np.int64)  # greatest = mantissa * 2^(top - 24), exactly
    shift = {127: 13, 7: 17}[most]
    e = (
        top.astype(np.int64) - 24 + shift
    )  # the least at which some n <= 15 may reach: most * 15 * 2^(e - 1) < 2^(top - 1)
    n = -(-mantissa // (most << shift))
    higher = n > 15
    e, n = e + higher, np.maximum(np.where(higher, -(-mantissa // (most << shift + 1)), n), 8)
    low = e < EMPTY_EXPONENT  # all-zero groups too: frexp(0) is (0, 0), whose n is 8 and e -11
    empty = low | (greatest == 0)
    n, e = np.where(empty, 8, n), np.where(empty, EMPTY_EXPONENT, e)
    t = mul(where, x, RECIPROCAL[n][..., None])
    codes = np.rint(np.ldexp(t.astype(np.float64), -e[..., None]))
    return Groups(np.clip(codes, -most, most).astype(np.int8), n, e)


def split_groups(x: F32, size: int = GROUP) -> F32:
    """[tokens, width] -> [tokens, groups, size], the last group padded with zeros."""
    tokens, width = x.shape
    groups = -(-width // size)
    padded = np.zeros((tokens, groups * size), np.float32)
    padded[:, :width] = x
    return padded.reshape(tokens, groups, size)


# --- matrices -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rows:
    """A matrix made ready: codes padded to [rows, blocks, 16 or 32]; scales and minima split, one column per block."""

    codes: NDArray[np.int8]
    offset: int
    ms: NDArray[np.integer]
    es: NDArray[np.integer]
    mm: NDArray[np.integer] | None
    em: NDArray[np.integer] | None
    e_row: I64
    f_row: I64
    factor: float


LEAST_ROW_EXPONENT = -111
"""So that F - e_row fits a byte; only E8M0 goes lower."""
UNIT = {"binary16": 24, "e8m0": 128, "e4m3": 10, "wide": 24}
"""By kind of scale, the least of its exponents is minus this."""


def split_binary16(scale: NDArray[np.float16]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """(m, e) with scale = m * 2^e: the stored mantissa with its hidden bit, the sign in m, never normalised further."""
    bits = scale.view(np.uint16).astype(np.int16)
    field, mantissa = (bits >> 10) & 31, bits & 1023
    m = np.where(field > 0, mantissa + 1024, mantissa)
    return np.where(bits < 0, -m, m).astype(np.int16), (np.maximum(field, 1) - 25).astype(np.int16)


def split_stored(kind: str, scale: NDArray) -> tuple[NDArray, NDArray]:
    """(m, e) of a scale or minimum of any kind. Codes of E2M1 are doubled, so E8M0 and E4M3 are halved: their e is one less."""
    if kind == "binary16":
        return split_binary16(np.ascontiguousarray(scale))
    bits = scale.astype(np.int32)
    if kind == "e8m0":
        return np.ones_like(bits), bits - 127 - 1
    if kind == "e4m3":
        exponent, mantissa = np.divmod(bits, 8)
        return mantissa + 8 * (exponent > 0), np.maximum(exponent, 1) - 7 - 3 - 1
    sign, rest = np.divmod(bits, 1 << 23)
    exponent, m = np.divmod(rest, 1 << 18)
    return m * (1 - 2 * sign), np.maximum(exponent, 1) - 25


def make_rows(name: str, weight: Matrix) -> Rows:
    """Split scales into integers and fix each row's exponent and fraction bits."""
    rows, columns = weight.shape
    form, size = weight.format, weight.format.block
    blocks = -(-columns // size)
    codes = np.zeros((rows, blocks * size), np.int8)
    codes[:, :columns] = weight.codes
    codes = codes.reshape(rows, blocks, size)
    of_block = np.arange(blocks) * size // form.group
    ms, es = split_stored(form.scale.name, weight.scale[:, of_block])
    e_row, mm, em = np.maximum(es.max(axis=1), LEAST_ROW_EXPONENT), None, None
    if weight.minimum is not None:
        mm, em = split_stored(form.scale.name, weight.minimum[:, of_block])
        e_row = np.maximum(e_row, em.max(axis=1))
    f_row = [
        fraction_bits(f"{name} row {row}", units, int(e), blocks, UNIT[form.scale.name])
        for row, (units, e) in enumerate(zip(_bound(weight, ms, es, mm, em), e_row, strict=True))
    ]
    return Rows(codes, form.offset, ms, es, mm, em, e_row.astype(np.int64), np.array(f_row, np.int64), weight.factor)


def _bound(weight: Matrix, ms, es, mm, em) -> list[int]:
    """Per row, the sum over blocks of |ms| * sum|code + offset| * 2^es + |mm| * 32 * 2^em, in units of 2^-UNIT.

    Of binary16 a block adds less than 2^(11 + 12 + 29) units twice, so int64 holds 512 blocks; others add up in Python.
    """
    size, low = weight.format.block, UNIT[weight.format.scale.name]
    width = np.int64 if weight.format.scale.name == "binary16" and ms.shape[1] <= 512 else object
    total = np.zeros(len(ms), width)
    for block, start in enumerate(range(0, weight.codes.shape[1], size)):
        codes = weight.codes[:, start : start + size].astype(np.int16) + np.int16(weight.format.offset)
        reach = np.abs(codes).sum(axis=1, dtype=np.int64).astype(width)
        total += (np.abs(ms[:, block]) * reach) << (es[:, block].astype(np.int64) + low).astype(width)
        if mm is not None:
            least = np.abs(mm[:, block]).astype(width) * GROUP
            total += least << (em[:, block].astype(np.int64) + low).astype(width)
    return total.tolist()


def fraction_bits(where: str, units: int, e_row: int, blocks: int, unit: int) -> int:
    """F: 16, or the largest below it with 2^F * 15 * 127 * units * 2^(-unit - e_row) + 2 * blocks <= 2^62."""
    for f in range(16, -1, -1):
        if units * 1905 << f <= (2**62 - 2 * blocks) << (unit + e_row):
            return f
    raise BadInput(where, "its sum may not fit 62 bits even without fraction bits", "split its columns")


# --- the ops --------------------------------------------------------------------------------------


def embedding(where: str, table: Matrix, token_ids: NDArray[np.int64]) -> F32:
    """scale * (code + offset) + minimum, rounded once, times the factor: an integer times a power of two, so an exact zero is +0."""
    columns = np.arange(table.shape[1]) // table.format.group
    code = table.codes[token_ids].astype(np.int64) + table.format.offset
    ms, es = split_stored(table.format.scale.name, table.scale[token_ids])
    if table.minimum is None:
        y = from_integer(where, ms[:, columns] * code, es[:, columns].astype(np.int64))
    else:
        mm, em = split_stored(table.format.scale.name, table.minimum[token_ids])
        i = shift(ms[:, columns] * code, es[:, columns].astype(np.int64) + 24)
        y = from_integer(where, i + shift(mm[:, columns].astype(np.int64), em[:, columns].astype(np.int64) + 24), -24)
    return mul(where, y, np.float32(table.factor))


def linear(where: str, rows: Rows, x: F32) -> F32:
    """rows @ x for x [tokens, columns]: integer dot products per block, shifted, summed, rounded once, times the factor."""
    groups = quantize(where, split_groups(x))
    e_max = groups.e.max(axis=1)
    total = np.zeros((len(rows.codes), len(x)), np.int64)
    size = rows.codes.shape[2]
    for block in range(rows.codes.shape[1]):
        group, start = divmod(block * size, GROUP)
        code_x = groups.codes[:, group, start : start + size].T.astype(np.float32)
        # D' in binary32 is exact, in any order: |D'| <= 32 * 128 * 127 < 2^24.
        dot = (rows.codes[:, block].astype(np.float32) @ code_x).astype(np.int64)
        sum_x = code_x.sum(axis=0).astype(np.int64)
        n, e = groups.n[:, group], groups.e[:, group] - e_max
        dot += rows.offset * sum_x
        k = rows.f_row - rows.e_row
        total += shift(np.multiply.outer(rows.ms[:, block], n) * dot, np.add.outer(k + rows.es[:, block], e))
        if rows.mm is not None and rows.em is not None:
            total += shift(np.multiply.outer(rows.mm[:, block], n * sum_x), np.add.outer(k + rows.em[:, block], e))
    y = from_integer(where, total.T, np.add.outer(e_max, rows.e_row - rows.f_row))
    return mul(where, y, np.float32(rows.factor))


def rmsnorm(where: str, x: F32, weight: F32, eps: float) -> F32:
    """(x * (1 / sqrt(mean(x^2) + eps))) * weight; the squares are summed as integers of 23 bits."""
    top = np.frexp(np.abs(x).max(axis=1))[1].astype(np.int64) - 1  # floor(log2 max|x|); any value will do for zeros
    i = np.rint(np.ldexp(x.astype(np.float64), (22 - top)[:, None])).astype(np.int64)
    a = from_integer(where, (i * i).sum(axis=1), 2 * top - 44)
    b = mul(where, a, reciprocal_of_width(x.shape[1]))
    c = add(where, b, np.float32(eps))
    r = div(where, np.float32(1), np.sqrt(c))
    return mul(where, mul(where, x, r[:, None]), weight)


def layernorm(where: str, x: F32, weight: F32, bias: F32, eps: float) -> F32:
    """`rmsnorm` of x less its mean, plus bias; the mean is a sum of integers of 23 bits, rounded, over the width."""
    top = np.frexp(np.abs(x).max(axis=1))[1].astype(np.int64) - 1
    i = np.rint(np.ldexp(x.astype(np.float64), (22 - top)[:, None])).astype(np.int64)
    mean = mul(where, from_integer(where, i.sum(axis=1), top - 22), reciprocal_of_width(x.shape[1]))
    return add(where, rmsnorm(where, add(where, x, -mean[:, None]), weight, eps), bias)


def head_norm(where: str, x: F32, weight: F32, eps: float) -> F32:
    """`rmsnorm` of every head of x [tokens, heads * head_dim]."""
    return rmsnorm(where, x.reshape(-1, len(weight)), weight, eps).reshape(x.shape)


def rope(where: str, x: F32, position: int, op: Rope) -> F32:
    """Turn neighbours (2k, 2k + 1) of every head by the token's phase."""
    (tokens, width), head_dim = x.shape, op.head_dim
    positions = np.arange(position, position + tokens, dtype=np.uint64)
    phase = np.multiply.outer(positions, rope_increments(op.theta, head_dim, op.rotary, op.factors)) & np.uint64(
        2**32 - 1
    )
    phase = phase.astype(np.int64)[:, None, :]
    sin, cos = sine(phase), sine((phase + 2**30) % 2**32)
    a, b = np.moveaxis(x.reshape(tokens, -1, head_dim // 2, 2), -1, 0)
    y0 = add(where, mul(where, a, cos), -mul(where, b, sin))
    y1 = add(where, mul(where, a, sin), mul(where, b, cos))
    return np.stack((y0, y1), axis=-1).reshape(tokens, width)


def sine(phase: I64) -> F32:
    """sin(2 pi phase / 2^32) between entries of the table: an integer of at most 25 bits times 2^-24, exactly."""
    j, f = phase >> 22, phase & (2**22 - 1)
    s = SINE[j] + ((SINE[j + 1] - SINE[j]) * f >> 22)
    return s.astype(np.float32) * np.float32(2.0**-24)


def attention(where: str, q: Groups, k: Groups, v: Groups, op: Attention) -> F32:
    """One query token q [heads, head_dim] over keys and values [keys, kv_heads, head_dim]: [heads * head_dim]."""
    kv_heads, head_dim = op.kv_heads, op.head_dim
    q_codes = q.codes.astype(np.int64).reshape(kv_heads, -1, head_dim)  # the query heads that read each KV head
    nq, eq = q.n.reshape(kv_heads, -1, 1), q.e.reshape(kv_heads, -1, 1)
    nk, ek = k.n.T[:, None, :], k.e.T[:, None, :]
    dots = q_codes @ k.codes.astype(np.int64).transpose(1, 2, 0)  # [kv_heads, queries, keys]
    capped = capped_score_constants(op.scale_of, op.softcap) if op.softcap else None
    constant = capped[0] if capped else score_constant(op.scale_of)
    scores = exponent_add(where, mul(where, from_integer(where, dots * nq * nk, 0), constant), eq + ek)
    if capped:
        scores = mul(where, tanh(scores), capped[1])
    p = softmax_numerators(scores)
    e_max = v.e.max(axis=0)[:, None, None]
    c = (p * v.n.T[:, None, :]) >> np.minimum(e_max - v.e.T[:, None, :], 63)
    numerator = c @ v.codes.astype(np.int64).transpose(1, 0, 2)  # [kv_heads, queries, head_dim]
    quotient = div(where, from_integer(where, numerator, 0), from_integer(where, p.sum(axis=2, keepdims=True), 0))
    return exponent_add(where, quotient, e_max).reshape(-1)


def softmax_numerators(scores: F32) -> I64:
    """p, 0..32768: 2^(s - max s) in units of 2^-15. A difference of 17 or more, even an infinite one, counts as 17."""
    with np.errstate(over="ignore"):
        difference = scores.max(axis=-1, keepdims=True) - scores
    u = fixed_point(difference, 17)
    i, j, f = u >> 16, (u >> 10) & 63, u & 1023
    return (EXP2[j] - ((EXP2[j] - EXP2[j + 1]) * f >> 10) + (1 << (8 + i))) >> (9 + i)


def fixed_point(x: F32, most: int) -> I64:
    """min(x, most) in units of 2^-16, to the nearest integer, ties to even; x >= 0."""
    return np.rint(np.minimum(x, np.float32(most)).astype(np.float64) * 2.0**16).astype(np.int64)


def gelu(where: str, x: F32) -> F32:
    """x * sigmoid(sqrt(8/pi) * (x + 0.044715 x^3)), the sigmoid of the polynomial from the table."""
    u = fixed_point(np.abs(x), 8)
    j, f = u >> 10, u & 1023
    t = GELU[j] + ((GELU[j + 1] - GELU[j]) * f >> 10)
    t = np.where(x < 0, 2**24 - t, t)
    return mul(where, x, t.astype(np.float32) * np.float32(2.0**-24))


def tanh(x: F32) -> F32:
    """2 * sigmoid(2x) - 1, the sigmoid from the table; exact, and +0 for a zero."""
    u = np.rint(np.minimum(np.abs(x), np.float32(8)).astype(np.float64) * 2.0**17).astype(np.int64)
    j, f = u >> 11, u & 2047
    t = 2 * (SIGMOID[j] + ((SIGMOID[j + 1] - SIGMOID[j]) * f >> 11)) - 2**24
    return np.where(x < 0, -t, t).astype(np.float32) * np.float32(2.0**-24)


def softcap(where: str, x: F32, cap: float) -> F32:
    """cap * tanh(x / cap), the quotient as a product with binary32(1 / cap)."""
    into, out = cap_constants(cap)
    return mul(where, tanh(mul(where, x, into)), out)


def swiglu(where: str, gate: F32, up: F32) -> F32:
    """gate * sigmoid(gate) * up, the sigmoid from the table."""
    u = fixed_point(np.abs(gate), 16)
    j, f = u >> 11, u & 2047
    t = SIGMOID[j] + ((SIGMOID[j + 1] - SIGMOID[j]) * f >> 11)
    t = np.where(gate < 0, 2**24 - t, t)
    sigmoid = t.astype(np.float32) * np.float32(2.0**-24)  # exact: t <= 2^24
    return mul(where, mul(where, gate, sigmoid), up)


# --- the engine -----------------------------------------------------------------------------------


class ReferenceEngine:
    """Runs a quantized model token by token or many at once, to the same bits; keeps K and V as codes and scales."""

    def __init__(self, model: Model, context: int | None = None):
        self.model = model
        self.context = model.graph.context if context is None else context
        self._held = 0
        self._head = model.graph.head
        tables = {op.table for op in model.graph.ops if isinstance(op, Embed | AddPosition)}
        matrices = {op.weight for op in model.graph.ops if isinstance(op, Linear)}
        for name in sorted(tables | matrices):
            if not isinstance(model.weights.get(name), Matrix):
                raise BadInput(f"weight {name}", "is not a quantized matrix", "quantize the model, or use float mode")
        self._rows = {name: make_rows(name, self._matrix(name)) for name in sorted(matrices)}
        self._cache = {op.out: self._empty_cache(op) for op in model.graph.ops if isinstance(op, Attention)}

    def step(self, token_ids: Sequence[int], position: int, every: bool = False) -> F32:
        """Logits of the last token, or of every token where `every` is set; see base.engine.Engine."""
        ids = np.asarray(token_ids, np.int64)
        check_step(self.model.graph, ids, position, self._held, self.context)
        values: dict[str, F32] = {}
        for op in self.model.graph.ops:
            if op.out == self._head and not every:
                values = {name: value[-1:] for name, value in values.items()}
            values[op.out] = self._run(op, values, ids, position)
        self._held = position + len(ids)
        logits = values[self.model.graph.output]
        return logits if every else logits[-1]

    def _run(self, op: Op, values: dict[str, F32], ids: NDArray[np.int64], position: int) -> F32:
        match op:
            case Embed():
                return embedding(op.out, self._matrix(op.table), ids)
            case RMSNorm():
                return rmsnorm(op.out, values[op.x], self._vector(op.weight), op.eps)
            case Linear():
                return linear(op.out, self._rows[op.weight], values[op.x])
            case Rope():
                return rope(op.out, values[op.x], position, op)
            case Attention():
                return self._attend(op, values, position)
            case SwiGLU():
                return swiglu(op.out, values[op.gate], values[op.up])
            case GeGLU():
                return mul(op.out, gelu(op.out, values[op.gate]), values[op.up])
            case Gelu():
                return gelu(op.out, values[op.x])
            case LayerNorm():
                return layernorm(op.out, values[op.x], self._vector(op.weight), self._vector(op.bias), op.eps)
            case HeadNorm():
                return head_norm(op.out, values[op.x], self._vector(op.weight), op.eps)
            case AddBias():
                return add(op.out, values[op.x], self._vector(op.bias))
            case AddPosition():
                positions = np.arange(position, position + len(ids))
                return add(op.out, values[op.x], embedding(op.out, self._matrix(op.table), positions))
            case Scale():
                return mul(op.out, values[op.x], np.float32(op.factor))
            case SoftCap():
                return softcap(op.out, values[op.x], op.cap)
            case Add():
                return add(op.out, values[op.a], values[op.b])

    def _attend(self, op: Attention, values: dict[str, F32], position: int) -> F32:
        """Append the K and V of all tokens to the cache, then answer each query from the tokens up to its own."""
        tokens = len(values[op.q])
        q = quantize(op.out, values[op.q].reshape(tokens, op.heads, op.head_dim))
        form = KV_FORMATS[op.kv]
        for held, name, bits in zip(self._cache[op.out], (op.k, op.v), (form.key_bits, form.value_bits), strict=True):
            new = quantize(op.out, values[name].reshape(tokens, op.kv_heads, op.head_dim), greatest_code(bits))
            held.codes[position : position + tokens] = new.codes
            held.n[position : position + tokens] = new.n
            held.e[position : position + tokens] = new.e
        out = np.zeros((tokens, op.heads * op.head_dim), np.float32)
        for token in range(tokens):
            end = position + token + 1
            first = max(end - op.window, 0) if op.window else 0
            k, v = (_between(held, first, end) for held in self._cache[op.out])
            query = Groups(q.codes[token], q.n[token], q.e[token])
            out[token] = attention(op.out, query, k, v, op)
        return out

    def _empty_cache(self, op: Attention) -> tuple[Groups, Groups]:
        codes, scale = (self.context, op.kv_heads, op.head_dim), (self.context, op.kv_heads)
        k, v = (Groups(np.zeros(codes, np.int8), np.zeros(scale, np.int64), np.zeros(scale, np.int64)) for _ in "kv")
        return k, v

    def _matrix(self, name: str) -> Matrix:
        weight = self.model.weights[name]
        assert isinstance(weight, Matrix), f"{name} is not quantized"
        return weight

    def _vector(self, name: str) -> F32:
        weight = self.model.weights[name]
        assert not isinstance(weight, Matrix), f"{name} is a matrix"
        return weight


def _between(held: Groups, first: int, end: int) -> Groups:
    return Groups(held.codes[first:end], held.n[first:end], held.e[first:end])
