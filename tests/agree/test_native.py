"""The C engine's variants: the contract's bits where numba's loops do not reach, streams in a batch, and what stands without a compiler."""

import ctypes
import os
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native_paths import EACH, PATHS
from strategies import GREATEST, MIXED, random_model, random_tokens
from tapeout.base.errors import BadInput, Overflow
from tapeout.graph import fast
from tapeout.graph.fast import FastEngine
from tapeout.graph.native import build, library
from tapeout.graph.native.packing import Arena, lay_out, most_bytes
from tapeout.graph.native.plan import NativePass
from tapeout.graph.packing import LANES, SPILL, Packed
from tapeout.graph.types import Graph, Linear, Matrix, Model, WeightType
from tapeout.numerics import scalar
from tapeout.numerics.formats import FORMATS

FORMAT = st.sampled_from([*FORMATS, MIXED])
seeds = st.integers(0, 10**6)


def bits(x: np.ndarray) -> bytes:
    return np.ascontiguousarray(x).tobytes()


@given(seed=seeds, kind=FORMAT, threads=st.integers(1, 4), count=st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_all_paths_give_the_same_bits(seed, kind, threads, count):
    model = random_model(seed, format=kind)
    ids = random_tokens(seed, model, count)
    found = {bits(FastEngine(model, threads=threads, path=path).step(ids, 0, every=True)) for path in PATHS}
    assert len(found) == 1


@pytest.mark.parametrize("path", PATHS)
@given(seed=seeds, kind=FORMAT, streams=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_streams_of_a_batch_have_the_bits_that_each_has_alone(path, seed, kind, streams):
    """Texts of different lengths, some streams left out of a batch, in any order."""
    rng = np.random.default_rng(seed)
    model = random_model(seed, format=kind, context=40)
    texts = [random_tokens(seed + i, model, 30) for i in range(streams)]
    want = [FastEngine(model, path="numba").step(text, 0, every=True) for text in texts]
    engine = FastEngine(model, threads=2, streams=streams, path=path)
    held = [int(rng.integers(0, 20)) for _ in texts]
    for i, text in enumerate(texts):
        if held[i]:
            assert bits(engine.step(text[: held[i]], 0, stream=i)) == bits(want[i][held[i] - 1])
    for _ in range(6):
        some = rng.permutation(streams)[: rng.integers(1, streams + 1)].tolist()
        got = engine.step_batch([texts[i][held[i]] for i in some], [held[i] for i in some], some)
        for row, i in zip(got, some, strict=True):
            assert bits(row) == bits(want[i][held[i]])
            held[i] += 1


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_wider_than_a_pass_is_cut(path, monkeypatch):
    model, streams = random_model(5, context=8), 70
    ids = random_tokens(5, model, streams)
    engine = FastEngine(model, streams=streams, path=path)
    got = engine.step_batch(ids, [0] * streams, list(range(streams)))
    want = [FastEngine(model, path="numba").step([token], 0) for token in ids]
    assert bits(got) == bits(np.array(want))


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_batch_runs_nothing(path):
    model = random_model(1, context=4)
    engine = FastEngine(model, streams=2, path=path)
    engine.step([0] * 4, 0, stream=1)
    with pytest.raises(BadInput, match="5 tokens do not fit 4 positions"):
        engine.step_batch([0, 0], [0, 4], [0, 1])
    with pytest.raises(AssertionError, match="stands twice"):
        engine.step_batch([0, 0], [0, 1], [0, 0])
    with pytest.raises(AssertionError, match="leaves a gap"):
        engine.step_batch([0], [1], [0])


def product(path: str, packed: Packed, x: np.ndarray, bits_: int, offset_format: str = "int8") -> np.ndarray:
    """A packed matrix times vectors [tokens, columns], by the C library alone."""
    columns = packed.codes.shape[1] * packed.codes.shape[2]
    form = replace(FORMATS[offset_format], low=-8 if bits_ == 4 else -128, high=7 if bits_ == 4 else 127)
    stub = Matrix(form, np.zeros((packed.rows, columns), np.int8), np.zeros((packed.rows, columns // 32), np.float16))
    op, kind = Linear("x", "y", "w"), WeightType("w", stub.shape, offset_format)
    graph = Graph("one", 1, 1, (("x", columns), ("y", packed.rows)), (kind,), (op,), "y")
    found = library.load(path)
    assert isinstance(found, ctypes.CDLL)
    native = NativePass(found, Model(graph, {"w": stub}), [(op,)], [[]], lambda name: packed, 1, 1, 2)
    assert native.refusal == ""
    native.values["x"][: len(x)] = x
    out, tokens = np.empty((len(x), packed.rows), np.float32), np.zeros(len(x), np.int64)
    assert native.run(tokens, tokens, tokens, out) is None
    return out


def expected(packed: Packed, x: np.ndarray) -> np.ndarray:
    """The definition of docs/numerics.md section 5 on packed scales, whatever their group, with exact fractions."""
    per = 32 // packed.codes.shape[2]
    out = np.empty((len(x), packed.rows), np.float32)
    for t, vector in enumerate(x):
        quantized = scalar.quantize(vector.tolist())
        e_max = max(e for _, _, e in quantized)
        for row in range(packed.rows):
            block, lane, total = row // LANES, row % LANES, 0
            for g in range(packed.codes.shape[1]):
                codes, n, e = quantized[g // per]
                width = packed.codes.shape[2]
                part = codes[g % per * width :][:width]
                weights = packed.codes[block, g, :, lane].tolist()
                dot = sum((w + packed.offset) * c for w, c in zip(weights, part, strict=True))
                factor = Fraction(n) * Fraction(2) ** (e - e_max)
                total += int(dot * Fraction(float(packed.scale[block, g, lane])) * factor // 1)
                if packed.minimum is not None:
                    total += int(sum(part) * Fraction(float(packed.minimum[block, g, lane])) * factor // 1)
            y = scalar.from_integer(total, int(packed.exponent[row]) + e_max)
            out[t, row] = scalar.mul(y, float(packed.factor))
    return out


@pytest.mark.parametrize("path", EACH)
@pytest.mark.parametrize("width", [16, 32])
@given(seed=seeds, four=st.booleans(), minimum=st.booleans(), wide=st.booleans(), great=st.sampled_from([41, 49, 58]))
@settings(max_examples=40, deadline=None)
def test_any_packed_matrix_is_multiplied_by_the_definition(path, width, seed, four, minimum, wide, great):
    """Groups of 16 and 32, 4 and 8 bits, scales of 11 and of 20 bits, sums that need int64 on the way and such that do not; of 20
    bits, terms that reach 2^58.
    """
    rng = np.random.default_rng(seed)
    rows, groups, tokens = int(rng.integers(1, 70)), 2 * int(rng.integers(1, 6)), int(rng.integers(1, 5))
    blocks = -(-rows // LANES)
    low, high = (-8, 8) if four else (-128, 128)
    codes = rng.integers(low, high, (blocks, groups, width, LANES)).astype(np.int8)
    most = 2.0**20 if wide else 2.0**11
    greatest = great if wide else min(great, 49)  # a term's bits
    top = int(greatest - np.log2(15 * 127 * width * 2 * high * most))

    def scales() -> np.ndarray:
        mantissa = np.rint(rng.uniform(-most, most, (blocks, groups, LANES)))
        return np.ldexp(mantissa, top - rng.integers(0, 20 if great == 41 else 4, mantissa.shape)).astype(np.float32)

    kind = np.int16 if four else np.int32
    packed = Packed(
        rows, np.empty(0, kind), 8 if minimum else 0, codes, scales(), scales() if minimum else None,
        rng.integers(-40, -20, blocks * LANES), 1 if wide else SPILL, np.float32(rng.choice([1, 0.3])),
    )  # fmt: skip
    x = (rng.normal(size=(tokens, groups * width)) * np.exp2(rng.integers(-30, 3, groups * width))).astype(np.float32)
    got = product(path, packed, x, 4 if four else 8)
    assert bits(got) == bits(expected(packed, x))


def test_terms_that_leave_binary64_are_refused_and_numba_runs(monkeypatch):
    packed = Packed(
        1, np.empty(0, np.int32), 0, np.full((1, 1, 32, LANES), 127, np.int8), np.full((1, 1, LANES), 2.0**30, np.float32),
        None, np.zeros(LANES, np.int64), SPILL, np.float32(1),
    )  # fmt: skip
    for path in EACH:
        found = library.load(path)
        assert isinstance(found, ctypes.CDLL)
        assert lay_out(found, packed, 8, Arena.of(most_bytes(1, 32, 8))) == "terms of 2^51 or more"
    model = random_model(2)
    monkeypatch.setattr("tapeout.graph.native.plan.lay_out", lambda *_: "terms of 2^51 or more")
    for path in EACH:
        engine = FastEngine(model, path=path)
        assert engine.path == f"numba loops, slower than C: {model.graph.ops[2].weight}: terms of 2^51 or more"
        assert bits(engine.step([1, 2], 0)) == bits(FastEngine(model, path="numba").step([1, 2], 0))


def test_an_overflow_names_the_first_of_the_matrices_of_one_vector():
    """Scores, too: attention's own value is named."""
    for seed in range(30):
        model = random_model(seed, layers=1)
        name = f"layers.0.{('q', 'k', 'v', 'gate', 'up', 'down')[seed % 6]}"
        weight = model.weights[name]
        assert isinstance(weight, Matrix)
        scale = np.full_like(weight.scale, GREATEST[weight.format.scale.name])
        huge = {"layers.0.attn_norm": 1e34, "layers.0.ffn_norm": 1e34}
        weights = {**model.weights, name: replace(weight, scale=scale)}
        weights |= {key: weights[key] * np.float32(gain) for key, gain in huge.items()}
        found = set()
        for path in PATHS:
            with pytest.raises(Overflow) as error:
                FastEngine(replace(model, weights=weights), path=path).step([1, 2, 3], 0)
            found.add(error.value.where)
        assert len(found) == 1


def test_without_a_library_numba_runs_and_says_why(monkeypatch):
    model = random_model(4)
    want = FastEngine(model).step([1, 2, 3], 0)
    monkeypatch.setattr(library, "best", lambda: ("", "it was installed without a C compiler"))
    engine = FastEngine(model)
    assert engine.path == "numba loops, slower than C: it was installed without a C compiler"
    assert bits(engine.step([1, 2, 3], 0)) == bits(want)


def test_without_a_compiler_the_build_says_so(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert build.build() == "no C compiler was found"


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "false")
    monkeypatch.setattr(build, "library_path", lambda variant: tmp_path / f"{variant}.so")
    assert build.build() == "false failed: "
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not EACH, reason="there is no C compiler")
def test_a_library_of_other_sources_is_refused(monkeypatch):
    monkeypatch.setattr(build, "digest", lambda: "0" * 16)
    refusal = library._open(build.library_path("portable"))
    assert refusal == "engine-portable.so was compiled from other sources: install again"


def test_a_file_that_is_no_library_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "engine-v3.so"
    path.write_text("no library")
    assert "engine-v3.so does not load" in str(library._open(path))


def test_a_machine_without_avx2_takes_the_portable_variant(monkeypatch):
    old = SimpleNamespace(has_v3=lambda: 0, has_v4=lambda: 0)
    monkeypatch.setattr(library, "load", lambda variant: {"portable": old}[variant])
    assert library.best.__wrapped__() == ("portable", old)


def test_a_machine_takes_the_quickest_variant_that_was_built(monkeypatch):
    new = SimpleNamespace(has_v3=lambda: 1, has_v4=lambda: 1)
    monkeypatch.setattr(library, "load", lambda variant: "not built" if variant == "v4" else new)
    assert library.best.__wrapped__() == ("v3", new)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_still_computes_and_ends():
    """The threads stay with the parent: the child does all pieces itself."""
    model = random_model(7, format="int8", layers=2, width=328, hidden=1000, heads=6, kv_heads=2, context=100)
    engines = [FastEngine(model, threads=3, path=path) for path in EACH]
    want = [bits(engine.step([1, 2, 3], 0)) for engine in engines]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int([bits(engine.step([1, 2, 3], 0)) for engine in engines] != want)
            engines.clear()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_engines_come_and_go_with_their_threads():
    model = random_model(6)
    want = bits(FastEngine(model, path="numba").step([3, 1], 0))
    assert fast.CHUNK <= 64
    for threads in (1, 2, 5, 9, 2, 7):
        for path in EACH:
            assert bits(FastEngine(model, threads=threads, path=path).step([3, 1], 0)) == want
