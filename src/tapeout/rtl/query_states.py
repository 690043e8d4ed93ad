"""What scores leave behind in every query state: the greatest score m, the greatest exponent E, and a bit that says that it began anew.

To reset a state's sums costs no second write port there: `turn` is turned over, and sums whose own bit differs from it are taken for 0.
"""

from amaranth.hdl import Module, Mux, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.rtl.scores import OFFSET, unordered


class QueryStates(wiring.Component):
    """`e_en` and `top_en` act at the end of the cycle: E = max(E, e), m = max(m, top), or just these with `reset`. `e` is in offset binary, `top`
    is `ordered`. `peek_*` answer in the same cycle, in plain numbers; so does `out_e`.
    """

    def __init__(self, chip: ChipSpec):
        self.queries = chip.tile.attention.queries
        state = range(self.queries)
        super().__init__(
            {
                "peek_state": In(state), "peek_top": Out(32), "peek_e": Out(signed(8)), "peek_turn": Out(1), "out_state": In(state),
                "out_e": Out(signed(8)), "e_en": In(1), "e_state": In(state), "e_reset": In(1), "e": In(8),
                "top_en": In(1), "top_state": In(state), "top_reset": In(1), "top": In(32),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._tops(m)
        self._exponents(m)
        return m

    def _tops(self, m: Module) -> None:
        shape = data.StructLayout({"key": 32, "turn": 1})
        m.submodules.tops = tops = memory.Memory(shape=shape, depth=self.queries, init=[])
        peek, read, write = tops.read_port(domain="comb"), tops.read_port(domain="comb"), tops.write_port()
        m.d.comb += [self.peek_top.eq(unordered(peek.data.key)), self.peek_turn.eq(peek.data.turn)]
        m.d.comb += peek.addr.eq(self.peek_state)
        m.d.comb += [read.addr.eq(self.top_state), write.addr.eq(self.top_state), write.en.eq(self.top_en)]
        m.d.comb += write.data.key.eq(Mux(self.top_reset | (self.top > read.data.key), self.top, read.data.key))
        m.d.comb += write.data.turn.eq(read.data.turn ^ self.top_reset)

    def _exponents(self, m: Module) -> None:
        m.submodules.exponents = exponents = memory.Memory(shape=8, depth=self.queries, init=[])
        peek, out, read = (exponents.read_port(domain="comb") for _ in range(3))
        write = exponents.write_port()
        m.d.comb += [peek.addr.eq(self.peek_state), self.peek_e.eq(peek.data - OFFSET)]
        m.d.comb += [out.addr.eq(self.out_state), self.out_e.eq(out.data - OFFSET)]
        m.d.comb += [read.addr.eq(self.e_state), write.addr.eq(self.e_state), write.en.eq(self.e_en)]
        m.d.comb += write.data.eq(Mux(self.e_reset | (self.e > read.data), self.e, read.data))
