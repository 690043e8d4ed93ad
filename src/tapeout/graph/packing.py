"""Quantized matrices laid out for the compiled loops of `fast.py`, each row with its exponent and fraction bits.

Rows stand in blocks of 32, so that a SIMD lane is a row: codes [blocks, groups, 32 columns, 32 rows]; where a format has a scale
for every 16 columns, a group is 16 columns. `loops.py` says how they are multiplied.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.graph.types import Matrix
from tapeout.numerics.formats import Format
from tapeout.numerics.plans import row_plans
from tapeout.numerics.scales import split_scale

LANES = 32
"""Rows per block of a packed matrix."""
SPILL = 8
"""Groups whose terms are summed in binary64 before they go to int64."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix as the loops read it. Rows are padded to blocks of 32, columns to groups of 32."""

    rows: int
    kind: NDArray[np.integer]
    """Empty; its type holds a group's dot product: int16 where all of them fit, as for |code| <= 8, else int32."""
    offset: int
    codes: NDArray[np.int8]
    """[blocks, groups, 32 or 16 columns, 32 rows]."""
    scale: NDArray[np.float32]
    """[blocks, groups, 32 rows]: ms * 2^(F + es - e_row), exact."""
    minimum: NDArray[np.float32] | None
    """The same of the minima; None where the format has none."""
    exponent: NDArray[np.int64]
    """[blocks * 32]: e_row - F."""
    spill: int
    """Terms of so many groups stay together below 2^53: SPILL; 1 where a scale has more than 11 bits: then each goes to int64 by itself."""
    factor: np.float32
    """Multiplies every output; 1 for most."""

    @property
    def products(self) -> int:
        """Multiplications per token."""
        return self.codes.size


def pack(matrix: Matrix, where: str) -> Packed:
    """Lay out a matrix. Raises `BadInput` where a row's sum cannot be held in 62 bits."""
    rows, columns = matrix.shape
    form = matrix.format
    blocks, groups = -(-rows // LANES), -(-columns // form.block)
    parts = [
        split_scale(form.scale, _per_block(stored, form, groups))
        for stored in (matrix.scale, matrix.minimum)
        if stored is not None
    ]
    e_row, fraction = row_plans(form, matrix.codes, parts[0], parts[1] if len(parts) > 1 else None, where)
    shift = fraction - e_row
    padded = 32 // form.block * -(-columns // 32)
    scales = [_blocked(_scaled(m, e + shift[:, None]), blocks, padded, 1)[:, :, 0] for m, e in parts]
    exponent = np.zeros(blocks * LANES, np.int64)
    exponent[:rows] = -shift
    return Packed(
        rows,
        np.empty(0, np.int16 if max(-form.low, form.high) * 127 * form.block < 1 << 15 else np.int32),
        form.offset,
        _blocked(matrix.codes, blocks, padded, form.block),
        scales[0],
        scales[1] if len(scales) > 1 else None,
        exponent,
        1 if form.scale.mantissa_bits > 11 else SPILL,
        np.float32(matrix.factor),
    )


def _per_block(values: NDArray, form: Format, blocks: int) -> NDArray:
    """[rows, blocks] of a scale stored per group."""
    return np.repeat(values, form.group // form.block, axis=1)[:, :blocks]


def _scaled(m: NDArray[np.int64], exponent: NDArray[np.int64]) -> NDArray[np.float32]:
    """m * 2^exponent, exact. Below 2^-100 nothing but a term's sign is left of it, so binary32 need not go lower."""
    return np.ldexp(m.astype(np.float64), np.maximum(exponent, -100)).astype(np.float32)


def _blocked(values: NDArray, blocks: int, groups: int, width: int) -> NDArray:
    """[rows, groups * width] -> [blocks, groups, width, 32 rows], padded with zeros."""
    rows, columns = values.shape
    if (rows, columns) != (blocks * LANES, groups * width):
        padded = np.zeros((blocks * LANES, groups * width), values.dtype)
        padded[:rows, :columns] = values
        values = padded
    return np.ascontiguousarray(values.reshape(blocks, LANES, groups, width).transpose(0, 2, 3, 1))
