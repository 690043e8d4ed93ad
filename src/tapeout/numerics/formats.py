"""The number formats of weights: one row each, and how each kind of scale is written down."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """How a group's scale (and minimum) is encoded: always a signed integer ms times 2^es. See docs/numerics.md, section 2."""

    name: str
    dtype: str
    """Of the array in a `Matrix`."""
    bytes: int
    """As it lies in a chip's memory."""
    mantissa_bits: int
    """|ms| < 2^mantissa_bits."""


BINARY16 = Scale("binary16", "float16", 2, 11)
E8M0 = Scale("e8m0", "uint8", 1, 1)
"""An exponent alone: MXFP4's. es = byte - 128, one less than the file means, because codes of E2M1 are carried doubled."""
E4M3 = Scale("e4m3", "uint8", 1, 4)
"""NVFP4's, without sign; es is again one less."""
WIDE = Scale("wide", "uint32", 3, 18)
"""A product of the K-quants, binary16 times an integer: 18 bits of |ms|, 5 bits of binary16's exponent field, a sign."""

SCALES = {row.name: row for row in (BINARY16, E8M0, E4M3, WIDE)}

E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""Twice the value of each of FP4's 16 patterns: 5 bits signed."""
PLUS_MINUS = (-1, 1)
"""What a single bit means."""


@dataclass(frozen=True, slots=True)
class Format:
    """Codes of few bits with a scale (and minimum) per group along the input dimension.

    value = factor * (scale * (code + offset) + minimum); code is signed, low <= code <= high. `factor` is 1 but for NVFP4.
    """

    name: str
    code_bits: int
    """Bits of a code in memory."""
    low: int
    high: int
    offset: int
    has_minimum: bool
    group: int = 32
    scale: Scale = BINARY16
    scale_bits: int = 16
    """Bits per group that a file spends on its scale, and as many on its minimum; a superblock's numbers are shared out."""
    values: tuple[int, ...] = ()
    """What each bit pattern means; empty where a pattern is its code in two's complement."""

    @property
    def block(self) -> int:
        """Columns that are multiplied with one scale: the smaller of the group and 32. A group of 64 repeats its scale."""
        return min(self.group, 32)

    @property
    def lane_bits(self) -> int:
        """Bits of a signed code as it is multiplied: 5 for doubled E2M1, 2 for a bit that means 1 or -1."""
        return max(self.high, -self.low - 1).bit_length() + 1

    @property
    def has_factor(self) -> bool:
        """Whether a binary32 factor multiplies what comes out of a row."""
        return self.scale == E4M3

    @property
    def group_bytes(self) -> int:
        """Bytes of scales and minima per 32 columns of a row, as they lie in a chip."""
        return 32 // self.block * self.scale.bytes * (2 if self.has_minimum else 1)

    @property
    def row_bytes(self) -> int:
        """Bytes that a chip keeps per row besides codes, scales and minima: the bias, and the factor where there is one."""
        return 5 if self.has_factor else 1

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight in a file, scales and minima counted."""
        return self.code_bits + self.scale_bits * (2 if self.has_minimum else 1) / self.group

    @property
    def chip_bits_per_weight(self) -> float:
        """Bits per weight as they lie in a chip, scales and minima counted; `row_bytes` per row come on top."""
        return self.code_bits + 8 * self.group_bytes / 32


FORMATS = {
    row.name: row
    for row in (
        Format("int8", 8, -128, 127, 0, False),
        Format("int4", 4, -8, 7, 0, False),
        Format("int4m", 4, -8, 7, 8, True),
        Format("ternary", 2, -1, 1, 0, False),
        Format("int8g64", 8, -128, 127, 0, False, 64),
        Format("int4g64", 4, -8, 7, 0, False, 64),
        Format("int4mg64", 4, -8, 7, 8, True, 64),
        Format("int6", 6, -32, 31, 0, False),
        Format("int3", 3, -4, 3, 0, False),
        Format("binary", 1, -1, 1, 0, False, values=PLUS_MINUS),
        Format("mxfp4", 4, -12, 12, 0, False, 32, E8M0, 8, E2M1),
        Format("nvfp4", 4, -12, 12, 0, False, 16, E4M3, 8, E2M1),
        Format("q4_k", 4, -8, 7, 8, True, 32, WIDE, 8),
        Format("q5_k", 5, -16, 15, 16, True, 32, WIDE, 8),
        Format("q6_k", 6, -32, 31, 0, False, 16, WIDE, 9),
    )
}
"""Every weight format by name; a micro-op has a row's number, so rows are only ever added behind the last.

GGUF's Q8_0, Q4_0, Q4_1, MXFP4, Q4_K, Q5_K and Q6_K are int8, int4, int4m, mxfp4, q4_k, q5_k and q6_k.
"""


@dataclass(frozen=True, slots=True)
class Mix:
    """Two formats in one model: `fine` for embedding, head and the matrices that lose most, `base` for the others."""

    name: str
    base: str
    fine: str


MIXES = {row.name: row for row in (Mix("int3_6", "int3", "int6"),)}
"""What can be asked for like a format. int3_6 is what Taalas HC1 is said to use; docs/numerics.md says what of it is assumed."""

WEIGHTS = (*FORMATS, *MIXES)
"""Every name that `--weights` takes besides "stored"."""


@dataclass(frozen=True, slots=True)
class KvFormat:
    """How attention holds K and V: per head and token, codes of so many bits and one scale. Queries always have 8 bits."""

    name: str
    key_bits: int
    value_bits: int


KV_FORMATS = {row.name: row for row in (KvFormat("int8", 8, 8), KvFormat("k8v4", 8, 4), KvFormat("int4", 4, 4))}
"""Every KV cache format by name: what `--kv` takes."""


def greatest_code(bits: int) -> int:
    """Activations, K and V have codes from minus this to this: 127 of 8 bits, 7 of 4."""
    return (1 << bits - 1) - 1
