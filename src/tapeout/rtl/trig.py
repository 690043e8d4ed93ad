"""Sine of a phase in units of 2^-32 turns, from a quarter of the table by symmetry (docs/numerics.md section 7)."""

from amaranth.hdl import Const, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.numerics.tables import SINE
from tapeout.rtl.binary32 import register
from tapeout.rtl.rom import Rom

QUARTER = 256
FRACTION = 22


class SineTable(wiring.Component):
    """A cycle after `phase`: |sine24| = low + step*fraction / 2^22, rounded down, or up where `negative`.

    On the way back to zero the table is read backwards: T[j] - step*f is T[j+1] + step*(2^22 - f). A negative sine is rounded down, so
    its magnitude is rounded up.
    """

    phase: In(32)
    low: Out(24)
    step: Out(17)
    fraction: Out(FRACTION + 1)
    negative: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.rom = rom = Rom([int(entry) for entry in SINE[: QUARTER + 1]])
        fraction, negative = register("fraction_register", FRACTION + 1), register("negative_register", 1)
        back, f = self.phase[30], self.phase[:FRACTION]
        m.d.comb += rom.addr.eq(self.phase[FRACTION:30] ^ back.replicate(8))
        m.d.sync += [fraction.eq(Mux(back, Const(1 << FRACTION) - f, f)), negative.eq(self.phase[31])]
        m.d.comb += [
            self.low.eq(rom.low),
            self.step.eq(rom.step),
            self.fraction.eq(fraction),
            self.negative.eq(negative),
        ]
        return m
