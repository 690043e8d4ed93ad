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


@pytest.mark.parametrize("kind", ["MXFP4", "Q4_K", "Q5_K", "Q6_K"])
def test_blocks_of_256_and_small_floats_agree_with_an_obvious_decoder(kind: str):
    rng, layout = np.random.default_rng(4), LAYOUTS[kind]
    raw = rng.integers(0, 256, (6, 512 // layout.block, layout.bytes), np.uint8)
    if kind == "MXFP4":
        raw[..., 0] = rng.integers(100, 140, raw.shape[:2])
    for at in {"MXFP4": (), "Q6_K": (208,)}.get(kind, (0, 2)):
        raw[..., at : at + 2] = rng.normal(size=(*raw.shape[:2], 1)).astype("<f2").view(np.uint8)
    matrix = read(kind, raw.tobytes(), 6, 512)
    assert isinstance(matrix, Matrix)
    assert (matrix.format.name, matrix.format.bits_per_weight) == (kind.lower(), 8 * layout.bytes / layout.block)
    wanted = [[OBVIOUS[kind](block.tobytes(), i) for block in row for i in range(layout.block)] for row in raw]
    assert np.array_equal(matrix.to_float(np.float64), np.array(wanted))


def obvious_mxfp4(block: bytes, i: int) -> float:
    pattern = block[1 + i % 16] >> (4 if i >= 16 else 0) & 15
    return (-1.0 if pattern & 8 else 1.0) * (0, 0.5, 1, 1.5, 2, 3, 4, 6)[pattern & 7] * 2.0 ** (block[0] - 127)


def obvious_k(block: bytes, i: int, codes: int, most: int) -> float:
    """Q4_K and Q5_K: nibbles from byte `codes` on; the fifth bit, where there is one, from byte 16 on."""
    d, dmin = struct.unpack_from("<ee", block)
    packed, j = block[4:16], i // 32
    if j < 4:
        by, low = packed[j] & 63, packed[j + 4] & 63
    else:
        by = packed[j + 4] & 15 | packed[j - 4] >> 6 << 4
        low = packed[j + 4] >> 4 | packed[j] >> 6 << 4
    q = block[codes + i // 64 * 32 + i % 32] >> (4 if j % 2 else 0) & 15
    if most == 31:
        q += 16 * (block[16 + i % 32] >> j & 1)
    return d * by * q - dmin * low


def obvious_q6_k(block: bytes, i: int) -> float:
    d, half, run, at = struct.unpack_from("<e", block, 208)[0], i // 128, i % 128 // 32, i % 32
    low = block[64 * half + 32 * (run % 2) + at] >> (4 if run >= 2 else 0) & 15
    high = block[128 + 32 * half + at] >> 2 * run & 3
    return d * struct.unpack_from("b", block, 192 + i // 16)[0] * ((low | high << 4) - 32)


OBVIOUS = {
    "MXFP4": obvious_mxfp4,
    "Q4_K": lambda block, i: obvious_k(block, i, 16, 15),
    "Q5_K": lambda block, i: obvious_k(block, i, 48, 31),
    "Q6_K": obvious_q6_k,
}


@pytest.mark.parametrize(
    ("kind", "at", "bad"), [("MXFP4", 0, b"\xff"), ("Q4_K", 2, b"\x00\x7c"), ("Q6_K", 208, b"\x01\x7e")]
)
def test_scales_that_are_no_numbers_are_refused(kind: str, at: int, bad: bytes):
    raw = bytearray(LAYOUTS[kind].bytes)
    raw[at : at + len(bad)] = bad
    with pytest.raises(BadInput, match="m: t: holds a NaN or an infinity"):
        read(kind, bytes(raw), 1, LAYOUTS[kind].block)


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
