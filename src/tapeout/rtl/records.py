"""Micro-ops and descriptors as hardware sees them: bit layouts derived from the record types of `isa`, so that there is one encoding."""

import numpy as np
from amaranth.hdl import unsigned
from amaranth.lib import data

from tapeout.isa.opcodes import RECORD
from tapeout.isa.program import DESCRIPTOR


def layout_of(dtype: np.dtype) -> data.StructLayout:
    """A packed little-endian record as a struct: the first field in the lowest bits."""
    assert dtype.names, "a record type with named fields"
    assert dtype.fields, "a record type with named fields"
    at, members = 0, {}
    for name in dtype.names:
        kind, offset = dtype.fields[name][:2]
        assert offset == at, f"{name} is not packed"
        members[name] = unsigned(8 * kind.itemsize)
        at += kind.itemsize
    return data.StructLayout(members)


MICRO_OP = layout_of(RECORD)
"""512 bits."""
TRANSFER = layout_of(DESCRIPTOR)
"""256 bits."""

MICRO_OP_WORDS = RECORD.itemsize // 4
TRANSFER_WORDS = DESCRIPTOR.itemsize // 4

SEGMENT_ROW = data.StructLayout(
    {
        "segment": unsigned(16), "repeat": unsigned(16), "cycles": unsigned(32), "count": unsigned(16), "first_row": unsigned(12),
        "ends_loop": unsigned(1), "ends_entry": unsigned(1), "begins_loop": unsigned(1), "per_block": unsigned(1),
        "first_descriptor": unsigned(16), "descriptors": unsigned(16),
    }
)  # fmt: skip
"""One segment of one loop: 128 bits. `per_block`: repeat once per context block but the first instead of `repeat` times; `count`, `first_row`: of
its loop."""
SEGMENT_WORDS = 4

BASE_ROW = data.StructLayout({"outer": unsigned(32), "inner": unsigned(32), "pos": unsigned(32), "last": unsigned(32)})
"""An address register's increments: 128 bits."""
BASE_WORDS = 4
BASES = 32
"""Address registers that the chip has."""

RANGE_ROW = data.StructLayout({"start": unsigned(16), "end": unsigned(16)})
"""The micro-ops of one segment in one unit's instruction memory."""
SEGMENTS = 64
ROWS = 64
"""Segments of all entries, and rows of the segment table."""
