"""The walk over a calibration text: float mode's numbers, and inputs of which no single token says all."""

import numpy as np

from strategies import random_tokens
from styles import family_model
from tapeout.graph.float_mode import FloatEngine
from tapeout.graph.types import Linear
from tapeout.quantize.walk import LONGEST, Walk


def test_it_computes_what_float_mode_computes_and_ends_before_the_head():
    model = family_model("gemma2", form="int8")
    windows = [random_tokens(seed, model, 10 + seed) for seed in range(3)]
    walk = Walk(model, windows)
    for op in walk.ops:
        walk.run(op)
    assert walk.ops[-1].out == "final"
    head = walk.weight("head").T
    for ids, values in zip(windows, walk.values("final"), strict=True):
        logits = np.tanh(values @ head / np.float32(3)) * np.float32(3)
        assert np.allclose(logits, FloatEngine(model).step(ids, 0, every=True), atol=1e-5)


def test_a_token_that_is_longer_than_all_others_counts_as_some_medians_and_short_ones_as_they_are():
    model = family_model("qwen2", form="int8")
    walk = Walk(model, [random_tokens(seed, model, 20) for seed in range(2)])
    for op in walk.ops:
        if isinstance(op, Linear) and op.weight == "layers.0.up":
            break
        walk.run(op)
    values = walk.values("l0.ffn_in")
    values[1][0] *= 1000
    median = np.median(np.linalg.norm(np.concatenate(values), axis=1))
    limited = walk.inputs("l0.ffn_in")
    assert np.isclose(np.linalg.norm(limited[1][0]), LONGEST * median)
    assert np.array_equal(limited[0], values[0])
    assert np.array_equal(limited[1][1:], values[1][1:])
    every = np.concatenate(limited).astype(np.float64)
    assert np.allclose(walk.second_moment("l0.ffn_in"), every.T @ every, rtol=1e-4, atol=1e-4)
