"""Scales as integers: the arrays of a `Matrix` to (ms, es), to bytes of a chip's memory, and back to numbers."""

import numpy as np
from numpy.typing import NDArray

from tapeout.numerics.formats import BINARY16, E4M3, E8M0, WIDE, Scale

I64 = NDArray[np.int64]

LEAST_ROW_EXPONENT = -111
"""e_row is at least this, so that F - e_row fits a signed byte; only E8M0 goes lower."""
NOT_A_NUMBER = {E8M0.name: 255, E4M3.name: 127}
"""The patterns from which on a byte is no scale."""


def split_scale(kind: Scale, stored: NDArray) -> tuple[I64, I64]:
    """(ms, es) of stored scales, value ms * 2^es: mantissas as they stand, never normalised further."""
    if kind == E8M0:
        return np.ones(stored.shape, np.int64), stored.astype(np.int64) - 128
    if kind == BINARY16:
        bits = np.ascontiguousarray(stored).view(np.uint16).astype(np.int64)
        m, field, sign = bits & 1023, bits >> 10 & 31, bits >> 15
        m = np.where(field > 0, m | 1024, m)
        return np.where(sign, -m, m), np.maximum(field, 1) - 25
    bits = stored.astype(np.int64)
    if kind == E4M3:
        field = bits >> 3
        return np.where(field > 0, bits & 7 | 8, bits & 7), np.maximum(field, 1) - 11
    assert kind == WIDE, f"no rule for scales of kind {kind.name}"
    m = bits & 0x3FFFF
    return np.where(bits >> 23, -m, m), np.maximum(bits >> 18 & 31, 1) - 25


def wide_scale(half: NDArray[np.float16], by: NDArray[np.integer]) -> NDArray[np.uint32]:
    """half * by, exactly, as `WIDE` holds it; |by| <= 128."""
    m, e = split_scale(BINARY16, half)
    product = m * by
    assert np.abs(product).max(initial=0) < 1 << 18, "a product of 11 and 8 bits"
    return (np.abs(product) | (e + 25) << 18 | (product < 0).astype(np.int64) << 23).astype(np.uint32)


def scale_values(kind: Scale, stored: NDArray, dtype: type = np.float64) -> NDArray:
    """Stored scales as numbers; every one is exact in binary32 (its subnormals counted)."""
    if kind == BINARY16:
        return stored.astype(dtype)
    m, e = split_scale(kind, stored)
    return np.ldexp(m.astype(np.float64), e).astype(dtype)


def is_scale(kind: Scale, stored: NDArray) -> NDArray[np.bool_]:
    """Whether each number is a finite one of its kind."""
    if kind == BINARY16:
        return (np.ascontiguousarray(stored).view(np.uint16) & 0x7C00) != 0x7C00
    if kind == WIDE:
        return (stored < 1 << 24) & ((stored >> 18 & 31) < 31)
    return stored < NOT_A_NUMBER[kind.name]


def scale_bytes(kind: Scale, stored: NDArray) -> NDArray[np.uint8]:
    """[...] -> [..., kind.bytes]: as a chip's memory has them, little-endian."""
    flat = np.ascontiguousarray(stored)
    return flat.view(np.uint8).reshape(*flat.shape, -1)[..., : kind.bytes]
