"""A group of an embedding row as binary32 numbers: 32 codes, their scale and their minimum, in every weight format that is built."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.isa.layout import group_code_bytes
from tapeout.numerics.formats import FORMATS
from tapeout.rtl.binary32 import BIAS, normalise, register
from tapeout.rtl.ports import BUILT_FORMATS

FORMS = [FORMATS[name] for name in BUILT_FORMATS]
GROUP_BYTES = [group_code_bytes(form) + form.group_bytes for form in FORMS]
ROW_WORDS = -(-(max(GROUP_BYTES) + 2) // 4)
"""Words that hold any group: its bytes begin at any half word."""
HELD = 8 * max(GROUP_BYTES)
EXACT = BIAS + 7
"""Exponent field of an integer whose highest of eight bits is set."""


class EmbeddingGroup(wiring.Component):
    """`take` the group from `words` (behind a half word where `odd`); from the next cycle on its codes, those of lanes `place`*V..., and its
    scale and minimum are binary32 numbers. A zero is +0, so that a value that is zero becomes +0."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "take": In(1), "odd": In(1), "words": In(32 * ROW_WORDS), "format": In(2), "place": In(4),
                "codes": Out(data.ArrayLayout(32, lanes)), "scale": Out(32), "minimum": Out(32),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        held = register("held", HELD)
        with m.If(self.take):
            m.d.sync += held.eq(Mux(self.odd, self.words[16:], self.words)[:HELD])
        m.d.comb += [
            code.eq(integer_as_binary32(m, x, f"code{k}"))
            for k, (code, x) in enumerate(zip(self.codes, self._codes(m, held), strict=True))
        ]
        scale, minimum = self._floats(m, held)
        m.d.comb += [
            self.scale.eq(half_as_binary32(m, scale, "scale")),
            self.minimum.eq(half_as_binary32(m, minimum, "minimum")),
        ]
        return m

    def _codes(self, m: Module, held: Value) -> list[Value]:
        """The lanes' codes, offset added."""
        codes = [Signal(signed(9), name=f"integer{k}") for k in range(self.lanes)]
        with m.Switch(self.format):
            for number, form in enumerate(FORMS):
                with m.Case(number):
                    run = Signal(form.code_bits * self.lanes, name=f"run_{form.name}")
                    m.d.comb += run.eq(
                        held[: 32 * form.code_bits].word_select(
                            self.place[: (32 // self.lanes - 1).bit_length()], len(run)
                        )
                    )
                    for k, code in enumerate(codes):
                        m.d.comb += code.eq(run.word_select(k, form.code_bits).as_signed() + form.offset)
        return codes

    def _floats(self, m: Module, held: Value) -> tuple[Signal, Signal]:
        """Scale and minimum as binary16."""
        scale, minimum = Signal(16), Signal(16)
        with m.Switch(self.format):
            for number, form in enumerate(FORMS):
                at = 8 * group_code_bytes(form)
                with m.Case(number):
                    m.d.comb += scale.eq(held[at : at + 16])
                    if form.has_minimum:
                        m.d.comb += minimum.eq(held[at + 16 : at + 32])
        return scale, minimum


def integer_as_binary32(m: Module, code: Value, name: str) -> Value:
    """A code of -128..127 (offset added), exactly."""
    magnitude = Signal(8, name=f"{name}_magnitude")
    m.d.comb += magnitude.eq(Mux(code < 0, -code, code))
    normal, zeros = normalise(m, magnitude, name)
    return Mux(normal[7], Cat(Const(0, 16), normal[:7], (EXACT - zeros)[:8], code < 0), 0)


def half_as_binary32(m: Module, half: Value, name: str) -> Value:
    """A binary16 number, subnormal or not, exactly; both zeros become +0."""
    field, magnitude = half[10:15], Signal(11, name=f"{name}_magnitude")
    m.d.comb += magnitude.eq(Cat(half[:10], field.any()))
    normal, zeros = normalise(m, magnitude, name)
    exponent = Mux(field.any(), field, 1) + (BIAS - 15) - zeros
    return Mux(normal[10], Cat(Const(0, 13), normal[:10], exponent[:8], half[15]), 0)
