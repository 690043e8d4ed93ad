"""Binary32 numbers for tests, as bits: the awkward ones, and random ones whose sums, products and quotients meet every edge."""

import numpy as np

FIELDS = (1, 2, 3, 23, 24, 25, 26, 63, 64, 126, 127, 128, 150, 151, 191, 230, 252, 253, 254)
FRACTIONS = (0, 1, 2, 3, 0x3FFFFF, 0x400000, 0x400001, 0x555555, 0x7FFFFE, 0x7FFFFF)
SPECIAL = np.array(
    [0, 1 << 31, *(s << 31 | field << 23 | fraction for s in (0, 1) for field in FIELDS for fraction in FRACTIONS)],
    np.uint32,
)
"""Zeros of both signs, the least normal, the greatest, powers of two and their neighbours, halves of last bits."""


def special_pairs() -> np.ndarray:
    """[2, n]: the special numbers crossed with each other."""
    return np.stack([x.ravel() for x in np.meshgrid(SPECIAL, SPECIAL, indexing="ij")])


def random_pairs(count: int, seed: int) -> np.ndarray:
    """[2, count]: a fifth each of any fields, close ones, products and quotients near 2^-126, products and quotients near 2^128."""
    random = np.random.default_rng(seed)
    fraction = random.integers(0, 1 << 23, (2, count))
    short = random.integers(0, 1 << 23, (2, count)) & -(1 << random.integers(0, 23, (2, count)))
    fraction = np.where(random.random((2, count)) < 0.3, short, fraction)
    field = random.integers(1, 255, (2, count))
    kind, near = random.integers(0, 7, count), random.integers(-3, 4, count)
    partner = {
        1: field[0] + near,
        2: 127 + near - field[0],
        3: 381 + near - field[0],
        4: field[0] + 126 + near,
        5: field[0] - 127 + near,
        6: field[0] + 8 * near,
    }
    for number, other in partner.items():
        field[1] = np.where(kind == number, np.clip(other, 1, 254), field[1])
    return (random.integers(0, 2, (2, count)) << 31 | field << 23 | fraction).astype(np.uint32)
