"""The quick engine and the reference: equal bits for random models, any path, any cut of the text, any number of threads."""

from dataclasses import replace

import numpy as np
import pytest

from native_paths import PATHS
from strategies import GREATEST, random_matrix, random_model, random_tokens
from tapeout.base.errors import BadInput, Overflow
from tapeout.graph import fast, reference
from tapeout.graph.fast import FastEngine, Team
from tapeout.graph.packing import pack
from tapeout.graph.reference import ReferenceEngine
from tapeout.graph.types import Attention, Graph, Linear, Matrix, Model, WeightType
from tapeout.numerics import scalar
from tapeout.numerics.formats import FORMATS


def bits(logits: np.ndarray) -> bytes:
    return np.ascontiguousarray(logits).tobytes()


@pytest.mark.parametrize("seed", range(40))
def test_random_models_agree(seed):
    model = random_model(seed)
    ids = random_tokens(seed, model, 40)
    want = ReferenceEngine(model).step(ids, 0, every=True)
    for path in PATHS:
        engine = FastEngine(model, threads=1 + seed % 3, path=path)
        assert path in engine.path
        assert bits(engine.step(ids, 0, every=True)) == bits(want), f"seed {seed}, {engine.path}"


@pytest.mark.parametrize("kind", [*FORMATS, "mixed"])
def test_wide_models_agree(kind):
    """More groups than one binary64 sum takes, more tokens than a chunk, more keys than a block, work for threads."""
    model = random_model(7, format=kind, layers=2, width=328, hidden=1000, heads=6, kv_heads=2, context=100)
    ids = random_tokens(8, model, 80)
    want = ReferenceEngine(model).step(ids, 0, every=True)
    for path in PATHS:
        assert bits(FastEngine(model, threads=3, path=path).step(ids, 0, every=True)) == bits(want), path


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("seed", range(8))
def test_the_cut_of_a_text_changes_no_bit(seed, path, monkeypatch):
    model = random_model(100 + seed)
    ids = random_tokens(seed, model, 50)
    whole = FastEngine(model, path=path).step(ids, 0, every=True)
    assert bits(FastEngine(model, path=path).step(ids, 0)) == bits(whole[-1])
    rng, cut, position, parts = np.random.default_rng(seed), FastEngine(model, threads=2, path=path), 0, []
    monkeypatch.setattr(fast, "CHUNK", 5)
    while position < len(ids):
        some = ids[position : position + int(rng.integers(1, 12))]
        parts.append(cut.step(some, position, every=True))
        position += len(some)
    assert bits(np.concatenate(parts)) == bits(whole)


@pytest.mark.parametrize("path", PATHS)
def test_going_back_overwrites_what_was_held(path):
    model = random_model(3)
    ids, other = random_tokens(1, model, 20), random_tokens(2, model, 20)
    engine = FastEngine(model, path=path)
    engine.step(other, 0)
    engine.step(ids[:9], 0)
    assert bits(engine.step(ids[9:], 9)) == bits(FastEngine(model, path=path).step(ids, 0))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("path", PATHS)
def test_extreme_matrices_agree(kind, threads, path):
    """Greatest codes, scales and activations of one sign: the largest terms there are; and scales of many octaves."""
    rng, form = np.random.default_rng(5), FORMATS[kind]
    greatest = random_matrix(rng, 70, 2000, form)
    greatest.codes[:35] = form.low
    greatest.codes[35:] = form.high
    greatest.scale[:, :] = GREATEST[form.scale.name]
    if greatest.minimum is not None:
        greatest.minimum[:, :] = GREATEST[form.scale.name]
    for matrix in (greatest, random_matrix(rng, 70, 2000, form)):
        spread = np.exp2(rng.integers(-40, 3, (3, 2000)))
        for x in (np.ones((3, 2000)), rng.normal(size=(3, 2000)), rng.normal(size=(3, 2000)) * spread):
            vectors = x.astype(np.float32)
            want = reference.linear("y", reference.make_rows("w", matrix), vectors)
            assert bits(product(matrix, vectors, threads, path)) == bits(want)


def product(matrix: Matrix, x: np.ndarray, threads: int, path: str) -> np.ndarray:
    """matrix @ x as the engine does it."""
    op = Linear("x", "y", "w")
    kind = WeightType("w", matrix.shape, matrix.format.name)
    graph = Graph("one", 1, 1, (("x", x.shape[1]), ("y", matrix.shape[0])), (kind,), (op,), "y")
    out = np.empty((len(x), matrix.shape[0]), np.float32)
    engine = FastEngine(Model(graph, {"w": matrix}), threads=threads, path=path)
    assert path in engine.path
    if engine._native is None:
        assert engine._linear((op,), x, [out]) == 0
        return out
    engine._native.values["x"][: len(x)] = x
    tokens = np.zeros(len(x), np.int64)
    assert engine._native.run(tokens, tokens, tokens, out) is None
    return out


@pytest.mark.parametrize("path", PATHS)
def test_a_row_whose_bound_needs_it_has_fewer_fraction_bits(path):
    """144,000 columns of the greatest terms do not fit 62 bits with F = 16."""
    columns = 32 * 4500
    codes = np.full((2, columns), -128, np.int8)
    codes[1] = 3
    matrix = Matrix(FORMATS["int8"], codes, np.full((2, columns // 32), 65504, np.float16))
    size = np.abs(codes.astype(int)).reshape(2, -1, 32).sum(axis=2)
    scales = matrix.scale.view(np.uint16)
    plans = [scalar.row_plan(scales[row].tolist(), size[row].tolist()) for row in (0, 1)]
    assert [f for _, f in plans] == [15, 16]
    assert pack(matrix, "w").exponent[:2].tolist() == [e - f for e, f in plans]
    x = np.ones((1, columns), np.float32)
    assert bits(product(matrix, x, 1, path)) == bits(reference.linear("y", reference.make_rows("w", matrix), x))


@pytest.mark.parametrize("name", ["layers.0.attn_norm", "layers.0.ffn_norm", "norm"])
def test_all_overflow_at_the_same_value(name):
    seen = set()
    for seed in range(6):
        model = random_model(seed, layers=1)
        for gain in (1e37, 1e30, 1e19):
            huge = {**model.weights, name: model.weights[name] * np.float32(gain)}
            large = replace(model, weights=huge)
            ids = random_tokens(seed, model, 5)
            wheres = [outcome(ReferenceEngine(large), ids)]
            wheres += [outcome(FastEngine(large, path=path), ids) for path in PATHS]
            assert len(set(wheres)) == 1, f"seed {seed}, gain {gain}"
            seen.add(str(wheres[0]))
    assert len(seen) > 1


def outcome(engine, ids: list[int]) -> str | bytes:
    """Where it overflows, or the bits of its logits."""
    try:
        return bits(engine.step(ids, 0, every=True))
    except Overflow as error:
        return error.where


def test_wrong_input_is_refused_with_the_references_words():
    model = random_model(1)
    vocabulary = model.graph.vocabulary
    for ids, position in (([0, vocabulary], 0), ([-1], 0), ([0] * 65, 0)):
        words = []
        for engine in (ReferenceEngine(model), FastEngine(model)):
            with pytest.raises(BadInput) as error:
                engine.step(ids, position)
            words.append(str(error.value))
        assert words[0] == words[1]
    with pytest.raises(BadInput, match=r"^threads: 0 is less than 1$"):
        FastEngine(model, threads=0)
    with pytest.raises(BadInput, match="is not a quantized matrix; quantize the model, or use float mode"):
        FastEngine(random_model(1, format="f32"))


def test_threads_that_are_never_run_hold_nobody_up():
    team = Team(8)
    team._started = True  # nobody was started
    assert team.run([lambda i=i: i for i in range(100)]) == 4950


def test_one_thread_starts_no_pool():
    model = random_model(2)
    engine = FastEngine(model, path="numba")
    engine.step([0] * 30, 0)
    assert not engine._team._started


def test_heads_share_keys_in_groups():
    model = random_model(11, heads=6, kv_heads=2, layers=1)
    attention = next(op for op in model.graph.ops if isinstance(op, Attention))
    assert (attention.heads, attention.kv_heads) == (6, 2)
    ids = random_tokens(0, model, 30)
    want = bits(ReferenceEngine(model).step(ids, 0))
    assert all(bits(FastEngine(model, path=path).step(ids, 0)) == want for path in PATHS)
