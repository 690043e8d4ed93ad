"""The group stage: a group's integer products, scaled, shifted and summed in int64, as docs/numerics.md section 5 has it. No rounding here.

Of a read of weights it takes the bias (F_row - e_row, with a row block's first group), the binary16 scales and the minima. A term is moved 16 places
to the left and then 16 - (bias + es + e - e_max) to the right: e_row is the greatest es and F at most 16, so that is never negative.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.rtl.dot_product import SUM_BITS, formats_of
from tapeout.rtl.operand_buffer import GROUP
from tapeout.rtl.ports import weight_words

SUM = 63
"""Bits of a sum: its magnitude is below 2^62."""
PLACES = 16
"""Fraction bits F at most."""


class GroupStage(wiring.Component):
    """By cycles after a read was addressed:

    1: `load` takes scales and minima from `weights`, `load_bias` biases; `group` and `e_max` of the operand stand beside them.
    2: `take`, the group's last slice; `minimum` if the format has minima. 3: `d` of the group. 4: the terms are added to the sum of `token`, or
    with `first` put there. 5: if `result` was high in cycle 4, the R sums stand in `total<r>`, and e_max - bias in `exponent<r>`: registers of
    `domain`, which must be clocked at the end of a cycle with `result`.
    """

    def __init__(self, chip: ChipSpec, domain: str = "sync"):
        unit = chip.tile.matrix
        self.domain = domain
        self.rows, self.tokens = unit.rows, unit.tokens
        self.minima = any(form.has_minimum for form in formats_of(chip).values())
        members = {
            "load": In(1), "load_bias": In(1), "weights": In(32 * weight_words(chip)), "group": In(GROUP), "e_max": In(signed(8)),
            "take": In(1), "minimum": In(1), "d": In(SUM_BITS * self.rows), "first": In(1), "result": In(1), "token": In(range(self.tokens)),
        }  # fmt: skip
        for r in range(self.rows):
            members |= {f"total{r}": Out(signed(SUM)), f"exponent{r}": Out(signed(11))}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._header(m)
        self._operand(m)
        self.multiply, self.add = Signal(), Signal()
        m.d.sync += [self.multiply.eq(self.take), self.add.eq(self.multiply)]
        terms = [self._scaled(m, r) for r in range(self.rows)]
        if self.minima:
            has, had = Signal(), Signal()
            m.d.sync += [has.eq(self.take & self.minimum), had.eq(has)]
            terms = [term + Mux(had, self._least(m, r, has), 0) for r, term in enumerate(terms)]
        self._accumulate(m, terms)
        self._exponents(m)
        return m

    def _header(self, m: Module) -> None:
        """From cycle 2 on: the biases of the row block, the scales and minima of the group."""
        rows = self.rows
        self.bias, self.scales, self.minimums = (
            Signal(bits * rows, name=name, reset_less=True)
            for bits, name in ((8, "bias"), (16, "scales"), (16, "minimums"))
        )
        with m.If(self.load):
            m.d.sync += self.scales.eq(self.weights[8 * rows : 24 * rows])
            if self.minima:
                m.d.sync += self.minimums.eq(self.weights[24 * rows : 40 * rows])
            with m.If(self.load_bias):
                m.d.sync += self.bias.eq(self.weights[: 8 * rows])

    def _operand(self, m: Module) -> None:
        """From cycle 2 on: what all rows share. `places` is the part of the shift that does not depend on the row."""
        self.n, self.n_sum = Signal(4, reset_less=True), Signal(signed(17), reset_less=True)
        self.places, self.largest = Signal(10, reset_less=True), Signal(signed(8), reset_less=True)
        with m.If(self.load):
            m.d.sync += [
                self.n.eq(self.group.n), self.n_sum.eq(self.group.n * self.group.sum),
                self.places.eq(self.e_max - self.group.e + (PLACES + 25)), self.largest.eq(self.e_max),
            ]  # fmt: skip

    def _scaled(self, m: Module, r: int) -> Value:
        """Cycle 4: the row's term n*ms*D."""
        scale = self.scales.word_select(r, 16)
        factor, right = _register(signed(16), f"factor{r}"), _register(6, f"right{r}")
        product, far = _register(signed(64), f"product{r}"), _register(6, f"far{r}")
        d = Signal(signed(48), name=f"d{r}")
        m.d.comb += d.eq(self.d.word_select(r, SUM_BITS).as_signed())
        places, product_of = self._right(m, r, scale, f"scale_places{r}"), scaled(m, scale, self.n, f"scale_size{r}")
        with m.If(self.take):
            m.d.sync += [factor.eq(product_of), right.eq(places)]
        with m.If(self.multiply):
            m.d.sync += [product.eq(factor * d), far.eq(right)]
        return moved(m, product, far, f"moved{r}")

    def _least(self, m: Module, r: int, has: Signal) -> Value:
        """Cycle 4: the row's term n*mm*A. A is known early, so it is shifted a cycle before."""
        minimum = self.minimums.word_select(r, 16)
        product, right = _register(signed(29), f"least_product{r}"), _register(6, f"least_right{r}")
        term = _register(signed(45), f"least{r}")
        places, result = self._right(m, r, minimum, f"least_places{r}"), moved(m, product, right, f"least_moved{r}")
        product_of = scaled(m, minimum, self.n_sum, f"least_size{r}")
        with m.If(self.take & self.minimum):
            m.d.sync += [product.eq(product_of), right.eq(places)]
        with m.If(has):
            m.d.sync += term.eq(result)
        return term

    def _right(self, m: Module, r: int, half: Value, name: str) -> Value:
        """How far to the right: by 63 nothing but the sign is left."""
        places = Signal(10, name=name)
        m.d.comb += places.eq(
            self.places - self.bias.word_select(r, 8).as_signed() - Mux(half[10:15].any(), half[10:15], 1)
        )
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


def scaled(m: Module, half: Value, number: Value, name: str) -> Value:
    """m of a binary16, its mantissa with the hidden bit and the sign, times a number."""
    product = Cat(half[:10], half[10:15].any()) * number
    size = Signal(product.shape(), name=name)
    m.d.comb += size.eq(product)
    return Mux(half[15], -size, size)


def moved(m: Module, x: Value, right: Value, name: str) -> Value:
    """`x` PLACES to the left, then `right` to the right: floor. In the width of a machine's word."""
    wide = Signal(signed(62), name=name)
    m.d.comb += wide.eq(x.shift_left(PLACES))
    return wide >> right


def _register(shape: object, name: str) -> Signal:
    return Signal(shape, name=name, reset_less=True)
