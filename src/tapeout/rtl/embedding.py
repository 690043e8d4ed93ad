"""A group of an embedding row as binary32 numbers: 32 codes, their scales and their minimum, in every weight format that the chip knows.

A value is code * scale + minimum, or, where the format has a factor, (code * scale) * factor: the factor then comes out in place of a minimum.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.isa.layout import group_code_bytes
from tapeout.numerics.formats import E8M0, Format, Scale
from tapeout.rtl.binary32 import BIAS, normalise, register
from tapeout.rtl.scales import as_binary32, chosen_parts

EXACT = BIAS + 7
"""Exponent field of an integer whose highest of eight bits is set."""
FACTOR_BYTES = 4


def read_words(forms: dict[int, Format]) -> int:
    """Words that hold any group: its bytes begin at any half word, those of a row's first group behind the factor."""
    sizes = [group_code_bytes(form) + form.group_bytes + FACTOR_BYTES * form.has_factor for form in forms.values()]
    return -(-(max(sizes) + 2) // 4)


def has_factor(number: Value, forms: dict[int, Format]) -> Value:
    """Whether the format with this number has a factor."""
    return Cat(number == known for known, form in forms.items() if form.has_factor).any()


class EmbeddingGroup(wiring.Component):
    """`take` the group from `words` (behind a half word where `odd`, and behind the factor where `leads`); from the next cycle on its codes, those
    of lanes `place`*V..., and its scale and minimum are binary32 numbers. A zero is +0, so that a value that is zero becomes +0.

    `high_scale` is that of the upper lanes, where a word is a whole group whose halves have scales of their own.
    """

    def __init__(self, lanes: int, forms: dict[int, Format]):
        self.lanes, self.forms, self.words_read = lanes, forms, read_words(forms)
        self.held_bits = 8 * max(group_code_bytes(form) + form.group_bytes for form in forms.values())
        self.factors = any(form.has_factor for form in forms.values())
        self.halves = any(form.block == 16 for form in forms.values())
        members = {
            "take": In(1), "odd": In(1), "words": In(32 * self.words_read), "format": In(range(max(forms) + 1)), "place": In(4),
            "codes": Out(data.ArrayLayout(32, lanes)), "scale": Out(32), "minimum": Out(32),
        }  # fmt: skip
        members |= {"leads": In(1)} if self.factors else {}
        members |= {"high_scale": Out(32)} if self.halves and lanes == 32 else {}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        held, words = register("held", self.held_bits), Mux(self.odd, self.words[16:], self.words)
        if self.factors:
            factor, leads = register("factor", 32), self.take & self.leads
            with m.If(leads):
                m.d.sync += factor.eq(words[:32])
            words = Mux(leads, words[8 * FACTOR_BYTES :], words)
        with m.If(self.take):
            m.d.sync += held.eq(words[: self.held_bits])
        self._kind(m)
        scales, minimum = self._stored(m, held)
        m.d.comb += [
            code.eq(integer_as_binary32(m, x, f"code{k}", self._lower(scales[0])))
            for k, (code, x) in enumerate(zip(self.codes, self._codes(m, held, scales), strict=True))
        ]
        m.d.comb += self.scale.eq(self._binary32(m, scales[0], "scale"))
        if len(scales) > 1:
            m.d.comb += self.high_scale.eq(self._binary32(m, scales[1], "high_scale"))
        minimum = as_binary32(m, chosen_parts(self.least_kinds, self.kind, minimum), "minimum")
        m.d.comb += self.minimum.eq(
            Mux(has_factor(self.format, self.forms), factor, minimum) if self.factors else minimum
        )
        return m

    def _kind(self, m: Module) -> None:
        """The number of the kind of the format's scale; an exponent alone needs no work and is not one of them."""
        found = dict.fromkeys(form.scale for form in self.forms.values() if form.scale != E8M0)
        self.kinds = dict(enumerate(found))
        least = {form.scale for form in self.forms.values() if form.has_minimum}
        self.least_kinds = {number: kind for number, kind in self.kinds.items() if kind in least}
        self.kind = Signal(range(len(self.kinds)), name="kind")
        self.bare = self._is(E8M0)
        for place, kind in list(self.kinds.items())[1:]:
            with m.If(self._is(kind)):
                m.d.comb += self.kind.eq(place)

    def _is(self, kind: Scale) -> Value:
        return Cat(self.format == number for number, form in self.forms.items() if form.scale == kind).any()

    def _codes(self, m: Module, held: Value, scales: list[Value]) -> list[Value]:
        """The lanes' codes, offset added."""
        codes = [Signal(signed(9), name=f"integer{k}") for k in range(self.lanes)]
        with m.Switch(self.format):
            for number, form in self.forms.items():
                with m.Case(number):
                    run = Signal(form.code_bits * self.lanes, name=f"run_{form.name}")
                    m.d.comb += run.eq(
                        held[: 32 * form.code_bits].word_select(
                            self.place[: (32 // self.lanes - 1).bit_length()], len(run)
                        )
                    )
                    for k, code in enumerate(codes):
                        meant = _meant(form, run.word_select(k, form.code_bits))
                        if form.has_factor:
                            # 0 times a negative code would be -0, and the factor would keep the sign.
                            meant = Mux(scales[k >= 16 and len(scales) > 1][:7].any(), meant, 0)
                        m.d.comb += code.eq(meant)
        return codes

    def _stored(self, m: Module, held: Value) -> tuple[list[Value], Value]:
        """Scales (of all lanes, or of the lower and of the upper ones) and minimum, as they are stored."""
        bits = max(8 * form.scale.bytes for form in self.forms.values())
        names = ("scale_bits", "high_scale_bits") if self.halves and self.lanes == 32 else ("scale_bits",)
        scales, minimum = [Signal(bits, name=name) for name in names], Signal(bits, name="minimum_bits")
        with m.Switch(self.format):
            for number, form in self.forms.items():
                at, each = 8 * group_code_bytes(form), 8 * form.scale.bytes
                with m.Case(number):
                    for half, scale in enumerate(scales):
                        m.d.comb += scale.eq(self._scale_at(held, at, each, form.block == 16, half))
                    if form.has_minimum:
                        m.d.comb += minimum.eq(held[at + each : at + 2 * each])
        return scales, minimum

    def _scale_at(self, held: Value, at: int, each: int, halved: bool, half: int) -> Value:
        if not halved or self.lanes == 32:
            at += each * (half if halved else 0)
            return held[at : at + each]
        words = 32 // self.lanes
        return held[at : at + 2 * each].word_select(self.place[words.bit_length() - 2], each)

    def _binary32(self, m: Module, stored: Value, name: str) -> Value:
        number = as_binary32(m, chosen_parts(self.kinds, self.kind, stored), name)
        if E8M0 not in {form.scale for form in self.forms.values()}:
            return number
        power = Cat(Const(0, 23), Mux(stored[:8].any(), stored[:8], 1), Const(0, 1))
        return Mux(self.bare, power, number)

    def _lower(self, stored: Value) -> Value | None:
        """Octaves by which codes are lower: a scale that is an exponent alone is twice what it says, and byte 0 four times: 2^-126."""
        if E8M0 not in {form.scale for form in self.forms.values()}:
            return None
        return Mux(self.bare, Mux(stored[:8].any(), 1, 2), 0)


def _meant(form: Format, pattern: Value) -> Value:
    """What a code's bits mean, offset added."""
    return (
        Array(Const(code, signed(6)) for code in form.values)[pattern]
        if form.values
        else pattern.as_signed() + form.offset
    )


def integer_as_binary32(m: Module, code: Value, name: str, lower: Value | None = None) -> Value:
    """A code of -128..127 (offset added), exactly; `lower`: octaves that are taken from it."""
    magnitude = Signal(8, name=f"{name}_magnitude")
    m.d.comb += magnitude.eq(Mux(code < 0, -code, code))
    normal, zeros = normalise(m, magnitude, name)
    exponent = EXACT - zeros if lower is None else EXACT - zeros - lower
    return Mux(normal[7], Cat(Const(0, 16), normal[:7], exponent[:8], code < 0), 0)
