"""GPTQ: the codes that its slow definition gives, outputs nearer than by rounding on what it was calibrated on, and its names."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from strategies import random_tokens
from styles import STYLES, family_model
from tapeout.base.errors import BadInput
from tapeout.graph.check import check_quantized
from tapeout.graph.types import Matrix
from tapeout.importers.load import load_model
from tapeout.numerics.formats import FORMATS
from tapeout.quantize import quantize
from tapeout.quantize.gptq import EVEN, damped, gptq, gptq_matrix, scaled, turns_of
from tapeout.quantize.round_to_nearest import encode

STORY = "Once upon a time, there was a clever boy named Jack. He was always happy. " * 4


def random_layer(seed: int, rows: int, columns: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Weights, and inputs [tokens, columns] that go together and differ in power."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(3 * columns, columns // 4)) @ rng.normal(size=(columns // 4, columns))
    inputs = (inputs + rng.normal(size=inputs.shape)) * np.exp(rng.normal(size=columns))
    return rng.normal(size=(rows, columns)).astype(np.float32), inputs


def by_definition(weights: NDArray[np.float32], hessian: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """The values that GPTQ ends with: a column rounded, all those left set to what loses least with it, by solving for them anew."""
    form, exact, h = FORMATS[name], weights.astype(np.float64), damped(hessian)
    made, now, rounded = exact.copy(), exact.copy(), []
    for turn in turns_of(np.diagonal(hessian), form.group):
        left = [c for c in range(len(h)) if c not in rounded]
        counts = np.array([1 / np.linalg.inv(h[np.ix_(f, f)])[0, 0] for f in _shrinking(left, turn)])
        group = scaled("w", now[:, turn], counts, form)
        for column in turn:
            one = scaled_to(group, now[:, column])
            made[:, column] = one
            rounded.append(column)
            left = [c for c in range(len(h)) if c not in rounded]
            missed = (made - exact)[:, rounded] @ h[np.ix_(rounded, left)]
            now[:, left] = exact[:, left] - np.linalg.solve(h[np.ix_(left, left)], missed.T).T
    return made


def _shrinking(left: list[int], turn: NDArray[np.int64]) -> list[list[int]]:
    """Per column of a turn, itself and all that come behind it."""
    return [[c, *(d for d in left if d not in turn[: at + 1])] for at, c in enumerate(turn)]


def scaled_to(group: Matrix, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest values of a group's codes, by trying every code."""
    form = group.format
    codes = np.arange(form.low, form.high + 1) + form.offset
    minimum = 0 if group.minimum is None else group.minimum.astype(np.float64)
    values = group.scale.astype(np.float64) * codes + minimum
    return values[np.arange(len(values)), np.abs(values - numbers[:, None]).argmin(axis=1)]


@pytest.mark.parametrize("name", EVEN)
def test_it_ends_with_the_values_of_its_definition(name: str):
    columns = 80 if FORMATS[name].group == 32 else 128
    weights, inputs = random_layer(3, 6, columns)
    made = gptq_matrix("w", weights, inputs.T @ inputs, FORMATS[name]).to_float(np.float64)
    assert np.abs(made - by_definition(weights, inputs.T @ inputs, name)).max() < 1e-6


@pytest.mark.parametrize("name", EVEN)
@given(seed=st.integers(0, 2**32 - 1), columns=st.sampled_from((64, 128, 192)))
@settings(max_examples=15, deadline=None)
def test_outputs_are_nearer_than_by_rounding_on_what_it_was_calibrated_on(name: str, seed: int, columns: int):
    weights, inputs = random_layer(seed, 24, columns)
    made, nearest = gptq_matrix("w", weights, inputs.T @ inputs, FORMATS[name]), encode("w", weights, FORMATS[name])
    lost = [np.square(inputs @ (each.to_float() - weights).T).sum() for each in (made, nearest)]
    assert lost[0] < 0.9 * lost[1]
    assert made.codes.min() >= FORMATS[name].low
    assert made.codes.max() <= FORMATS[name].high


@pytest.mark.parametrize("name", EVEN)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_inputs_that_say_nothing_of_each_other_lose_no_row_against_rounding(name: str, seed: int):
    weights = np.random.default_rng(seed).normal(size=(5, 128)).astype(np.float32)
    made, nearest = gptq_matrix("w", weights, np.eye(128), FORMATS[name]), encode("w", weights, FORMATS[name])
    lost = [np.square(each.to_float(np.float64) - weights).sum(axis=1) for each in (made, nearest)]
    assert (lost[0] <= lost[1] * (1 + 1e-6)).all()


def test_inputs_that_are_always_zero_and_scales_at_the_end_of_binary16_do_no_harm():
    weights = np.full((2, 64), 450_000, np.float32)
    made = gptq_matrix("w", weights, np.zeros((64, 64)), FORMATS["int4"])
    assert np.isfinite(made.scale).all()
    assert np.abs(made.to_float() - weights).max() < 40_000


@pytest.mark.parametrize("style", STYLES)
def test_a_model_of_every_family_comes_out_ready_for_the_contract(style: str):
    model = family_model(style, form="int8")
    windows = [random_tokens(seed, model, 20) for seed in (1, 2)]
    made = gptq(model, "int4", windows)
    check_quantized(made)
    assert {kind.format for kind in made.graph.weights if ".down" in kind.name and len(kind.shape) == 2} == {"int4"}


def test_a_whole_model_says_how_it_was_made_and_its_tables_are_rounded():
    model = load_model("fable")
    made, nearest = quantize(model, "int4+gptq", calibration=STORY, tokens=60), quantize(model, "int4")
    check_quantized(made)
    assert made.graph == nearest.graph
    tables, downs = [[m.weights[name] for m in (made, nearest)] for name in ("embed", "layers.1.down")]
    assert all(isinstance(each, Matrix) for each in (*tables, *downs))
    assert np.array_equal(tables[0].codes, tables[1].codes)
    assert not np.array_equal(downs[0].codes, downs[1].codes)
    assert made.notes[-1] == "GPTQ calibrated on 60 tokens"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int4+gtpq", "--weights: 'gtpq' is no method; write FORMAT or FORMAT+METHOD, METHOD one of nearest, gptq"),
        ("stored+gptq", "--weights: stored weights are kept as they are"),
        ("int4+gptq", "--weights: int4+gptq needs a calibration text; run, compile and eval take --calibration FILE"),
        ("int4+gptq+smooth", "--weights: int4+gptq+smooth cannot be done in this order; each once, nearest and gptq last"),
        *(
            (f"{form}+gptq", f"--weights: gptq does not make {form}; it makes int8, int4, int4m, ternary, int8g64")
            for form in ("mxfp4", "nvfp4", "q4_k", "binary", "int3_6")
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(name: str, message: str):
    with pytest.raises(BadInput, match=re.escape(message)):
        quantize(load_model("fable"), name)
