"""Attention's output: N/L * 2^E for a few columns of a state in every cycle, divided in pipelines."""

from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.rtl.binary32 import ExponentAdd, FromInteger
from tapeout.rtl.divide import Divide32Pipelined
from tapeout.rtl.ports import WORD_BITS, WritePort, attention_out_lanes
from tapeout.rtl.query_sums import LENGTH, WEIGHTED

DIVIDED = FromInteger.STAGES + Divide32Pipelined.STAGES
"""Cycles from the sums to their quotient."""
ROWS = 32
"""What travels beside the numbers waits in a ring of so many rows."""

assert DIVIDED + ExponentAdd.STAGES < ROWS


class AttentionOut(wiring.Component):
    """A write STAGES cycles after `length`, n0.., E (`e`), the word address and the columns that exist (`mask`) stand, with `en`.

    `done` is high in the cycle before that of a write that came with `last`; `active` while something is in flight.
    """

    STAGES = DIVIDED + ExponentAdd.STAGES

    def __init__(self, chip: ChipSpec):
        self.dividers = attention_out_lanes(chip)
        members = {
            "en": In(1), "last": In(1), "length": In(LENGTH), "e": In(signed(8)), "addr": In(WORD_BITS), "mask": In(self.dividers),
            "port": Out(WritePort(self.dividers)), "done": Out(1), "active": Out(1), "overflow": Out(1),
        }  # fmt: skip
        super().__init__(members | {f"n{p}": In(signed(WEIGHTED)) for p in range(self.dividers)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid, last, beat = Signal(self.STAGES), Signal(DIVIDED), Signal(range(ROWS))
        m.d.sync += [valid.eq((valid << 1) | self.en), last.eq((last << 1) | (self.en & self.last)), beat.eq(beat + 1)]
        m.d.comb += [self.active.eq(valid.any()), self.done.eq(last[-1])]
        shape = data.StructLayout({"e": signed(8), "addr": unsigned(WORD_BITS), "mask": unsigned(self.dividers)})
        m.submodules.beside = beside = memory.Memory(shape=shape, depth=ROWS, init=[])
        write, divided, written = beside.write_port(), beside.read_port(domain="comb"), beside.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.en), write.addr.eq(beat), write.data.e.eq(self.e), write.data.addr.eq(self.addr), write.data.mask.eq(self.mask),
            divided.addr.eq(beat - DIVIDED), written.addr.eq(beat - self.STAGES), self.port.addr.eq(written.data.addr),
        ]  # fmt: skip
        m.submodules.length = length = FromInteger(LENGTH + 1)
        m.d.comb += length.i.eq(self.length)
        infinite = []
        for p in range(self.dividers):
            number, quotient, moved = FromInteger(WEIGHTED), Divide32Pipelined(), ExponentAdd()
            m.submodules += [number, quotient, moved]
            written_now = valid[-1] & written.data.mask[p]
            m.d.comb += [
                number.i.eq(getattr(self, f"n{p}")), quotient.a.eq(number.y), quotient.b.eq(length.y),
                moved.x.eq(quotient.y), moved.k.eq(divided.data.e), self.port.data[32 * p : 32 * p + 32].eq(moved.y),
                self.port.en[4 * p : 4 * p + 4].eq(written_now.replicate(4)),
            ]  # fmt: skip
            infinite.append(written_now & moved.infinite)
        # The quotients themselves are far from infinite: a mean of codes, times 15 at most.
        m.d.comb += self.overflow.eq(sum(infinite[1:], infinite[0]) != 0)
        return m
