"""GPTQ (Frantar et al. 2022): round a row's weights one after another, and let those not yet rounded make up for the error.

What counts is the error of a matrix's output on its inputs in a calibration text. The inputs are those that the layers before,
quantized already, give; activations stay float. Groups take their turns by the power of their inputs, greatest first, and so do the
columns of a group. A group's scale is a multiple of what round-to-nearest finds for its weights as they are when their turn comes:
the one that loses least by what each column counts. For codes that are evenly spaced: value = scale * (code + offset) + minimum.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tapeout.graph.types import Linear, Matrix, Model, Weight
from tapeout.numerics.formats import BINARY16, FORMATS, Format
from tapeout.numerics.scales import scale_values
from tapeout.quantize.round_to_nearest import encode, quantize
from tapeout.quantize.walk import Walk

F64 = NDArray[np.float64]

EVEN = tuple(row.name for row in FORMATS.values() if row.scale == BINARY16 and not row.values)
"""The formats it makes: codes evenly spaced, a binary16 scale."""

DAMPING = 0.1
"""Of the mean of the diagonal, added to it: a few thousand tokens say little of how a thousand inputs go together, and with a tenth of
this a down projection loses more on other text than by plain rounding (docs/quantizers.md)."""

MULTIPLES = (1.0, 0.7, 0.8, 0.85, 0.9, 0.95, 1.1, 1.25, 1.4)
"""Of a group's scale and minimum that are tried, the first on a tie."""


def gptq(
    model: Model,
    format_name: str,
    calibration: Sequence[Sequence[int]],
    note: Callable[[str], None] = lambda text: None,
) -> Model:
    """The model in a format. calibration: windows of token ids, each read by itself. Tables are rounded to the nearest."""
    nearest = quantize(model, format_name)
    kinds = {kind.name: kind.format for kind in nearest.graph.weights}
    walk = Walk(model, calibration)
    weights: dict[str, Weight] = dict(nearest.weights)
    hessians: dict[str, F64] = {}
    linears = sum(isinstance(op, Linear) for op in model.graph.ops) - 1
    done = 0
    for op in walk.ops:
        if isinstance(op, Linear) and kinds[op.weight] == format_name:
            if op.x not in hessians:
                hessians = {op.x: walk.second_moment(op.x)}  # only neighbours share an input
            weights[op.weight] = gptq_matrix(op.weight, walk.weight(op.weight), hessians[op.x], FORMATS[format_name])
            walk.hold(op.weight, weights[op.weight])
            done += 1
            if done % max(1, linears // 10) == 0:
                note(f"gptq: {done} of {linears} matrices")
        walk.run(op)
    tokens = sum(map(len, calibration))
    notes = tuple(line.replace("rounded to the nearest", "brought by GPTQ to", 1) for line in nearest.notes)
    return replace(nearest, weights=weights, notes=(*notes, f"GPTQ calibrated on {tokens:,} tokens"))


def gptq_matrix(
    name: str, weights: NDArray[np.float32], hessian: F64, form: Format, damping: float = DAMPING
) -> Matrix:
    """One matrix [rows, columns]; hessian: sum of x x^T over its inputs [columns, columns]."""
    turns = turns_of(np.diagonal(hessian), form.group)
    order = np.concatenate(turns)
    upper = _upper_of_inverse(damped(hessian[np.ix_(order, order)], damping))
    left = weights.astype(np.float64)[:, order]
    codes = np.empty(weights.shape, np.int8)
    scale = np.empty((len(weights), len(turns)), np.float16)
    minimum = np.empty_like(scale) if form.has_minimum else None
    start = 0
    for turn in turns:
        here, behind = slice(start, start + len(turn)), slice(start + len(turn), None)
        found = scaled(name, left[:, here], 1 / np.diagonal(upper)[here] ** 2, form)
        codes[:, turn], errors = _block(left[:, here], found, upper[here, here])
        left[:, behind] -= errors @ upper[here, behind]
        group = turn[0] // form.group
        scale[:, group] = found.scale[:, 0]
        if minimum is not None and found.minimum is not None:
            minimum[:, group] = found.minimum[:, 0]
        start += len(turn)
    return Matrix(form, codes, scale, minimum)


def turns_of(power: NDArray, group: int) -> list[NDArray[np.int64]]:
    """The columns of each group, in the order that they are rounded in. power: of each column's input."""
    groups = [np.arange(at, min(at + group, len(power))) for at in range(0, len(power), group)]
    groups.sort(key=lambda columns: -power[columns].mean())
    return [columns[np.argsort(-power[columns], kind="stable")] for columns in groups]


def scaled(name: str, block: F64, counts: F64, form: Format) -> Matrix:
    """One group [rows, columns] with the best scale of `MULTIPLES`; counts: of a squared error in each column."""
    first = encode(name, block.astype(np.float32), form)
    tried = [first, *(_times(first, factor) for factor in MULTIPLES[1:])]
    lost = [np.square(block - _values(_nearest(block, each), each)) @ counts for each in tried]
    best = np.argmin(lost, axis=0)[:, None]
    scale = np.choose(best, [each.scale for each in tried])
    minima = [each.minimum for each in tried if each.minimum is not None]
    return replace(first, scale=scale, minimum=np.choose(best, minima) if minima else None)


def _times(matrix: Matrix, factor: float) -> Matrix:
    """The same codes by other scales and minima; what binary16 does not reach stays at its end."""

    def half(numbers: NDArray[np.float16]) -> NDArray[np.float16]:
        most = float(np.finfo(np.float16).max)
        return np.clip(numbers.astype(np.float64) * factor, -most, most).astype(np.float16)

    minimum = None if matrix.minimum is None else half(matrix.minimum)
    return replace(matrix, scale=half(matrix.scale), minimum=minimum)


def _nearest(numbers: F64, group: Matrix) -> F64:
    """The codes nearest to numbers [rows, columns] of a group, whose scales are [rows, 1]."""
    form, (scale, minimum) = group.format, _scales(group)
    codes = np.rint((numbers - minimum) / np.where(scale == 0, np.inf, scale) - form.offset)
    return np.clip(codes, form.low, form.high)


def _values(codes: F64, group: Matrix) -> F64:
    """What codes [rows, columns] mean."""
    scale, minimum = _scales(group)
    return scale * (codes + group.format.offset) + minimum


def _scales(group: Matrix) -> tuple[F64, F64]:
    kind = group.format.scale
    scale = scale_values(kind, group.scale)
    return scale, np.zeros_like(scale) if group.minimum is None else scale_values(kind, group.minimum)


def _block(block: F64, group: Matrix, upper: F64) -> tuple[F64, F64]:
    """Codes of one group, and the errors [rows, columns] that the columns behind it are to make up for. Changes `block`."""
    codes, errors = np.empty_like(block), np.empty_like(block)
    for at in range(block.shape[1]):
        now = slice(at, at + 1)
        codes[:, now] = _nearest(block[:, now], group)
        errors[:, now] = (block[:, now] - _values(codes[:, now], group)) / upper[at, at]
        block[:, at + 1 :] -= errors[:, now] * upper[at, at + 1 :]
    return codes, errors


def damped(hessian: F64, damping: float = DAMPING) -> F64:
    """The hessian with a share of its mean diagonal added; an input that is always zero counts as one of its own."""
    made = hessian.copy()
    diagonal = np.einsum("ii->i", made)
    diagonal[diagonal == 0] = 1
    diagonal += damping * diagonal.mean()
    return made


def _upper_of_inverse(hessian: F64) -> F64:
    """U with U^T U = hessian^-1."""
    return np.linalg.cholesky(np.linalg.inv(hessian)).T
