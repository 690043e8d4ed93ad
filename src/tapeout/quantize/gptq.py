"""GPTQ (Frantar et al. 2022): round a row's weights one after another, and let those not yet rounded make up for the error.

What counts is the error of a matrix's output on its inputs in a calibration text. The inputs are those that the layers before,
quantized already, give; activations stay float. A group's scale is what round-to-nearest finds for its weights as they are when
their turn comes. For codes that are evenly spaced: value = scale * (code + offset) + minimum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.graph.float_mode import FloatEngine
from tapeout.graph.types import Linear, Matrix, Model, Op, Weight, op_inputs
from tapeout.numerics.formats import FORMATS, Format
from tapeout.quantize.round_to_nearest import encode, quantize

F64 = NDArray[np.float64]

DAMPING = 0.01
"""Of the mean of the diagonal, added to it: so that few tokens do not decide everything."""


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
    linears = sum(isinstance(op, Linear) for op in model.graph.ops)
    done = 0
    for op in model.graph.ops:
        if isinstance(op, Linear) and op.out != model.graph.output and kinds[op.weight] == format_name:
            if op.x not in hessians:
                hessians = {op.x: walk.second_moment(op.x)}  # only neighbours share an input
            weights[op.weight] = gptq_matrix(op.weight, walk.weight(op.weight), hessians[op.x], FORMATS[format_name])
            walk.hold(op.weight, weights[op.weight])
            done += 1
            if done % max(1, linears // 10) == 0:
                note(f"gptq: {done} of {linears - 1} matrices")
        if op.out != model.graph.output:
            walk.run(op)
    tokens = sum(map(len, calibration))
    notes = tuple(line.replace("rounded to the nearest", "by GPTQ, of the nearest", 1) for line in nearest.notes)
    return replace(nearest, weights=weights, notes=(*notes, f"GPTQ calibrated on {tokens:,} tokens"))


def gptq_matrix(name: str, weights: NDArray[np.float32], hessian: F64, form: Format) -> Matrix:
    """One matrix [rows, columns]; hessian: sum of x x^T over its inputs [columns, columns]."""
    upper = _upper_of_inverse(hessian)
    left = weights.astype(np.float64)
    parts: list[Matrix] = []
    for start in range(0, left.shape[1], form.group):
        stop = min(start + form.group, left.shape[1])
        block = left[:, start:stop]
        scaled = encode(name, block.astype(np.float32), form)
        codes, errors = _block(block, scaled, upper[start:stop, start:stop])
        left[:, stop:] -= errors @ upper[start:stop, stop:]
        parts.append(replace(scaled, codes=codes))
    minimum = [part.minimum for part in parts if part.minimum is not None]
    return replace(
        parts[0],
        codes=np.concatenate([part.codes for part in parts], axis=1),
        scale=np.concatenate([part.scale for part in parts], axis=1),
        minimum=np.concatenate(minimum, axis=1) if minimum else None,
    )


def _block(block: F64, scaled: Matrix, upper: F64) -> tuple[NDArray[np.int8], F64]:
    """Codes of one group, and the errors [rows, columns] that the columns behind it are to make up for. Changes `block`."""
    codes, errors = np.empty(block.shape, np.int8), np.empty_like(block)
    scale = scaled.scale[:, 0].astype(np.float64)
    minimum = np.float64(0) if scaled.minimum is None else scaled.minimum[:, 0].astype(np.float64)
    divisor = np.where(scale == 0, np.inf, scale)
    form = scaled.format
    for at in range(block.shape[1]):
        code = np.clip(np.rint((block[:, at] - minimum) / divisor - form.offset), form.low, form.high)
        codes[:, at] = code
        errors[:, at] = (block[:, at] - (scale * (code + form.offset) + minimum)) / upper[at, at]
        block[:, at + 1 :] -= np.outer(errors[:, at], upper[at, at + 1 :])
    return codes, errors


def _upper_of_inverse(hessian: F64) -> F64:
    """U with U^T U = (damped hessian)^-1; an input that is always zero counts as one of its own."""
    damped = hessian.copy()
    diagonal = np.einsum("ii->i", damped)
    diagonal[diagonal == 0] = 1
    diagonal += DAMPING * diagonal.mean()
    return np.linalg.cholesky(np.linalg.inv(damped)).T


class Walk(FloatEngine):
    """Float mode op by op over all windows, so that a weight can change before what reads it is run."""

    def __init__(self, model: Model, windows: Sequence[Sequence[int]]):
        if not windows:
            raise BadInput("--calibration", "has no tokens", "give a text")
        super().__init__(model, max(map(len, windows)))
        self._windows = [np.asarray(one, np.int64) for one in windows]
        self._values: list[dict[str, NDArray]] = [{} for _ in windows]
        self._last: Mapping[str, Op] = {name: op for op in model.graph.ops for name in op_inputs(op)}

    def weight(self, name: str) -> NDArray[np.float32]:
        """A matrix as it is held."""
        return self._weights[name].astype(np.float32, copy=False)

    def hold(self, name: str, weight: Matrix) -> None:
        """Compute with other numbers from now on."""
        self._weights[name] = weight.to_float(self.dtype)

    def run(self, op: Op) -> None:
        """One op on every window; values that no later op reads are let go."""
        for ids, values in zip(self._windows, self._values, strict=True):
            values[op.out] = self._run(op, values, ids, 0)
            for name in set(op_inputs(op)):
                if self._last[name] is op:
                    del values[name]

    def second_moment(self, name: str) -> F64:
        """Sum of x x^T over every token."""
        return sum((values[name].T @ values[name]).astype(np.float64) for values in self._values)  # pyright: ignore[reportReturnType]
