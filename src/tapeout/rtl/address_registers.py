"""The base registers: outer*i + inner*j + pos*POS + last*LAST, kept by additions as the turns go by."""

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.clock_gate import ClockGate
from tapeout.rtl.load_bus import LOAD, Space, chosen, row_of
from tapeout.rtl.loop_walker import Turn
from tapeout.rtl.records import BASE_ROW, BASES


class AddressRegisters(wiring.Component):
    """`setup` works out the part that POS and LAST decide, one register per cycle while it is high, number `number`; `apply` takes a turn's step.

    `values` holds all registers, `width` bits each. Works in the domain `sync`, on a clock of its own that ticks as the turns go by; loaded in
    `load`.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__(
            {
                "setup": In(1), "number": In(range(BASES)), "position": In(24), "last": In(8), "apply": In(1), "kind": In(Turn),
                "values": Out(width * BASES), "load": In(LOAD),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.table = table = memory.Memory(shape=BASE_ROW, depth=BASES, init=[])
        write, read = table.write_port(domain="load"), table.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(chosen(m, self.load, Space.BASES, "load_base")), write.addr.eq(self.load.address), write.data.eq(row_of(self.load,
            Space.BASES)),
            read.addr.eq(self.number),
        ]  # fmt: skip
        m.domains.turn = turn = ClockDomain("turn", local=True)
        m.submodules.gate = gate = ClockGate()
        m.d.comb += [turn.clk.eq(gate.clk), turn.rst.eq(gate.rst), gate.en.eq(self.setup | self.apply)]
        begin = Signal(self.width)
        m.d.comb += begin.eq(read.data.pos * self.position + read.data.last * self.last)
        for k in range(BASES):
            self._register(m, k, read.data, begin)
        return m

    def _register(self, m: Module, k: int, row: object, begin: Signal) -> None:
        start, turn = Signal(self.width, name=f"start{k}"), Signal(self.width, name=f"turn{k}")
        outer, inner = Signal(32, name=f"outer{k}"), Signal(32, name=f"inner{k}")
        value = self.values.word_select(k, self.width)
        with m.If(self.setup & (self.number == k)):
            m.d.turn += [start.eq(begin), outer.eq(row.outer), inner.eq(row.inner)]
        with m.If(self.apply):
            with m.Switch(self.kind):
                with m.Case(Turn.LOOP):
                    m.d.turn += [turn.eq(start), value.eq(start)]
                with m.Case(Turn.OUTER):
                    m.d.turn += [turn.eq(turn + outer), value.eq(turn + outer)]
                with m.Case(Turn.SEGMENT):
                    m.d.turn += value.eq(turn)
                with m.Case(Turn.INNER):
                    m.d.turn += value.eq(value + inner)
