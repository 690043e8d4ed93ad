"""Rows of a matrix: their exponent e_row and fraction bits F, by the bound of docs/numerics.md, section 5."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.numerics.formats import Format
from tapeout.numerics.scales import LEAST_ROW_EXPONENT

I64 = NDArray[np.int64]
Split = tuple[I64, I64]
"""(m, e), each [rows, blocks]."""

MOST_FRACTION_BITS = 16
SURE = 2.0**61
"""A bound added up in binary64 that stays below this is below 2^62."""


def row_plans(
    form: Format, codes: NDArray[np.int8], scale: Split, minimum: Split | None, where: str
) -> tuple[I64, I64]:
    """(e_row, F) of every row. codes [rows, columns], columns as they are or padded with code -offset or to whole blocks.

    Raises `BadInput` where a row's sum may leave 62 bits even without fraction bits.
    """
    e_row = np.maximum(scale[1].max(axis=1), LEAST_ROW_EXPONENT)
    if minimum is not None:
        e_row = np.maximum(e_row, minimum[1].max(axis=1))
    reach = form.block * max(abs(form.low + form.offset), abs(form.high + form.offset))
    roof = _roof(scale, e_row, reach) + (0.0 if minimum is None else _roof(minimum, e_row, 32))
    bits = np.full(e_row.shape, MOST_FRACTION_BITS, np.int64)
    for row in np.flatnonzero(roof * 2.0**MOST_FRACTION_BITS > SURE):
        bits[row] = _exact(form, codes[row], scale, minimum, int(row), int(e_row[row]), where)
    return e_row, bits


def _roof(part: Split, e_row: I64, reach: int) -> NDArray[np.float64]:
    m, e = part
    return 15 * 127 * reach * np.ldexp(np.abs(m).astype(np.float64), e - e_row[:, None]).sum(axis=1)


def _exact(
    form: Format, codes: NDArray[np.int8], scale: Split, minimum: Split | None, row: int, e_row: int, where: str
) -> int:
    """F of one row by exact rationals."""
    blocks = scale[0].shape[1]
    starts = range(0, blocks * form.block, form.block)
    sizes = [int(np.abs(codes[at : at + form.block].astype(np.int64) + form.offset).sum()) for at in starts]
    terms = [(scale, sizes)] + ([(minimum, [32] * blocks)] if minimum is not None else [])
    bound = sum(
        15 * 127 * abs(int(m[row, b])) * reach[b] * Fraction(2) ** int(e[row, b] - e_row)
        for (m, e), reach in terms
        for b in range(blocks)
    )
    for bits in range(MOST_FRACTION_BITS, -1, -1):
        if bound * 2**bits + 2 * blocks <= 2**62:
            return bits
    raise BadInput(f"{where} row {row}", "its scaled sum does not fit 62 bits")
