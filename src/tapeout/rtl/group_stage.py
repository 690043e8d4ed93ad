"""The group stage: a group's integer products, scaled, shifted and summed in int64, as docs/numerics.md section 5 has it. No rounding here.

Of a read of weights it takes the bias (F_row - e_row, with a row block's first group), the scales and the minima. A term is moved 16 places
to the left and then 16 - (bias + es + e - e_max) to the right: e_row is the greatest es and F at most 16, so that is never negative.

Where a format has a scale per half of a group, each half is a term: one after the other, or, where a slice is a whole group, two in a cycle.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.numerics.formats import Format, Scale
from tapeout.rtl.dot_product import SUM_BITS, halved, in_one_cycle
from tapeout.rtl.operand_buffer import group_layout
from tapeout.rtl.ports import format_bits, formats_of, weight_words
from tapeout.rtl.scales import EXPONENT_BIAS, Parts, chosen_parts

SUM = 63
"""Bits of a sum: its magnitude is below 2^62."""
PLACES = 16
"""Fraction bits F at most."""


class GroupStage(wiring.Component):
    """By cycles after a read was addressed:

    1: `load` takes scales and minima of `format` from `weights`, `load_bias` biases; `group` and `e_max` of the operand stand beside them.
    2: `take`, the last slice of the group, or of a half of it (`second`) that has its own scale; `minimum` if the format has minima. 3: `d` of the
    group, or of its half; where both halves are summed in one cycle, `high` of the second one if `halves` was high in cycle 2. 4: the terms are
    added to the sum of `token`, or with `first` put there. 5: if `result` was high in cycle 4, the R sums stand in `total<r>`, and e_max - bias in
    `exponent<r>`: registers of `domain`, which must be clocked at the end of a cycle with `result`.
    """

    def __init__(self, chip: ChipSpec, domain: str = "sync"):
        unit = chip.tile.matrix
        self.domain, self.forms = domain, formats_of(chip)
        self.rows, self.tokens = unit.rows, unit.tokens
        self.both, self.halves_differ = in_one_cycle(chip), any(map(halved, self.forms.values()))
        self.kinds = dict(enumerate(dict.fromkeys(form.scale for form in self.forms.values())))
        self.least_kinds = {
            number: kind
            for number, kind in self.kinds.items()
            if any(form.has_minimum and form.scale == kind for form in self.forms.values())
        }
        self.headers = _by_header(self.forms)
        members = {
            "load": In(1), "load_bias": In(1), "weights": In(32 * weight_words(chip)), "group": In(group_layout(chip)), "e_max": In(signed(8)),
            "take": In(1), "minimum": In(1), "d": In(SUM_BITS * self.rows), "first": In(1), "result": In(1), "token": In(range(self.tokens)),
        }  # fmt: skip
        members |= {"format": In(format_bits(chip))} if len(self.headers) > 1 else {}
        if self.halves_differ:
            members |= {"halves": In(1), "high": In(SUM_BITS * self.rows)} if self.both else {"second": In(1)}
        for r in range(self.rows):
            members |= {f"total{r}": Out(signed(SUM)), f"exponent{r}": Out(signed(11))}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._header(m)
        self._operand(m)
        self.multiply, self.add = Signal(), Signal()
        m.d.sync += [self.multiply.eq(self.take), self.add.eq(self.multiply)]
        terms = [self._scaled(m, r, self._scale(r), self.d, f"{r}") for r in range(self.rows)]
        if self.both:
            terms = [a + b for a, b in zip(terms, self._high_terms(m), strict=True)]
        if self.least_kinds:
            has, had = Signal(), Signal()
            m.d.sync += [has.eq(self.take & self.minimum), had.eq(has)]
            terms = [term + Mux(had, self._least(m, r, has), 0) for r, term in enumerate(terms)]
        self._accumulate(m, terms)
        self._exponents(m)
        return m

    def _header(self, m: Module) -> None:
        """From cycle 2 on: the biases of the row block, the scales and minima of the group as they are stored, and the number of their kind."""
        rows, names = self.rows, ("scales", "second_scales")[: 1 + self.halves_differ]
        self.bias = Signal(8 * rows, name="bias", reset_less=True)
        self.scales = [Signal(_bits(self.kinds) * rows, name=name, reset_less=True) for name in names]
        self.minimums = Signal(_bits(self.least_kinds) * rows, name="minimums", reset_less=True)
        self.kind = Signal(range(len(self.kinds)), name="kind", reset_less=True)
        with m.If(self.load):
            if len(self.headers) == 1:
                self._take_header(m, next(iter(self.headers)))
            else:
                with m.Switch(self.format):
                    for header, numbers in self.headers.items():
                        with m.Case(*numbers):
                            self._take_header(m, header)
            with m.If(self.load_bias):
                m.d.sync += self.bias.eq(self.weights[: 8 * rows])

    def _take_header(self, m: Module, header: "Header") -> None:
        at, each = self.rows * header.row_bytes, header.kind.bytes
        for half, stored in enumerate(self.scales[: header.blocks]):
            m.d.sync += stored.eq(self._stored(at + half * each, each * header.blocks, each, len(stored) // self.rows))
        number = next(number for number, kind in self.kinds.items() if kind == header.kind)
        if number in self.least_kinds and header.blocks == 1:
            at += self.rows * each
            m.d.sync += self.minimums.eq(self._stored(at, each, each, len(self.minimums) // self.rows))
        if len(self.kinds) > 1:
            m.d.sync += self.kind.eq(number)

    def _stored(self, first: int, apart: int, size: int, bits: int) -> Value:
        """R numbers of `size` bytes, `apart` from one another, in `bits` bits each."""
        if apart == size and 8 * size == bits:
            return self.weights[8 * first : 8 * first + bits * self.rows]
        places = range(first, first + self.rows * apart, apart)
        return Cat(Cat(self.weights[8 * at : 8 * (at + size)], Const(0, bits - 8 * size)) for at in places)

    def _operand(self, m: Module) -> None:
        """From cycle 2 on: what all rows share. `places` is the part of the shift that does not depend on the row."""
        self.n, self.n_sum = Signal(4, reset_less=True), Signal(signed(17), reset_less=True)
        self.places, self.largest = Signal(10, reset_less=True), Signal(signed(8), reset_less=True)
        with m.If(self.load):
            m.d.sync += [
                self.n.eq(self.group.n), self.n_sum.eq(self.group.n * self.group.sum),
                self.places.eq(self.e_max - self.group.e + (PLACES + EXPONENT_BIAS)), self.largest.eq(self.e_max),
            ]  # fmt: skip

    def _scale(self, r: int) -> Value:
        """The row's scale in cycle 2."""
        first, *second = (stored.word_select(r, len(stored) // self.rows) for stored in self.scales)
        return Mux(self.second, second[0], first) if second and not self.both else first

    def _high_terms(self, m: Module) -> list[Value]:
        """Cycle 4: the rows' terms of second halves."""
        has, had = Signal(name="has_high"), Signal(name="had_high")
        m.d.sync += [has.eq(self.take & self.halves), had.eq(has)]
        scales = [self.scales[1].word_select(r, len(self.scales[1]) // self.rows) for r in range(self.rows)]
        return [Mux(had, self._scaled(m, r, scale, self.high, f"_high{r}"), 0) for r, scale in enumerate(scales)]

    def _scaled(self, m: Module, r: int, stored: Value, sums: Value, name: str) -> Value:
        """Cycle 4: the row's term n*ms*D."""
        scale, bits = chosen_parts(self.kinds, self.kind, stored), _mantissa_bits(self.kinds)
        factor, right = _register(signed(bits + 5), f"factor{name}"), _register(6, f"right{name}")
        product, far = _register(signed(64), f"product{name}"), _register(6, f"far{name}")
        d = Signal(signed(48), name=f"d{name}")
        m.d.comb += d.eq(sums.word_select(r, SUM_BITS).as_signed())
        places, product_of = (
            self._right(m, r, scale, f"scale_places{name}"),
            scaled(m, scale, self.n, f"scale_size{name}"),
        )
        with m.If(self.take):
            m.d.sync += [factor.eq(product_of), right.eq(places)]
        with m.If(self.multiply):
            m.d.sync += [product.eq(factor * d), far.eq(right)]
        return moved(m, product, far, f"moved{name}")

    def _least(self, m: Module, r: int, has: Signal) -> Value:
        """Cycle 4: the row's term n*mm*A. A is known early, so it is shifted a cycle before."""
        stored, bits = self.minimums.word_select(r, len(self.minimums) // self.rows), _mantissa_bits(self.least_kinds)
        minimum = chosen_parts(self.least_kinds, self.kind, stored)
        product, right = _register(signed(bits + 18), f"least_product{r}"), _register(6, f"least_right{r}")
        term = _register(signed(bits + 18 + PLACES), f"least{r}")
        places, result = self._right(m, r, minimum, f"least_places{r}"), moved(m, product, right, f"least_moved{r}")
        product_of = scaled(m, minimum, self.n_sum, f"least_size{r}")
        with m.If(self.take & self.minimum):
            m.d.sync += [product.eq(product_of), right.eq(places)]
        with m.If(has):
            m.d.sync += term.eq(result)
        return term

    def _right(self, m: Module, r: int, scale: Parts, name: str) -> Value:
        """How far to the right: by 63 nothing but the sign is left."""
        places = Signal(10, name=name)
        m.d.comb += places.eq(self.places - self.bias.word_select(r, 8).as_signed() - scale.exponent)
        return Mux(places[6:].any(), 63, places[:6])

    def _accumulate(self, m: Module, terms: list[Value]) -> None:
        for r, term in enumerate(terms):
            m.submodules[f"sums{r}"] = sums = memory.Memory(shape=signed(SUM), depth=self.tokens, init=[])
            put, get = sums.write_port(), sums.read_port(domain="comb")
            after, total = Signal(signed(SUM), name=f"after{r}"), _register(signed(SUM), f"total_register{r}")
            m.d.comb += [
                after.eq(Mux(self.first, 0, get.data) + term), get.addr.eq(self.token), getattr(self, f"total{r}").eq(total),
                put.addr.eq(self.token), put.en.eq(self.add), put.data.eq(after),
            ]  # fmt: skip
            with m.If(self.result):
                m.d[self.domain] += total.eq(after)

    def _exponents(self, m: Module) -> None:
        """The row block's biases and the vector's e_max travel with the group: others are loaded meanwhile."""
        pairs = [(self.bias, self.largest)]
        for stage, when in enumerate((self.take, self.multiply, self.result), 3):
            pairs.append((_register(8 * self.rows, f"bias_{stage}"), _register(signed(8), f"largest_{stage}")))
            with m.If(when):
                m.d[self.domain if stage == 5 else "sync"] += [
                    after.eq(before) for before, after in zip(*pairs[-2:], strict=True)
                ]
        bias, largest = pairs[-1]
        for r in range(self.rows):
            m.d.comb += getattr(self, f"exponent{r}").eq(largest - bias.word_select(r, 8).as_signed())


def scaled(m: Module, scale: Parts, number: Value, name: str) -> Value:
    """ms of a scale, with its sign, times a number."""
    product = scale.magnitude * number
    size = Signal(product.shape(), name=name)
    m.d.comb += size.eq(product)
    return Mux(scale.negative, -size, size)


def moved(m: Module, x: Value, right: Value, name: str) -> Value:
    """`x` PLACES to the left, then `right` to the right: floor. In the width of a machine's word."""
    wide = Signal(signed(62), name=name)
    m.d.comb += wide.eq(x.shift_left(PLACES))
    return wide >> right


def _register(shape: object, name: str) -> Signal:
    return Signal(shape, name=name, reset_less=True)


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before a group's codes: bytes per row of the block's own, a kind of scales, and how many of them a row has."""

    row_bytes: int
    kind: Scale
    blocks: int


def _by_header(forms: dict[int, Format]) -> dict[Header, list[int]]:
    """Numbers of formats by the header that they have in common."""
    found: dict[Header, list[int]] = {}
    for number, form in forms.items():
        found.setdefault(Header(form.row_bytes, form.scale, 32 // form.block), []).append(number)
    return found


def _bits(kinds: dict[int, Scale]) -> int:
    return max((8 * kind.bytes for kind in kinds.values()), default=0)


def _mantissa_bits(kinds: dict[int, Scale]) -> int:
    return max(kind.mantissa_bits for kind in kinds.values())
