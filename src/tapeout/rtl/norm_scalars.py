"""Norm between its second and third pass: the sum of the squares, and r = 1 / sqrt(mean + eps) (docs/numerics.md section 6)."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.binary32 import BIAS, Add32, FromInteger, Mul32, register
from tapeout.rtl.divide import Divide32, Sqrt32
from tapeout.rtl.tree import fold

ONE = 0x3F800000
SQUARES = 2
"""Cycles from the roots to the word's sum of squares."""
SUM_TO_SQRT = 1 + FromInteger.STAGES + Mul32.STAGES + Add32.STAGES
"""Cycles from the last word's sum of squares to the number whose root is taken."""
ITERATIONS = Sqrt32.CYCLES + Divide32.CYCLES
"""Cycles from there to r."""


class NormScalars(wiring.Component):
    """Cycle 0: integers `roots`, 0 where no element is. Cycle SQUARES: `use`, `first` of that word. `start` comes SUM_TO_SQRT cycles after the
    last one; `field` (of the largest value), `eps` and `inverse_width` stand all the time. `r` stands ITERATIONS after `start`; until then `busy`
    is high."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "roots": In(data.ArrayLayout(24, lanes)), "use": In(1), "first": In(1), "start": In(1), "field": In(8), "eps": In(32),
                "inverse_width": In(32), "r": Out(32), "infinite": Out(1), "busy": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.squares = squares = FromInteger(64)
        m.submodules.mean = mean = Mul32()
        m.submodules.shifted = shifted = Add32()
        m.submodules.sqrt = sqrt = Sqrt32()
        m.submodules.divide = divide = Divide32()
        m.d.comb += [squares.i.eq(self._sum(m)), squares.k.eq(self._exponent())]
        m.d.comb += [mean.a.eq(squares.y), mean.b.eq(self.inverse_width), shifted.a.eq(mean.y), shifted.b.eq(self.eps)]
        m.d.comb += [sqrt.start.eq(self.start), sqrt.a.eq(shifted.y)]
        m.d.comb += [divide.start.eq(sqrt.done), divide.a.eq(ONE), divide.b.eq(sqrt.y), self.r.eq(divide.y)]
        waiting = Signal(range(ITERATIONS + 1))
        with m.If(self.start):
            m.d.sync += waiting.eq(ITERATIONS)
        with m.Elif(waiting.any()):
            m.d.sync += waiting.eq(waiting - 1)
        m.d.comb += self.busy.eq(waiting.any())
        m.d.comb += self.infinite.eq(self.start & (squares.infinite | mean.infinite | shifted.infinite))
        return m

    def _sum(self, m: Module) -> Signal:
        """Of the squares of all words: 65,536 of at most 2^46."""
        terms = [register(f"square{k}", 47) for k in range(self.lanes)]
        word, total = register("word", 47 + (self.lanes - 1).bit_length()), register("total", 63)
        m.d.sync += [term.eq(root * root) for term, root in zip(terms, self.roots, strict=True)]
        m.d.sync += word.eq(fold(terms, lambda one, two: one + two))
        with m.If(self.use):
            m.d.sync += total.eq(Mux(self.first, 0, total) + word)
        return total

    def _exponent(self) -> Value:
        """2E - 44: the roots were taken in units of 2^(E-22)."""
        return (self.field << 1) - (2 * BIAS + 44)
