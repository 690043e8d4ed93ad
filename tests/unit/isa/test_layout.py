"""Weights in memory, read back byte by byte by plain Python that follows docs/isa.md."""

import struct

import numpy as np
import pytest

from strategies import random_matrix
from tapeout.isa.layout import block_bytes, pack_blocks, pack_codes, pack_rows, row_bias, row_bytes
from tapeout.numerics.formats import FORMATS, Format


def code_at(data: bytes, index: int, bits: int) -> int:
    """Code `index` of packed codes: the lower in the lower bits, two's complement."""
    value = data[index * bits // 8] >> index * bits % 8 & (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def half(data: bytes, index: int) -> float:
    return struct.unpack_from("<e", data, 2 * index)[0]


def read_block(data: bytes, rows: int, lanes: int, groups: int, form: Format) -> tuple[list, list, list, list]:
    """(bias [row], codes [row][column], scale [row][group], minimum [row][group]) of one row block."""
    bias = [int(np.int8(np.uint8(byte))) for byte in data[:rows]]
    at, size = rows, lanes * form.code_bits // 8
    codes, scale, minimum = ([[] for _ in range(rows)] for _ in range(3))
    for _ in range(groups):
        for part in (scale, minimum)[: 2 if form.has_minimum else 1]:
            for row in range(rows):
                part[row].append(half(data[at : at + 2], 0))
                at += 2
        for _ in range(32 // lanes):
            for row in range(rows):
                codes[row] += [code_at(data[at : at + size], i, form.code_bits) for i in range(lanes)]
                at += size
    assert at == len(data)
    return bias, codes, scale, minimum


@pytest.mark.parametrize(("unit_rows", "lanes"), [(4, 16), (8, 8), (8, 32), (32, 32)])
@pytest.mark.parametrize("columns", [32, 40, 128])
@pytest.mark.parametrize("name", FORMATS)
def test_row_blocks_hold_what_was_packed(name, columns, unit_rows, lanes):
    form, rows = FORMATS[name], 2 * unit_rows
    matrix = random_matrix(np.random.default_rng(columns), rows, columns, form)
    blocks = pack_blocks(form, matrix.codes, matrix.scale, matrix.minimum, unit_rows, lanes)
    groups = -(-columns // 32)
    assert blocks.shape == (2, block_bytes(unit_rows, columns, name))
    for number, block in enumerate(blocks):
        bias, codes, scale, minimum = read_block(block.tobytes(), unit_rows, lanes, groups, form)
        mine = slice(number * unit_rows, (number + 1) * unit_rows)
        padded = np.pad(matrix.codes[mine], ((0, 0), (0, groups * 32 - columns)))
        assert codes == padded.tolist()
        assert scale == matrix.scale[mine].astype(float).tolist()
        if form.has_minimum:
            assert matrix.minimum is not None
            assert minimum == matrix.minimum[mine].astype(float).tolist()
        assert bias == [16 - row_exponent(matrix, row) for row in range(number * unit_rows, (number + 1) * unit_rows)]


def row_exponent(matrix, row: int) -> int:
    """e_row of docs/numerics.md: the largest exponent of a scale or minimum of the row."""
    numbers = list(matrix.scale[row]) + ([] if matrix.minimum is None else list(matrix.minimum[row]))
    fields = [struct.unpack("<H", struct.pack("<e", number))[0] >> 10 & 31 for number in numbers]
    return max(max(field, 1) - 25 for field in fields)


@pytest.mark.parametrize("name", FORMATS)
def test_embedding_rows_are_groups_one_after_the_other(name):
    form, columns = FORMATS[name], 72
    matrix = random_matrix(np.random.default_rng(3), 5, columns, form)
    table = pack_rows(form, matrix.codes, matrix.scale, matrix.minimum)
    assert table.shape == (5, row_bytes(columns, name))
    size = 32 * form.code_bits // 8
    for row, data in enumerate(table):
        text, at = data.tobytes(), 0
        for group in range(3):
            codes = [code_at(text[at : at + size], i, form.code_bits) for i in range(32)]
            wanted = matrix.codes[row, 32 * group : 32 * group + 32].tolist()
            assert codes == wanted + [0] * (32 - len(wanted))
            at += size
            assert half(text[at:], 0) == float(matrix.scale[row, group])
            at += 2
            if form.has_minimum:
                assert matrix.minimum is not None
                assert half(text[at:], 0) == float(matrix.minimum[row, group])
                at += 2
        assert at == len(text)


def test_the_lower_column_is_in_the_lower_bits():
    codes = np.zeros(32, np.int8)
    codes[:4] = [1, -2, 0, -1]
    assert pack_codes(codes, FORMATS["int8"])[:4].tolist() == [1, 254, 0, 255]
    assert pack_codes(codes, FORMATS["int4"])[:2].tolist() == [0xE1, 0xF0]
    assert pack_codes(codes, FORMATS["ternary"])[0] == 0b11_00_10_01


def test_sizes_by_hand():
    assert block_bytes(8, 64, "int8") == 8 * (1 + 2 * (32 + 2))
    assert block_bytes(4, 33, "int4m") == 4 * (1 + 2 * (16 + 4))
    assert block_bytes(32, 32, "ternary") == 32 * (1 + 8 + 2)
    assert row_bytes(576, "int8") == 18 * 34


def test_a_row_of_zero_scales_has_the_bias_of_the_smallest_exponent():
    scale = np.zeros((1, 2), np.float16)
    assert row_bias(FORMATS["int8"], np.zeros((1, 2, 32), np.int8), scale, None).tolist() == [16 + 24]
