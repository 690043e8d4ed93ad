"""Quantized matrices laid out for the compiled loops of `fast.py`, each row with its exponent and fraction bits.

Rows stand in blocks of 32, so that a SIMD lane is a row: codes [blocks, groups, 32 columns, 32 rows]. `loops.py` says
how they are multiplied.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.graph.types import Matrix

LANES = 32
"""Rows per block of a packed matrix."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix as the loops read it. Rows are padded to blocks of 32, columns to groups of 32."""

    rows: int
    kind: NDArray[np.integer]
    """Empty; its type holds a group's dot product: int16 where |code| <= 8, else int32."""
    offset: int
    codes: NDArray[np.int8]
    """[blocks, groups, 32 columns, 32 rows]."""
    scale: NDArray[np.float32]
    """[blocks, groups, 32 rows]: ms * 2^(F + es - e_row), exact."""
    minimum: NDArray[np.float32] | None
    """The same of the minima; None where the format has none."""
    exponent: NDArray[np.int64]
    """[blocks * 32]: e_row - F."""

    @property
    def products(self) -> int:
        """Multiplications per token."""
        return self.codes.size


def pack(matrix: Matrix, where: str) -> Packed:
    """Lay out a matrix. Raises `BadInput` where a row's sum cannot be held in 62 bits."""
    rows, columns = matrix.shape
    form = matrix.format
    blocks, groups = -(-rows // LANES), -(-columns // 32)
    parts = [_split_half(_per_32(matrix.scale, form.group, groups))]
    if matrix.minimum is not None:
        parts.append(_split_half(_per_32(matrix.minimum, form.group, groups)))
    e_row = np.max([exponent.max(axis=1) for _, exponent in parts], axis=0)
    fraction = _fraction_bits(matrix, parts, e_row, where)
    shift = fraction - e_row
    scales = [
        _blocked(np.ldexp(m, exponent + shift[:, None]).astype(np.float32), blocks, groups, 1)[:, :, 0]
        for m, exponent in parts
    ]
    exponent = np.zeros(blocks * LANES, np.int64)
    exponent[:rows] = -shift
    codes = _blocked(matrix.codes, blocks, groups, 32)
    return Packed(
        rows,
        np.empty(0, np.int16 if max(-form.low, form.high) <= 8 else np.int32),
        form.offset,
        codes,
        scales[0],
        scales[1] if len(scales) > 1 else None,
        exponent,
    )


def _per_32(values: NDArray[np.float16], group: int, groups: int) -> NDArray[np.float16]:
    """[rows, groups of 32] of a scale stored per `group`, a multiple of 32."""
    return np.repeat(values, group // 32, axis=1)[:, :groups]


def _split_half(values: NDArray[np.float16]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """binary16 as (signed mantissa, exponent), value = m * 2^e, the mantissa as stored with its hidden bit."""
    bits = values.view(np.uint16).astype(np.int64)
    field = (bits >> 10) & 31
    mantissa = (bits & 1023) | np.where(field > 0, 1024, 0)
    return np.where(bits >> 15, -mantissa, mantissa).astype(np.float64), np.maximum(field, 1) - 25


def _blocked(values: NDArray, blocks: int, groups: int, width: int) -> NDArray:
    """[rows, groups * width] -> [blocks, groups, width, 32 rows], padded with zeros."""
    rows, columns = values.shape
    if (rows, columns) != (blocks * LANES, groups * width):
        padded = np.zeros((blocks * LANES, groups * width), values.dtype)
        padded[:rows, :columns] = values
        values = padded
    return np.ascontiguousarray(values.reshape(blocks, LANES, groups, width).transpose(0, 2, 3, 1))


def _fraction_bits(
    matrix: Matrix, parts: list[tuple[NDArray, NDArray]], e_row: NDArray[np.int64], where: str
) -> NDArray[np.int64]:
    """F per row: 16, or less where 16 cannot be proved to keep the sum within 2^62."""
    form = matrix.format
    reach = (32 * max(abs(form.low + form.offset), abs(form.high + form.offset)), 32)
    roof = sum(
        15 * 127 * r * (np.abs(m) * np.exp2(exponent - e_row[:, None])).sum(axis=1)
        for r, (m, exponent) in zip(reach, parts, strict=False)
    )
    bits = np.full(e_row.shape, 16, np.int64)
    for row in np.flatnonzero(roof * 2.0**16 > 2.0**61):
        bits[row] = _exact_fraction_bits(matrix, parts, int(row), int(e_row[row]), where)
    return bits


def _exact_fraction_bits(matrix: Matrix, parts: list[tuple[NDArray, NDArray]], row: int, e_row: int, where: str) -> int:
    """F of one row by the exact bound on its sum."""
    groups = parts[0][0].shape[1]
    codes = np.zeros(groups * 32, np.int64)
    codes[: matrix.shape[1]] = np.abs(matrix.codes[row].astype(np.int64) + matrix.format.offset)
    reach = (codes.reshape(groups, 32).sum(axis=1), np.full(groups, 32))
    bound = sum(
        15 * 127 * abs(int(m[row, g])) * int(r[g]) * Fraction(2) ** int(exponent[row, g] - e_row)
        for r, (m, exponent) in zip(reach, parts, strict=False)
        for g in range(groups)
    )
    for bits in range(16, -1, -1):
        if bound * 2**bits + 2 * groups <= 2**62:
            return bits
    raise BadInput(f"{where} row {row}", "its scaled sum does not fit 62 bits")
