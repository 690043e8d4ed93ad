"""Float matrices -> codes and scales, each group by itself, without data: the plainest method, the yardstick of others.

Groups are neighbours of one row (the last may be shorter; a group of 64 must divide the row); codes are rounded to the nearest, ties to
even, against the scale as it is stored. Per group of weights w:

int8     scale = max|w| / 127, codes -127..127
int6     the better by squared error of two: scale = w_peak / -32, so that the weight of greatest magnitude gets code -32 (the scale may be
         negative), or scale = max|w| / 31, codes -31..31; the first on a tie
int4     the same with -8 and 7 (the first of the two is GGUF's Q4_0)
int3     the same with -4 and 3
int4m    minimum = min w, scale = (max w - min w) / 15, codes 0..15 carried as -8..7 (GGUF's Q4_1)
ternary  scale = mean|w|, codes -1, 0, 1 (BitNet b1.58's absmean, by group)
binary   scale = mean|w|, codes -1, 1 by the sign; a zero gets 1
mxfp4    scale = 2^(floor(log2 max|w|) - 2), codes saturate at 6 (OCP Microscaling Formats 1.0)
nvfp4    factor = max|w| of the matrix / (6 * 448) in binary32; scale = E4M3 nearest to max|w / factor| / 6
q4_k     minimum m = max(0, -min w), scale = (max w + m) / 15 by group; d and dmin are the largest of a superblock of 8 groups / 63, in
         binary16, and each group has the nearest multiple of them
q5_k     the same with 31
q6_k     scale = w_peak / -32; d is the largest magnitude of a superblock of 16 groups / 127, and each group has the nearest multiple of it

The files' own encoders of the K-quants search longer for scales. A last superblock may have fewer groups, which a GGUF file cannot hold.
int3_6 is no format but a mix: int6 for embedding, head, V and down projection, int3 for the rest.

The tables of embedding and head get int8 for every format of fewer bits, as most published GGUF files do: the embedding
is the input of everything, and the head's errors go straight into the logits.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.graph.types import AddPosition, Attention, Embed, Graph, Linear, Matrix, Model, SwiGLU, Weight
from tapeout.numerics.formats import E4M3, FORMATS, MIXES, WEIGHTS, Format
from tapeout.numerics.scales import scale_values
from tapeout.quantize.small_floats import e2m1_codes, e4m3_bits, e8m0_bits
from tapeout.quantize.superblocks import q4_k, q5_k, q6_k

STORED = "stored"
"""The name that means: as the file has them."""

TABLE_FORMAT = "int8"
"""What embedding and head get where a format of fewer bits is asked for."""

BLOCK_WEIGHTS = 1 << 18
"""Weights worked on at once, so that temporaries stay in the cache."""

Groups = NDArray[np.float32]
"""[rows, groups, weights of a group]"""
Encoded = tuple[NDArray[np.int8], NDArray, NDArray | None]
"""(codes, scale, minimum) of some groups; codes shaped as the weights, the others [rows, groups]."""


def quantize(model: Model, format_name: str) -> Model:
    """The model with its matrices in `format_name`; norms stay float.

    "stored", and the format that most matrices have already, leave these as they are and round those that stand in floats beside
    them, as an embedding often does. Else a matrix of another format is dequantized and quantized anew, which a note says. A
    shape-only model changes its types alone. Raises `BadInput`.
    """
    own = _own_format(model.graph)
    if format_name in (STORED, own):
        floats = _floats(model.graph, own) if own in WEIGHTS else {}
        each = ", ".join(f"{name} to {form}" for name, form in floats.items())
        return (
            _rounded(model, own, floats, (f"matrices stored as floats rounded to the nearest: {each}",))
            if floats
            else model
        )
    if format_name not in WEIGHTS:
        raise BadInput("weights", f"{format_name!r} is not one of {', '.join((STORED, *WEIGHTS))}")
    wanted = _wanted(model.graph, format_name)
    return _rounded(model, format_name, wanted, _notes(model.graph, wanted, format_name))


def _rounded(model: Model, format_name: str, wanted: Mapping[str, str], notes: tuple[str, ...]) -> Model:
    """The matrices named in `wanted`, each in its format there."""
    check_groups(model.graph, format_name)
    weights = {
        name: _converted(name, weight, FORMATS[wanted[name]]) if name in wanted else weight
        for name, weight in model.weights.items()
    }
    return replace(
        model,
        graph=_retyped(model.graph, wanted),
        weights=weights,
        notes=(*model.notes, *notes),
    )


def check_groups(graph: Graph, format_name: str) -> None:
    """Refuse a format whose groups of 64 do not divide a matrix's rows. (Groups up to 32 may be cut short.) Raises `BadInput`."""
    for name, form in ((name, FORMATS[form]) for name, form in _wanted(graph, format_name).items()):
        columns = graph.weight(name).shape[1]
        if form.group > 32 and columns % form.group:
            sizes = sorted({each.group for each in FORMATS.values() if each.group <= 32 or not columns % each.group})
            allowed = " and ".join(str(size) for size in sizes)
            raise BadInput(
                f"weight {name}",
                f"has {columns} columns, no groups of {form.group} ({form.name})",
                f"groups of {allowed} do",
            )


def divides(graph: Graph, format_name: str) -> bool:
    """Whether `check_groups` lets a format be."""
    try:
        check_groups(graph, format_name)
    except BadInput:
        return False
    return True


def encode(name: str, weights: NDArray[np.float32], form: Format) -> Matrix:
    """Quantize one float matrix [rows, columns]. Raises `BadInput` where a scale or minimum does not fit its kind."""
    rows, columns = weights.shape
    groups = -(-columns // form.group)
    codes = np.empty((rows, columns), np.int8)
    scale = np.empty((rows, groups), form.scale.dtype)
    minimum = np.empty((rows, groups), form.scale.dtype) if form.has_minimum else None
    factor = _factor(weights) if form.has_factor else np.float32(1)
    step = max(1, BLOCK_WEIGHTS // columns)
    for row in range(0, rows, step):
        for columns_at, groups_at, size in _spans(columns, form.group):
            part = np.ascontiguousarray(weights[row : row + step, columns_at], np.float32) / factor
            shaped = part.reshape(len(part), -1, size)
            found = _encode(name, shaped, form)
            codes[row : row + step, columns_at] = found[0].reshape(part.shape)
            scale[row : row + step, groups_at] = found[1]
            if minimum is not None:
                minimum[row : row + step, groups_at] = found[2]
    return Matrix(form, codes, scale, minimum, float(factor))


def _factor(weights: NDArray[np.float32]) -> np.float32:
    """NVFP4's: the greatest weight is 6 times the greatest scale. 1 where all are zero, or the factor were no normal number."""
    factor = np.float32(np.abs(weights).max(initial=0)) / np.float32(6 * 448)
    return factor if factor >= np.finfo(np.float32).tiny else np.float32(1)


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
                f"weight {name}",
                f"has weights up to {peak:.4g}, whose scale does not fit {form.scale.name} in {form.name}",
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


def _symmetric(groups: Groups, high: int) -> Encoded:
    """Signed codes -high-1..high."""
    least, most = groups.min(axis=2), groups.max(axis=2)
    peak = np.where(most > -least, most, least)
    scale, codes, error = _tried(groups, peak / np.float32(-high - 1), -high - 1, high)
    even_scale, even_codes, even_error = _tried(groups, np.abs(peak) / np.float32(high), -high, high)
    even = even_error < error
    scale[even], codes[even] = even_scale[even], even_codes[even]
    return codes, scale, None


def _tried(
    groups: Groups, scale: NDArray[np.float32], low: int, high: int
) -> tuple[NDArray[np.float16], NDArray[np.int8], NDArray[np.float32]]:
    """(scale, codes, squared error per group) of one choice of scale."""
    half = _half(scale)
    codes = _codes(groups, half, low, high)
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


def _binary(groups: Groups) -> Encoded:
    scale = _half(np.abs(groups).mean(axis=2, dtype=np.float32))
    return np.where(groups < 0, np.int8(-1), np.int8(1)), scale, None


def _mxfp4(groups: Groups) -> Encoded:
    scale = e8m0_bits(np.abs(groups).max(axis=2))
    return e2m1_codes(groups, scale_values(FORMATS["mxfp4"].scale, scale)), scale, None


def _nvfp4(groups: Groups) -> Encoded:
    """Of weights divided by the factor already."""
    scale = e4m3_bits(np.abs(groups).max(axis=2) / np.float32(6))
    return e2m1_codes(groups, scale_values(E4M3, scale)), scale, None


ENCODERS: Mapping[str, Callable[[Groups], Encoded]] = {
    "int8": _int8,
    "int4": partial(_symmetric, high=7),
    "int4m": _int4m,
    "ternary": _ternary,
    "int8g64": _int8,
    "int4g64": partial(_symmetric, high=7),
    "int4mg64": _int4m,
    "int6": partial(_symmetric, high=31),
    "int3": partial(_symmetric, high=3),
    "binary": _binary,
    "mxfp4": _mxfp4,
    "nvfp4": _nvfp4,
    "q4_k": q4_k,
    "q5_k": q5_k,
    "q6_k": q6_k,
}
"""How each format of `numerics.formats` is reached from floats."""


def _converted(name: str, weight: Weight, form: Format) -> Matrix:
    if not isinstance(weight, Matrix):
        return encode(name, weight, form)
    return weight if weight.format == form else encode(name, weight.to_float(), form)


def _wanted(graph: Graph, format_name: str) -> dict[str, str]:
    """The format of every matrix."""
    mix = MIXES.get(format_name)
    base, fine = (mix.base, mix.fine) if mix else (format_name, format_name)
    table = fine if mix or FORMATS[fine].code_bits >= FORMATS[TABLE_FORMAT].code_bits else TABLE_FORMAT
    of = dict.fromkeys(_tables(graph), table) | dict.fromkeys(_sensitive(graph), fine)
    return {kind.name: of.get(kind.name, base) for kind in graph.weights if len(kind.shape) == 2}


def _floats(graph: Graph, format_name: str) -> dict[str, str]:
    """Those of `_wanted` that are floats."""
    return {name: form for name, form in _wanted(graph, format_name).items() if graph.weight(name).format == "f32"}


def _sensitive(graph: Graph) -> set[str]:
    """The matrices that lose most by few bits: they make V, or read what SwiGLU wrote (down projections)."""
    values = {op.v for op in graph.ops if isinstance(op, Attention)}
    hidden = {op.out for op in graph.ops if isinstance(op, SwiGLU)}
    return {op.weight for op in graph.ops if isinstance(op, Linear) and (op.out in values or op.x in hidden)}


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
    mix = MIXES.get(format_name)
    tables = sorted(_tables(graph) & {name for name in wanted if wanted[name] != format_name})
    kept = f", {' and '.join(tables)} to {wanted[tables[0]]}" if tables else ""
    made = f"{mix.base}, V and down projections {mix.fine}" if mix else format_name
    notes = [f"matrices rounded to the nearest {made}{kept}"]
    moved = Counter(
        (kind.format, wanted[kind.name])
        for kind in graph.weights
        if kind.name in wanted and kind.format not in ("f32", wanted[kind.name])
    )
    notes += [f"quantized twice: {old} -> {new} ({count} matrices)" for (old, new), count in moved.items()]
    return tuple(notes)
