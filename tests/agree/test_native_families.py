"""Every family's ops in C: the bits of the reference and of the numba loops, any path, any cut; and op by op, numbers of any exponent."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native_paths import EACH, PATHS
from strategies import odd_float32, random_matrix, random_tokens
from styles import STYLES, family_model
from tapeout.base.errors import BadInput
from tapeout.graph.fast import FastEngine, _Chunk, _spent, _stages
from tapeout.graph.native import library
from tapeout.graph.native.plan import NativePass, unsuited
from tapeout.graph.reference import ReferenceEngine
from tapeout.graph.types import (
    Add,
    AddBias,
    AddPosition,
    Attention,
    GeGLU,
    Gelu,
    Graph,
    HeadNorm,
    LayerNorm,
    Linear,
    Matrix,
    Model,
    Op,
    RMSNorm,
    Scale,
    SoftCap,
    SwiGLU,
    WeightType,
    op_inputs,
    op_weights,
)
from tapeout.numerics.formats import FORMATS

seeds = st.integers(0, 10**6)
WIDTH, HEADS, TOKENS = 48, 3, 5
MINIMA = next(form for form in FORMATS.values() if form.has_minimum)

OPS: dict[str, Op] = {
    "add": Add("a", "b", "y"), "swiglu": SwiGLU("a", "b", "y"), "geglu": GeGLU("a", "b", "y"), "gelu": Gelu("a", "y"),
    "norm": RMSNorm("a", "y", "w", 1e-5), "head norm": HeadNorm("a", "y", "head", HEADS, WIDTH // HEADS, 1e-6),
    "layer norm": LayerNorm("a", "y", "w", "v", 1e-5), "bias": AddBias("a", "y", "w"), "scale": Scale("a", "y", 33.94),
    "position": AddPosition("a", "y", "table"), "cap": SoftCap("a", "y", 30.0),
}  # fmt: skip


def bits(x: np.ndarray) -> bytes:
    return np.ascontiguousarray(x).tobytes()


@pytest.mark.parametrize("name", STYLES)
def test_no_family_is_left_to_numba(name):
    assert unsuited(family_model(name)) == ""


@pytest.mark.parametrize("name", STYLES)
@given(seed=seeds, tied=st.booleans(), threads=st.integers(1, 3), cut=st.integers(1, 39))
@settings(max_examples=4, deadline=None)
def test_a_family_has_one_set_of_bits(name, seed, tied, threads, cut):
    """A text at once, in two parts, and the second part token by token."""
    model = family_model(name, seed, tied=tied)
    ids = random_tokens(seed, model, 40)
    want = FastEngine(model, path="numba").step(ids, 0, every=True)
    for path in EACH:
        engine = FastEngine(model, threads=threads, path=path)
        assert path in engine.path
        assert bits(engine.step(ids, 0, every=True)) == bits(want)
        assert bits(engine.step(ids[:cut], 0)) == bits(want[cut - 1])
        for at in range(cut, 40):
            assert bits(engine.step(ids[at : at + 1], at)) == bits(want[at])


@pytest.mark.parametrize("name", STYLES)
def test_a_family_is_as_the_reference_says(name):
    model = family_model(name, 11)
    ids = random_tokens(11, model, 25)
    want = ReferenceEngine(model).step(ids, 0, every=True)
    for path in PATHS:
        assert bits(FastEngine(model, path=path).step(ids, 0, every=True)) == bits(want)


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("path", EACH)
def test_streams_of_a_family_keep_to_themselves(name, path):
    model = family_model(name, 5)
    texts = [random_tokens(i, model, 20 + i) for i in range(4)]
    want = [FastEngine(model, path="numba").step(text, 0, every=True) for text in texts]
    engine = FastEngine(model, threads=2, streams=4, path=path)
    for i, text in enumerate(texts):
        engine.step(text[: 10 + i], 0, stream=i)
    for at in range(10, 20):
        got = engine.step_batch([text[at + i] for i, text in enumerate(texts)], [at + i for i in range(4)], range(4))
        assert [bits(row) for row in got] == [bits(want[i][at + i]) for i in range(4)]


@pytest.mark.parametrize("window", [1, 3, 4, 8, 31, 64])
@pytest.mark.parametrize("cap", [0.0, 2.5])
def test_any_window_at_the_cache_edge(window, cap):
    """The last positions of a context of a whole number of blocks."""
    model = family_model("llama 3.1", 3)
    ops = [replace(op, window=window, softcap=cap) if isinstance(op, Attention) else op for op in model.graph.ops]
    model = replace(model, graph=replace(model.graph, ops=tuple(ops)))
    ids = random_tokens(3, model, 64)
    want = FastEngine(model, path="numba").step(ids, 0, every=True)
    for path in EACH:
        assert bits(FastEngine(model, threads=2, path=path).step(ids, 0, every=True)) == bits(want)


@pytest.mark.parametrize("path", PATHS)
def test_no_position_is_read_behind_its_table(path):
    """GPT-2's table holds 64 positions, whatever context is asked for."""
    model = family_model("gpt2")
    engine = FastEngine(model, 100, path=path)
    with pytest.raises(BadInput, match="65 tokens do not fit 64 positions"):
        engine.step([1] * 65, 0)


def model_of(op: Op, rng: np.random.Generator) -> Model:
    """`op` of the values a and b, and a matrix behind it."""
    weights = {
        "w": rng.normal(size=WIDTH).astype(np.float32), "v": rng.normal(size=WIDTH).astype(np.float32),
        "head": rng.normal(size=WIDTH // HEADS).astype(np.float32), "table": random_matrix(rng, 64, WIDTH, MINIMA),
        "m": random_matrix(rng, 3, WIDTH, FORMATS["int8"]),
    }  # fmt: skip
    names = {*op_weights(op), "m"}
    kinds = tuple(
        WeightType(name, x.shape, x.format.name if isinstance(x, Matrix) else "f32")
        for name, x in weights.items() if name in names
    )  # fmt: skip
    values = (("a", WIDTH), ("b", WIDTH), ("y", WIDTH), ("z", 3))
    graph = Graph("one", 3, 64, values, kinds, (op, Linear("y", "z", "m")), "z")
    return Model(graph, {name: weights[name] for name in names})


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("path", EACH)
@given(seed=seeds, calm=st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_op_has_the_bits_of_its_loop(name, path, seed, calm):
    """Numbers of usual size, or of any exponent, zeros and subnormals among them; where one overflows, both say so."""
    rng, op = np.random.default_rng(seed), OPS[name]
    model = model_of(op, rng)
    inputs = {
        key: (rng.normal(0.0, 4.0, (TOKENS, WIDTH)).astype(np.float32) if calm else odd_float32(rng, TOKENS * WIDTH))
        .reshape(TOKENS, WIDTH) for key in ("a", "b")
    }  # fmt: skip
    at = rng.integers(0, 64, TOKENS)
    want = np.empty((TOKENS, WIDTH), np.float32)
    engine = FastEngine(model, path="numba")
    overflowed = engine._run((op,), _Chunk(at, at, at, dict(inputs)), [want]) > 0
    stages = _stages(model)
    found = library.load(path)
    assert isinstance(found, ctypes.CDLL)
    native = NativePass(found, model, stages, _spent(stages, "z"), engine._pack, 64, 1, 1)
    for key in op_inputs(op):
        native.values[key][:TOKENS] = inputs[key]
    got = native.run(at, at, np.zeros(TOKENS, np.int64), np.empty((TOKENS, 3), np.float32))
    assert (got == "y") == overflowed
    assert overflowed or bits(native.values["y"][:TOKENS]) == bits(want)
