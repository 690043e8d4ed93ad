"""How weights lie in memory: what the compiler packs, the simulator and the RTL read.

A matrix of `rows` (a multiple of the matrix unit's R) x `columns` is a run of row blocks. A row block is R bytes `bias` (int8, F_row - e_row) and,
where the format has a factor, R binary32 factors; then for every group of 32 columns: R scales, R minima where the format has them, and 32/K slices
(K: the matrix unit's lanes), each R rows x K codes, packed row by row. So each cycle of the matrix unit reads one run of bytes: [bias] [scales]
[minima] slice. A row's scale is 2 bytes of binary16, 1 of E8M0 or E4M3, 3 of `WIDE`; two of them follow one another where a block is 16 columns.
Codes are a string of bits, the lower column in the lower bits: two's complement, or the number of the code in the format's `values`.
Columns beyond the matrix are zero codes; rows beyond it have zero codes, scales and minima (of the least exponent there is: it does not set e_row).
An embedding row is the factor where there is one, and its groups one after the other, each 32 packed codes, scales, minima, and a byte where their
number would be odd: so that one row is one run of bytes.
"""

import numpy as np
from numpy.typing import NDArray

from tapeout.numerics.formats import FORMATS, Format
from tapeout.numerics.plans import row_plans
from tapeout.numerics.scales import scale_bytes, split_scale


def group_code_bytes(form: Format) -> int:
    """Bytes of one row's 32 packed codes."""
    return 32 * form.code_bits // 8


def block_bytes(rows: int, columns: int, format_name: str) -> int:
    """Bytes of `rows` x `columns` in row blocks (columns padded to groups of 32)."""
    form = FORMATS[format_name]
    groups = -(-columns // 32)
    return rows * (form.row_bytes + groups * (group_code_bytes(form) + form.group_bytes))


def row_bytes(columns: int, format_name: str) -> int:
    """Bytes of one embedding row."""
    form = FORMATS[format_name]
    return -(-columns // 32) * row_group_bytes(form) + 4 * form.has_factor


def row_group_bytes(form: Format) -> int:
    """Bytes from one group of an embedding row to the next: even."""
    size = group_code_bytes(form) + form.group_bytes
    return size + size % 2


def per_block(form: Format, stored: NDArray, columns: int) -> NDArray:
    """Scales or minima [rows, groups] as one per block of 16 or 32 columns, zeros where a last 32 columns have only half of them."""
    blocks = -(-columns // form.block)
    each = np.repeat(stored, form.group // form.block, axis=1)[:, :blocks]
    missing = -blocks % (32 // form.block)
    return np.pad(each, ((0, 0), (0, missing))) if missing else each


def pack_codes(codes: NDArray[np.int8], form: Format) -> NDArray[np.uint8]:
    """Pack the last axis (32 codes, or a slice of them) into bytes."""
    bits = patterns(codes, form)
    if form.code_bits == 8:
        return bits
    if form.code_bits == 4:
        return bits[..., 0::2] | bits[..., 1::2] << np.uint8(4)
    eights = bits.reshape(*bits.shape[:-1], -1, 8).astype(np.uint64)
    word = np.zeros(eights.shape[:-1], np.uint64)
    for at in range(8):
        word |= eights[..., at] << np.uint64(form.code_bits * at)
    found = word[..., None].view(np.uint8)[..., : form.code_bits]
    return np.ascontiguousarray(found).reshape(*bits.shape[:-1], -1)


def patterns(codes: NDArray[np.int8], form: Format) -> NDArray[np.uint8]:
    """The bits of every code, in the low bits of a byte. A zero code that the format lacks is pattern 0: it meets zero activations."""
    if not form.values:
        return codes.view(np.uint8) & np.uint8((1 << form.code_bits) - 1)
    of_code = np.zeros(256, np.uint8)
    for number in reversed(range(len(form.values))):
        of_code[form.values[number]] = number
    return of_code[codes.view(np.uint8)]


def row_bias(form: Format, codes: NDArray[np.int8], scale: NDArray, minimum: NDArray | None) -> NDArray[np.int8]:
    """F_row - e_row of every row; codes [rows, columns], scale and minimum [rows, blocks]."""
    blocks = -(-codes.shape[1] // form.block)
    parts = (scale, minimum) if form.has_minimum else (scale,)
    splits = [split_scale(form.scale, part[:, :blocks]) for part in parts if part is not None]
    e_row, bits = row_plans(form, codes, splits[0], splits[1] if len(splits) > 1 else None, "weights")
    return (bits - e_row).astype(np.int8)


def pack_blocks(
    form: Format, codes: NDArray[np.int8], scale: NDArray, minimum: NDArray | None, unit_rows: int, lanes: int, factor: float = 1.0
) -> NDArray[np.uint8]:  # fmt: skip
    """A matrix, rows a multiple of `unit_rows`, as row blocks of a unit with `lanes` lanes: uint8 [rows/unit_rows, bytes per block].

    codes: int8 [rows, columns]; scale, minimum: as stored, [rows, blocks] as `per_block` gives them.
    """
    rows, columns = codes.shape
    groups, blocks = -(-columns // 32), rows // unit_rows
    assert rows == blocks * unit_rows, f"{rows} rows are no multiple of {unit_rows}"
    header = [row_bias(form, codes, scale, minimum).view(np.uint8).reshape(blocks, unit_rows)]
    if form.has_factor:
        header.append(np.tile(_factor_bytes(factor), (blocks, unit_rows)))

    def by_block(part: NDArray[np.uint8], slices: int = 1) -> NDArray[np.uint8]:
        cut = part.reshape(blocks, unit_rows, groups, slices, -1)
        return cut.transpose(0, 2, 3, 1, 4).reshape(blocks, groups, -1)

    parts = [by_block(part) for part in _scales(form, scale, minimum)]
    parts.append(by_block(pack_codes(_grouped(codes, groups), form), 32 // lanes))
    body = np.concatenate(parts, axis=2).reshape(blocks, -1)
    return np.concatenate([*header, body], axis=1)


def pack_rows(
    form: Format, codes: NDArray[np.int8], scale: NDArray, minimum: NDArray | None, factor: float = 1.0
) -> NDArray[np.uint8]:
    """An embedding table as rows: uint8 [rows, bytes per row]; arguments as in `pack_blocks`."""
    rows, columns = codes.shape
    groups = -(-columns // 32)
    parts = [pack_codes(_grouped(codes, groups), form)]
    parts += [part.reshape(rows, groups, -1) for part in _scales(form, scale, minimum)]
    odd = (group_code_bytes(form) + form.group_bytes) % 2
    parts += [np.zeros((rows, groups, 1), np.uint8)] * odd
    packed = np.concatenate(parts, axis=2).reshape(rows, -1)
    return np.concatenate([np.tile(_factor_bytes(factor), (rows, 1)), packed], axis=1) if form.has_factor else packed


def _grouped(codes: NDArray[np.int8], groups: int) -> NDArray[np.int8]:
    """[rows, columns] -> [rows, groups, 32], padded with zero codes."""
    rows, columns = codes.shape
    if columns != groups * 32:
        codes = np.pad(codes, ((0, 0), (0, groups * 32 - columns)))
    return codes.reshape(rows, groups, 32)


def _scales(form: Format, scale: NDArray, minimum: NDArray | None) -> list[NDArray[np.uint8]]:
    """The bytes of scales, and of minima where the format has them."""
    assert minimum is not None or not form.has_minimum, f"{form.name} needs minima"
    return [
        scale_bytes(form.scale, part)
        for part in ((scale, minimum) if form.has_minimum else (scale,))
        if part is not None
    ]


def _factor_bytes(factor: float) -> NDArray[np.uint8]:
    return np.array([factor], "<f4").view(np.uint8)
