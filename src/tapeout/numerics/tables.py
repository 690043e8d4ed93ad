"""The integer tables of docs/numerics.md, made with exact or decimal arithmetic, never with the platform's libm.

Every entry is the true value rounded once to nearest even. The decimal context carries 60 digits; no entry lies within
10^-10 of a tie (`_nearest` asserts it), so the entries do not depend on how many digits are carried. Their SHA-256
hashes stand in tests/unit/numerics/test_tables.py. Tables are read-only: int64, the reciprocals binary32.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

_CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_LN2 = _CONTEXT.ln(Decimal(2))


def rope_increments(
    theta: float, head_dim: int, rotary: int = 0, factors: tuple[float, ...] = ()
) -> NDArray[np.uint32]:
    """[head_dim / 2]: rne(2^32 * theta^(-2k/rotary) / (2 pi) / factors[k]) mod 2^32, the turn per position in units of 2^-32.

    rotary: numbers of a head that are turned, 0 for all; the pairs behind them have 0. factors: one per turned pair, none: 1.
    """
    return _rope_increments(float(theta), head_dim, rotary or head_dim, factors)


@cache
def _rope_increments(theta: float, head_dim: int, rotary: int, factors: tuple[float, ...]) -> NDArray[np.uint32]:
    with localcontext(_CONTEXT):
        log, slower = Decimal(theta).ln(), factors or (1.0,) * (rotary // 2)
        turns = ((-log * 2 * k / rotary).exp() / (2 * _pi()) / Decimal(slower[k]) for k in range(rotary // 2))
        turned = [_nearest(turn * 2**32) % 2**32 for turn in turns]
        return _read_only(turned + [0] * (head_dim // 2 - len(turned))).astype(np.uint32)


def llama3_factors(
    theta: float, rotary: int, factor: float, low: float, high: float, context: int
) -> tuple[float, ...]:
    """How much slower Llama 3.1 turns each pair: 1 where its wave is shorter than context/high positions, `factor` where longer
    than context/low, smoothly from one to the other between; rounded to binary32, as GGUF files store them.
    """
    with localcontext(_CONTEXT):
        log, found = Decimal(theta).ln(), []
        for k in range(rotary // 2):
            waves = Decimal(context) * (-log * 2 * k / rotary).exp() / (2 * _pi())
            share = (waves - Decimal(low)) / (Decimal(high) - Decimal(low))
            share = min(max(share, Decimal(0)), Decimal(1))
            found.append(float(_binary32(Fraction(1 / (share + (1 - share) / Decimal(factor))))))
        return tuple(found)


@cache
def score_constant(scalar: float) -> np.float32:
    """binary32(log2(e) / sqrt(scalar)), the scalar a head's width if the model says no other: scores become exponents of two."""
    with localcontext(_CONTEXT):
        return _binary32(Fraction(1 / (_LN2 * Decimal(scalar).sqrt())))


@cache
def capped_score_constants(scalar: float, cap: float) -> tuple[np.float32, np.float32]:
    """(binary32(1 / (cap * sqrt(scalar))), binary32(cap * log2(e))): into a tanh, and out of it as an exponent of two."""
    with localcontext(_CONTEXT):
        into = Fraction(1 / (Decimal(cap) * Decimal(scalar).sqrt()))
        return _binary32(into), _binary32(Fraction(Decimal(cap) / _LN2))


@cache
def cap_constants(cap: float) -> tuple[np.float32, np.float32]:
    """(binary32(1 / cap), binary32(cap)): into a tanh and out of it."""
    return _binary32(1 / Fraction(cap)), _binary32(Fraction(cap))


@cache
def reciprocal_of_width(width: int) -> np.float32:
    """binary32(1 / width): the mean of RMSNorm."""
    return _binary32(Fraction(1, width))


def _sine() -> NDArray[np.int64]:
    """T[j] = rne(2^24 * sin(2 pi j / 1024)), j = 0..1024: a quarter by Taylor's series, the rest by symmetry."""
    with localcontext(_CONTEXT):
        step = 2 * _pi() / 1024
        quarter = [_nearest(_sin(step * j) * 2**24) for j in range(257)]
    half = quarter + quarter[-2::-1]
    return _read_only(half + [-s for s in half[1:]])


def _exp2() -> NDArray[np.int64]:
    """T[j] = rne(2^(24 - j/64)), j = 0..64."""
    with localcontext(_CONTEXT):
        return _read_only([_nearest((-_LN2 * j / 64).exp() * 2**24) for j in range(65)])


def _sigmoid() -> NDArray[np.int64]:
    """T[j] = rne(2^24 / (1 + exp(-j/32))), j = 0..511; T[512] = T[513] = 2^24."""
    with localcontext(_CONTEXT):
        step = (-1 / Decimal(32)).exp()
        entries = [_nearest(2**24 / (1 + step**j)) for j in range(512)]
    return _read_only([*entries, 2**24, 2**24])


def _gelu() -> NDArray[np.int64]:
    """T[j] = rne(2^24 / (1 + exp(-sqrt(8/pi) * (x + 0.044715 x^3)))), x = j/64, j = 0..511; T[512] = T[513] = 2^24."""
    with localcontext(_CONTEXT):
        root, cubic = (8 / _pi()).sqrt(), Decimal("0.044715")
        steps = (Decimal(j) / 64 for j in range(512))
        entries = [_nearest(2**24 / (1 + (-root * (x + cubic * x * x * x)).exp())) for x in steps]
    return _read_only([*entries, 2**24, 2**24])


def _reciprocal() -> NDArray[np.float32]:
    """R[n] = binary32(1 / n), n = 8..15; the entries below 8 are never read and hold 0."""
    table = np.array([0.0] * 8 + [_binary32(Fraction(1, n)) for n in range(8, 16)], np.float32)
    table.flags.writeable = False
    return table


def _sin(x: Decimal) -> Decimal:
    """Taylor's series, 0 <= x <= pi/2."""
    term, total, k = x, x, 1
    while abs(term) > Decimal("1e-45"):
        k += 2
        term = -term * x * x / (k * (k - 1))
        total += term
    return total


@cache
def _pi() -> Decimal:
    """Machin: pi = 16 arctan(1/5) - 4 arctan(1/239), in integers of 10^-70, good to 60 digits."""
    one = 10**70

    def arctan(n: int) -> int:
        power, total, k = one // n, 0, 0
        while power:
            total += (-1) ** k * power // (2 * k + 1)
            power //= n * n
            k += 1
        return total

    return Decimal(16 * arctan(5) - 4 * arctan(239)) / one


def _nearest(x: Decimal) -> int:
    """The integer nearest to `x`, which must not be near a tie."""
    assert x == int(x) or abs(x - int(x) - Decimal("0.5")) > Decimal("1e-10"), f"{x} is too near a tie to be rounded"
    return int(x.to_integral_value())


def _binary32(x: Fraction) -> np.float32:
    """A positive normal `x` rounded once to 24 bits, ties to even."""
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    exponent -= x < Fraction(2) ** exponent
    return np.float32(float(round(x / Fraction(2) ** (exponent - 23)) * Fraction(2) ** (exponent - 23)))


def _read_only(entries: list[int]) -> NDArray[np.int64]:
    table = np.array(entries, np.int64)
    table.flags.writeable = False
    return table


SINE = _sine()
EXP2 = _exp2()
SIGMOID = _sigmoid()
GELU = _gelu()
RECIPROCAL = _reciprocal()
