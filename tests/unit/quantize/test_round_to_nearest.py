"""Round to nearest: hand-worked groups, bounds that hold for any weights, and what stays as it is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.base.errors import BadInput
from tapeout.graph.check import check_quantized
from tapeout.graph.llama import llama_graph
from tapeout.graph.types import Matrix, Model
from tapeout.numerics.formats import FORMATS, WEIGHTS
from tapeout.numerics.scales import scale_values
from tapeout.quantize import quantize
from tapeout.quantize.round_to_nearest import ENCODERS, encode
from tapeout.quantize.small_floats import e2m1_codes, e4m3_bits


def group(*values: float) -> np.ndarray:
    """One row of one group, the rest zero."""
    return np.array([[*values, *[0.0] * (32 - len(values))]], np.float32)


def test_int8_by_hand():
    matrix = encode("w", group(-12.7, 0.05, 6.35, 12.65), FORMATS["int8"])
    assert matrix.scale.tolist() == [[np.float16(0.1)]]
    assert matrix.codes[0, :5].tolist() == [-127, 1, 64, 127, 0]


def test_int8_rounds_ties_to_even():
    matrix = encode("w", group(127.0, 0.5, 1.5, 2.5, -0.5), FORMATS["int8"])
    assert matrix.codes[0, :5].tolist() == [127, 0, 2, 2, 0]


def test_int4_gives_the_peak_code_minus_8_where_that_is_better():
    matrix = encode("w", group(8.0, 7.0, -3.0, 1.0), FORMATS["int4"])
    assert (matrix.scale.tolist(), matrix.codes[0, :4].tolist()) == ([[-1.0]], [-8, -7, 3, -1])


def test_int4_is_symmetric_where_that_is_better():
    matrix = encode("w", group(7.0, -7.0, 3.0, 1.0), FORMATS["int4"])
    assert (matrix.scale.tolist(), matrix.codes[0, :4].tolist()) == ([[1.0]], [7, -7, 3, 1])


def test_int4m_spans_least_to_greatest():
    matrix = encode("w", np.array([[2.0, 32.0, 4.0, 17.0]], np.float32), FORMATS["int4m"])
    assert matrix.minimum is not None
    assert (matrix.scale.tolist(), matrix.minimum.tolist()) == ([[2.0]], [[2.0]])
    assert matrix.codes.tolist() == [[-8, 7, -7, 0]]
    assert matrix.to_float().tolist() == [[2.0, 32.0, 4.0, 18.0]]


def test_ternary_by_hand():
    matrix = encode("w", np.array([[1.0, -3.0, 0.5, 3.5]], np.float32), FORMATS["ternary"])
    assert (matrix.scale.tolist(), matrix.codes.tolist()) == ([[2.0]], [[0, -1, 0, 1]])


@pytest.mark.parametrize("name", ENCODERS)
def test_the_short_group_at_the_end_has_its_own_scale(name: str):
    group = FORMATS[name].group
    weights = np.ones((3, group + 12), np.float32)
    weights[:, group:] = 64.0
    matrix = encode("w", weights, FORMATS[name])
    assert matrix.scale.shape == (3, 2)
    loose = FORMATS[name].scale.name in ("e4m3", "wide") and FORMATS[name].group == 16  # the scale itself is rounded
    assert np.allclose(matrix.to_float(), weights, rtol=0.05 if loose else 1e-3)


@pytest.mark.parametrize("name", ENCODERS)
def test_zeros_and_the_tiniest_weights_become_zero(name: str):
    for value in (0.0, 1e-30):
        if value and FORMATS[name].scale.name in ("e8m0", "e4m3"):  # whose scales reach as low
            continue
        assert np.abs(encode("w", np.full((2, 32), value, np.float32), FORMATS[name]).to_float()).max() == 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 100), st.floats(1e-3, 100))
def test_errors_stay_within_the_step(seed: int, columns: int, gain: float):
    weights = (np.random.default_rng(seed).normal(size=(4, columns)) * gain).astype(np.float32)
    subnormal = 128 * 2.0**-25  # what a scale of few bits near binary16's smallest may miss
    for name, slack in (("int8", 0.505), ("int4", 1.01), ("int4m", 0.52)):
        matrix = encode("w", weights, FORMATS[name])
        step = np.repeat(np.abs(matrix.scale.astype(np.float32)), 32, axis=1)[:, :columns]
        assert (np.abs(matrix.to_float() - weights) <= slack * step + 1e-3 * np.abs(weights) + subnormal).all()
        assert matrix.codes.min() >= FORMATS[name].low
        assert matrix.codes.max() <= FORMATS[name].high


def test_small_floats_by_hand():
    """MXFP4: the peak 5 has exponent 2, so the scale is 1, and codes are doubled; ties to the even pattern; 7.9 / 2 saturates nothing."""
    matrix = encode("w", group(5.0, 0.25, 0.75, -1.25, 1.75, 2.5, 3.5, -0.1), FORMATS["mxfp4"])
    assert (matrix.scale.tolist(), matrix.codes[0, :8].tolist()) == ([[127]], [8, 0, 2, -2, 4, 4, 8, 0])
    assert encode("w", group(7.9), FORMATS["mxfp4"]).codes[0, 0] == 12
    matrix = encode(
        "w", np.array([[6 * 448.0, 448.0] + [0.0] * 14 + [6.0 * 20] + [0.0] * 15], np.float32), FORMATS["nvfp4"]
    )
    assert (matrix.factor, matrix.scale.tolist()) == (1.0, [[126, 0x5A]])  # 448 and 20 = 1.25 * 2^4
    assert matrix.codes[0, [0, 1, 16]].tolist() == [12, 2, 12]


def test_every_small_float_is_its_own_nearest():
    stored = np.arange(127, dtype=np.uint8)
    values = 2 * scale_values(FORMATS["nvfp4"].scale, stored, np.float32)
    assert np.array_equal(e4m3_bits(values), stored)
    between = (values[:-1] + values[1:]) / 2
    assert np.array_equal(e4m3_bits(between), (stored[:-1] + 1) // 2 * 2)
    codes = np.array([[[*range(-12, 13)]]], np.float32)
    nearest = e2m1_codes(codes, np.ones((1, 1)))
    assert nearest.tolist() == [
        [[-12, -12, -8, -8, -8, -8, -6, -4, -4, -3, -2, -1, 0, 1, 2, 3, 4, 4, 6, 8, 8, 8, 8, 12, 12]]
    ]


@pytest.mark.parametrize("name", ["q4_k", "q5_k", "q6_k"])
def test_k_quants_share_a_scale_and_lose_little(name: str):
    weights = np.random.default_rng(2).normal(size=(6, 600)).astype(np.float32)
    matrix = encode("w", weights, FORMATS[name])
    error = np.sqrt(np.mean((matrix.to_float() - weights) ** 2))
    assert error < {"q4_k": 0.1, "q5_k": 0.05, "q6_k": 0.025}[name]
    fields = matrix.scale[0] >> 18 & 31
    count = 256 // FORMATS[name].group
    assert all(len(set(fields[at : at + count].tolist())) == 1 for at in range(0, 512 // FORMATS[name].group, count))


def test_a_mix_gives_six_bits_to_tables_values_and_down_projections():
    model = quantize(float_model(), "int3_6")
    check_quantized(model)
    fine = {kind.name for kind in model.graph.weights if kind.format == "int6"}
    assert fine == {"embed", "head", "layers.0.v", "layers.0.down"}
    assert {kind.format for kind in model.graph.weights if kind.name not in fine} == {"int3", "f32"}
    assert model.notes == ("matrices rounded to the nearest int3, V and down projections int6, embed and head to int6",)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch):
    weights = np.random.default_rng(1).normal(size=(50, 70)).astype(np.float32)
    whole = encode("w", weights, FORMATS["int4m"])
    monkeypatch.setattr("tapeout.quantize.round_to_nearest.BLOCK_WEIGHTS", 210)
    assert np.array_equal(encode("w", weights, FORMATS["int4m"]).codes, whole.codes)


def float_model(tied: bool = False) -> Model:
    graph = llama_graph("m", 40, 64, 64, 1, 2, 1, 32, 128, 1e4, 1e-5, {}, tied)
    rng = np.random.default_rng(0)
    weights = {kind.name: rng.normal(size=kind.shape).astype(np.float32) for kind in graph.weights}
    return Model(graph, weights)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_whole_model_is_ready_for_the_contract(name: str):
    model = quantize(float_model(), name)
    check_quantized(model)
    table = name if FORMATS[name].code_bits == 8 else "int8"
    assert [model.graph.weight(weight).format for weight in ("embed", "head")] == [table, table]
    assert model.graph.weight("layers.0.down").format == name
    assert model.graph.weight("norm").format == "f32"


def test_notes_name_the_tables_that_stay_int8():
    assert quantize(float_model(), "int8").notes == ("matrices rounded to the nearest int8",)
    assert quantize(float_model(), "int4").notes == ("matrices rounded to the nearest int4, embed and head to int8",)
    assert quantize(float_model(tied=True), "ternary").notes == (
        "matrices rounded to the nearest ternary, embed to int8",
    )


def test_stored_and_the_model_s_own_format_change_nothing():
    for model in (float_model(), quantize(float_model(), "int4")):
        assert quantize(model, "stored") is model
    assert quantize(model, "int4") is model


def test_a_second_quantization_is_told():
    once = quantize(float_model(), "int4")
    twice = quantize(once, "int8")
    assert twice.notes[-1] == "quantized twice: int4 -> int8 (7 matrices)"
    assert twice.weights["embed"] is once.weights["embed"]
    check_quantized(twice)
    down, again = once.weights["layers.0.down"], twice.weights["layers.0.down"]
    assert isinstance(down, Matrix)
    assert isinstance(again, Matrix)
    assert np.array_equal(again.to_float(), encode("w", down.to_float(), FORMATS["int8"]).to_float())


def test_a_shape_only_model_changes_its_types():
    model = quantize(replace(float_model(), weights={}), "int4")
    assert model.weights == {}
    assert model.graph.weight("layers.0.q").format == "int4"


def test_an_unknown_format_is_refused():
    with pytest.raises(BadInput) as caught:
        quantize(float_model(), "int5")
    assert str(caught.value) == "--weights: 'int5' is no format; choose from stored, " + ", ".join(WEIGHTS)


def test_groups_that_do_not_divide_a_matrix_are_refused_with_those_that_do():
    graph = llama_graph("m", 40, 64, 96, 1, 3, 1, 32, 128, 1e4, 1e-5, {}, True)
    with pytest.raises(BadInput) as caught:
        quantize(Model(graph), "int4g64")
    assert str(caught.value) == "weight layers.0.q: has 96 columns, no groups of 64 (int4g64); groups of 16 and 32 do"


@pytest.mark.parametrize("name", [name for name in ENCODERS if FORMATS[name].scale.name not in ("e8m0", "e4m3")])
def test_a_scale_too_large_for_binary16_is_refused(name: str):
    model = float_model()
    weights = dict(model.weights)
    weights["layers.0.up"] = np.full((128, 64), 3e38, np.float32)
    weights["layers.0.up"][:, ::2] *= -1
    with pytest.raises(BadInput) as caught:
        quantize(replace(model, weights=weights), name)
    assert str(caught.value) == (
        f"weight layers.0.up: has weights up to 3e+38, whose scale does not fit {FORMATS[name].scale.name} in {name}"
    )


def test_every_format_of_the_table_has_a_method():
    assert ENCODERS.keys() == FORMATS.keys()
