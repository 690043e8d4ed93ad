"""GPTQ: never worse than rounding on what it was calibrated on, equal to it where inputs say nothing of each other; and its names."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.base.errors import BadInput
from tapeout.graph.check import check_quantized
from tapeout.importers.load import load_model
from tapeout.numerics.formats import FORMATS
from tapeout.quantize import quantize
from tapeout.quantize.gptq import gptq_matrix
from tapeout.quantize.round_to_nearest import encode

EVEN = ("int8", "int4", "int4m", "ternary")
STORY = "Once upon a time, there was a clever boy named Jack. He was always happy. " * 4


@pytest.mark.parametrize("name", EVEN)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_inputs_that_say_nothing_of_each_other_give_round_to_nearest(name: str, seed: int):
    weights = np.random.default_rng(seed).normal(size=(5, 76)).astype(np.float32)
    made, nearest = gptq_matrix("w", weights, np.eye(76), FORMATS[name]), encode("w", weights, FORMATS[name])
    assert np.array_equal(made.scale, nearest.scale)
    assert np.abs(made.to_float() - nearest.to_float()).max() <= 1e-6 + np.abs(nearest.scale).max() * (
        name != "ternary"
    )
    assert (made.codes != nearest.codes).mean() < 0.02  # ties, and float32's last bit


@pytest.mark.parametrize("name", EVEN)
def test_outputs_on_correlated_inputs_are_nearer_than_by_rounding(name: str):
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(40, 96)).astype(np.float32)
    inputs = rng.normal(size=(400, 12)) @ rng.normal(size=(12, 96)) + 0.1 * rng.normal(size=(400, 96))
    made, nearest = gptq_matrix("w", weights, inputs.T @ inputs, FORMATS[name]), encode("w", weights, FORMATS[name])
    lost = [np.square(inputs @ (each.to_float() - weights).T).sum() for each in (made, nearest)]
    assert lost[0] < 0.6 * lost[1]
    assert made.codes.min() >= FORMATS[name].low
    assert made.codes.max() <= FORMATS[name].high


def test_a_whole_model_is_ready_for_the_contract_and_says_how_it_was_made():
    model = load_model("fable")
    made, nearest = quantize(model, "int4+gptq", calibration=STORY, tokens=60), quantize(model, "int4")
    check_quantized(made)
    assert made.graph == nearest.graph
    assert made.weights["embed"] is not None
    assert np.array_equal(made.weights["embed"].codes, nearest.weights["embed"].codes)
    assert not np.array_equal(made.weights["layers.1.down"].codes, nearest.weights["layers.1.down"].codes)
    assert made.notes[-1] == "GPTQ calibrated on 60 tokens"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int4+gtpq", "--weights: 'gtpq' is no method; write FORMAT or FORMAT+METHOD, METHOD one of nearest, gptq"),
        ("stored+gptq", "--weights: stored weights are kept as they are"),
        ("int4+gptq", "--weights: int4+gptq needs a calibration text; run, compile and eval take --calibration FILE"),
    ],
)
def test_what_cannot_be_made_is_refused(name: str, message: str):
    with pytest.raises(BadInput, match=re.escape(message)):
        quantize(load_model("fable"), name)
