"""Packed matrices as the C library reads them: tiles of 32 rows and one group of columns, codes and scales side by side.

Codes within -8..7 take 4 bits. Scales are held in binary16 where that is exact: as 2^-16 of `Packed`'s. All tiles of a
model stand in one array, which the system then backs by large pages where it can.
"""

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.graph.native.structs import MatrixStruct
from tapeout.graph.packing import LANES, Packed

MOST_SUM = 2.0**50.9
"""What the magnitudes of a row's terms may sum to in one run of groups, with a margin below 2^51."""
MOST_TERM = 15 * 127
"""Greatest factor of an activation times its greatest code."""


@dataclass(slots=True)
class Arena:
    """One array that matrices are laid into, one after the other."""

    room: NDArray[np.uint8]
    used: int = 0

    @classmethod
    def of(cls, bytes_: int) -> "Arena":
        """Room for so many bytes, from a cache line on."""
        room = np.empty(bytes_ + 64, np.uint8)
        return cls(room, -room.ctypes.data % 64)

    def take(self, bytes_: int) -> NDArray[np.uint8]:
        """The next `bytes_` of it."""
        part = self.room[self.used : self.used + bytes_]
        assert len(part) == bytes_, "the arena was made too small"
        self.used += -(-bytes_ // 64) * 64
        return part


def most_bytes(rows: int, columns: int, bits: int) -> int:
    """Room that a matrix takes at most, whatever its scales."""
    per_column = LANES * bits // 8 + 8 * LANES // 16
    return -(-rows // LANES) * (-(-columns // 32) * 32 * per_column) + 64


def lay_out(library: ctypes.CDLL, packed: Packed, bits: int, arena: Arena) -> MatrixStruct | str:
    """A matrix of 4- or 8-bit codes in the arena, or why the library cannot multiply it. The struct points into
    `packed.exponent` and the arena.
    """
    blocks, groups, columns = packed.codes.shape[:3]
    if columns not in (16, 32):
        return f"groups of {columns} columns"
    scale, minimum = _halves(packed) if packed.spill > 1 else (packed.scale, packed.minimum)
    stored = scale.dtype.itemsize
    tile_bytes = columns * LANES * bits // 8 + LANES * stored * (1 if minimum is None else 2)
    tiles = arena.take(blocks * groups * tile_bytes)
    reach = np.empty((blocks, groups, LANES), np.int32)
    codes = np.ascontiguousarray(packed.codes)
    library.pack_tiles(
        codes.ctypes.data, scale.ctypes.data, None if minimum is None else minimum.ctypes.data, blocks * groups,
        columns, bits, stored, packed.offset, tiles.ctypes.data, reach.ctypes.data,
    )  # fmt: skip
    terms = _reach(packed, reach)
    period = _period(terms)
    deep = period == 0
    if deep and stored == 2:
        return "terms of 2^51 or more"
    return MatrixStruct(
        tiles=tiles.ctypes.data, exponent=packed.exponent.ctypes.data, rows=packed.rows, blocks=blocks, groups=groups,
        columns=columns, bits=bits, offset=packed.offset, halves=int(stored == 2),
        has_minimum=int(minimum is not None), tile_bytes=tile_bytes, period=groups if deep else period,
        fits=int(not deep and terms.sum(axis=1).max() < 4 * MOST_SUM), deep=int(deep), factor=packed.factor,
    )  # fmt: skip


def _halves(packed: Packed) -> tuple[NDArray, NDArray | None]:
    """Scales and minima in binary16 where both are exact so, else as they are."""
    both = [packed.scale] if packed.minimum is None else [packed.scale, packed.minimum]
    with np.errstate(over="ignore", under="ignore"):
        halves = [(part * np.float32(2.0**-16)).astype(np.float16) for part in both]
        exact = all(
            np.array_equal(half.astype(np.float32) * np.float32(2.0**16), part)
            for half, part in zip(halves, both, strict=True)
        )
    parts = [np.ascontiguousarray(part) for part in (halves if exact else both)]
    return parts[0], parts[1] if len(parts) > 1 else None


def _reach(packed: Packed, reach: NDArray[np.int32]) -> NDArray[np.float64]:
    """[blocks, groups, rows]: what the magnitudes of a group's terms, their floors counted, sum to at most."""
    terms = reach.astype(np.float64) * np.abs(packed.scale)
    if packed.minimum is not None:
        terms += packed.codes.shape[2] * np.abs(packed.minimum.astype(np.float64))
    return MOST_TERM * terms + 2


def _period(terms: NDArray[np.float64]) -> int:
    """The longest run of groups, by which all groups are cut, that sums to less than MOST_SUM in every row; 0 for none."""
    groups = terms.shape[1]
    for parts in range(1, groups + 1):
        period = -(-groups // parts)
        if np.add.reduceat(terms, np.arange(0, groups, period), axis=1).max() < MOST_SUM:
            return period
    return 0
