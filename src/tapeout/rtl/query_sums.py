"""What values leave behind in every query state: the sum of numerators L and the weighted sums N[lanes]."""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.rtl.attention_walk import COUNT
from tapeout.rtl.binary32 import register
from tapeout.rtl.ports import attention_out_lanes

LENGTH = 40
"""Bits of L: a numerator has 16."""
WEIGHTED = 48
"""Bits of N: a term has 26."""


class QuerySums(wiring.Component):
    """weigh: L += numerators, N[x] += sum_x - offset of `state`, from 0 where its `turn` is a new one. out: from the next cycle on `length` and
    n0.. are its L and its N from `column` on. One read and one write port serve both: micro-ops pass here in the order of issue.
    """

    def __init__(self, chip: ChipSpec):
        unit, self.dividers = chip.tile.attention, attention_out_lanes(chip)
        self.lanes, self.queries = unit.lanes, unit.queries
        members = {
            "state": In(range(self.queries)), "weigh": In(1), "turn": In(1), "numerators": In(20), "offset": In(32),
            "out": In(1), "column": In(COUNT), "length": Out(LENGTH),
        }  # fmt: skip
        members |= {f"sum{x}": In(32) for x in range(self.lanes)}
        super().__init__(members | {f"n{p}": Out(signed(WEIGHTED)) for p in range(self.dividers)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fresh = self._length(m)
        sums = [self._sum(m, x, fresh) for x in range(self.lanes)]
        numbers = [register(f"n{p}_held", signed(WEIGHTED)) for p in range(self.dividers)]
        with m.If(self.out):
            with m.Switch(self.column):
                for at in range(0, self.lanes, self.dividers):
                    with m.Case(at):
                        m.d.sync += [number.eq(sums[at + p]) for p, number in enumerate(numbers)]
        m.d.comb += [getattr(self, f"n{p}").eq(number) for p, number in enumerate(numbers)]
        return m

    def _length(self, m: Module) -> Value:
        """Keeps L; whether the state's sums count as 0."""
        shape = data.StructLayout({"length": LENGTH, "turn": 1})
        m.submodules.lengths = lengths = memory.Memory(shape=shape, depth=self.queries, init=[])
        read, write = lengths.read_port(domain="comb"), lengths.write_port()
        held, fresh = register("length_held", LENGTH), Signal()
        m.d.comb += [read.addr.eq(self.state), write.addr.eq(self.state), write.en.eq(self.weigh)]
        m.d.comb += fresh.eq(read.data.turn != self.turn)
        m.d.comb += write.data.length.eq(Mux(fresh, 0, read.data.length) + self.numerators)
        m.d.comb += write.data.turn.eq(self.turn)
        with m.If(self.out):
            m.d.sync += held.eq(read.data.length)
        m.d.comb += self.length.eq(held)
        return fresh

    def _sum(self, m: Module, x: int, fresh: Value) -> Value:
        """Keeps N[x]; what it is."""
        m.submodules[f"sums{x}"] = sums = memory.Memory(shape=WEIGHTED, depth=self.queries, init=[])
        read, write = sums.read_port(domain="comb"), sums.write_port()
        m.d.comb += [read.addr.eq(self.state), write.addr.eq(self.state), write.en.eq(self.weigh)]
        # Two's complement: the width makes it signed.
        m.d.comb += write.data.eq((Mux(fresh, 0, read.data) + getattr(self, f"sum{x}") - self.offset)[:WEIGHTED])
        return read.data.as_signed()
