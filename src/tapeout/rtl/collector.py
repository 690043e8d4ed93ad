"""Holds the values of a group until its scale can be known, and lets them go a fixed time after they came.

The delay is that of the group or of a whole group of 32, whichever is longer, so that groups leave in order and without a gap between them
that was not there before, and results exist in the cycle that `isa.timing` says. A counter is the clock that the delays are told by.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.vector_control import STEPS

LONGEST = 128
"""Values of the longest group."""
WAIT = STEPS + 1
"""From the address of a group's first word to its leaving, beside the group's own length."""


def span_bits(lanes: int) -> int:
    """Bits of a group's length in words."""
    return (LONGEST // lanes).bit_length()


def groups_held(lanes: int, behind: int) -> int:
    """How many groups can lie between their first address and `behind` cycles after they began to leave: a power of two."""
    return 1 << (WAIT + max(1, 32 // lanes) + behind - 1).bit_length()


class Collector(wiring.Component):
    """In: `begin` with `span`, a group's delay, in the cycle of its first address; `take` a word of `values` STEPS cycles later, which `ends` the
    group or is the micro-op's `final` one; `known` with the group's `magnitude` a cycle after that.

    Out: `start` with `scale_of`, the magnitude, in the cycle in which a group begins to leave; from the next cycle on its words: `valid`,
    `word`, `last` of the group, `final`. `pending` while anything is on its way to or through the collector.
    """

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "begin": In(1), "span": In(span_bits(lanes)), "take": In(1), "values": In(32 * lanes), "ends": In(1), "final": In(1),
                "known": In(1), "magnitude": In(31), "start": Out(1), "scale_of": Out(31), "valid": Out(1), "word": Out(32 * lanes),
                "last": Out(1), "last_of_all": Out(1), "pending": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        self._schedule(m)
        self._scales(m)
        self._words(m)
        return m

    def _schedule(self, m: Module) -> None:
        """When each group leaves."""
        bits = (LONGEST // self.lanes + WAIT).bit_length()
        now, times = Signal(bits), Fifo(bits, groups_held(self.lanes, 0))
        m.submodules.times = times
        m.d.sync += now.eq(now + 1)
        m.d.comb += [times.put.eq(self.begin), times.write.eq(now + self.span + WAIT)]
        m.d.comb += [self.start.eq(times.some & (times.read == now)), times.get.eq(self.start)]
        m.d.comb += self.pending.eq(times.some | self.valid)

    def _scales(self, m: Module) -> None:
        """The groups' magnitudes; one is always there when its group leaves."""
        m.submodules.magnitudes = magnitudes = Fifo(31, max(2, 32 // self.lanes))
        m.d.comb += [magnitudes.put.eq(self.known), magnitudes.write.eq(self.magnitude)]
        m.d.comb += [self.scale_of.eq(magnitudes.read), magnitudes.get.eq(self.start)]

    def _words(self, m: Module) -> None:
        """Words go round in a memory of the longest group; a word in the cycle of whose leaving another one comes needs a place more."""
        depth = LONGEST // self.lanes + 2
        m.submodules.words = words = memory.Memory(shape=unsigned(32 * self.lanes + 2), depth=depth, init=[])
        write, read, valid = words.write_port(), words.read_port(), Signal()
        m.d.comb += [write.en.eq(self.take), write.data.eq(Cat(self.values, self.ends, self.final))]
        m.d.comb += read.en.eq(self.start | (valid & ~self.last))
        for port, name in ((write, "write_at"), (read, "read_at")):
            at = Signal(range(depth), name=name)
            m.d.comb += port.addr.eq(at)
            with m.If(port.en):
                m.d.sync += at.eq(Mux(at == depth - 1, 0, at + 1))
        m.d.sync += valid.eq(read.en)
        m.d.comb += [self.valid.eq(valid), Cat(self.word, self.last, self.last_of_all).eq(read.data)]


class Fifo(wiring.Component):
    """`depth` entries, a power of two: `put` is told `write`, `read` is the oldest one where there is `some`, and `get` drops it. Nobody puts
    too many or gets none."""

    def __init__(self, width: int, depth: int):
        assert depth & (depth - 1) == 0, f"{depth} is not a power of two"
        self.depth = depth
        super().__init__(
            {
                "put": In(1), "write": In(width), "some": Out(1), "read": Out(width), "get": In(1),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.entries = entries = memory.Memory(shape=unsigned(len(self.write)), depth=self.depth, init=[])
        write, read = entries.write_port(), entries.read_port(domain="comb")
        put_at, get_at = Signal(self.depth.bit_length()), Signal(self.depth.bit_length())
        m.d.comb += [write.en.eq(self.put), write.addr.eq(put_at[:-1]), write.data.eq(self.write)]
        m.d.comb += [read.addr.eq(get_at[:-1]), self.read.eq(read.data), self.some.eq(put_at != get_at)]
        with m.If(self.put):
            m.d.sync += put_at.eq(put_at + 1)
        with m.If(self.get):
            m.d.sync += get_at.eq(get_at + 1)
        return m
