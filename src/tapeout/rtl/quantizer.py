"""Values to codes: the scale of a group from its greatest magnitude, then value by value (docs/numerics.md section 4)."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.numerics.kernels import SMALLEST_E
from tapeout.numerics.tables import RECIPROCAL
from tapeout.rtl.binary32 import BIAS, Mul32, mantissa, parts, register
from tapeout.rtl.nearest import nearest

GREATEST_CODE = 127
DROPPED = 13
"""Bits of a mantissa below those of the thresholds 127*n*2^13; whether any is set is all that counts."""
POINT = BIAS + 10
"""Exponent field minus this is e, before the mantissa is found to lie above 15*127."""

CODE_BITS = 7
LEAST_SHIFT = 24 - CODE_BITS

SCALE = data.StructLayout({"n": unsigned(4), "e": signed(8)})
WORD = data.StructLayout({"valid": 1, "first": 1, "last": 1, "final": 1})
"""What a word is in its group and its micro-op."""


def group_scale(m: Module, magnitude: Value) -> data.View:
    """(n, e): the smallest n*2^e with n in 8..15 and e >= -100 that reaches the magnitude, 31 bits."""
    x, scale, e = parts(Cat(magnitude, 0)), Signal(SCALE), Signal(signed(10))
    high, rest = mantissa(x.as_value())[DROPPED:], x.fraction[:DROPPED].any()

    def above(n: int) -> Value:
        return (high > GREATEST_CODE * n) | ((high == GREATEST_CODE * n) & rest)

    over = Signal()
    n, half = Signal(4), Mux(above(16), 9, 8)
    m.d.comb += [over.eq(above(15)), n.eq(9 + sum(above(k) for k in range(9, 15)))]
    m.d.comb += e.eq(x.field - POINT + over)
    small = e < SMALLEST_E
    m.d.comb += [scale.n.eq(Mux(small, 8, Mux(over, half, n))), scale.e.eq(Mux(small, SMALLEST_E, e))]
    return scale


class Quantizer(wiring.Component):
    """Cycle 0: `start` with a group's `magnitude`; cycles 1..: its words. Cycle 4: their `codes`, and `word`, `scale` as they belong to them;
    `starts` says in cycle 3 that a group's first word comes next."""

    STAGES = 4

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "start": In(1), "magnitude": In(31), "valid": In(1), "last": In(1), "final": In(1), "values": In(32 * lanes),
                "codes": Out(data.ArrayLayout(8, lanes)), "word": Out(WORD), "scale": Out(SCALE), "starts": Out(1), "pending": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        words, scales, factor = self._along(m)
        for k in range(self.lanes):
            m.submodules[f"scaled{k}"] = scaled = Mul32()
            m.d.comb += [scaled.a.eq(self.values[32 * k : 32 * k + 32]), scaled.b.eq(factor)]
            m.d.sync += self.codes[k].eq(self._code(m, k, scaled.y, scales[3].e))
        m.d.comb += [self.word.eq(words[4]), self.scale.eq(scales[4]), self.starts.eq(words[3].first)]
        m.d.comb += self.pending.eq(Cat(word.valid for word in words.values()).any())
        return m

    def _along(self, m: Module) -> tuple[dict[int, data.View], dict[int, data.View], Value]:
        """Word and scale by cycle from cycle 1 on, and the factor 1/n of cycle 1."""
        found, factor, first = group_scale(m, self.magnitude), register("factor", 32), Signal()
        scales = {cycle: Signal(SCALE, name=f"scale{cycle}", reset_less=True) for cycle in range(1, 5)}
        words = {cycle: Signal(WORD, name=f"word{cycle}") for cycle in range(1, 5)}
        with m.If(self.start):
            m.d.sync += [scales[1].eq(found), factor.eq(reciprocal(m, found.n))]
        m.d.sync += first.eq(self.start)
        m.d.comb += words[1].eq(Cat(self.valid, first, self.valid & self.last, self.valid & self.final))
        for cycle in range(2, 5):
            m.d.sync += [words[cycle].eq(words[cycle - 1]), scales[cycle].eq(scales[cycle - 1])]
        return words, scales, factor

    def _code(self, m: Module, k: int, y: Value, e: Value) -> Value:
        """rne(y * 2^-e), which a group's scale keeps within 127."""
        distance, code = Signal(signed(11), name=f"distance{k}"), Signal(8, name=f"code{k}")
        m.d.comb += distance.eq(e + (BIAS + 23) - parts(y).field)
        whole = nearest(m, f"whole{k}", mantissa(y), distance, LEAST_SHIFT)
        m.d.comb += code.eq(Mux(y[31], -whole, whole))
        return code


def reciprocal(m: Module, n: Value) -> Signal:
    """The table of 1/n, n in 8..15."""
    value = Signal(32, name="reciprocal")
    with m.Switch(n[:3]):
        for row in range(8):
            with m.Case(row):
                m.d.comb += value.eq(int(RECIPROCAL[8 + row].view("<u4")))
    return value
