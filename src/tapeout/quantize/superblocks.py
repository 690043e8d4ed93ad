"""Scales that share a binary16 number: the K-quants, by the plainest rule (see `round_to_nearest`)."""

import numpy as np
from numpy.typing import NDArray

from tapeout.numerics.formats import WIDE
from tapeout.numerics.scales import scale_values, wide_scale

Groups = NDArray[np.float32]
F32 = NDArray[np.float32]


def q4_k(groups: Groups) -> tuple[NDArray[np.int8], NDArray, NDArray]:
    """(codes, scales, minima) with codes 0..15 carried as -8..7."""
    return _with_minimum(groups, 15)


def q5_k(groups: Groups) -> tuple[NDArray[np.int8], NDArray, NDArray]:
    """(codes, scales, minima) with codes 0..31 carried as -16..15."""
    return _with_minimum(groups, 31)


def q6_k(groups: Groups) -> tuple[NDArray[np.int8], NDArray, None]:
    """(codes, scales, None), codes -32..31."""
    low, high = groups.min(axis=2), groups.max(axis=2)
    scale = shared(np.where(high > -low, high, low) / np.float32(-32), 16, 127)
    codes = np.clip(np.rint(groups / _divisor(scale)), -32, 31)
    return codes.astype(np.int8), scale, None


def _with_minimum(groups: Groups, most: int) -> tuple[NDArray[np.int8], NDArray, NDArray]:
    low = np.minimum(groups.min(axis=2), 0)
    scale = shared((groups.max(axis=2) - low) / np.float32(most), 8, 63)
    minimum = shared(low, 8, 63)
    above = groups - scale_values(WIDE, minimum, np.float32)[..., None]
    codes = np.clip(np.rint(above / _divisor(scale)), 0, most)
    return codes.astype(np.int8) - np.int8((most + 1) // 2), scale, minimum


def _divisor(scale: NDArray[np.uint32]) -> F32:
    values = scale_values(WIDE, scale, np.float32)
    return np.where(values == 0, np.float32(np.inf), values)[..., None]


def shared(numbers: F32, count: int, most: int) -> NDArray[np.uint32]:
    """Numbers [rows, groups] as d times an integer of at most `most`, d in binary16 for `count` neighbours: their peak / most, with
    its sign. Raises OverflowError where d does not fit.
    """
    rows, groups = numbers.shape
    padded = np.pad(numbers, ((0, 0), (0, -groups % count))).reshape(rows, -1, count)
    at = np.abs(padded).argmax(axis=2)[..., None]
    d = (np.take_along_axis(padded, at, axis=2)[..., 0] / np.float32(most)).astype(np.float16)
    if np.isinf(d).any():
        raise OverflowError
    divisor = np.where(d == 0, np.float32(np.inf), d.astype(np.float32))[..., None]
    by = np.clip(np.rint(padded / divisor), -most, most).astype(np.int64)
    return wide_scale(np.repeat(d[..., None], count, axis=2), by).reshape(rows, -1)[:, :groups]
