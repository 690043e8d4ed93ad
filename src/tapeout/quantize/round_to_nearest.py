"""Float matrices -> codes and scales, each group by itself, without data: the plainest method, the yardstick of others.

Groups are 32 neighbours of one row (the last may be shorter); codes are rounded to the nearest, ties to even, against
the scale as binary16 holds it. Per group of weights w:

int8     scale = max|w| / 127, codes -127..127
int4     the better by squared error of two: scale = w_peak / -8, so that the weight of greatest magnitude gets code -8
         (GGUF's Q4_0; the scale may be negative), or scale = max|w| / 7, codes -7..7; the first on a tie
int4m    minimum = min w, scale = (max w - min w) / 15, codes 0..15 carried as -8..7 (GGUF's Q4_1)
ternary  scale = mean|w|, codes -1, 0, 1 (BitNet b1.58's absmean, by group)

The tables of embedding and head get int8 for every format of fewer bits, as most published GGUF files do: the embedding
is the input of everything, and the head's errors go straight into the logits.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.graph.types import AddPosition, Embed, Graph, Linear, Matrix, Model, Weight
from tapeout.numerics.formats import FORMATS, Format

STORED = "stored"
"""The name that means: as the file has them."""

TABLE_FORMAT = "int8"
"""What embedding and head get where a format of fewer bits is asked for."""

BLOCK_WEIGHTS = 1 << 18
"""Weights worked on at once, so that temporaries stay in the cache."""

Groups = NDArray[np.float32]
"""[rows, groups, weights of a group]"""
Encoded = tuple[NDArray[np.int8], NDArray[np.float16], NDArray[np.float16] | None]
"""(codes, scale, minimum) of some groups; codes shaped as the weights, the others [rows, groups]."""


def quantize(model: Model, format_name: str) -> Model:
    """The model with its matrices in `format_name`; norms stay float.

    "stored", and the format that most matrices have already, change nothing. A matrix of another format is dequantized
    and quantized anew, which a note says. A shape-only model changes its types alone. Raises `BadInput`.
    """
    own = _own_format(model.graph)
    if format_name in (STORED, own):
        return model
    if format_name not in ENCODERS:
        raise BadInput("weights", f"{format_name!r} is not one of {', '.join((STORED, *ENCODERS))}")
    wanted = _wanted(model.graph, format_name)
    weights = {
        name: _converted(name, weight, FORMATS[wanted[name]]) if name in wanted else weight
        for name, weight in model.weights.items()
    }
    return replace(
        model,
        graph=_retyped(model.graph, wanted),
        weights=weights,
        notes=(*model.notes, *_notes(model.graph, wanted, format_name)),
    )


def encode(name: str, weights: NDArray[np.float32], form: Format) -> Matrix:
    """Quantize one float matrix [rows, columns]. Raises `BadInput` where a scale or minimum does not fit binary16."""
    rows, columns = weights.shape
    groups = -(-columns // form.group)
    codes = np.empty((rows, columns), np.int8)
    scale = np.empty((rows, groups), np.float16)
    minimum = np.empty((rows, groups), np.float16) if form.has_minimum else None
    step = max(1, BLOCK_WEIGHTS // columns)
    for row in range(0, rows, step):
        for columns_at, groups_at, size in _spans(columns, form.group):
            part = np.ascontiguousarray(weights[row : row + step, columns_at], np.float32)
            shaped = part.reshape(len(part), -1, size)
            found = _encode(name, shaped, form)
            codes[row : row + step, columns_at] = found[0].reshape(part.shape)
            scale[row : row + step, groups_at] = found[1]
            if minimum is not None:
                minimum[row : row + step, groups_at] = found[2]
    return Matrix(form, codes, scale, minimum)


def _spans(columns: int, group: int) -> list[tuple[slice, slice, int]]:
    """(columns, groups, group size) of the whole groups, and of the shorter one at the end."""
    whole = columns // group
    spans = [(slice(0, whole * group), slice(0, whole), group)] if whole else []
    tail = columns - whole * group
    return [*spans, (slice(whole * group, columns), slice(whole, whole + 1), tail)] if tail else spans


def _encode(name: str, groups: Groups, form: Format) -> Encoded:
    with np.errstate(over="ignore"):
        try:
            return ENCODERS[form.name](groups)
        except OverflowError as error:
            peak = np.abs(groups).max()
            raise BadInput(
                f"weight {name}", f"has weights up to {peak:.4g}, whose scale does not fit binary16 in {form.name}"
            ) from error


def _half(numbers: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to binary16. Raises OverflowError."""
    half = numbers.astype(np.float16)
    if np.isinf(half).any():
        raise OverflowError
    return half


def _codes(groups: Groups, scale: NDArray[np.float16], low: int, high: int) -> Groups:
    """The nearest codes, as floats; 0 where the scale is 0."""
    divisor = np.where(scale == 0, np.float16(np.inf), scale).astype(np.float32)
    codes = groups / divisor[..., None]
    np.rint(codes, out=codes)
    return np.clip(codes, low, high, out=codes)


def _int8(groups: Groups) -> Encoded:
    scale = _half(np.abs(groups).max(axis=2) / np.float32(127))
    return _codes(groups, scale, -127, 127).astype(np.int8), scale, None


def _int4(groups: Groups) -> Encoded:
    low, high = groups.min(axis=2), groups.max(axis=2)
    peak = np.where(high > -low, high, low)
    scale, codes, error = _tried(groups, peak / np.float32(-8), -8)
    even_scale, even_codes, even_error = _tried(groups, np.abs(peak) / np.float32(7), -7)
    even = even_error < error
    scale[even], codes[even] = even_scale[even], even_codes[even]
    return codes, scale, None


def _tried(
    groups: Groups, scale: NDArray[np.float32], low: int
) -> tuple[NDArray[np.float16], NDArray[np.int8], NDArray[np.float32]]:
    """(scale, codes, squared error per group) of one choice of scale."""
    half = _half(scale)
    codes = _codes(groups, half, low, 7)
    miss = codes * half.astype(np.float32)[..., None]
    miss -= groups
    return half, codes.astype(np.int8), np.einsum("rgi,rgi->rg", miss, miss)


def _int4m(groups: Groups) -> Encoded:
    low = groups.min(axis=2)
    minimum, scale = _half(low), _half((groups.max(axis=2) - low) / np.float32(15))
    above = groups - minimum.astype(np.float32)[..., None]
    return _codes(above, scale, 0, 15).astype(np.int8) - np.int8(8), scale, minimum


def _ternary(groups: Groups) -> Encoded:
    scale = _half(np.abs(groups).mean(axis=2, dtype=np.float32))
    return _codes(groups, scale, -1, 1).astype(np.int8), scale, None


ENCODERS: Mapping[str, Callable[[Groups], Encoded]] = {
    "int8": _int8,
    "int4": _int4,
    "int4m": _int4m,
    "ternary": _ternary,
}
"""How each format of `numerics.formats` is reached from floats."""


def _converted(name: str, weight: Weight, form: Format) -> Matrix:
    if not isinstance(weight, Matrix):
        return encode(name, weight, form)
    return weight if weight.format == form else encode(name, weight.to_float(), form)


def _wanted(graph: Graph, format_name: str) -> dict[str, str]:
    """The format of every matrix."""
    table = TABLE_FORMAT if FORMATS[format_name].code_bits < FORMATS[TABLE_FORMAT].code_bits else format_name
    tables = _tables(graph)
    return {kind.name: table if kind.name in tables else format_name for kind in graph.weights if len(kind.shape) == 2}


def _tables(graph: Graph) -> set[str]:
    """The weights that embed tokens and positions or make the logits."""
    embeds = {op.table for op in graph.ops if isinstance(op, Embed | AddPosition)}
    heads = {op.weight for op in graph.ops if isinstance(op, Linear) and op.layer < 0}
    return embeds | heads


def _retyped(graph: Graph, wanted: Mapping[str, str]) -> Graph:
    kinds = tuple(replace(kind, format=wanted.get(kind.name, kind.format)) for kind in graph.weights)
    return replace(graph, weights=kinds)


def _own_format(graph: Graph) -> str:
    """The format of most matrices."""
    counts = Counter(kind.format for kind in graph.weights if len(kind.shape) == 2)
    return counts.most_common(1)[0][0] if counts else ""


def _notes(graph: Graph, wanted: Mapping[str, str], format_name: str) -> tuple[str, ...]:
    tables = sorted({name for name in wanted if wanted[name] != format_name})
    kept = f", {' and '.join(tables)} to {TABLE_FORMAT}" if tables else ""
    notes = [f"matrices rounded to the nearest {format_name}{kept}"]
    moved = Counter(
        (kind.format, wanted[kind.name])
        for kind in graph.weights
        if kind.name in wanted and kind.format not in ("f32", wanted[kind.name])
    )
    notes += [f"quantized twice: {old} -> {new} ({count} matrices)" for (old, new), count in moved.items()]
    return tuple(notes)
