"""Blocks of GGUF against hand-worked integers and an obvious decoder."""

import struct

import numpy as np
import pytest

from tapeout.base.errors import BadInput
from tapeout.graph.types import Matrix
from tapeout.importers.blocks import LAYOUTS
from tapeout.importers.mapped import Mapped


def read(kind: str, raw: bytes, rows: int, columns: int):
    return LAYOUTS[kind].read(Mapped("m", raw), 0, (rows, columns), "m: t")


def test_low_nibbles_come_first():
    packed = bytes(low | (15 - low) << 4 for low in range(16))
    matrix = read("Q4_0", struct.pack("<e", 0.5) + packed, 1, 32)
    assert matrix.codes.tolist() == [[*range(-8, 8), *range(7, -9, -1)]]
    assert matrix.format.name == "int4"
    assert matrix.to_float()[0, :2].tolist() == [-4.0, -3.5]


def test_q4_1_keeps_its_minimum_and_carries_codes_minus_8():
    matrix = read("Q4_1", struct.pack("<ee", 0.25, -1.5) + bytes([0x0F] * 16), 1, 32)
    assert matrix.codes.tolist() == [[7] * 16 + [-8] * 16]
    assert matrix.to_float()[0, [0, 16]].tolist() == [15 * 0.25 - 1.5, -1.5]


def test_q8_0_keeps_minus_128():
    matrix = read("Q8_0", struct.pack("<e", -0.125) + struct.pack("32b", -128, *range(31)), 1, 32)
    assert matrix.codes[0, :3].tolist() == [-128, 0, 1]
    assert matrix.to_float()[0, 0] == 16.0


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_agree_with_an_obvious_decoder(kind: str):
    rng = np.random.default_rng(3)
    halves, size = {"Q4_0": (1, 16), "Q4_1": (2, 16), "Q8_0": (1, 32)}[kind]
    rows, columns = 5, 96
    wanted, raw = np.empty((rows, columns), np.float32), b""
    for row in range(rows):
        for group in range(columns // 32):
            head = rng.normal(size=halves).astype(np.float16)
            body = rng.integers(0, 256, size, np.uint8)
            raw += head.tobytes() + body.tobytes()
            for i in range(32):
                wanted[row, 32 * group + i] = obvious(kind, head, body, i)
    matrix = read(kind, raw, rows, columns)
    assert isinstance(matrix, Matrix)
    assert np.array_equal(matrix.to_float(), wanted)


def obvious(kind: str, head: np.ndarray, body: np.ndarray, i: int) -> np.float32:
    if kind == "Q8_0":
        return np.float32(head[0]) * np.float32(body.view(np.int8)[i])
    nibble = int(body[i]) & 15 if i < 16 else int(body[i - 16]) >> 4
    if kind == "Q4_0":
        return np.float32(head[0]) * np.float32(nibble - 8)
    return np.float32(head[0]) * np.float32(nibble) + np.float32(head[1])


def test_bf16_and_f16_become_the_same_floats():
    values = np.array([1.0, -2.5, 0.0, 2.0**-14], np.float32)
    assert read("F16", values.astype("<f2").tobytes(), 1, 4).tolist() == [values.tolist()]
    assert read("BF16", (values.view(np.uint32) >> 16).astype("<u2").tobytes(), 1, 4).tolist() == [values.tolist()]
    assert read("F16", values.astype("<f2").tobytes(), 1, 4).dtype == np.float32


def test_a_vector_stays_a_vector():
    assert LAYOUTS["F32"].read(Mapped("m", bytes(12)), 0, (3,), "m: t").shape == (3,)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("F32", struct.pack("<f", float("nan")) * 32),
        ("F16", struct.pack("<e", float("inf")) * 32),
        ("BF16", b"\x80\x7f" * 32),
        ("Q8_0", struct.pack("<e", float("nan")) + bytes(32)),
        ("Q4_1", struct.pack("<ee", 1.0, float("-inf")) + bytes(16)),
    ],
)
def test_nan_and_infinity_are_refused(kind: str, raw: bytes):
    with pytest.raises(BadInput, match=r"^m: t: holds a NaN or an infinity$"):
        read(kind, raw, 1, 32)
