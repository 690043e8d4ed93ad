"""The number formats of weights: one row each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """Codes of few bits with a binary16 scale (and minimum) per group along the input dimension.

    value = scale * (code + offset) + minimum; code is signed, low <= code <= high.
    """

    name: str
    code_bits: int
    low: int
    high: int
    offset: int
    has_minimum: bool
    group: int = 32

    @property
    def group_bytes(self) -> int:
        """Bytes of scale and minimum per group."""
        return 4 if self.has_minimum else 2

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight, scales and minima counted."""
        return self.code_bits + 8 * self.group_bytes / self.group


FORMATS = {
    row.name: row
    for row in (
        Format("int8", 8, -128, 127, 0, False),
        Format("int4", 4, -8, 7, 0, False),
        Format("int4m", 4, -8, 7, 8, True),
        Format("ternary", 2, -1, 1, 0, False),
    )
}
"""Every weight format by name. GGUF's Q8_0, Q4_0 and Q4_1 are int8, int4 and int4m."""
