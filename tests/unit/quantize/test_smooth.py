"""Smoothing: the same model in float, whatever its family; codes that lose less where inputs differ in strength."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import random_tokens
from styles import STYLES, family_model
from tapeout.graph.check import check_quantized
from tapeout.graph.float_mode import FloatEngine
from tapeout.graph.types import Linear, Model
from tapeout.importers.load import load_model
from tapeout.quantize.methods import METHODS, quantize
from tapeout.quantize.smooth import pairs_of, smooth


def loud(model: Model, seed: int) -> Model:
    """The model with strong and weak channels behind its norms, as trained models have them."""
    rng = np.random.default_rng(seed)
    for name, weight in model.weights.items():
        if name.endswith(("attn_norm", "ffn_norm")):
            assert isinstance(weight, np.ndarray)
            weight *= np.exp(1.5 * rng.normal(size=weight.shape)).astype(np.float32)
    return model


def logits(model: Model, ids: list[int]) -> np.ndarray:
    return FloatEngine(model, len(ids), np.float64).step(ids, 0, every=True)


@pytest.mark.parametrize("style", STYLES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=4, deadline=None)
def test_the_smoothed_model_computes_the_same_in_float(style: str, seed: int):
    model = loud(family_model(style, seed, form="int8"), seed)
    ids = random_tokens(seed, model, 12)
    made, before = logits(smooth(model, "int4", [ids]), ids), logits(model, ids)
    assert np.abs(made - before).max() <= 2e-4 * (1 + np.abs(before).max())


@pytest.mark.parametrize("style", STYLES)
def test_every_vector_that_allows_it_is_scaled(style: str):
    found = {pair.value for pair in pairs_of(family_model(style, form="int8").graph)}
    vectors = ("attn_in", "attn", "ffn_in", "h") if STYLES[style].gated else ("attn_in", "attn", "ffn_in")
    assert found == {f"l{layer}.{value}" for layer in range(3) for value in vectors}


@pytest.mark.parametrize("name", ["int4", "int4m", "int3", "q4_k"])
def test_outputs_lose_less_where_channels_differ_in_strength(name: str):
    model = loud(family_model("qwen3", 5, form="int8"), 5)
    ids = random_tokens(1, model, 60)
    smoothed = quantize_ids(model, f"{name}+smooth", ids)
    check_quantized(smoothed)
    rounded = quantize_ids(model, name, ids)
    exact = logits(model, ids)
    lost = [np.square(logits(each, ids) - exact).sum() for each in (smoothed, rounded)]
    assert lost[0] < 0.9 * lost[1]


def test_what_rounding_to_three_values_would_lose_by_it_is_left_as_it_is():
    model = loud(family_model("qwen3", 5, form="int8"), 5)
    ids = random_tokens(1, model, 60)
    smoothed, rounded = (quantize_ids(model, name, ids) for name in ("ternary+smooth", "ternary"))
    assert any(line.endswith("vectors by alpha: 12 by 0") for line in smoothed.notes)
    assert np.array_equal(logits(smoothed, ids), logits(rounded, ids))


def quantize_ids(model: Model, name: str, ids: list[int]) -> Model:
    """As `quantize` does, with the tokens instead of their text."""
    form, *methods = name.split("+")
    for method in (*methods, "nearest"):
        model = METHODS[method].step(model, form, [ids], lambda text: None)
    return model


def test_it_goes_before_gptq_and_the_notes_say_both():
    made = quantize(
        load_model("fable"), "int4+smooth+gptq", calibration="Once upon a time there was a fox. " * 4, tokens=50
    )
    check_quantized(made)
    assert made.notes[-1] == "GPTQ calibrated on 50 tokens"
    assert any(line.startswith("smoothed on 50 tokens: vectors by alpha: ") for line in made.notes)
    inside = {op.weight for op in made.graph.ops if isinstance(op, Linear) and op.layer >= 0}
    assert {made.graph.weight(name).format for name in inside} == {"int4"}
