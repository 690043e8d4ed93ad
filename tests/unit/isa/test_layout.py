"""Weights in memory, read back byte by byte by plain Python that follows docs/isa.md."""

import struct

import numpy as np
import pytest

from strategies import block_bits, random_matrix
from tapeout.graph.types import Matrix
from tapeout.isa.layout import block_bytes, pack_blocks, pack_codes, pack_rows, per_block, row_bias, row_bytes
from tapeout.numerics.formats import FORMATS, Format
from tapeout.numerics.scalar import SPLITS


def code_at(data: bytes, index: int, form: Format) -> int:
    """Code `index` of packed codes: a string of bits, the lower column in the lower ones."""
    bits = form.code_bits
    value = int.from_bytes(data, "little") >> index * bits & (1 << bits) - 1
    if form.values:
        return form.values[value]
    return value - (1 << bits) if value >> bits - 1 else value


def read_block(data: bytes, rows: int, lanes: int, groups: int, form: Format) -> tuple[list, list, list, list, list]:
    """(bias [row], factor [row], codes [row][column], scale [row][block], minimum [row][block]) of one row block, scales as bits."""
    bias = [int(np.int8(np.uint8(byte))) for byte in data[:rows]]
    at, size, wide = rows, lanes * form.code_bits // 8, form.scale.bytes
    factor = []
    if form.has_factor:
        factor = list(struct.unpack_from(f"<{rows}f", data, at))
        at += 4 * rows
    codes, scale, minimum = ([[] for _ in range(rows)] for _ in range(3))
    for _ in range(groups):
        for part in (scale, minimum)[: 2 if form.has_minimum else 1]:
            for row in range(rows):
                for _ in range(32 // form.block):
                    part[row].append(int.from_bytes(data[at : at + wide], "little"))
                    at += wide
        for _ in range(32 // lanes):
            for row in range(rows):
                codes[row] += [code_at(data[at : at + size], i, form) for i in range(lanes)]
                at += size
    assert at == len(data)
    return bias, factor, codes, scale, minimum


def stored_parts(matrix: Matrix) -> list:
    """Scale and minimum per block of 16 or 32, as the packers take them."""
    return [None if x is None else per_block(matrix.format, x, matrix.shape[1]) for x in (matrix.scale, matrix.minimum)]


def as_bits(part) -> list[list[int]]:
    return (part.view(np.uint16) if part.dtype == np.float16 else part).tolist()


@pytest.mark.parametrize(("unit_rows", "lanes"), [(4, 16), (8, 8), (8, 32), (32, 32)])
@pytest.mark.parametrize("columns", [32, 40, 128])
@pytest.mark.parametrize("name", FORMATS)
def test_row_blocks_hold_what_was_packed(name, columns, unit_rows, lanes):
    form, rows = FORMATS[name], 2 * unit_rows
    matrix = random_matrix(np.random.default_rng(columns), rows, columns, form)
    parts = stored_parts(matrix)
    blocks = pack_blocks(form, matrix.codes, *parts, unit_rows, lanes, matrix.factor)
    groups = -(-columns // 32)
    assert blocks.shape == (2, block_bytes(unit_rows, columns, name))
    for number, block in enumerate(blocks):
        bias, factor, codes, scale, minimum = read_block(block.tobytes(), unit_rows, lanes, groups, form)
        mine = slice(number * unit_rows, (number + 1) * unit_rows)
        assert np.array(codes)[:, :columns].tolist() == matrix.codes[mine].tolist()
        assert form.name == "binary" or not np.array(codes)[:, columns:].any()
        assert scale == as_bits(parts[0][mine])
        assert factor == ([matrix.factor] * unit_rows if form.has_factor else [])
        assert minimum == (as_bits(parts[1][mine]) if form.has_minimum else [[]] * unit_rows)
        assert bias == [16 - row_exponent(matrix, row) for row in range(number * unit_rows, (number + 1) * unit_rows)]


def row_exponent(matrix: Matrix, row: int) -> int:
    """e_row of docs/numerics.md: the largest exponent of a scale or minimum of the row, -111 at least."""
    form = matrix.format
    parts = [part for part in (matrix.scale, matrix.minimum) if part is not None]
    numbers = [bits for part in parts for bits in block_bits(form, part, matrix.shape[1])[row]]
    return max(-111, *(SPLITS[form.scale.name](bits)[1] for bits in numbers))


@pytest.mark.parametrize("name", FORMATS)
def test_embedding_rows_are_groups_one_after_the_other(name):
    form, columns = FORMATS[name], 72
    matrix = random_matrix(np.random.default_rng(3), 5, columns, form)
    parts = stored_parts(matrix)
    table = pack_rows(form, matrix.codes, *parts, matrix.factor)
    assert table.shape == (5, row_bytes(columns, name))
    size, wide = 32 * form.code_bits // 8, form.scale.bytes
    for row, data in enumerate(table):
        text, at = data.tobytes(), 4 * form.has_factor
        if form.has_factor:
            assert struct.unpack_from("<f", text)[0] == matrix.factor
        for group in range(3):
            codes = [code_at(text[at : at + size], i, form) for i in range(32)]
            wanted = matrix.codes[row, 32 * group : 32 * group + 32].tolist()
            assert codes[: len(wanted)] == wanted
            at += size
            for part in parts[: 2 if form.has_minimum else 1]:
                for bits in as_bits(part)[row][group * 32 // form.block : (group + 1) * 32 // form.block]:
                    assert int.from_bytes(text[at : at + wide], "little") == bits
                    at += wide
            at += at % 2
        assert at == len(text)


def test_the_lower_column_is_in_the_lower_bits():
    codes = np.zeros(32, np.int8)
    codes[:4] = [1, -2, 0, -1]
    assert pack_codes(codes, FORMATS["int8"])[:4].tolist() == [1, 254, 0, 255]
    assert pack_codes(codes, FORMATS["int4"])[:2].tolist() == [0xE1, 0xF0]
    assert pack_codes(codes, FORMATS["ternary"])[0] == 0b11_00_10_01
    assert pack_codes(codes, FORMATS["int3"])[:2].tolist() == [0b00_110_001, 0b1110]
    assert pack_codes(codes, FORMATS["q5_k"])[:3].tolist() == [0b110_00001, 0b1_00000_11, 0b1111]
    codes[:4] = [1, -12, 8, 0]
    assert pack_codes(codes, FORMATS["nvfp4"])[:2].tolist() == [0xF1, 0x06]


def test_sizes_by_hand():
    assert block_bytes(8, 64, "int8") == 8 * (1 + 2 * (32 + 2))
    assert block_bytes(4, 33, "int4m") == 4 * (1 + 2 * (16 + 4))
    assert block_bytes(32, 32, "ternary") == 32 * (1 + 8 + 2)
    assert row_bytes(576, "int8") == 18 * 34
    assert block_bytes(4, 64, "mxfp4") == 4 * (1 + 2 * (16 + 1))
    assert block_bytes(4, 64, "nvfp4") == 4 * (1 + 4 + 2 * (16 + 2))
    assert block_bytes(4, 64, "q4_k") == 4 * (1 + 2 * (16 + 3 + 3))
    assert block_bytes(4, 64, "q6_k") == 4 * (1 + 2 * (24 + 6))
    assert row_bytes(64, "mxfp4") == 2 * (16 + 1 + 1)
    assert row_bytes(64, "nvfp4") == 2 * (16 + 2) + 4


def test_a_row_of_zero_scales_has_the_bias_of_the_smallest_exponent():
    scale = np.zeros((1, 2), np.float16)
    assert row_bias(FORMATS["int8"], np.zeros((1, 64), np.int8), scale, None).tolist() == [16 + 24]
