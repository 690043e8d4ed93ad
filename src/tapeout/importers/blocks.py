"""How files lay out numbers: one row per tensor type, from bytes to a `Weight`.

Codes, scales and minima are carried exactly as they stand, copied: a file may change after it was read. Source of the
layouts: ggml, `ggml-common.h` (block_q4_0, block_q4_1, block_q8_0, block_mxfp4), where a block is 32 weights of one row, and the
K-quants (block_q4_K, block_q5_K, block_q6_K), where it is 256.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.graph.types import Matrix, Weight
from tapeout.importers.mapped import Mapped
from tapeout.numerics.formats import FORMATS
from tapeout.numerics.scales import is_scale, wide_scale

Decode = Callable[[NDArray, int, int], Weight]
"""(stored elements, rows, columns) -> the weight [rows, columns]."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One tensor type: `block` weights in `bytes` bytes, read as `dtype`."""

    name: str
    block: int
    dtype: np.dtype
    decode: Decode

    @property
    def bytes(self) -> int:
        """Bytes of one block."""
        return self.dtype.itemsize

    def read(self, file: Mapped, offset: int, shape: tuple[int, ...], where: str) -> Weight:
        """The tensor at byte `offset`, [rows, columns] or [columns]; the bounds are checked before.

        Raises `BadInput` for a NaN or an infinity among its floats, scales or minima.
        """
        rows, columns = (1, *shape)[-2:]
        stored = file.view(self.dtype, rows * columns // self.block, offset)
        weight = self.decode(stored, rows, columns)
        if not (_finite_scales(weight) if isinstance(weight, Matrix) else finite(weight)):
            raise BadInput(where, "holds a NaN or an infinity")
        return weight if isinstance(weight, Matrix) else weight.reshape(shape)


def _finite_scales(weight: Matrix) -> bool:
    parts = [part for part in (weight.scale, weight.minimum) if part is not None]
    return all(is_scale(weight.format.scale, part).all() for part in parts)


def finite(numbers: NDArray) -> bool:
    """Whether no number is NaN or infinite (binary16 by its exponent field, which is many times quicker)."""
    if numbers.dtype == np.float16:
        return not np.any((numbers.view(np.uint16) & 0x7C00) == 0x7C00)
    return bool(np.isfinite(numbers).all())


def _f32(stored: NDArray, rows: int, columns: int) -> Weight:
    return stored.astype(np.float32).reshape(rows, columns)


def _bf16(stored: NDArray, rows: int, columns: int) -> Weight:
    return (stored.astype(np.uint32) << 16).view(np.float32).reshape(rows, columns)


def _int8(stored: NDArray, rows: int, columns: int) -> Weight:
    codes = np.ascontiguousarray(stored["codes"]).reshape(rows, columns)
    return Matrix(FORMATS["int8"], codes, _per_group(stored["scale"], rows))


def _int4(stored: NDArray, rows: int, columns: int) -> Weight:
    return Matrix(FORMATS["int4"], _nibbles(stored["codes"], rows, columns), _per_group(stored["scale"], rows))


def _int4m(stored: NDArray, rows: int, columns: int) -> Weight:
    scale, minimum = (_per_group(stored[name], rows) for name in ("scale", "minimum"))
    return Matrix(FORMATS["int4m"], _nibbles(stored["codes"], rows, columns), scale, minimum)


def _nibbles(packed: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.int8]:
    """Unsigned nibbles minus 8: the low ones are a block's first 16 weights, the high ones its last 16."""
    codes = np.empty((len(packed), 2, 16), np.uint8)
    np.bitwise_and(packed, 15, out=codes[:, 0])
    np.right_shift(packed, 4, out=codes[:, 1])
    signed = codes.view(np.int8)
    signed -= 8
    return signed.reshape(rows, columns)


def _mxfp4(stored: NDArray, rows: int, columns: int) -> Weight:
    patterns = _nibbles(stored["codes"], rows, columns) + np.int8(8)
    codes = np.array(FORMATS["mxfp4"].values, np.int8)[patterns]
    return Matrix(FORMATS["mxfp4"], codes, _per_group(stored["scale"], rows))


def _q4_k(stored: NDArray, rows: int, columns: int) -> Weight:
    codes = _two_of_a_byte(stored["codes"]).reshape(rows, columns)
    return Matrix(FORMATS["q4_k"], codes.view(np.int8) - np.int8(8), *_scales_and_minima(stored, rows))


def _q5_k(stored: NDArray, rows: int, columns: int) -> Weight:
    fifth = stored["high"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    codes = _two_of_a_byte(stored["codes"]).reshape(-1, 8, 32) | fifth << np.uint8(4)
    return Matrix(
        FORMATS["q5_k"], codes.reshape(rows, columns).view(np.int8) - np.int8(16), *_scales_and_minima(stored, rows)
    )


def _q6_k(stored: NDArray, rows: int, columns: int) -> Weight:
    """Each half of 128 weights: four runs of 32, their low four bits in nibbles, their high two in a byte of all four."""
    low = stored["codes"].reshape(-1, 2, 2, 32)
    nibbles = np.concatenate([low & np.uint8(15), low >> np.uint8(4)], axis=2)
    high = stored["high"].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & np.uint8(3)
    codes = (nibbles | high << np.uint8(4)).reshape(rows, columns).view(np.int8) - np.int8(32)
    scale = wide_scale(stored["d"][:, None], stored["scale"].astype(np.int64))
    return Matrix(FORMATS["q6_k"], codes, scale.reshape(rows, -1))


def _two_of_a_byte(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[blocks, 128] -> [blocks, 4, 2, 32]: of every 32 bytes the low nibbles, then the high ones."""
    run = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([run & np.uint8(15), run >> np.uint8(4)], axis=2)


def _scales_and_minima(stored: NDArray, rows: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """d times the 8 scales of a superblock, -dmin times its 8 minima, of 6 bits each: the first four of both in the low bits of bytes
    0..7, the others' low four bits in bytes 8..11 and their high two on top of bytes 0..7.
    """
    first, second, third = np.split(stored["scales"].astype(np.int64), 3, axis=1)
    by = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    low = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return wide_scale(stored["d"][:, None], by).reshape(rows, -1), wide_scale(stored["dmin"][:, None], -low).reshape(
        rows, -1
    )


def _per_group(numbers: NDArray, rows: int) -> NDArray:
    return np.ascontiguousarray(numbers).reshape(rows, -1)


_Q8_0 = np.dtype([("scale", "<f2"), ("codes", "i1", 32)])
_Q4_0 = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])
_Q4_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("codes", "u1", 16)])
_MXFP4 = np.dtype([("scale", "u1"), ("codes", "u1", 16)])
_Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("codes", "u1", 128)])
_Q5_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("high", "u1", 32), ("codes", "u1", 128)])
_Q6_K = np.dtype([("codes", "u1", 128), ("high", "u1", 64), ("scale", "i1", 16), ("d", "<f2")])

LAYOUTS = {
    row.name: row
    for row in (
        Layout("F32", 1, np.dtype("<f4"), _f32),
        Layout("F16", 1, np.dtype("<f2"), _f32),
        Layout("BF16", 1, np.dtype("<u2"), _bf16),
        Layout("Q8_0", 32, _Q8_0, _int8),
        Layout("Q4_0", 32, _Q4_0, _int4),
        Layout("Q4_1", 32, _Q4_1, _int4m),
        Layout("MXFP4", 32, _MXFP4, _mxfp4),
        Layout("Q4_K", 256, _Q4_K, _q4_k),
        Layout("Q5_K", 256, _Q5_K, _q5_k),
        Layout("Q6_K", 256, _Q6_K, _q6_k),
    )
}
"""Every layout that is read, by its name in GGUF; safetensors uses the same names for the first three."""
