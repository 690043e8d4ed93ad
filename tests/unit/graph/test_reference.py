"""Every op of the reference against the scalar definitions, bit for bit, and the engine's promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import block_bits, odd_float32, random_matrix, random_model, random_tokens
from styles import STYLES, family_model
from tapeout.base.errors import BadInput, Overflow
from tapeout.graph import reference
from tapeout.graph.float_mode import FloatEngine
from tapeout.graph.reference import ReferenceEngine
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
    RMSNorm,
    Rope,
    Scale,
    SoftCap,
    SwiGLU,
)  # fmt: skip
from tapeout.numerics import scalar
from tapeout.numerics.formats import FORMATS
from tapeout.numerics.tables import rope_increments, score_constant

FIXED = settings(derandomize=True, max_examples=60, deadline=None, database=None)
OVERFLOW = "overflow"

f32 = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.builds(
    lambda m, e: float(np.ldexp(np.float32(m), e)), st.integers(-(2**24) + 1, 2**24 - 1), st.integers(-149, 103)
)
usual = f32.filter(lambda x: abs(x) < 2.0**60)
seeds = st.integers(0, 2**32 - 1)


def bits(x) -> list[str]:
    """Every value with all its bits, the sign of zero too."""
    return [float(v).hex() for v in np.asarray(x).reshape(-1)]


def outcome(function, *arguments):
    """The bits of a result, or that it overflowed."""
    try:
        return bits(function(*arguments))
    except Overflow:
        return OVERFLOW


def array(x) -> np.ndarray:
    return np.array(x, np.float32)


@FIXED
@given(f32, f32)
def test_add_multiply_and_divide_round_and_flush_as_defined(a, b):
    for ours, defined in ((reference.add, scalar.add), (reference.mul, scalar.mul), (reference.div, scalar.div)):
        if defined is scalar.div and b == 0:
            continue
        assert outcome(ours, "", array([a]), array([b])) == outcome(defined, a, b)


@FIXED
@given(f32, st.integers(-300, 300))
def test_exponent_addition_rounds_once(x, k):
    assert outcome(reference.exponent_add, "", array([x]), np.array([k])) == outcome(scalar.exponent_add, x, k)


@FIXED
@given(st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-(2**26), 2**26), st.integers(-230, 100))
def test_integers_become_binary32_in_one_rounding(i, k):
    assert outcome(reference.from_integer, "", np.array([i]), k) == outcome(scalar.from_integer, i, k)


@FIXED
@given(st.integers(-3, 3), st.integers(0, 38), st.sampled_from([1, -1]), st.integers(-1, 1))
def test_integers_at_the_edge_of_the_normal_numbers_become_zero_or_the_least_normal(near, up, sign, odd):
    i = sign * (((2**24 - 1 + near) << up) + odd)
    k = -150 - up
    assert outcome(reference.from_integer, "", np.array([i]), k) == outcome(scalar.from_integer, i, k)


@FIXED
@given(st.lists(f32, min_size=1, max_size=40), st.sampled_from([127, 7]))
def test_groups_are_quantized_as_defined(x, most):
    ours = reference.quantize("", array(x), most)
    assert (ours.codes.tolist(), int(ours.n), int(ours.e)) == scalar.quantize_group(x, most)


@FIXED
@given(st.integers(1, 15), st.integers(-103, 90), st.integers(0, 2), st.sampled_from([127, 7]))
def test_a_group_whose_maximum_is_just_a_scale_keeps_that_scale(n, e, last_bits, most):
    x = [
        float(np.nextafter(np.float32(most * n * 2.0**e), np.float32(np.inf)) if last_bits == 2 else most * n * 2.0**e)
    ]
    x[0] = float(np.nextafter(np.float32(x[0]), np.float32(0))) if last_bits == 1 else x[0]
    ours = reference.quantize("", array(x), most)
    assert (ours.codes.tolist(), int(ours.n), int(ours.e)) == scalar.quantize_group(x, most)


def any_float16(rng, shape):
    stored = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    stored[(stored & 0x7C00) == 0x7C00] &= 0x83FF
    return stored.view(np.float16)


def any_wide(rng, shape):
    return (rng.integers(0, 30 << 18, shape) | rng.integers(0, 2, shape) << 23).astype(np.uint32)


def any_matrix(rng) -> Matrix:
    form = FORMATS[str(rng.choice(list(FORMATS)))]
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 130))
    matrix = random_matrix(rng, rows, columns, form)
    if form.scale.name == "wide" and rng.random() < 0.5:
        minimum = any_wide(rng, matrix.scale.shape) if form.has_minimum else None
        return Matrix(form, matrix.codes, any_wide(rng, matrix.scale.shape), minimum)
    if form.scale.name == "binary16" and rng.random() < 0.5:
        minimum = any_float16(rng, matrix.scale.shape) if form.has_minimum else None
        matrix = Matrix(form, matrix.codes, any_float16(rng, matrix.scale.shape), minimum)
    return matrix


def scalar_linear(matrix: Matrix, x) -> list[float]:
    groups = scalar.quantize([float(v) for v in x])
    form, size = matrix.format, matrix.format.block
    blocks = range(0, matrix.shape[1], size)
    scale = block_bits(form, matrix.scale, matrix.shape[1])
    minimum = [None] * len(scale) if matrix.minimum is None else block_bits(form, matrix.minimum, matrix.shape[1])
    codes, kind = matrix.codes.tolist(), form.scale.name
    return [
        scalar.matmul_row(
            groups,
            [codes[r][b : b + size] for b in blocks],
            scale[r],
            minimum[r],
            form.offset,
            kind,
            size,
            matrix.factor,
        )
        for r in range(matrix.shape[0])
    ]


def scalar_embedding(m: Matrix, row: int) -> list[float]:
    scale = block_bits(m.format, m.scale, m.shape[1])[row]
    low = [0] * len(scale) if m.minimum is None else block_bits(m.format, m.minimum, m.shape[1])[row]
    kind, offset = m.format.scale.name, m.format.offset
    return [
        scalar.embedding(code, scale[c // m.format.block], low[c // m.format.block], offset, kind, m.factor)
        for c, code in enumerate(m.codes[row].tolist())
    ]


@FIXED
@given(seeds)
def test_a_matrix_times_a_vector_is_as_defined(seed):
    rng = np.random.default_rng(seed)
    matrix = any_matrix(rng)
    wild = rng.random() < 0.5
    x = odd_float32(rng, matrix.shape[1]) if wild else rng.normal(size=matrix.shape[1]).astype(np.float32)
    rows = reference.make_rows("w", matrix)
    assert outcome(lambda: reference.linear("", rows, x[None])[0]) == outcome(scalar_linear, matrix, x)


def test_wide_rows_have_fewer_fraction_bits():
    columns = 32 * 8192
    codes, scale = np.full((2, columns), 127, np.int8), np.full((2, 8192), 1.9990234375, np.float16)
    scale[1] = 1.0
    rows = reference.make_rows("w", Matrix(FORMATS["int8"], codes, scale))
    plans = [scalar.row_plan([scalar.bits16(s)] * 8192, [127 * 32] * 8192) for s in (1.9990234375, 1.0)]
    assert list(zip(rows.e_row.tolist(), rows.f_row.tolist(), strict=True)) == plans == [(-10, 15), (-10, 16)]


def test_a_row_that_cannot_fit_62_bits_is_refused():
    with pytest.raises(BadInput, match="w row 3: its sum may not fit 62 bits even without fraction bits"):
        reference.fraction_bits("w row 3", 2**70, -10, 1, 24)


@FIXED
@given(seeds, st.sampled_from([1e-5, 1e-6, 1.1754944e-38, 1e30]))
def test_rmsnorm_is_as_defined(seed, eps):
    rng = np.random.default_rng(seed)
    x = np.float32(2.0 ** rng.uniform(-80, 70)) * rng.normal(size=int(rng.integers(1, 70))).astype(np.float32)
    x[rng.random(len(x)) < 0.2] = np.float32(-0.0)
    w = np.where(rng.random(len(x)) < 0.9, rng.normal(size=len(x)), 0).astype(np.float32)
    defined = outcome(scalar.rmsnorm, x.tolist(), w.tolist(), eps)
    assert outcome(reference.rmsnorm, "", x[None], w, eps) == defined


@FIXED
@given(usual, usual, st.integers(0, 2**31), st.sampled_from([2, 4, 8]), st.sampled_from([10000.0, 1e5, 500000.0]))
def test_rope_is_as_defined(a, b, position, head_dim, theta):
    pairs = [(a, b)] * (head_dim // 2)
    increments, op = rope_increments(theta, head_dim).tolist(), Rope("", "", 1, head_dim, theta)
    defined = [y for pair, step in zip(pairs, increments, strict=True) for y in scalar.rope_pair(*pair, position, step)]
    assert bits(reference.rope("", array([*pairs]).reshape(1, -1), position, op)) == bits(defined)


@FIXED
@given(st.lists(f32 | st.floats(-20, 20, width=32), min_size=1, max_size=6))
def test_softmax_numerators_are_as_defined_and_an_infinite_difference_counts_as_17(scores):
    ours = reference.softmax_numerators(array(scores)).tolist()
    assert ours == [scalar.softmax_numerator(max(scores), s) for s in scores]


@settings(FIXED, max_examples=25)
@given(seeds)
def test_attention_is_as_defined(seed):
    rng = np.random.default_rng(seed)
    kv_heads, group, head_dim, keys = (int(rng.integers(1, n)) for n in (3, 4, 40, 9))
    gain = np.float32(2.0 ** rng.uniform(-30, 4))
    q, k, v = (
        gain * rng.normal(size=shape).astype(np.float32) * (rng.random(shape[:-1])[..., None] > 0.1).astype(np.float32)
        for shape in ((kv_heads * group, head_dim), (keys, kv_heads, head_dim), (keys, kv_heads, head_dim))
    )
    v *= np.float32(2) ** rng.integers(-30, 1, (keys, 1, 1)).astype(np.float32)  # so that weights are shifted far
    op = Attention("", "", "", "", kv_heads * group, kv_heads, head_dim)
    ours = reference.attention("", *(reference.quantize("", x) for x in (q, k, v)), op)
    defined = [
        scalar.attention(
            scalar.quantize_group(q[head].tolist()),
            [scalar.quantize_group(k[t, head // group].tolist()) for t in range(keys)],
            [scalar.quantize_group(v[t, head // group].tolist()) for t in range(keys)],
        )
        for head in range(kv_heads * group)
    ]
    assert bits(ours) == bits(defined)


@FIXED
@given(f32 | st.floats(-20, 20, width=32), f32)
def test_swiglu_is_as_defined(gate, up):
    assert outcome(reference.swiglu, "", array([gate]), array([up])) == outcome(scalar.swiglu, gate, up)


@FIXED
@given(seeds)
def test_embedding_is_as_defined_and_its_zeros_are_positive(seed):
    rng = np.random.default_rng(seed)
    matrix = any_matrix(rng)
    assert outcome(reference.embedding, "", matrix, np.array([0])) == outcome(scalar_embedding, matrix, 0)


def scalar_score(op: Attention):
    """The score of a query and a key; what no cap touches is spelled out, as its constant is not always a head's."""
    if op.softcap:
        return lambda q, k: scalar.capped_score(q, k, op.scale_of, op.softcap)

    def score(q: scalar.Group, k: scalar.Group) -> float:
        dot = sum(a * b for a, b in zip(q[0], k[0], strict=True)) * q[1] * k[1]
        product = scalar.mul(scalar.from_integer(dot, 0), float(score_constant(op.scale_of)))
        return scalar.exponent_add(product, q[2] + k[2])

    return score


def scalar_run(model: Model, token_ids: list[int]) -> list[float]:
    """The logits of the last token, by scalar definitions alone."""
    held: dict[str, list[list[scalar.Group]]] = {}
    values: dict[str, list[float]] = {}

    def heads(x: list[float], size: int) -> list[scalar.Group]:
        return [scalar.quantize_group(x[i : i + size]) for i in range(0, len(x), size)]

    def vector(name: str) -> list[float]:
        return np.asarray(model.weights[name]).tolist()

    for position, token in enumerate(token_ids):
        for op in model.graph.ops:
            match op:
                case Embed():
                    y = scalar_embedding(model.weights[op.table], token)
                case AddPosition():
                    row = scalar_embedding(model.weights[op.table], position)
                    y = [scalar.add(a, b) for a, b in zip(values[op.x], row, strict=True)]
                case AddBias():
                    y = [scalar.add(a, b) for a, b in zip(values[op.x], vector(op.bias), strict=True)]
                case Scale():
                    y = [scalar.mul(a, float(np.float32(op.factor))) for a in values[op.x]]
                case SoftCap():
                    y = [scalar.softcap(a, op.cap) for a in values[op.x]]
                case Gelu():
                    y = [scalar.gelu(a) for a in values[op.x]]
                case GeGLU():
                    y = [scalar.geglu(a, b) for a, b in zip(values[op.gate], values[op.up], strict=True)]
                case LayerNorm():
                    y = scalar.layernorm(values[op.x], vector(op.weight), vector(op.bias), op.eps)
                case HeadNorm():
                    x, dim = values[op.x], op.head_dim
                    each = [scalar.rmsnorm(x[i : i + dim], vector(op.weight), op.eps) for i in range(0, len(x), dim)]
                    y = [v for head in each for v in head]
                case RMSNorm():
                    y = scalar.rmsnorm(values[op.x], model.weights[op.weight].tolist(), op.eps)
                case Linear():
                    y = scalar_linear(model.weights[op.weight], values[op.x])
                case Rope():
                    steps = rope_increments(op.theta, op.head_dim, op.rotary, op.factors).tolist()
                    x = values[op.x]
                    pairs = (
                        scalar.rope_pair(x[i], x[i + 1], position, steps[i % op.head_dim // 2])
                        for i in range(0, len(x), 2)
                    )
                    y = [v for pair in pairs for v in pair]
                case Attention():
                    k, v = held.setdefault(op.k, []), held.setdefault(op.v, [])
                    k.append(heads(values[op.k], op.head_dim))
                    v.append(heads(values[op.v], op.head_dim))
                    y = []
                    for head, query in enumerate(heads(values[op.q], op.head_dim)):
                        kv = head // (op.heads // op.kv_heads)
                        keys, seen = [[token[kv] for token in held][-op.window :] for held in (k, v)]
                        y += scalar.attention(query, keys, seen, scalar_score(op))
                case SwiGLU():
                    y = [scalar.swiglu(a, b) for a, b in zip(values[op.gate], values[op.up], strict=True)]
                case Add():
                    y = [scalar.add(a, b) for a, b in zip(values[op.a], values[op.b], strict=True)]
            values[op.out] = y
    return values[model.graph.output]


@pytest.mark.parametrize(("seed", "form"), [(0, "int4m"), (1, "int8"), (2, "mixed")])
def test_a_whole_model_is_as_defined(seed, form):
    model = random_model(
        seed, layers=2, width=40, heads=4, kv_heads=2, head_dim=8, hidden=48, vocabulary=40, format=form
    )
    ids = random_tokens(seed, model, 3)
    assert bits(ReferenceEngine(model).step(ids, 0)) == bits(scalar_run(model, ids))


@pytest.mark.parametrize("name", STYLES)
def test_a_model_of_every_family_is_as_defined(name):
    model = family_model(name, 3)
    ids = random_tokens(3, model, 10)
    assert bits(ReferenceEngine(model).step(ids, 0)) == bits(scalar_run(model, ids))


@pytest.mark.parametrize("seed", range(6))
def test_bits_do_not_depend_on_how_a_text_is_cut(seed):
    model = random_model(seed)
    ids = random_tokens(seed, model, 9)
    whole, engine = ReferenceEngine(model).step(ids, 0, every=True), ReferenceEngine(model)
    parts = [engine.step(ids[a:b], a, every=True) for a, b in ((0, 1), (1, 6), (6, 9))]
    assert bits(np.concatenate(parts)) == bits(whole)
    assert bits(engine.step(ids[4:6], 4)) == bits(whole[5])  # going back to an earlier position is allowed


@pytest.mark.parametrize("seed", range(6))
def test_float_mode_is_near_the_contract(seed):
    model = random_model(seed)
    ids = random_tokens(seed, model, 9)
    exact = FloatEngine(model, dtype=np.float64).step(ids, 0, every=True)
    assert np.abs(FloatEngine(model).step(ids, 0, every=True) - exact).max() < 1e-4 * exact.std()
    assert np.sqrt(np.mean((ReferenceEngine(model).step(ids, 0, every=True) - exact) ** 2)) < 0.1 * exact.std()


def test_float_mode_does_not_depend_on_how_a_text_is_cut_but_for_rounding():
    model = random_model(3)
    ids = random_tokens(3, model, 9)
    whole, engine = FloatEngine(model).step(ids, 0, every=True), FloatEngine(model)
    parts = [engine.step(ids[a:b], a, every=True) for a, b in ((0, 4), (4, 9))]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-3, atol=1e-3 * whole.std())


def test_an_overflow_names_the_op():
    model = random_model(0, layers=1, format="int8", odd=False)
    model.weights["layers.0.attn_norm"][:] = np.float32(3e38)
    with pytest.raises(Overflow, match=r"l0\.attn_in: a result is too large for binary32"):
        ReferenceEngine(model).step([1], 0)


def test_an_unknown_token_and_a_full_context_are_refused():
    model = random_model(0, vocabulary=50)
    engine = ReferenceEngine(model, context=4)
    with pytest.raises(BadInput, match=r"token id: 50 is outside the vocabulary; ids are 0\.\.49"):
        engine.step([0, 50], 0)
    with pytest.raises(BadInput, match="context: 5 tokens do not fit 4 positions"):
        engine.step([0] * 5, 0)


def test_a_float_model_is_refused_by_the_reference():
    with pytest.raises(
        BadInput, match="weight embed: is not a quantized matrix; quantize the model, or use float mode"
    ):
        ReferenceEngine(random_model(0, format="f32"))
