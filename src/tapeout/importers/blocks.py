"""How files lay out numbers: one row per tensor type, from bytes to a `Weight`.

Codes, scales and minima are carried exactly as they stand, copied: a file may change after it was read. Source of the
layouts: ggml, `ggml-common.h` (block_q4_0, block_q4_1, block_q8_0), where a block is 32 weights of one row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.graph.types import Matrix, Weight
from tapeout.importers.mapped import Mapped
from tapeout.numerics.formats import FORMATS

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
        for part in (weight.scale, weight.minimum) if isinstance(weight, Matrix) else (weight,):
            if part is not None and not finite(part):
                raise BadInput(where, "holds a NaN or an infinity")
        return weight if isinstance(weight, Matrix) else weight.reshape(shape)


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


def _per_group(numbers: NDArray, rows: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(numbers).reshape(rows, -1)


_Q8_0 = np.dtype([("scale", "<f2"), ("codes", "i1", 32)])
_Q4_0 = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])
_Q4_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("codes", "u1", 16)])

LAYOUTS = {
    row.name: row
    for row in (
        Layout("F32", 1, np.dtype("<f4"), _f32),
        Layout("F16", 1, np.dtype("<f2"), _f32),
        Layout("BF16", 1, np.dtype("<u2"), _bf16),
        Layout("Q8_0", 32, _Q8_0, _int8),
        Layout("Q4_0", 32, _Q4_0, _int4),
        Layout("Q4_1", 32, _Q4_1, _int4m),
    )
}
"""Every layout that is read, by its name in GGUF; safetensors uses the same names for the first three."""
