"""The multipliers: R rows x K lanes, weight codes of any format of the chip times int8 activations, summed to one integer per row.

Weight codes are made unsigned by flipping their sign bit, which adds 2^(bits-1) to each, or by a table that adds what makes the least of
them 0; the sum is put right by a multiple of the group's A, which is the same for all rows: D + offset*A = D' + (offset - 2^(bits-1)) * A. So int4m
needs nothing at all.

An activation code is a number modulo 2^24, so that a product with an unsigned code is one of 32 bits and needs no sign: of the sums only the low
SUM_BITS bits count. The Verilated model then has R equal sums of whole machine words, which a compiler makes vector instructions of. A synthesis that
does not see that the upper bits are copies (yosys) makes a fifth more gates of it than of 9 x 8 bits signed.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.numerics.formats import Format
from tapeout.rtl.ports import format_bits, formats_of, weight_words
from tapeout.rtl.tree import fold

SUM_BITS = 20
"""Of D + offset*A of a group: 32 * 128 * 127 and a sign."""


def header_bytes(chip: ChipSpec, form: Format) -> int:
    """Where the codes begin in a read of the matrix unit: behind biases and factors of R rows, and the group's scales and minima."""
    return chip.tile.matrix.rows * (form.row_bytes + form.group_bytes)


def halved(form: Format) -> bool:
    """Whether each half of a group of 32 columns has a scale of its own."""
    return form.block == 16


def in_one_cycle(chip: ChipSpec) -> bool:
    """Whether both halves of a group are multiplied in the same cycle, and make two sums."""
    return chip.tile.matrix.lanes == 32 and any(map(halved, formats_of(chip).values()))


class DotProduct(wiring.Component):
    """By cycles after a read was addressed: 0: `next_format`. 1: with `load` the bytes of a slice in `weights`, its activation codes in `x`, the
    group's `sum` A (`low`: that of its first half). 2: `add`, and `first` slice of a sum. From 3 on `d`: SUM_BITS signed bits per row, D + offset*A
    of the slices so far. Where halves are summed `in_one_cycle`, `d` of a halved format is that of the first half, and `high` of the second.
    """

    def __init__(self, chip: ChipSpec):
        self.chip, self.rows, self.lanes = chip, chip.tile.matrix.rows, chip.tile.matrix.lanes
        self.both, number = in_one_cycle(chip), format_bits(chip)
        members = {
            "next_format": In(number), "format": In(number), "load": In(1), "weights": In(32 * weight_words(chip)), "x": In(8 * self.lanes),
            "sum": In(signed(13)), "add": In(1), "first": In(1), "d": Out(SUM_BITS * self.rows),
        }  # fmt: skip
        super().__init__(members | ({"low": In(signed(13)), "high": Out(SUM_BITS * self.rows)} if self.both else {}))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        quads, rows = range(self.lanes // 4), range(self.rows)
        self.codes = [[_register(32, f"codes{quad}_{r}") for r in rows] for quad in quads]
        self.x_codes = [_register(24, f"x{k}") for k in range(self.lanes)]
        self.start = _register(32, "start")
        self.sums = [_register(32, f"sum{r}") for r in rows]
        self._unpack(m)
        if self.both:
            self._halves(m)
            return m
        dots = [self._dot(r) for r in rows]
        with m.If(self.add):
            m.d.sync += [self.sums[r].eq(dots[r]) for r in rows]
        m.d.comb += self.d.eq(Cat(total[:SUM_BITS] for total in self.sums))
        return m

    def _unpack(self, m: Module) -> None:
        """Cycle 1. What flips the sign bits is a register: a constant would be taken apart into bits on the way to Verilog."""
        forms, flip = formats_of(self.chip), _register(32, "flip")
        with m.Switch(self.next_format):
            for number, form in forms.items():
                with m.Case(number):
                    m.d.sync += flip.eq(0 if form.values else 0x01010101 << form.code_bits - 1)
        with m.If(self.load):
            for r in range(self.rows):
                lanes = {number: planes(form, self._packed(form, r)) for number, form in forms.items()}
                for quad, word in enumerate(self.codes):
                    m.d.sync += word[r].eq(
                        self._by_format({number: row[32 * quad : 32 * quad + 32] for number, row in lanes.items()})
                        ^ flip
                    )
            for lane, code in enumerate(self.x_codes):
                at = {number: self.x.word_select(x_order(form, self.lanes, lane), 8) for number, form in forms.items()}
                m.d.sync += code.eq(extended(self._by_format(at)))
            starts = {number: self._sum_of(form) * (form.offset - lifted(form)) for number, form in forms.items()}
            m.d.sync += self.start.eq(self._by_format(starts))

    def _sum_of(self, form: Format) -> Value:
        return self.low if self.both and halved(form) else self.sum

    def _by_format(self, values: dict[int, Value]) -> Value:
        """The value of the micro-op's format; equal ones once. (As a chain of choices: Verilator evaluates only the one that is taken.)"""
        *kinds, chosen = {repr(value): value for value in values.values()}.items()
        chosen = chosen[1]
        for text, value in kinds:
            numbers = [number for number, other in values.items() if repr(other) == text]
            chosen = Mux(Cat(self.format == number for number in numbers).any(), value, chosen)
        return chosen

    def _packed(self, form: Format, row: int) -> Value:
        """A row's codes as they were read."""
        bits = self.lanes * form.code_bits
        first = 8 * header_bytes(self.chip, form) + row * bits
        return self.weights[first : first + bits]

    def _dot(self, r: int) -> Value:
        before = self.start if self.lanes == 32 else Mux(self.first, self.start, self.sums[r])
        return (self._products(r, 0, self.lanes) + before)[:32]

    def _products(self, r: int, first: int, end: int) -> Value:
        products = [self.codes[k // 4][r].word_select(k % 4, 8) * self.x_codes[k] for k in range(first, end)]
        return fold(products, lambda a, b: (a + b)[:32])

    def _halves(self, m: Module) -> None:
        """Cycle 2 where a slice is a whole group: the sums of its halves, or both in one."""
        two, start, highs = Signal(), _register(32, "high_start"), [_register(32, f"high{r}") for r in range(self.rows)]
        forms = {number: form for number, form in formats_of(self.chip).items() if halved(form)}
        is_halved = Cat(self.format == number for number in forms).any()
        starts = [(number, (self.sum - self.low) * (form.offset - lifted(form))) for number, form in forms.items()]
        with m.If(self.load):
            m.d.sync += [
                two.eq(is_halved),
                start.eq(fold([Mux(self.format == n, s, 0) for n, s in starts], lambda a, b: a | b)),
            ]
        for r in range(self.rows):
            low, high = (Signal(32, name=f"{name}{r}") for name in ("low_dot", "high_dot"))
            m.d.comb += [low.eq(self._products(r, 0, 16)), high.eq(self._products(r, 16, 32))]
            with m.If(self.add):
                m.d.sync += [self.sums[r].eq(low + self.start + Mux(two, 0, high)), highs[r].eq(high + start)]
        m.d.comb += [
            port.eq(Cat(total[:SUM_BITS] for total in sums)) for port, sums in ((self.d, self.sums), (self.high, highs))
        ]


def _register(shape: object, name: str) -> Signal:
    return Signal(shape, name=name, reset_less=True)


def extended(code: Value) -> Value:
    """An int8 code in 24 bits. (As a choice, which Verilator computes at once; it takes copies of a bit one by one.)"""
    return Cat(code, Mux(code[7], 0xFFFF, 0))


def lifted(form: Format) -> int:
    """What a code is greater by as it is multiplied."""
    return -form.low if form.values else 1 << form.code_bits - 1


def _looked_up(form: Format, pattern: Value) -> Value:
    """The unsigned code of a pattern, a byte: FP4 has 0..24, 5 bits; a single bit 0 or 2."""
    return Array(Const(code + lifted(form), 8) for code in form.values)[pattern]


def planes(form: Format, packed: Value) -> Value:
    """A row's codes a byte each: the lowest code of all bytes, then the next of all bytes; or, where a byte does not hold codes whole or they
    are looked up, one after the other.
    """
    bits, count = form.code_bits, len(packed) // 8
    if _in_turn(form):
        codes = [packed[at : at + bits] for at in range(0, len(packed), bits)]
        return Cat(_looked_up(form, code) if form.values else Cat(code, Const(0, 8 - bits)) for code in codes)
    return Cat(
        Cat(packed[8 * at + bits * p : 8 * at + bits * (p + 1)], Const(0, 8 - bits))
        for p in range(8 // bits)
        for at in range(count)
    )


def x_order(form: Format, lanes: int, lane: int) -> int:
    """The column whose code `planes` gives to a lane."""
    if _in_turn(form):
        return lane
    count = lanes * form.code_bits // 8
    return lane % count * (8 // form.code_bits) + lane // count


def _in_turn(form: Format) -> bool:
    return bool(form.values) or 8 % form.code_bits > 0
