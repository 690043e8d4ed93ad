"""Numbers to floats of a few bits: E2M1 codes, E4M3 and E8M0 scales."""

import numpy as np
from numpy.typing import NDArray

STEPS = np.array([0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0])
"""Half way between neighbours of E2M1, doubled: 0, 1, 2, 3, 4, 6, 8, 12."""
LEVELS = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.int8)


def e2m1_codes(groups: NDArray[np.float32], scale: NDArray[np.float64]) -> NDArray[np.int8]:
    """The nearest doubled codes of groups [rows, groups, weights] by scale [rows, groups]; ties to the even pattern; 12 at most."""
    divisor = np.where(scale == 0, np.inf, scale)
    x = groups / divisor[..., None]
    size = np.abs(x)
    level = np.searchsorted(STEPS, size, side="left")
    tie_up = (level < 7) & (level % 2 == 1) & (size == STEPS[np.minimum(level, 6)])
    codes = LEVELS[level + tie_up]
    return np.where(x < 0, -codes, codes)


def e8m0_bits(peak: NDArray[np.float32]) -> NDArray[np.uint8]:
    """MXFP4's scale of groups with these greatest magnitudes: 2^(floor(log2 peak) - 2), or the least there is."""
    exponent = np.frexp(peak)[1].astype(np.int64) - 3
    return np.where(peak == 0, 0, np.clip(exponent + 127, 0, 254)).astype(np.uint8)


def e4m3_bits(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The nearest E4M3 of numbers >= 0, ties to even; 448 at most."""
    exponent = np.where(x == 0, -6, np.maximum(np.frexp(x)[1].astype(np.int64) - 1, -6))
    steps = np.rint(np.ldexp(x.astype(np.float64), 3 - exponent)).astype(np.int64)
    # A number that rounds up to the next power of two carries into the exponent by itself; subnormals have field 0, which is 1 less.
    return np.minimum(steps + ((exponent + 6) << 3), 126).astype(np.uint8)
