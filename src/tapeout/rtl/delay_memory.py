"""A long delay of narrow data: a small memory that goes round, instead of a row of registers."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out


class DelayMemory(wiring.Component):
    """`late` is what `early` was `cycles` cycles ago."""

    def __init__(self, width: int, cycles: int):
        assert cycles >= 2, "a memory takes two cycles"
        self.cycles = cycles
        super().__init__({"early": In(width), "late": Out(width)})

    def elaborate(self, platform):
        m = Module()
        bits = (self.cycles - 1).bit_length()
        m.submodules.places = places = memory.Memory(shape=unsigned(len(self.early)), depth=1 << bits, init=[])
        write, read, at = places.write_port(), places.read_port(), Signal(bits)
        m.d.sync += at.eq(at + 1)
        m.d.comb += [write.en.eq(1), write.addr.eq(at), write.data.eq(self.early)]
        m.d.comb += [read.addr.eq(at - (self.cycles - 1)), self.late.eq(read.data)]
        return m
