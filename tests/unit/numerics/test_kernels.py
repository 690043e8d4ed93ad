"""Every compiled kernel against the scalar definition, bit for bit, on random and on chosen numbers.

Where the definition raises `Overflow`, the kernel must return something that is not finite.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tapeout.base.errors import Overflow
from tapeout.numerics import kernels, scalar
from tapeout.numerics.tables import cap_constants, reciprocal_of_width, rope_increments, score_constant

SEED = 20250101
LEAST = np.float32(2.0**-126)


def special() -> list[np.float32]:
    """Zeros, ones, both ends of the range and their neighbours, of both signs."""
    largest = np.finfo(np.float32).max
    chosen = [0.0, 1.0, 1.5, 127.0, 16.0, 17.0, LEAST, np.nextafter(LEAST, np.float32(1)), largest]
    return [np.float32(sign * value) for value in chosen for sign in (1, -1)]


def numbers(count: int, seed: int = SEED) -> list[np.float32]:
    """Normal numbers of every exponent, and the special ones."""
    rng = np.random.default_rng(seed)
    mantissa = rng.integers(0, 1 << 23, count) & rng.choice([0x7FFFFF, 0x7F0000, 0], count)
    field = np.where(rng.random(count) < 0.5, rng.integers(1, 255, count), rng.integers(115, 140, count))
    bits = (rng.integers(0, 2, count) << 31) | (field << 23) | mantissa
    return special() + list(bits.astype(np.uint32).view(np.float32))


def pairs(count: int) -> Iterator[tuple[np.float32, np.float32]]:
    """All pairs of special numbers, and random ones."""
    yield from ((a, b) for a in special() for b in special())
    yield from zip(numbers(count), reversed(numbers(count, SEED + 1)), strict=True)


def same(got: np.float32, want: Callable[[], float], what: object) -> None:
    """`got` has the bits of `want()`, or is not finite where that overflows."""
    try:
        expected = np.float32(want())
    except Overflow:
        assert not np.isfinite(got), f"{what}: {got} but the definition overflows"
        return
    assert np.float32(got).tobytes() == expected.tobytes(), f"{what}: {got!r} is not {expected!r}"


@pytest.mark.parametrize(
    ("kernel", "definition"),
    [(kernels.add32, scalar.add), (kernels.mul32, scalar.mul), (kernels.div32, scalar.div)],
)
def test_binary_operations(kernel, definition):
    for a, b in pairs(600):
        if kernel is kernels.div32 and b == 0:
            continue
        same(kernel(a, b), lambda a=a, b=b: definition(float(a), float(b)), (a, b))


def test_products_and_sums_near_the_least_normal_number():
    rng = np.random.default_rng(SEED)
    for _ in range(400):
        a, b = np.float32(rng.uniform(1, 2)), np.float32(rng.uniform(0.49, 1.01) * 2.0**-126)
        b = b if abs(b) >= LEAST else LEAST
        same(kernels.mul32(a * np.float32(0.5), b), lambda a=a, b=b: scalar.mul(float(a) / 2, float(b)), (a, b))
        same(kernels.add32(a * LEAST, -b), lambda a=a, b=b: scalar.add(float(a * LEAST), -float(b)), (a, b))


def test_square_root():
    for x in numbers(600):
        if x > 0:
            same(kernels.sqrt32(x), lambda x=x: scalar.sqrt(float(x)), x)


def integers(count: int) -> Iterator[int]:
    """int64 of every length, halves and ties of 24 bits among them."""
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        length = int(rng.integers(1, 63))
        yield int(rng.integers(-(1 << length), 1 << length))
        tie = ((1 << 24) | int(rng.integers(0, 1 << 24))) * 2 + 1
        yield int(rng.choice([-1, 1])) * ((tie << int(rng.integers(0, 36))) + int(rng.integers(-1, 2)))
        yield ((1 << 24) - 1 << int(rng.integers(0, 36))) + int(rng.integers(-1, 2))


def test_integers_become_binary32_in_one_rounding():
    rng = np.random.default_rng(SEED + 1)
    for i in [0, 1, -1, 2**62, -(2**62), 2**63 - 1, -(2**63), *integers(700)]:
        edge = i.bit_length()
        for k in (0, int(rng.integers(-300, 100)), -126 - edge + int(rng.integers(-1, 3)), 128 - edge):
            got = kernels.f32_of(np.int64(i), np.int64(k))
            same(got, lambda i=i, k=k: scalar.from_integer(i, k), (i, k))


def test_an_integer_is_not_rounded_through_binary64():
    i = 2**60 + 2**36 + 1  # binary64 drops the 1, which would leave a tie that goes down
    assert kernels.f32_of(np.int64(i), np.int64(0)) == np.float32(2.0**60 + 2.0**37)


def test_exponent_addition():
    rng = np.random.default_rng(SEED)
    for x in numbers(700):
        exponent = int(np.frexp(x)[1])
        for k in (0, int(rng.integers(-260, 260)), -126 - exponent + int(rng.integers(-1, 3)), 128 - exponent):
            got = kernels.shift32(x, np.int64(k))
            same(got, lambda x=x, k=k: scalar.exponent_add(float(x), k), (x, k))
    almost = np.float32(2.0 - 2.0**-23)
    assert kernels.shift32(almost, np.int64(-127)) == LEAST
    assert kernels.shift32(np.float32(-(2.0**-149)), np.int64(30)) == -np.float32(2.0**-119)


def test_shift_keeps_minus_one():
    for value in (-1, 1, 5, -5, 2**33, -(2**33)):
        for k in (0, 1, 16, -1, -33, -63, -64, -200):
            assert kernels.sh(np.int64(value), np.int64(k)) == scalar.shift(value, k)


@pytest.mark.parametrize("most", [127, 7])
def test_group_scales_and_codes(most):
    edges = [np.float32(most * n * 2.0**e) for n in range(8, 16) for e in (-100, -99, -7, 0, 90)]
    near = [np.nextafter(x, np.float32(to)) for x in edges for to in (0, np.inf)]
    rng = np.random.default_rng(SEED)
    for greatest in [*edges, *near, *(abs(x) for x in numbers(400))]:
        n, e = kernels.group_scale(greatest, most)
        assert (n, e) == scalar.group_scale(float(greatest), most), greatest
        scaled = [np.float32(greatest * f) for f in rng.uniform(-1, 1, 3)]
        halves = [np.float32((c + 0.5) * float(n) * 2.0 ** float(e)) for c in rng.integers(1 - most, most - 1, 3)]
        values = [x for x in (greatest, -greatest, *scaled, *halves) if abs(x) <= greatest]
        codes, _, _ = scalar.quantize_group([float(x) for x in values], most)
        assert [kernels.code_of(x, n, e, most) for x in values] == codes, greatest


@pytest.mark.parametrize("gain", [1.0, 1e-3, 2.0**-70, 1e30, 0.0])
def test_rmsnorm(gain):
    rng = np.random.default_rng(SEED)
    for width in (1, 24, 57):
        x = (rng.normal(size=width) * gain).astype(np.float32)
        x[abs(x) < LEAST] = 0
        weight = rng.normal(1, 0.3, width).astype(np.float32)
        top = kernels.exponent_of(abs(x).max())
        squares = sum(int(kernels.norm_integer(value, top)) ** 2 for value in x)
        r = np.float32(kernels.norm_r(np.int64(squares), top, reciprocal_of_width(width), np.float32(1e-5)))
        if not np.isfinite(r):
            with pytest.raises(Overflow):
                scalar.rmsnorm(x.tolist(), weight.tolist(), 1e-5)
            continue
        want = scalar.rmsnorm(x.tolist(), weight.tolist(), 1e-5)
        assert [float(kernels.norm_value(a, r, w)) for a, w in zip(x, weight, strict=True)] == want


def test_sine_and_rope():
    rng = np.random.default_rng(SEED)
    phases = [0, 2**22 - 1, 2**30, 2**31, 2**32 - 1, *rng.integers(0, 2**32, 500)]
    for phase in map(int, phases):
        assert float(kernels.turn24(kernels.sine24(np.int64(phase)))) == scalar.sine(phase)
        assert float(kernels.turn24(kernels.cosine24(np.int64(phase)))) == scalar.cosine(phase)
    for (a, b), increment in zip(pairs(200), np.tile(rope_increments(10000.0, 64), 99), strict=False):
        position = int(rng.integers(0, 100_000))
        got = kernels.rope(a, b, position, increment)
        try:
            want = scalar.rope_pair(float(a), float(b), position, int(increment))
        except Overflow:
            assert not np.isfinite(got).all()
            continue
        for part in (0, 1):
            same(got[part], lambda y=want[part]: y, (a, b, position, increment))


def test_attention_scores():
    rng = np.random.default_rng(SEED)
    for _ in range(400):
        q, k = rng.integers(-127, 128, (2, 16)).tolist()
        nq, nk = map(int, rng.integers(8, 16, 2))
        eq, ek = map(int, rng.integers(-100, 119, 2))
        dot = np.int64(np.dot(q, k))
        got = kernels.score(dot, np.int64(nq), np.int64(nk), np.int64(eq), np.int64(ek), score_constant(16))
        same(got, lambda q=q, k=k, s=(nq, eq, nk, ek): scalar.attention_score((q, *s[:2]), (k, *s[2:])), (q, k))


def test_softmax_numerators_and_their_weights():
    rng = np.random.default_rng(SEED)
    differences = [0.0, 17.0, np.nextafter(np.float32(17), np.float32(0)), 16.99999, 1e30, *rng.uniform(0, 18, 500)]
    for difference in differences:
        m = np.float32(rng.normal())
        s = np.float32(m - np.float32(difference))
        p = kernels.probability(m, s)
        assert p == scalar.softmax_numerator(float(m), float(s))
        n, e = int(rng.integers(8, 16)), int(rng.integers(-90, 0))
        assert kernels.weight_of(p, np.int64(n), np.int64(e), np.int64(0)) == (int(p) * n) >> min(-e, 63)
    largest = np.finfo(np.float32).max
    assert kernels.probability(largest, -largest) == 0


def test_attention_outputs():
    rng = np.random.default_rng(SEED)
    for _ in range(300):
        N, L = int(rng.integers(-(2**40), 2**40)), int(rng.integers(1, 2**27))
        E = int(rng.integers(-160, 119))

        def want(N=N, L=L, E=E) -> float:
            quotient = scalar.div(scalar.from_integer(N, 0), scalar.from_integer(L, 0))
            return scalar.exponent_add(quotient, E)

        same(kernels.output(np.int64(N), np.int64(L), np.int64(E)), want, (N, L, E))


def test_gelu_geglu_tanh_and_soft_caps():
    for gate, up in pairs(500):
        same(kernels.gelu(gate), lambda gate=gate: scalar.gelu(float(gate)), gate)
        same(kernels.geglu(gate, up), lambda a=gate, b=up: scalar.geglu(float(a), float(b)), (gate, up))
        same(kernels.tanh(gate), lambda gate=gate: scalar.tanh(float(gate)), gate)
        into, back = cap_constants(30.0)
        same(kernels.softcap(gate, into, back), lambda gate=gate: scalar.softcap(float(gate), 30.0), gate)


@pytest.mark.parametrize("seed", range(40))
def test_layernorm(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 60))
    x = (np.float32(2.0 ** rng.uniform(-70, 60)) * (rng.normal(size=size) + rng.normal(0, 4))).astype(np.float32)
    x[rng.random(size) < 0.2] = np.float32(-0.0)
    weight, bias = rng.normal(size=(2, size)).astype(np.float32)
    out = np.empty(size, np.float32)
    assert kernels.layernorm_to(x, weight, bias, reciprocal_of_width(size), np.float32(1e-5), out) == 0
    assert out.tolist() == scalar.layernorm(x.tolist(), weight.tolist(), bias.tolist(), 1e-5)


def test_the_error_of_gelu_and_tanh_is_as_stated():
    x = np.linspace(-9, 9, 40_001).astype(np.float32)
    true = x.astype(float)
    formula = true / (1 + np.exp(-math.sqrt(8 / math.pi) * (true + 0.044715 * true**3)))
    assert max(abs(float(kernels.gelu(v)) - t) for v, t in zip(x, formula, strict=True)) < 1.1e-5
    assert max(abs(float(kernels.tanh(v)) - math.tanh(v)) for v in x) < 2.6e-5


def test_silu_and_swiglu():
    for gate, up in pairs(500):
        same(kernels.silu(gate), lambda gate=gate: scalar.silu(float(gate)), gate)
        same(kernels.swiglu(gate, up), lambda a=gate, b=up: scalar.swiglu(float(a), float(b)), (gate, up))


def test_embedding_values():
    rng = np.random.default_rng(SEED)
    halves = [0.0, -0.0, 2.0**-24, -(2.0**-14), 1.0, 65504.0, *rng.normal(size=40)]
    for scale in np.float16(halves):
        for minimum in np.float16([0.0, -0.0, -0.7, 65504.0]):
            for code, offset in ((0, 0), (-128, 0), (-8, 8), (7, 8), (3, 8)):
                got = kernels.embed_value(code, offset, np.float32(scale), np.float32(minimum))
                bits = (int(scale.view(np.uint16)), int(minimum.view(np.uint16)))
                same(got, lambda c=code, o=offset, b=bits: scalar.embedding(c, *b, o), (code, offset, bits))


def test_the_largest_numbers_read_no_table_out_of_bounds():
    infinity = np.float32(np.inf)
    assert kernels.silu(infinity) == infinity
    assert kernels.probability(infinity, infinity) == 0  # infinity - infinity: the caller has seen it already
