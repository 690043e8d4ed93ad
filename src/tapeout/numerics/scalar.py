"""The arithmetic contract as executable text: one function per row of docs/numerics.md, in plain Python integers.

Slow and obvious; tests and the document itself call it, engines never do. Conventions:
  - a binary32 number is a Python float that holds its value exactly, so -0.0 is itself and hex() shows every bit;
  - exact values in between are `Fraction`, so each `round32` is one of the contract's roundings; there is no other;
  - a quantized group is `(codes, n, e)` of value code * n * 2^e; a binary16 number is its 16 stored bits;
  - a result too large for binary32 raises `Overflow`.
"""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil, copysign, isqrt

from tapeout.base.errors import BadInput, Overflow
from tapeout.numerics.tables import (
    EXP2,
    GELU,
    RECIPROCAL,
    SIGMOID,
    SINE,
    cap_constants,
    capped_score_constants,
    reciprocal_of_width,
    score_constant,
)

Group = tuple[list[int], int, int]
"""(codes, n, e)."""

GROUP = 32
SMALLEST = Fraction(1, 2**126)
"""The least normal binary32."""


# --- rounding ---------------------------------------------------------------------------------------


def power(k: int) -> Fraction:
    """2^k."""
    return Fraction(2) ** k


def rne(x: Fraction) -> int:
    """The nearest integer; a tie goes to the even one. (Python's own `round` on a Fraction is this rule.)"""
    return round(x)


def floor_log2(x: Fraction) -> int:
    """The integer E with 2^E <= x < 2^(E+1), x > 0."""
    guess = x.numerator.bit_length() - x.denominator.bit_length()
    return guess if power(guess) <= x else guess - 1


def round32(x: Fraction) -> float:
    """`x` to the nearest binary32, ties to even, on IEEE's grid with subnormals; then |y| < 2^-126 becomes +0."""
    if x == 0:
        return 0.0
    step = power(max(floor_log2(abs(x)), -126) - 23)
    y = rne(x / step) * step
    if abs(y) < SMALLEST:
        return 0.0
    if abs(y) >= power(128):
        raise Overflow("round32", f"about 2^{floor_log2(abs(y))}")
    return float(y)


def from_integer(i: int, k: int) -> float:
    """F(i, k): the integer i times 2^k, value and exponent rounded together once; F(0, k) is +0."""
    return round32(i * power(k))


def exponent_add(x: float, k: int) -> float:
    """X(x, k): x times 2^k; a zero keeps its sign."""
    return x if x == 0 else round32(Fraction(x) * power(k))


def add(a: float, b: float) -> float:
    """a + b. An exact zero is -0 only where both are -0."""
    exact = Fraction(a) + Fraction(b)
    return a + b if exact == 0 else round32(exact)


def sub(a: float, b: float) -> float:
    """a - b, which is a + (-b)."""
    return add(a, -b)


def mul(a: float, b: float) -> float:
    """a * b. Exactly zero only where a factor is zero; the sign is then IEEE's."""
    return a * b if a == 0 or b == 0 else round32(Fraction(a) * Fraction(b))


def div(a: float, b: float) -> float:
    """a / b, correctly rounded; b is not zero."""
    return copysign(0.0, a) * copysign(1.0, b) if a == 0 else round32(Fraction(a) / Fraction(b))


def sqrt(x: float) -> float:
    """The correctly rounded square root of x > 0, from an integer root of 64 bits or more and whether it was exact."""
    exact = Fraction(x)
    half = floor_log2(exact) // 2 - 64
    scaled = exact / power(2 * half)  # an integer: x has 24 bits and is scaled to 128 of them
    assert scaled.denominator == 1, "a binary32 number has 24 bits"
    root = isqrt(scaled.numerator)
    inexact = root * root != scaled.numerator
    return round32((root + Fraction(inexact, 2)) * power(half))


def shift(i: int, k: int) -> int:
    """sh(i, k): left by k, or right by min(-k, 63) with floor, so that -1 stays -1."""
    return i << k if k >= 0 else i >> min(-k, 63)


# --- numbers as they are stored ---------------------------------------------------------------------


def bits16(x: float) -> int:
    """The 16 bits of a value that binary16 holds."""
    return struct.unpack("<H", struct.pack("<e", x))[0]


def split_fp16(bits: int) -> tuple[int, int]:
    """(m, e) of a finite binary16: value m * 2^e, e = max(exponent field, 1) - 25, m with hidden bit and sign."""
    field, mantissa = bits >> 10 & 31, bits & 1023
    assert field < 31, "infinities and NaN are refused at import"
    m = mantissa + 1024 if field > 0 else mantissa
    return -m if bits >> 15 else m, max(field, 1) - 25


def split_e8m0(byte: int) -> tuple[int, int]:
    """(1, byte - 128): MXFP4's scale, an exponent. Its codes are carried doubled, hence one less than 2^(byte - 127)."""
    assert byte < 255, "NaN is refused at import"
    return 1, byte - 128


def split_e4m3(byte: int) -> tuple[int, int]:
    """(m, e) of NVFP4's scale, four bits of exponent and three of mantissa; one less, because codes are carried doubled."""
    field, mantissa = byte >> 3, byte & 7
    assert byte < 127, "NaN is refused at import"
    return mantissa + 8 if field > 0 else mantissa, max(field, 1) - 11


def split_wide(bits: int) -> tuple[int, int]:
    """(m, e) of a K-quant's product: 18 bits of |m|, binary16's exponent field, a sign."""
    m = bits & (1 << 18) - 1
    return -m if bits >> 23 else m, max(bits >> 18 & 31, 1) - 25


SPLITS = {"binary16": split_fp16, "e8m0": split_e8m0, "e4m3": split_e4m3, "wide": split_wide}
"""By the kind of a format's scale: stored bits to (m, e)."""


def embedding(
    code: int, scale: int, minimum: int = 0, offset: int = 0, kind: str = "binary16", factor: float = 1.0
) -> float:
    """scale * (code + offset) + minimum, rounded once, times factor; scale and minimum as bits of `kind`. An exact zero is +0."""
    ms, es = SPLITS[kind](scale)
    mm, em = SPLITS[kind](minimum) if minimum else (0, 0)
    return mul(round32(ms * (code + offset) * power(es) + mm * power(em)), factor)


# --- activations ------------------------------------------------------------------------------------


def group_scale(greatest: float, most: int = 127) -> tuple[int, int]:
    """(n, e): the least n * 2^e, n in 8..15, e >= -100, with most * n * 2^e >= greatest; (8, -100) for zero. most: 127 or 7."""
    wanted = Fraction(greatest) / most
    if wanted < 8 * power(-100):
        return 8, -100
    e = floor_log2(wanted) - 3  # 8 * 2^e <= wanted < 16 * 2^e
    n = ceil(wanted / power(e))
    return (8, e + 1) if n == 16 else (n, e)


def quantize_group(x: Sequence[float], most: int = 127) -> Group:
    """Codes, n, e of one group: code = clamp(rne((x * table[n]) * 2^-e), +-most), the product rounded to binary32."""
    n, e = group_scale(max(abs(value) for value in x), most)
    nearest = (rne(Fraction(mul(value, float(RECIPROCAL[n]))) * power(-e)) for value in x)
    return [min(max(code, -most), most) for code in nearest], n, e


def quantize(x: Sequence[float]) -> list[Group]:
    """A vector in groups of 32, the last one padded with zeros."""
    padded = [*x, *[0.0] * (-len(x) % GROUP)]
    return [quantize_group(padded[i : i + GROUP]) for i in range(0, len(padded), GROUP)]


# --- a matrix times a vector ------------------------------------------------------------------------


def row_plan(
    scales: Sequence[int], sizes: Sequence[int], minima: Sequence[int] | None = None, kind: str = "binary16"
) -> tuple[int, int]:
    """(e_row, F) of one row. scales, minima: bits of `kind` per block; sizes: sum|code + offset| per block.

    e_row is the largest es or em, or -111. F is 16, or the largest below it for which the bound on |acc| fits 2^62.
    """
    splits = [SPLITS[kind](bits) for bits in scales]
    floors = [SPLITS[kind](bits) for bits in minima or ()]
    e_row = max(-111, *(e for _, e in splits + floors))
    bound = sum(15 * 127 * abs(m) * size * power(e - e_row) for (m, e), size in zip(splits, sizes, strict=True))
    bound += sum(15 * 127 * abs(m) * 32 * power(e - e_row) for m, e in floors)
    for f in range(16, -1, -1):
        if power(f) * bound + 2 * len(scales) <= 2**62:
            return e_row, f
    raise BadInput("row", "its sum may not fit 62 bits even without fraction bits")


def matmul_row(
    x: Sequence[Group],
    codes: Sequence[Sequence[int]],
    scales: Sequence[int],
    minima: Sequence[int] | None = None,
    offset: int = 0,
    kind: str = "binary16",
    block: int = 32,
    factor: float = 1.0,
) -> float:
    """One output: codes [blocks][up to `block`], scales and minima as bits of `kind` per block of 16 or 32, x quantized by 32."""
    sizes = [sum(abs(code + offset) for code in part) for part in codes]
    e_row, f = row_plan(scales, sizes, minima, kind)
    e_max = max(e for _, _, e in x)
    total = 0
    for at, part in enumerate(codes):
        codes_of_group, n, e = x[at * block // 32]
        codes_x = codes_of_group[at * block % 32 :][:block]
        ms, es = SPLITS[kind](scales[at])
        a = sum(codes_x)
        d = sum(w * code for w, code in zip(part, codes_x, strict=False)) + offset * a
        total += shift(n * ms * d, f + es + e - e_row - e_max)
        if minima is not None:
            mm, em = SPLITS[kind](minima[at])
            total += shift(n * mm * a, f + em + e - e_row - e_max)
    return mul(from_integer(total, e_row + e_max - f), factor)


# --- the other ops ----------------------------------------------------------------------------------


def rmsnorm(x: Sequence[float], weight: Sequence[float], eps: float) -> list[float]:
    """(x * (1 / sqrt(a * binary32(1/K) + binary32(eps)))) * weight, where a is the sum of squares, an integer."""
    greatest = max(abs(value) for value in x)
    a = 0.0
    if greatest > 0:
        top = floor_log2(Fraction(greatest))
        a = from_integer(sum(rne(Fraction(value) * power(22 - top)) ** 2 for value in x), 2 * top - 44)
    mean = add(mul(a, float(reciprocal_of_width(len(x)))), round32(Fraction(eps)))
    r = div(1.0, sqrt(mean))
    return [mul(mul(value, r), w) for value, w in zip(x, weight, strict=True)]


def layernorm(x: Sequence[float], weight: Sequence[float], bias: Sequence[float], eps: float) -> list[float]:
    """RMSNorm's rule on x less its mean, and then the bias; the mean is a sum of integers, rounded, times binary32(1/K)."""
    greatest, mean = max(abs(value) for value in x), 0.0
    if greatest > 0:
        top = floor_log2(Fraction(greatest))
        total = sum(rne(Fraction(value) * power(22 - top)) for value in x)
        mean = mul(from_integer(total, top - 22), float(reciprocal_of_width(len(x))))
    normed = rmsnorm([sub(value, mean) for value in x], weight, eps)
    return [add(value, b) for value, b in zip(normed, bias, strict=True)]


def sine(phase: int) -> float:
    """sin(2 pi phase / 2^32): the table's two neighbours, between them a line with floor; an integer times 2^-24."""
    j, f = phase >> 22, phase & (2**22 - 1)
    low, high = int(SINE[j]), int(SINE[j + 1])
    return float((low + ((high - low) * f >> 22)) * power(-24))


def cosine(phase: int) -> float:
    """The sine a quarter turn on."""
    return sine((phase + 2**30) % 2**32)


def rope_pair(a: float, b: float, position: int, increment: int) -> tuple[float, float]:
    """Neighbours (2k, 2k+1) of a head, turned by position * increment of 2^-32 turns."""
    phase = position * increment % 2**32
    sin, cos = sine(phase), cosine(phase)
    return sub(mul(a, cos), mul(b, sin)), add(mul(a, sin), mul(b, cos))


def attention_score(q: Group, k: Group) -> float:
    """s = X(F(S * nq * nk, 0) * C, eq + ek): the exponent of two that this key's weight will have."""
    (codes_q, nq, eq), (codes_k, nk, ek) = q, k
    dot = sum(a * b for a, b in zip(codes_q, codes_k, strict=True))
    return exponent_add(mul(from_integer(dot * nq * nk, 0), float(score_constant(len(codes_q)))), eq + ek)


def capped_score(q: Group, k: Group, scalar: float, cap: float) -> float:
    """s = tanh(X(F(S * nq * nk, 0) * C, eq + ek)) * D, with C = binary32(1 / (cap * sqrt(scalar))), D = binary32(cap * log2(e))."""
    (codes_q, nq, eq), (codes_k, nk, ek) = q, k
    into, out = capped_score_constants(scalar, cap)
    dot = sum(a * b for a, b in zip(codes_q, codes_k, strict=True))
    return mul(tanh(exponent_add(mul(from_integer(dot * nq * nk, 0), float(into)), eq + ek)), float(out))


def softmax_numerator(greatest: float, score: float) -> int:
    """p in 0..32768: about 2^(score - greatest) in units of 2^-15. A difference of 17 or more counts as 17."""
    difference = Fraction(greatest) - Fraction(score)
    u = 17 << 16 if difference >= 17 else rne(Fraction(round32(difference)) * 2**16)
    i, j, f = u >> 16, u >> 10 & 63, u & 1023
    low, high = int(EXP2[j]), int(EXP2[j + 1])
    return (low - ((low - high) * f >> 10) + (1 << (8 + i))) >> (9 + i)


def attention(
    q: Group, keys: Sequence[Group], values: Sequence[Group], score: Callable[[Group, Group], float] = attention_score
) -> list[float]:
    """One query head over the tokens it attends to, in two passes: all scores, then the weighted values."""
    scores = [score(q, key) for key in keys]
    p = [softmax_numerator(max(scores), score) for score in scores]
    e_max = max(e for _, _, e in values)
    c = [(weight * n) >> min(e_max - e, 63) for weight, (_, n, e) in zip(p, values, strict=True)]
    length = from_integer(sum(p), 0)
    numerators = [
        sum(weight * codes[i] for weight, (codes, _, _) in zip(c, values, strict=True)) for i in range(len(q[0]))
    ]
    return [exponent_add(div(from_integer(numerator, 0), length), e_max) for numerator in numerators]


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) from the table: an integer t, 0..2^24, times 2^-24."""
    a = 16 << 16 if abs(x) >= 16 else rne(Fraction(abs(x)) * 2**16)
    j, f = a >> 11, a & 2047
    low, high = int(SIGMOID[j]), int(SIGMOID[j + 1])
    t = low + ((high - low) * f >> 11)
    return float((2**24 - t if x < 0 else t) * power(-24))


def silu(x: float) -> float:
    """x * sigmoid(x), rounded once."""
    return mul(x, sigmoid(x))


def swiglu(gate: float, up: float) -> float:
    """silu(gate) * up."""
    return mul(silu(gate), up)


def gelu(x: float) -> float:
    """x times the table's sigmoid(sqrt(8/pi) * (x + 0.044715 x^3)), an integer t, 0..2^24, times 2^-24; rounded once."""
    a = 8 << 16 if abs(x) >= 8 else rne(Fraction(abs(x)) * 2**16)
    j, f = a >> 10, a & 1023
    low, high = int(GELU[j]), int(GELU[j + 1])
    t = low + ((high - low) * f >> 10)
    return mul(x, float((2**24 - t if x < 0 else t) * power(-24)))


def geglu(gate: float, up: float) -> float:
    """gelu(gate) * up."""
    return mul(gelu(gate), up)


def tanh(x: float) -> float:
    """2 * sigmoid(2x) - 1 from sigmoid's table: an integer, -2^24..2^24, times 2^-24. Zero is +0."""
    a = 16 << 16 if abs(x) >= 8 else rne(Fraction(abs(x)) * 2**17)
    j, f = a >> 11, a & 2047
    low, high = int(SIGMOID[j]), int(SIGMOID[j + 1])
    t = 2 * (low + ((high - low) * f >> 11)) - 2**24
    return float((-t if x < 0 else t) * power(-24))


def softcap(x: float, cap: float) -> float:
    """tanh(x * binary32(1/cap)) * binary32(cap)."""
    into, out = cap_constants(cap)
    return mul(tanh(mul(x, float(into))), float(out))


def argmax(logits: Sequence[float]) -> int:
    """The id of the greatest logit; ties go to the smallest id."""
    return max(range(len(logits)), key=lambda i: (logits[i], -i))
