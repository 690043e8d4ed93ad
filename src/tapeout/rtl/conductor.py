"""The conductor: keeps all units of all tiles in lockstep. Counts the segment's cycles, walks the turns, and says ahead of time which comes next.

A run is: base registers set up, a pause in which the first micro-ops and descriptors are fetched, then compute cycle 0, 1, ... of the entry, then
the wait
for the streamer's list to end, and a few cycles for the last writes. `now` is the cycle about to be issued: units see their micro-op one cycle later.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.address_registers import AddressRegisters
from tapeout.rtl.load_bus import LOAD, Register, Space, chosen, row_of
from tapeout.rtl.loop_walker import LoopWalker
from tapeout.rtl.ports import ADDRESS_BITS
from tapeout.rtl.records import BASES, ROWS, SEGMENTS

PRIME = 64
"""Cycles in which the first turn's micro-ops and the first descriptors are fetched before cycle 0."""
SETTLE = 8
"""Cycles for the last writes and for the host to look."""


class Conductor(wiring.Component):
    """`start` at `start_row`; `done` for one cycle at the end. `streaming`: the memory works; it begins one cycle before compute cycle 0.
    `computing`: from cycle 0 on until all is written. `setting_up`: base register `number`
    is set up, here and in the streamer.

    Works in the domain `sync` (the compute clock), is loaded in `load`. `stream_idle`: the streamer has nothing left.
    """

    def __init__(self, block_keys: int):
        self.block_keys = block_keys
        super().__init__(
            {
                "load": In(LOAD), "start": In(1), "start_row": In(range(ROWS)), "stream_idle": In(1), "late_unit": In(1), "position": Out(24),
                "last": Out(8), "blocks": Out(16), "now": Out(24), "parity": Out(1), "publish": Out(1),
                "next_segment": Out(range(SEGMENTS)), "values": Out(ADDRESS_BITS * BASES), "inner": Out(16), "outer": Out(16), "block": Out(16),
                "setting_up": Out(1), "number": Out(range(BASES)), "streaming": Out(1), "computing": Out(1), "done": Out(1), "cycles": Out(48),
                "waited": Out(48), "late": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = LoopWalker()
        self._registers(m)
        count, length, published, switch = Signal(8), Signal(24), Signal(), Signal()
        bases = self._bases(m, walker, switch, count)
        m.d.comb += [
            walker.load.eq(self.load), walker.start_row.eq(self.start_row), walker.blocks.eq(self.blocks), walker.step.eq(switch),
            self.next_segment.eq(walker.row.segment), self.publish.eq(walker.valid & ~published), self.values.eq(bases.values),
        ]  # fmt: skip
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.comb += walker.start.eq(1)
                    m.d.sync += [count.eq(0), self.cycles.eq(0), self.waited.eq(0)]
                    m.next = "SETUP"
            with m.State("SETUP"):
                m.d.comb += self.setting_up.eq(1)
                m.d.sync += count.eq(count + 1)
                with m.If(count == BASES - 1):
                    m.d.sync += count.eq(0)
                    m.next = "PRIME"
            with m.State("PRIME"):
                m.d.sync += count.eq(count + 1)
                with m.If(count == PRIME - 1):
                    m.d.comb += [switch.eq(1), self.streaming.eq(1)]
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [self.streaming.eq(1), self.computing.eq(1)]
                m.d.sync += [self.now.eq(self.now + 1), self.cycles.eq(self.cycles + 1)]
                with m.If(self.now == length):
                    m.d.comb += switch.eq(walker.valid)
                    with m.If(~walker.valid):
                        m.d.sync += self.late.eq(self.late | ~walker.finished)
                        m.next = "END"
            with m.State("END"):
                m.d.comb += [self.streaming.eq(1), self.computing.eq(1)]
                m.d.sync += count.eq(0)
                with m.If(self.stream_idle):
                    m.next = "SETTLE"
                with m.Else():
                    m.d.sync += self.waited.eq(self.waited + 1)
            with m.State("SETTLE"):
                m.d.comb += self.computing.eq(1)
                m.d.sync += count.eq(count + 1)
                with m.If(count == SETTLE):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
        with m.If(self.publish):
            m.d.sync += published.eq(1)
        with m.If(switch):
            m.d.sync += [
                published.eq(0), self.now.eq(0), length.eq(walker.row.cycles - 1), self.parity.eq(~self.parity), self.inner.eq(walker.inner),
                self.block.eq(walker.inner + walker.row.per_block),
                self.outer.eq(walker.outer),
            ]  # fmt: skip
        with m.If(self.late_unit):
            m.d.sync += self.late.eq(1)
        return m

    def _registers(self, m: Module) -> None:
        """POS and LAST, as the host loads them; how often a segment per block runs: the first context block has segments of its own."""
        here = chosen(m, self.load, Space.REGISTERS, "load_register")
        value = row_of(self.load, Space.REGISTERS)
        for number, register in ((Register.POSITION, self.position), (Register.LAST, self.last)):
            with m.If(here & (self.load.address == number)):
                m.d.load += register.eq(value)
        shift = self.block_keys.bit_length() - 1
        assert 1 << shift == self.block_keys, "a context block is a power of two keys"
        m.d.comb += self.blocks.eq(Mux(self.position == 0, 0, (self.position - 1)[shift:24]))

    def _bases(self, m: Module, walker: LoopWalker, switch: Signal, count: Signal) -> AddressRegisters:
        m.submodules.bases = registers = AddressRegisters(ADDRESS_BITS)
        m.d.comb += [
            registers.load.eq(self.load), registers.position.eq(self.position), registers.last.eq(self.last), registers.number.eq(self.number),
            registers.setup.eq(self.setting_up), self.number.eq(count),
            registers.apply.eq(switch), registers.kind.eq(walker.kind),
        ]  # fmt: skip
        return registers
