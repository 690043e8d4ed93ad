"""Smoothing: what a vector is multiplied with before a matrix reads it is divided out of what made the vector, channel by channel.

The model stays the same but for rounding, and channels with strong inputs get more of their group's codes (the idea of SmoothQuant,
Xiao et al. 2022, and AWQ, Lin et al. 2023). Three things that make a vector can carry the division: the weight (and bias) of a norm;
the rows of the matrix that makes `up`; the rows that make V, shared by the query heads of a KV head. The scale of a channel is
power^(alpha/2) of its input in a calibration text, with one alpha per vector: the one that loses least when the matrices that read
it are rounded to the nearest, each column's error weighed by its input's power.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tapeout.graph.types import (
    AddBias,
    Attention,
    GeGLU,
    Graph,
    LayerNorm,
    Linear,
    Model,
    Op,
    RMSNorm,
    SwiGLU,
    Weight,
    as_float,
    op_inputs,
    op_weights,
)
from tapeout.numerics.formats import FORMATS, Format
from tapeout.quantize.round_to_nearest import check_groups, encode
from tapeout.quantize.walk import Walk

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

ALPHAS = (0.0, 0.25, 0.5, 0.75)
"""That are tried, the first on a tie: 0 leaves a vector as it is."""

LEAST = 1e-4
"""Of the strongest input's root mean square: weaker ones count as this strong."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A vector whose channels can be scaled. readers: the matrices that read it; makers: the weights whose rows (or numbers) make it;
    channel: per column of the readers, the row of the makers.
    """

    value: str
    readers: tuple[str, ...]
    makers: tuple[str, ...]
    channel: NDArray[np.int64]


def smooth(
    model: Model,
    format_name: str,
    calibration: Sequence[Sequence[int]],
    note: Callable[[str], None] = lambda text: None,
) -> Model:
    """The model with smoothed float matrices, made for a format. calibration: windows of token ids, each read by itself."""
    check_groups(model.graph, format_name)
    pairs = {pair.value: pair for pair in pairs_of(model.graph)}
    note(f"smooth: reading what {len(pairs)} vectors are like")
    powers = _powers(model, calibration, pairs)
    inside = {op.weight for op in model.graph.ops if isinstance(op, Linear) and op.layer >= 0}
    weights = {name: as_float(weight) if name in inside else weight for name, weight in model.weights.items()}
    chosen = Counter(_apply(weights, pair, powers[pair.value], FORMATS[format_name]) for pair in pairs.values())
    kinds = tuple(replace(kind, format="f32") if kind.name in inside else kind for kind in model.graph.weights)
    stored = {kind.format for kind in model.graph.weights if kind.name in inside} - {"f32"}
    told = ", ".join(f"{count} by {alpha:g}" for alpha, count in sorted(chosen.items()))
    notes = [f"smoothed on {sum(map(len, calibration)):,} tokens: vectors by alpha: {told}"]
    notes += [f"quantized twice: {', '.join(sorted(stored))} dequantized and smoothed -> {format_name}"] * bool(stored)
    return replace(
        model, graph=replace(model.graph, weights=kinds), weights=weights, notes=(*model.notes, *notes), stored="f32"
    )


def pairs_of(graph: Graph) -> list[Pair]:
    """Every vector that can be scaled exactly: only matrices inside layers read it, and nothing else uses what makes it."""
    writers = {op.out: op for op in graph.ops}
    readers: dict[str, list[Op]] = {}
    for op in graph.ops:
        for name in op_inputs(op):
            readers.setdefault(name, []).append(op)
    uses = Counter(name for op in graph.ops for name in op_weights(op))
    found = []
    for op in graph.ops:
        made, width = _makers(op, writers, readers), graph.width(op.out)
        reading = [each for each in readers.get(op.out, []) if isinstance(each, Linear) and each.layer >= 0]
        names = tuple(each.weight for each in reading)
        whole = bool(made and reading) and len(reading) == len(readers[op.out])
        if whole and all(uses[name] == 1 for name in (*made, *names)):
            found.append(Pair(op.out, names, made, _channels(op, width)))
    return found


def _makers(op: Op, writers: Mapping[str, Op], readers: Mapping[str, list[Op]]) -> tuple[str, ...]:
    """The weights that a channel of an op's value is proportional to; () where there are none."""
    if isinstance(op, RMSNorm | LayerNorm):
        return op_weights(op)
    source = op.up if isinstance(op, SwiGLU | GeGLU) else op.v if isinstance(op, Attention) else ""
    made: tuple[str, ...] = ()
    while source and len(readers[source]) == 1:
        writer = writers[source]
        if isinstance(writer, Linear):
            return (*made, writer.weight)
        if not isinstance(writer, AddBias):
            return ()
        made, source = (*made, writer.bias), writer.x
    return ()


def _channels(op: Op, width: int) -> NDArray[np.int64]:
    if not isinstance(op, Attention):
        return np.arange(width)
    head, at = np.divmod(np.arange(width), op.head_dim)
    return head // (op.heads // op.kv_heads) * op.head_dim + at


def _powers(model: Model, calibration: Sequence[Sequence[int]], pairs: Mapping[str, Pair]) -> dict[str, F64]:
    walk, powers = Walk(model, calibration), {}
    for op in walk.ops:
        walk.run(op)
        if op.out in pairs:
            powers[op.out] = walk.power(op.out)
    return powers


def _apply(weights: dict[str, Weight], pair: Pair, power: F64, form: Format) -> float:
    """Scale one vector, in `weights`; the alpha that was chosen."""
    matrices = {name: as_float(weights[name]) for name in pair.readers}
    shared = np.bincount(pair.channel, power) / np.bincount(pair.channel)
    scales = {alpha: _scale(shared, alpha) for alpha in ALPHAS}
    alpha = min(ALPHAS, key=lambda each: _lost(matrices, scales[each][pair.channel], power, form))
    scale = scales[alpha]
    for name, matrix in matrices.items():
        weights[name] = matrix * scale[pair.channel]
    for name in pair.makers:
        made = as_float(weights[name])
        weights[name] = _flushed(made / (scale if made.ndim == 1 else scale[:, None]))
    return alpha


def _scale(power: F64, alpha: float) -> F32:
    """[channels], their geometric mean 1."""
    size = np.sqrt(power)
    size = np.maximum(size, LEAST * size.max()) if size.any() else np.ones_like(size)
    logs = alpha * np.log(size)
    return np.exp(logs - logs.mean()).astype(np.float32)


def _lost(matrices: Mapping[str, F32], scale: F32, power: F64, form: Format) -> float:
    """Squared error of the outputs by round to nearest, were the inputs independent."""
    lost = 0.0
    for name, matrix in matrices.items():
        made = encode(name, matrix * scale, form).to_float() / scale
        lost += float(np.square(made - matrix).sum(axis=0, dtype=np.float64) @ power)
    return lost


def _flushed(numbers: F32) -> F32:
    """Subnormal numbers as the contract has them: 0."""
    return np.where(np.abs(numbers) < np.finfo(np.float32).tiny, np.float32(0), numbers)
