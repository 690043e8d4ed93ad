"""The arithmetic contract (docs/numerics.md) as scalar compiled functions, called from the loops of the quick engines.

Conventions
  - f32 values are np.float32, integers int64 (phases: int64 in 0..2^32-1). No fastmath: nothing is reordered or fused.
  - A binary32 result is rounded to nearest even and flushed: 0 < |y| < 2^-126 becomes +0, an exact -0 stays.
  - From Python pass np.float32: numba hands an f32 result back as a Python float, which is a binary64 argument again.
  - Overflow: a kernel never raises. It returns an infinity (or a NaN made from one); the caller tests what it writes
    with `np.isfinite` and raises `Overflow` naming its op or micro-op.
  - The tables are frozen into the machine code. `compiled` therefore ties numba's cache to their text.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from tapeout.numerics.tables import EXP2, GELU, RECIPROCAL, SIGMOID, SINE

SINE_TABLE = np.array(SINE, np.int64)
"""[1025], rne(2^24 sin(2 pi j/1024))."""
EXP2_TABLE = np.array(EXP2, np.int64)
"""[65], rne(2^(24 - j/64))."""
SIGMOID_TABLE = np.array(SIGMOID, np.int64)
"""[514], rne(2^24 / (1 + exp(-j/32)))."""
GELU_TABLE = np.array(GELU, np.int64)
"""[514], rne(2^24 sigmoid(sqrt(8/pi) (x + 0.044715 x^3))), x = j/64."""
RECIPROCAL_TABLE = np.array(RECIPROCAL, np.float32)
"""[16], binary32(1/n) at n."""

SMALLEST_E = -100
"""The exponent of an activation scale never goes below this."""
_TINY = np.float32(2.0**-126)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO_16 = np.float32(2.0**16)
_TWO_17 = np.float32(2.0**17)
_TWO_M24 = np.float32(2.0**-24)
_INFINITY = np.float32(np.inf)
_EDGE = 0x7FFFFF
_HIDDEN = 0x800000


def _text_digest(caller: Path) -> str:
    """SHA-256 over what a compiled function may have frozen in: these kernels, the tables, its own file."""
    here = Path(__file__)
    files = (here, here.with_name("tables.py"), caller)
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def compiled(function: Callable | None = None, *, inline: bool = False, file: str = __file__) -> Callable:
    """`numba.njit` with caching, C division, no fastmath and no interpreter lock, for kernels and loops that call them.

    `inline` pastes the function into its callers before compilation. It is for helpers over array slices, which LLVM
    then vectorises better (up to 2 times quicker); scalar kernels LLVM inlines by itself.

    numba's own cache looks only at the file of the function itself: after an edit of a table or of an inlined kernel it
    would serve stale code. Here its stamp also holds the text of both and of `file`, the caller's `__file__`.
    """

    def wrap(function: Callable) -> Callable:
        how = "always" if inline else "never"
        dispatcher = numba.njit(cache=True, nogil=True, error_model="numpy", inline=how)(function)
        index: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
        if hasattr(index, "_source_stamp"):
            index._source_stamp = (index._source_stamp, _text_digest(Path(file)))
        return dispatcher

    return wrap if function is None else wrap(function)


# ------------------------------------------------------------------------------------------------ binary32


@compiled
def flush(y):
    """The f32 `y` of an inexact or possibly subnormal operation, with 0 < |y| < 2^-126 replaced by +0; -0 stays."""
    return _ZERO if (y != _ZERO and abs(y) < _TINY) else y


@compiled
def _bits(x):
    """The 32 bits of f32 `x`, sign-extended to int64."""
    return np.int64(np.float32(x).view(np.int32))


@compiled
def f32_of(i, k):
    """F(i, k): int64 `i` times 2^k as f32, rounded once, flushed; +0 for 0, infinity where too large.

    |i| <= 2^63. Of the values below 2^-126 only those from 2^-126 - 2^-150 up survive, as 2^-126.
    """
    if i == 0:
        return _ZERO
    f = np.float32(i)
    bits = _bits(f)
    sign, field = bits & 0x80000000, ((bits >> 23) & 255) + k
    if field >= 255:
        magnitude = np.int64(0x7F800000)
    elif field > 0:
        magnitude = (field << 23) | (bits & _EDGE)
    elif field == 0 and (bits & _EDGE) == _EDGE and abs(i) >= np.int64(abs(f)):
        magnitude = np.int64(_HIDDEN)
    else:
        return _ZERO
    return np.int32(sign | magnitude).view(np.float32)


@compiled
def shift32(x, k):
    """X(x, k): f32 `x` times 2^k, rounded once, flushed; infinity where too large. Zeros pass unchanged."""
    bits = _bits(x)
    sign, field, fraction = bits & 0x80000000, (bits >> 23) & 255, bits & _EDGE
    if field == 255 or (field == 0 and fraction == 0):
        return x
    if field == 0:
        field = np.int64(1)
        while fraction < _HIDDEN:
            fraction, field = fraction << 1, field - 1
        fraction &= _EDGE
    field += k
    if field >= 255:
        magnitude = np.int64(0x7F800000)
    elif field > 0:
        magnitude = (field << 23) | fraction
    elif field == 0 and fraction == _EDGE:
        magnitude = np.int64(_HIDDEN)
    else:
        return _ZERO
    return np.int32(sign | magnitude).view(np.float32)


@compiled
def add32(a, b):
    """a + b in f32, rounded and flushed. Subtract by passing -b."""
    return flush(a + b)


@compiled
def mul32(a, b):
    """a * b in f32, rounded and flushed; an exact zero (a factor is zero) keeps its sign."""
    y = a * b
    if abs(y) < _TINY and a != _ZERO and b != _ZERO:
        return _ZERO
    return y


@compiled
def div32(a, b):
    """a / b in f32 (b not zero), rounded and flushed; an exact zero (a is zero) keeps its sign."""
    y = a / b
    if abs(y) < _TINY and a != _ZERO:
        return _ZERO
    return y


@compiled
def sqrt32(x):
    """Square root of f32 x >= 0, correctly rounded."""
    return flush(np.sqrt(x))


# ------------------------------------------------------------------------------------------- quantization


@compiled
def group_scale(max_abs, most=127):
    """(n, e) of a group whose greatest magnitude is the f32 `max_abs`: the smallest n*2^e, n in 8..15, e >= -100, with
    most*n*2^e >= max_abs. Exact. (8, -100) for zero. most: 127 or 7.
    """
    bits = _bits(max_abs)
    shift = 13 if most == 127 else 17
    m, e = (bits & _EDGE) | _HIDDEN, (bits >> 23) - 150 + shift
    divisor = np.int64(most) << shift
    if m > 15 * divisor:
        divisor, e = divisor << 1, e + 1
    if e < SMALLEST_E:
        return np.int64(8), np.int64(SMALLEST_E)
    return max(np.int64(8), -(-m // divisor)), e


@compiled
def code_of(x, n, e, most=127):
    """The code -most..most of f32 `x` in a group of scale n*2^e: round32(x*binary32(1/n)), then rne(that * 2^-e)."""
    t = np.float64(mul32(x, RECIPROCAL_TABLE[n]))
    return min(max(np.int64(np.rint(t * _power(-e))), np.int64(-most)), np.int64(most))


@compiled
def _power(k):
    """2^k in binary64 for -1022 <= k <= 1023."""
    return np.int64((k + 1023) << 52).view(np.float64)


@compiled
def sh(value, k):
    """int64 `value` shifted left by k, or floor-shifted right by min(-k, 63): -1 stays -1."""
    return value << k if k >= 0 else value >> min(-k, np.int64(63))


# -------------------------------------------------------------------------------------------------- norm


@compiled
def exponent_of(x):
    """floor(log2 |x|) of a normal f32 (-127 for zero, whose norm_integer is 0 at any exponent)."""
    return ((_bits(x) >> 23) & 255) - 127


@compiled
def norm_integer(x, E):
    """rne(x * 2^(22-E)) of f32 `x`, E the exponent of the vector's greatest magnitude: |result| <= 2^23."""
    return np.int64(np.rint(np.float64(x) * _power(22 - E)))


@compiled
def norm_r(Q, E, inv_K, eps):
    """1 / sqrt(Q*2^(2E-44)*inv_K + eps) in f32, each operation rounded; Q int64 = sum of squared norm integers.

    Infinity where the mean square overflows. inv_K = binary32(1/K), eps > 0 both f32.
    """
    c = add32(mul32(f32_of(Q, 2 * E - 44), inv_K), eps)
    if c == _INFINITY:
        return c
    return div32(_ONE, sqrt32(c))


@compiled
def norm_value(x, r, weight):
    """(x * r) * weight in f32: one element of the normalised vector."""
    return mul32(mul32(x, r), weight)


# -------------------------------------------------------------------------------------------------- RoPE


@compiled
def sine24(phase):
    """2^24 * sin(2 pi phase / 2^32) by table and interpolation (floor); phase int64 in 0..2^32-1."""
    j, f = phase >> 22, phase & 0x3FFFFF
    low = SINE_TABLE[j]
    return low + (((SINE_TABLE[j + 1] - low) * f) >> 22)


@compiled
def cosine24(phase):
    """2^24 * cos(2 pi phase / 2^32): the sine a quarter turn on."""
    return sine24((phase + 0x40000000) & 0xFFFFFFFF)


@compiled
def rope(a, b, position, increment):
    """The pair (a, b) of f32 turned by position*increment (increment: an integer of 2^-32 turns): (y0, y1)."""
    phase = (np.int64(position) * np.int64(increment)) & 0xFFFFFFFF
    return rotate(a, b, turn24(cosine24(phase)), turn24(sine24(phase)))


@compiled
def turn24(s):
    """The f32 s*2^-24 of a sine24 or cosine24, exact."""
    return np.float32(s) * _TWO_M24


@compiled
def rotate(a, b, cosine, sine):
    """(a*cosine - b*sine, a*sine + b*cosine), each operation rounded and flushed; all f32."""
    return add32(mul32(a, cosine), -mul32(b, sine)), add32(mul32(a, sine), mul32(b, cosine))


# --------------------------------------------------------------------------------------------- attention


@compiled
def score(S, nq, nk, eq, ek, C):
    """The f32 score of a key: S = sum of q*k codes, their scales nq*2^eq and nk*2^ek, C = binary32(log2(e)/sqrt(d))."""
    return shift32(mul32(f32_of(S * nq * nk, np.int64(0)), C), eq + ek)


@compiled
def capped_score(S, nq, nk, eq, ek, C, D):
    """The f32 score under a soft cap: tanh of the score with C = binary32(1/(cap*sqrt(d))), times D = binary32(cap*log2(e))."""
    return mul32(tanh(score(S, nq, nk, eq, ek, C)), D)


@compiled
def probability(m, s):
    """The integer softmax numerator 0..32768 of f32 score `s`, `m` >= s the greatest: about 2^(15 - (m - s))."""
    u = _capped(add32(m, -s), np.int64(17))
    i, j, f = u >> 16, (u >> 10) & 63, u & 1023
    high = EXP2_TABLE[j]
    return (high - (((high - EXP2_TABLE[j + 1]) * f) >> 10) + (np.int64(1) << (8 + i))) >> (9 + i)


@compiled
def _capped(x, limit):
    """rne(min(x, limit) * 2^16) of f32 x >= 0 (infinity and NaN count as large: no table is read out of bounds)."""
    if x < np.float32(limit):
        return np.int64(np.rint(x * _TWO_16))
    return limit << 16


@compiled
def weight_of(p, n, e, E):
    """floor(p*n*2^(e-E)): the 19-bit weight of a value of scale n*2^e, E the greatest e attended to."""
    return (p * n) >> min(E - e, np.int64(63))


@compiled
def output(N, L, E):
    """(binary32(N) / binary32(L)) * 2^E: one element of attention's output; N, L int64, L > 0."""
    return shift32(div32(f32_of(N, np.int64(0)), f32_of(L, np.int64(0))), E)


# ------------------------------------------------ SwiGLU, GELU, soft caps, whole norms and embedding


@compiled
def _gated(x, table, a, bits):
    """x times the table's value at a / 2^bits, between its entries; one less that for a negative x."""
    j, f = a >> bits, a & ((np.int64(1) << bits) - 1)
    low = table[j]
    t = low + (((table[j + 1] - low) * f) >> bits)
    if x < _ZERO:
        t = (np.int64(1) << 24) - t
    return mul32(x, turn24(t))


@compiled
def silu(x):
    """x times the table's sigmoid of x, f32."""
    return _gated(x, SIGMOID_TABLE, _capped(abs(x), np.int64(16)), np.int64(11))


@compiled
def swiglu(gate, up):
    """silu(gate) * up, f32."""
    return mul32(silu(gate), up)


@compiled
def gelu(x):
    """x times the table's sigmoid of GELU's polynomial, f32."""
    return _gated(x, GELU_TABLE, _capped(abs(x), np.int64(8)), np.int64(10))


@compiled
def geglu(gate, up):
    """gelu(gate) * up, f32."""
    return mul32(gelu(gate), up)


@compiled
def tanh(x):
    """2 * sigmoid(2x) - 1 by sigmoid's table, f32; +0 for a zero. Infinity where x is not finite, for the caller to find."""
    if not np.isfinite(x):
        return _INFINITY
    magnitude = abs(x)
    a = np.int64(16 << 16)
    if magnitude < np.float32(8.0):
        a = np.int64(np.rint(magnitude * _TWO_17))
    j, f = a >> 11, a & 2047
    low = SIGMOID_TABLE[j]
    t = 2 * (low + (((SIGMOID_TABLE[j + 1] - low) * f) >> 11)) - (np.int64(1) << 24)
    return turn24(-t if x < _ZERO else t)


@compiled
def softcap(x, into, out):
    """tanh(x * into) * out, f32; into = binary32(1/cap), out = binary32(cap)."""
    return mul32(tanh(mul32(x, into)), out)


@compiled
def norm_integers_sum(x):
    """(sum of the norm integers, exponent of the greatest magnitude) of the f32 vector `x`."""
    largest, total = _ZERO, np.int64(0)
    for i in range(x.size):
        largest = max(largest, abs(x[i]))
    top = exponent_of(largest)
    for i in range(x.size):
        total += norm_integer(x[i], top)
    return total, top


@compiled
def rmsnorm_to(x, weight, inverse_width, eps, out):
    """out = RMSNorm of the f32 vector `x`; returns how many numbers on the way were not finite."""
    largest, squares, bad = _ZERO, np.int64(0), np.int64(0)
    for i in range(x.size):
        bad += not np.isfinite(x[i])
        largest = max(largest, abs(x[i]))
    if bad:
        return bad
    top = exponent_of(largest)
    for i in range(x.size):
        integer = norm_integer(x[i], top)
        squares += integer * integer
    r = norm_r(squares, top, inverse_width, eps)
    bad += not np.isfinite(r)
    for i in range(x.size):
        out[i] = norm_value(x[i], r, weight[i])
        bad += not np.isfinite(out[i])
    return bad


@compiled
def layernorm_to(x, weight, bias, inverse_width, eps, out):
    """out = LayerNorm of the f32 vector `x`; returns how many numbers on the way were not finite."""
    for i in range(x.size):
        if not np.isfinite(x[i]):
            return np.int64(1)
    total, top = norm_integers_sum(x)
    mean = mul32(f32_of(total, top - 22), inverse_width)
    for i in range(x.size):
        out[i] = add32(x[i], -mean)
    bad = rmsnorm_to(out, weight, inverse_width, eps, out)
    for i in range(x.size):
        out[i] = add32(out[i], bias[i])
        bad += not np.isfinite(out[i])
    return bad


@compiled
def embed_value(code, offset, scale32, minimum32):
    """scale*(code + offset) + minimum as f32, rounded once and flushed; zero is +0. Scale and minimum have at most 18 bits and, where
    both are there, exponents of binary16, so binary64 is exact.
    """
    y = np.float32(np.float64(scale32) * np.float64(code + offset) + np.float64(minimum32) + 0.0)
    return _ZERO if abs(y) < _TINY else y
