"""Small random things for everyone's tests: Llama-shaped quantized models. Same seed, same model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tapeout.graph.llama import llama_graph
from tapeout.graph.types import Graph, Matrix, Model, Weight, WeightType
from tapeout.isa.layout import per_block
from tapeout.numerics.formats import FORMATS, Format
from tapeout.numerics.scales import wide_scale

MIXED = "mixed"
"""A format name for `random_model`: every matrix draws its own format."""
GREATEST = {"binary16": 65504, "e8m0": 220, "e4m3": 126, "wide": 30 << 18 | 0x3FFFF}
"""By kind, the greatest scale (of e8m0 one whose product with an activation is still binary32)."""


def random_matrix(
    rng: np.random.Generator, rows: int, columns: int, form: Format, gain: float = 1.0, odd: bool = True
) -> Matrix:
    """A matrix whose product with a unit-size vector is about `gain`; codes reach both ends of their range.

    `odd` sprinkles in what a careless kernel gets wrong: negative, zero and subnormal scales, an all-zero row, and (in
    some matrices) scales spread over many octaves so that terms are shifted right.
    """
    groups = -(-columns // form.group)
    codes = rng.integers(form.low, form.high + 1, (rows, columns)).astype(np.int8)
    if form.values:
        codes = rng.choice(np.array(form.values, np.int8), (rows, columns))
    spread = 6.0 if odd and rng.random() < 0.3 else 0.5
    base = gain / (max(1.0, form.high * 0.6) * np.sqrt(columns))
    scale = (base * np.exp2(rng.uniform(-spread, 0.5, (rows, groups)))).astype(np.float16)
    if form.scale.name != "binary16":
        return _with_bits(rng, form, codes, scale, odd)
    minimum = None
    if form.has_minimum:
        minimum = (-scale.astype(np.float32) * rng.uniform(6.5, 8.5, (rows, groups))).astype(np.float16)
    if odd:
        pick = rng.random((rows, groups))
        scale[pick < 0.02] *= np.float16(-1)
        scale[(pick >= 0.02) & (pick < 0.04)] = 0
        scale[(pick >= 0.04) & (pick < 0.05)] = np.float16(-0.0)
        scale[(pick >= 0.05) & (pick < 0.07)] = np.float16(5 * 2.0**-24)
        if rng.random() < 0.5:
            row = rng.integers(rows)
            scale[row] = 0
            if minimum is not None:
                minimum[row] = 0
        if minimum is not None:
            minimum[pick > 0.97] = 0
    return Matrix(form, codes, scale, minimum)


def _with_bits(rng: np.random.Generator, form: Format, codes: NDArray, about: NDArray[np.float16], odd: bool) -> Matrix:
    """A matrix whose scales are no binary16 but bits: about as large; with `odd` the least ones and zeros too."""
    pick = rng.random(about.shape)
    if form.scale.name == "e8m0":
        bits = (np.round(np.log2(about.astype(np.float64))) + 128).astype(np.uint8)
        if odd:
            bits[pick < 0.05] = rng.integers(0, 60)
            bits[rng.integers(len(bits))] = 0
        return Matrix(form, codes, bits)
    if form.scale.name == "e4m3":
        bits = rng.integers(0x30, 0x50, about.shape).astype(np.uint8)
        if odd:
            bits[pick < 0.1] = rng.integers(0, 127)
            bits[pick < 0.03] = 0
        return Matrix(form, codes, bits, factor=float(np.float32(np.median(about.astype(np.float64)))))
    by = rng.integers(1, 64, about.shape) if form.has_minimum else rng.integers(-128, 128, about.shape)
    scale = wide_scale((about / np.float16(32)).astype(np.float16), by)
    if not form.has_minimum:
        return Matrix(form, codes, scale)
    least = wide_scale((about * np.float16(-0.2)).astype(np.float16), rng.integers(0, 64, about.shape))
    if odd:
        scale[pick < 0.03] = 0
        least[pick > 0.97] |= 1 << 23
    return Matrix(form, codes, scale, least)


def stored_per_block(matrix: Matrix) -> tuple[NDArray, NDArray | None]:
    """Scales and minima as `isa.layout` packs them: one per block of 16 or 32 columns."""
    form, columns = matrix.format, matrix.codes.shape[1]
    minimum = None if matrix.minimum is None else per_block(form, matrix.minimum, columns)
    return per_block(form, matrix.scale, columns), minimum


def block_bits(form: Format, stored: NDArray, columns: int) -> list[list[int]]:
    """Scales or minima of a matrix as bits, one per block of 16 or 32 columns."""
    bits = stored.view(np.uint16) if stored.dtype == np.float16 else stored
    return [[row[at // form.group] for at in range(0, columns, form.block)] for row in bits.tolist()]


def random_weights(rng: np.random.Generator, graph: Graph, odd: bool = True) -> dict[str, Weight]:
    """Weights for every row of `graph.weights`: matrices in their format, norms near one, float matrices Gaussian."""

    def one(kind: WeightType) -> Weight:
        if len(kind.shape) == 1:
            return rng.normal(1.0, 0.3, kind.shape).astype(np.float32)
        rows, columns = kind.shape
        gain = np.sqrt(columns) if kind.name == "embed" else 1.0
        if kind.format == "f32":
            return (rng.normal(0.0, 1.0, kind.shape) * gain / np.sqrt(columns)).astype(np.float32)
        return random_matrix(rng, rows, columns, FORMATS[kind.format], gain, odd)

    return {kind.name: one(kind) for kind in graph.weights}


def random_graph(
    rng: np.random.Generator,
    *,
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    hidden: int | None = None,
    vocabulary: int | None = None,
    context: int = 64,
    format: str | None = None,  # noqa: A002
    tied: bool | None = None,
    theta: float = 10000.0,
    eps: float | None = None,
) -> Graph:
    """A small Llama-shaped graph; whatever is left out is drawn.

    Drawn widths are 16..128 in steps of 8, so many are no multiple of 32. `format`: a name of FORMATS, "f32", "mixed".
    """

    def draw(given: int | None, choices: Sequence[int]) -> int:
        drawn = int(rng.choice(choices))
        return drawn if given is None else given

    n_layers = draw(layers, (1, 2, 3))
    n_kv = draw(kv_heads, (1, 2, 3))
    if heads is not None and kv_heads is None:
        n_kv = max(n for n in range(1, n_kv + 1) if heads % n == 0)
    n_heads = draw(heads, (n_kv, 2 * n_kv, 3 * n_kv))
    dim = draw(head_dim, (8, 16, 32, 64))
    n_width = draw(width, range(16, 129, 8))
    n_hidden = draw(hidden, range(16, 193, 8))
    n_vocabulary = draw(vocabulary, range(40, 100))
    kind = format or str(rng.choice([*FORMATS, MIXED]))
    tie = bool(rng.random() < 0.5)
    matrices = ["embed", "head"]
    matrices += [f"layers.{i}.{part}" for i in range(n_layers) for part in ("q", "k", "v", "o", "gate", "up", "down")]
    formats = {name: str(rng.choice(list(FORMATS))) if kind == MIXED else kind for name in matrices}
    return llama_graph(
        name="random",
        vocabulary=n_vocabulary,
        context=context,
        width=n_width,
        layers=n_layers,
        heads=n_heads,
        kv_heads=n_kv,
        head_dim=dim,
        hidden=n_hidden,
        theta=theta,
        eps=float(rng.choice([1e-5, 1e-6])) if eps is None else eps,
        formats=formats,
        tied=tie if tied is None else tied,
    )


def random_model(seed: int | np.random.Generator, *, odd: bool = True, **shape) -> Model:
    """A small random quantized model; `shape` fixes any argument of `random_graph`."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, **shape)
    weights = random_weights(rng, graph, odd)
    formats = {kind.format for kind in graph.weights if len(kind.shape) == 2}
    return Model(graph, weights, source="random", stored=formats.pop() if len(formats) == 1 else MIXED)


def random_tokens(seed: int | np.random.Generator, model: Model, count: int) -> list[int]:
    """`count` token ids below the model's vocabulary."""
    rng = np.random.default_rng(seed)
    return [int(i) for i in rng.integers(0, model.graph.vocabulary, count)]


def odd_float32(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Finite binary32 of any exponent: subnormal, huge, -0; for exercising quantizer and rounding."""
    bits = rng.integers(0, 1 << 32, count, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32).copy()
    x[~np.isfinite(x)] = np.float32(1.5)
    pick = rng.random(count)
    x[pick < 0.1] = np.float32(-0.0)
    x[(pick > 0.1) & (pick < 0.2)] = np.float32(0.0)
    return x
