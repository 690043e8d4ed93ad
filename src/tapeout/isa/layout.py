"""How weights lie in memory: what the compiler packs, the simulator and the RTL read.

A matrix of `rows` (a multiple of the matrix unit's R) x `columns` is a run of row blocks. A row block is R bytes `bias` (int8, F_row - e_row),
then for every group of 32 columns: R binary16 scales, R binary16 minima where the format has them, and 32/K slices (K: the matrix unit's lanes),
each R rows x K codes, packed row by row. So each cycle of the matrix unit reads one run of bytes: [bias] [scales] [minima] slice.
4-bit codes are two to a byte, ternary ones four to a byte, two's complement, the lower column in the lower bits.
Columns beyond the matrix are zero codes; rows beyond it have zero codes, scales and minima (scale exponent -24 does not set e_row).
An embedding row is its groups one after the other, each 32 packed codes, scale, minimum, so that one row is one run of bytes.
"""

import numpy as np
from numpy.typing import NDArray

from tapeout.numerics.formats import FORMATS, Format
from tapeout.numerics.scalar import row_plan

F_BITS = 16
SAFE_GROUPS = 4096
"""Up to this many groups the bound of docs/numerics.md fits 2^62 at F = 16 whatever the codes: 15*127*2047*32*129*4096*2^16 < 2^62."""


def group_code_bytes(form: Format) -> int:
    """Bytes of one row's 32 packed codes."""
    return 32 * form.code_bits // 8


def block_bytes(rows: int, columns: int, format_name: str) -> int:
    """Bytes of `rows` x `columns` in row blocks (columns padded to groups of 32)."""
    form = FORMATS[format_name]
    groups = -(-columns // 32)
    return rows * (1 + groups * (group_code_bytes(form) + form.group_bytes))


def row_bytes(columns: int, format_name: str) -> int:
    """Bytes of one embedding row."""
    form = FORMATS[format_name]
    return -(-columns // 32) * (group_code_bytes(form) + form.group_bytes)


def pack_codes(codes: NDArray[np.int8], form: Format) -> NDArray[np.uint8]:
    """Pack the last axis (32 codes, or a slice of them) into bytes."""
    if form.code_bits == 8:
        return codes.view(np.uint8)
    bits = codes.view(np.uint8) & np.uint8((1 << form.code_bits) - 1)
    if form.code_bits == 4:
        return bits[..., 0::2] | bits[..., 1::2] << np.uint8(4)
    assert form.code_bits == 2, f"no packing for {form.code_bits}-bit codes"
    return (
        bits[..., 0::4]
        | bits[..., 1::4] << np.uint8(2)
        | bits[..., 2::4] << np.uint8(4)
        | bits[..., 3::4] << np.uint8(6)
    )


def exponents(scale: NDArray[np.float16]) -> NDArray[np.int64]:
    """es of every binary16: max(exponent field, 1) - 25."""
    return np.maximum(scale.view(np.uint16) >> 10 & 31, 1).astype(np.int64) - 25


def row_bias(
    form: Format, codes: NDArray[np.int8], scale: NDArray[np.float16], minimum: NDArray[np.float16] | None
) -> NDArray[np.int8]:
    """F_row - e_row of every row; codes [rows, groups, 32], scale and minimum [rows, groups]."""
    e_row = exponents(scale).max(axis=1)
    if minimum is not None:
        e_row = np.maximum(e_row, exponents(minimum).max(axis=1))
    if scale.shape[1] <= SAFE_GROUPS:
        return (F_BITS - e_row).astype(np.int8)
    sizes = np.abs(codes.astype(np.int64) + form.offset).sum(axis=2)
    bits, floors = scale.view(np.uint16), None if minimum is None else minimum.view(np.uint16)
    plans = [
        row_plan(bits[r].tolist(), sizes[r].tolist(), None if floors is None else floors[r].tolist())
        for r in range(len(scale))
    ]
    return np.array([f - e for e, f in plans], np.int8)


def pack_blocks(
    form: Format,
    codes: NDArray[np.int8],
    scale: NDArray[np.float16],
    minimum: NDArray[np.float16] | None,
    unit_rows: int,
    lanes: int,
) -> NDArray[np.uint8]:
    """A matrix, rows a multiple of `unit_rows`, as row blocks of a unit with `lanes` lanes: uint8 [rows/unit_rows, bytes per block].

    codes: int8 [rows, columns]; scale, minimum: float16 [rows, groups of 32].
    """
    rows, columns = codes.shape
    groups, blocks = scale.shape[1], rows // unit_rows
    assert rows == blocks * unit_rows, f"{rows} rows are no multiple of {unit_rows}"
    if columns != groups * 32:
        codes = np.pad(codes, ((0, 0), (0, groups * 32 - columns)))
    grouped = codes.reshape(rows, groups, 32)
    bias = row_bias(form, grouped, scale, minimum)

    def by_block(part: NDArray[np.uint8], slices: int = 1) -> NDArray[np.uint8]:
        cut = part.reshape(blocks, unit_rows, groups, slices, -1)
        return cut.transpose(0, 2, 3, 1, 4).reshape(blocks, groups, -1)

    parts = [by_block(np.ascontiguousarray(scale).view(np.uint8))]
    if form.has_minimum:
        assert minimum is not None, f"{form.name} needs minima"
        parts.append(by_block(np.ascontiguousarray(minimum).view(np.uint8)))
    parts.append(by_block(pack_codes(grouped, form), 32 // lanes))
    body = np.concatenate(parts, axis=2).reshape(blocks, -1)
    return np.concatenate([bias.view(np.uint8).reshape(blocks, unit_rows), body], axis=1)


def pack_rows(
    form: Format, codes: NDArray[np.int8], scale: NDArray[np.float16], minimum: NDArray[np.float16] | None
) -> NDArray[np.uint8]:
    """An embedding table as rows: uint8 [rows, bytes per row]; arguments as in `pack_blocks`."""
    rows, columns = codes.shape
    groups = scale.shape[1]
    if columns != groups * 32:
        codes = np.pad(codes, ((0, 0), (0, groups * 32 - columns)))
    parts = [
        pack_codes(codes.reshape(rows, groups, 32), form),
        np.ascontiguousarray(scale).view(np.uint8).reshape(rows, groups, 2),
    ]
    if form.has_minimum:
        assert minimum is not None, f"{form.name} needs minima"
        parts.append(np.ascontiguousarray(minimum).view(np.uint8).reshape(rows, groups, 2))
    return np.concatenate(parts, axis=2).reshape(rows, -1)
