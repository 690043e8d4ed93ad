"""Small random quantized models in every family's style, for everyone's tests. Same seed, same model."""

import numpy as np

from strategies import random_weights
from tapeout.graph.llama import llama_graph
from tapeout.graph.style import Style
from tapeout.graph.types import Model
from tapeout.numerics.formats import FORMATS

LAYERS = 3

STYLES: dict[str, Style] = {
    "qwen2": Style(qkv_bias=True),
    "qwen3": Style(qk_norm=True),
    "mistral": Style(window=7, local_layers=(True,) * LAYERS),
    "phi3": Style(window=5, local_layers=(True,) * LAYERS, rotary=8),
    "llama 3.1": Style(factors=(1.0, 1.0, 2.5, 4.0, 8.0, 8.0, 8.0, 8.0)),
    "gemma": Style(activation="gelu", embed_scale=6.5),
    "gpt2": Style(
        positions=True, layer_norm=True, qkv_bias=True, biases=True, gated=False, activation="gelu",
    ),
    "gemma2": Style(
        activation="gelu", embed_scale=6.5, post_norms=True, scalar=20.0, score_cap=5.0, logit_cap=3.0, window=6,
        local_layers=(True, False, True),
    ),
    "gemma3": Style(
        activation="gelu", embed_scale=6.5, post_norms=True, qk_norm=True, scalar=20.0, window=9, local_theta=100.0,
        local_layers=(True, True, False), factors=(8.0,) * 8,
    ),
    "everything": Style(
        True, True, True, True, True, "gelu", True, 3.25, False, 8, (1.0, 2.0, 3.0, 4.0), (True, False, True), 4, 50.0,
        9.0, 6.0, 4.0,
    ),
}  # fmt: skip
"""By family; "everything" is no family's."""


def family_model(name: str, seed: int = 0, form: str = "mixed", tied: bool = False) -> Model:
    """A model of three layers, width 72 (no multiple of 32), 4 heads of 16 over 2 KV heads; `form`: a format, or mixed ones."""
    rng = np.random.default_rng(seed)
    style = STYLES[name]
    shape = ("random", 70, 64, 72, LAYERS, 4, 2, 16, 100, 10000.0, 1e-5)
    kinds = llama_graph(*shape, {}, tied, style).weights
    formats = {
        kind.name: str(rng.choice(list(FORMATS))) if form == "mixed" else form for kind in kinds if len(kind.shape) == 2
    }
    graph = llama_graph(*shape, formats, tied, style)
    weights = random_weights(rng, graph, odd=False)
    for kind in graph.weights:
        if kind.name.endswith("_bias"):
            weights[kind.name] = rng.normal(0.0, 0.5, kind.shape).astype(np.float32)
    return Model(graph, weights, source="random", stored=form)
