"""The greatest magnitude of the words of a group (or of norm's row): lanes first, then word by word."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.binary32 import register
from tapeout.rtl.tree import cut, fold


class Magnitude(wiring.Component):
    """A word's `values` stand; a cycle later `use` says that it counts and `first` that it begins a group. In that cycle `greatest` includes
    it; `held` is that of all words before. Magnitudes are binary32 without the sign: they compare as integers."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "values": In(data.ArrayLayout(32, lanes)), "use": In(1), "first": In(1), "greatest": Out(31), "held": Out(31),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        parts = []
        for k, part in enumerate(cut([self.values[k][:31] for k in range(self.lanes)])):
            parts.append(register(f"part{k}", 31))
            m.d.sync += parts[-1].eq(fold(part, lambda one, two: greater(m, one, two)))
        held = register("held_register", 31)
        m.d.comb += self.greatest.eq(
            greater(m, fold(parts, lambda one, two: greater(m, one, two)), Mux(self.first, 0, held))
        )
        with m.If(self.use):
            m.d.sync += held.eq(self.greatest)
        m.d.comb += self.held.eq(held)
        return m


def greater(m: Module, one: Value, two: Value) -> Signal:
    """The greater of two unsigned values."""
    value = Signal(max(len(one), len(two)), name="greater")
    m.d.comb += value.eq(Mux(two > one, two, one))
    return value
