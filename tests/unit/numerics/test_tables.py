"""The tables against hashes, worked entries and, loosely, the platform's libm."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest

from tapeout.numerics import tables

HASHES = {
    "SINE": "28f653280e9e6713c361e72fbe625dd493eb37567934c2ae3d3d3962b395111c",
    "EXP2": "fef27dbee938c5077c8d1904571779f4a9c36495318dabd2f50eec5e87c30eb5",
    "SIGMOID": "1000ca90e8e16965d15bdb5b0df58837fc1024c8fd1dcc4cbef774cc7bf87172",
    "RECIPROCAL": "e6635618fff71d1c01b474c29e95f3b5646df01a397ecfb7ff4c046bf854ec50",
}


def digest(table: np.ndarray) -> str:
    return hashlib.sha256(table.astype(table.dtype.newbyteorder("<")).tobytes()).hexdigest()


@pytest.mark.parametrize("name", HASHES)
def test_a_tables_bytes_never_change(name):
    assert digest(getattr(tables, name)) == HASHES[name]


def test_increments_never_change():
    assert digest(tables.rope_increments(1e5, 64)) == "b4b406f20394dde924d8f511c3cb73370513dce9045498135ea7265145517217"
    assert (
        digest(tables.rope_increments(1e4, 128)) == "7a781cf64304292ba7d15734f0bd08a13161fcaeb3d7d7bf0b42cdf48e5b2ea2"
    )
    assert tables.rope_increments(1e4, 4).dtype == np.uint32


def test_worked_entries():
    assert tables.SINE[[0, 1, 128, 256, 512, 768, 1024]].tolist() == [0, 102943, 11863283, 2**24, 0, -(2**24), 0]
    assert tables.EXP2[[0, 32, 64]].tolist() == [2**24, 11863283, 2**23]
    assert tables.SIGMOID[[0, 32, 511, 512, 513]].tolist() == [2**23, 12265128, 16777214, 2**24, 2**24]
    assert tables.RECIPROCAL[8] == 0.125
    assert tables.rope_increments(10000.0, 4).tolist() == [683565276, 6835653]


def test_the_libm_agrees_within_a_last_bit():
    j = np.arange(1025)
    assert np.abs(tables.SINE - 2**24 * np.sin(2 * np.pi * j / 1024)).max() < 0.501
    assert np.abs(tables.EXP2 - 2 ** (24 - j[:65] / 64)).max() < 0.501
    assert np.abs(tables.SIGMOID[:512] - 2**24 / (1 + np.exp(-j[:512] / 32))).max() < 0.501
    x = j[:512] / 64
    assert (
        np.abs(tables.GELU[:512] - 2**24 / (1 + np.exp(-math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)))).max() < 0.501
    )
    turns = 2**32 * 500000.0 ** (-np.arange(64) / 64) / (2 * math.pi)
    assert np.abs(tables.rope_increments(500000.0, 128) - turns).max() < 0.501


def test_an_increment_of_more_than_a_turn_wraps():
    assert int(tables.rope_increments(0.001, 4)[1]) == round(2**32 * math.sqrt(1000) / (2 * math.pi)) % 2**32


@pytest.mark.parametrize("n", range(8, 16))
def test_reciprocals_are_the_nearest_binary32(n):
    exact, found = Fraction(1, n), float(tables.RECIPROCAL[n])
    for other in (np.nextafter(np.float32(found), np.float32(1)), np.nextafter(np.float32(found), np.float32(0))):
        assert abs(Fraction(found) - exact) < abs(Fraction(float(other)) - exact)


def test_constants_are_the_nearest_binary32():
    for head_dim in (4, 64, 80, 128):
        assert tables.score_constant(head_dim) == np.float32(math.log2(math.e) / math.sqrt(head_dim))
    for width in (1, 3, 576, 65536):
        assert tables.reciprocal_of_width(width) == np.float32(1 / width)


def test_tables_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        tables.SINE[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        tables.RECIPROCAL[8] = 1
