"""The softmax numerator of docs/numerics.md section 8: p = 2^15 * 2^-(m - s), an integer of 0..32768, from a table of 64 steps."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.numerics.tables import EXP2
from tapeout.rtl.binary32 import Add32, mantissa, parts, register
from tapeout.rtl.rom import Rom

LIMIT = 17
"""A difference from here on counts as this: its numerator is 0."""
FRACTION = 16
"""Bits of the difference behind the point."""


class Numerator(wiring.Component):
    """`p` STAGES cycles after the score `s` and the greatest score `m`, both binary32."""

    STAGES = Add32.STAGES + 3

    m: In(32)
    s: In(32)
    p: Out(16)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.difference = difference = Add32()
        m.submodules.table = table = Rom(EXP2)
        m.d.comb += [difference.a.eq(self.m), difference.b.eq(self.s ^ (1 << 31))]
        u = self._fixed_point(m, difference.y, difference.infinite)
        m.d.comb += table.addr.eq(u[10:16])
        # The table has a register of its own.
        low_bits, whole = register("low_bits", 10), register("whole", 5)
        m.d.sync += [low_bits.eq(u[:10]), whole.eq(u[16:])]
        high, fall = register("high", len(table.low)), register("fall", len(table.step))
        shift, p = register("shift", 5), register("numerator", 16)
        m.d.sync += [high.eq(table.low), fall.eq((table.step * low_bits) >> 10), shift.eq(whole)]
        # (t + 2^(8+i)) >> (9+i) with the half added behind the shift.
        m.d.sync += p.eq((((high - fall)[: len(high)] >> 8 >> shift) + 1) >> 1)
        m.d.comb += self.p.eq(p)
        return m

    def _fixed_point(self, m: Module, x: Value, infinite: Value) -> Value:
        """rne(min(x, LIMIT) * 2^FRACTION) of a binary32 number that is not below 0."""
        field, fraction = parts(x).field, parts(x).fraction
        right, large, small = Signal(5), Signal(), Signal()
        # The mantissa's last bit counts 2^(field - 150): the point moves by 150 - FRACTION - field.
        m.d.comb += right.eq(150 - FRACTION - field)
        m.d.comb += large.eq(infinite | (field > 131) | ((field == 131) & (fraction >= (LIMIT - 16) << 19)))
        m.d.comb += small.eq(field < 150 - FRACTION - 24)
        wide, u = Signal(48), Signal(21)
        m.d.comb += wide.eq(Cat(Const(0, 24), mantissa(x)) >> right)
        odd_or_rest = wide[24] | wide[:23].any()
        m.d.comb += u.eq(Mux(large, LIMIT << FRACTION, Mux(small, 0, wide[24:] + (wide[23] & odd_or_rest))))
        return u
