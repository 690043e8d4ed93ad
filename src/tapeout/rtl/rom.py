"""A function table that is interpolated: one access gives an entry and how far it is to the next one."""

from collections.abc import Sequence
from itertools import pairwise

from amaranth.hdl import Module
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out


class Rom(wiring.Component):
    """Of a table of n+1 entries that are not below 0: `low` is entry `addr` (0..n-1), `step` the distance to its neighbour, a cycle later.

    Whether the neighbour is greater or smaller the user of a table knows.
    """

    def __init__(self, table: Sequence[int]):
        self.rows = [(int(low), abs(int(high) - int(low))) for low, high in pairwise(table)]
        low, step = (max(column).bit_length() for column in zip(*self.rows, strict=True))
        super().__init__({"addr": In(range(len(self.rows))), "low": Out(low), "step": Out(step)})

    def elaborate(self, platform):
        m = Module()
        shape = data.StructLayout({"low": self.low.shape(), "step": self.step.shape()})
        rows = [{"low": low, "step": step} for low, step in self.rows]
        m.submodules.rows = table = memory.Memory(shape=shape, depth=len(rows), init=rows)
        read = table.read_port()
        m.d.comb += [read.addr.eq(self.addr), self.low.eq(read.data.low), self.step.eq(read.data.step)]
        return m
