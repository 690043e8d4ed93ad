"""The bus over which the host fills memories before a program runs: one row of one memory per cycle, on its own clock, silent while the chip
computes."""

from enum import IntEnum

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, enum


class Space(enum.Enum, shape=unsigned(4)):
    """What a row is for."""

    SRAM = 0
    MICRO_OPS = 1
    RANGES = 2
    SEGMENTS = 3
    BASES = 4
    DESCRIPTORS = 5
    TOKENS = 6
    REGISTERS = 7


class Register(IntEnum):
    """Rows of `Space.REGISTERS`."""

    POSITION = 0
    LAST = 1


ROW_WORDS = {
    Space.SRAM: 1, Space.MICRO_OPS: 16, Space.RANGES: 1, Space.SEGMENTS: 4, Space.BASES: 4, Space.DESCRIPTORS: 8, Space.TOKENS: 1,
    Space.REGISTERS: 1,
}  # fmt: skip
"""Words of a row; shorter rows stand in the highest words of the bus."""
BUS_WORDS = max(ROW_WORDS.values())

LOAD = data.StructLayout(
    {
        "valid": unsigned(1), "space": Space, "tile": unsigned(5), "unit": unsigned(2), "address": unsigned(22), "data": unsigned(32 * BUS_WORDS),
    }
)  # fmt: skip
"""`data`: the words of the row, the last one in the highest bits."""


def row_of(load: data.View, space: Space) -> object:
    """The bits of a row of this space."""
    return load.data[-32 * ROW_WORDS[space] :]


def chosen(m: Module, load: data.View, space: Space, name: str) -> Signal:
    """High while the bus brings a row of this space."""
    here = Signal(name=name)
    m.d.comb += here.eq(load.valid & (load.space == space))
    return here
