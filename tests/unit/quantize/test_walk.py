"""The walk over a calibration text: float mode's numbers."""

import numpy as np

from strategies import random_tokens
from styles import family_model
from tapeout.graph.float_mode import FloatEngine
from tapeout.quantize.walk import Walk


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
