"""The multipliers: R rows x K lanes, weight codes of any format of the chip times int8 activations, summed to one integer per row.

Weight codes are made unsigned by flipping their sign bit, which adds 2^(bits-1) to each; the sum is put right by a multiple of the group's A, which
is the same for all rows: D + offset*A = D' + (offset - 2^(bits-1)) * A. So int4m needs nothing at all.

The code of row r and lane k is byte (k/4*R + r)*4 + k%4 of the register of weights, and operands are written as wide as the 32-bit words of a machine:
no gates come of either (the upper bits are copies of a sign, which every synthesis drops), but a compiler of the Verilated model finds R equal sums
of neighbouring words, and uses vector instructions.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import FORMAT_IDS
from tapeout.numerics.formats import FORMATS, Format
from tapeout.rtl.ports import weight_words
from tapeout.rtl.tree import fold

SUM_BITS = 20
"""Of D + offset*A of a group: 32 * 128 * 127 and a sign."""
SPREAD = {8: (), 4: ((8, 0x00FF00FF), (4, 0x0F0F0F0F)), 2: ((12, 0x000F000F), (6, 0x03030303))}
"""Four packed codes to four bytes: pairs of (distance to copy by, bits to keep)."""


def formats_of(chip: ChipSpec) -> dict[int, Format]:
    """The chip's weight formats by the number that a micro-op has for them."""
    return {FORMAT_IDS.index(name): FORMATS[name] for name in chip.tile.matrix.formats}


def header_bytes(chip: ChipSpec, form: Format) -> int:
    """Where the codes begin in a read of the matrix unit: behind R bytes for a bias, and the group's scales and minima."""
    return chip.tile.matrix.rows * (1 + form.group_bytes)


class DotProduct(wiring.Component):
    """In cycle 1 (`load`) the bytes read for a slice in `weights`, its activation codes in `x` and the group's `sum` A; in cycle 2 (`add`, and `first`
    slice of a group); from cycle 3 on `d`: SUM_BITS signed bits per row, D + offset*A of the slices so far.
    """

    def __init__(self, chip: ChipSpec):
        self.chip, self.rows, self.lanes = chip, chip.tile.matrix.rows, chip.tile.matrix.lanes
        super().__init__(
            {
                "format": In(2), "load": In(1), "weights": In(32 * weight_words(chip)), "x": In(8 * self.lanes), "sum": In(signed(13)),
                "add": In(1), "first": In(1), "d": Out(SUM_BITS * self.rows),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        quads, rows = range(self.lanes // 4), range(self.rows)
        self.codes = [[_register(32, f"codes{quad}_{r}") for r in rows] for quad in quads]
        self.x_codes = [_register(24, f"x{k}") for k in range(self.lanes)]
        self.start, self.flip = _register(32, "start"), _register(32, "flip")
        self.sums = [_register(32, f"sum{r}") for r in rows]
        with m.If(self.load):
            self._unpack(m)
        dots = [self._dot(r) for r in rows]
        with m.If(self.add):
            m.d.sync += [self.sums[r].eq(dots[r]) for r in rows]
        m.d.comb += self.d.eq(Cat(total[:SUM_BITS] for total in self.sums))
        return m

    def _unpack(self, m: Module) -> None:
        with m.Switch(self.format):
            for number, form in formats_of(self.chip).items():
                with m.Case(number):
                    for r in range(self.rows):
                        lanes = planes(form, self._packed(form, r))
                        m.d.sync += [self.codes[quad][r].eq(lanes[32 * quad : 32 * quad + 32]) for quad in range(self.lanes // 4)]
                    order = [x_order(form, self.lanes, lane) for lane in range(self.lanes)]
                    m.d.sync += [self.x_codes[lane].eq(extended(self.x.word_select(k, 8))) for lane, k in enumerate(order)]
                    m.d.sync += self.flip.eq(0x01010101 << form.code_bits - 1)
                    m.d.sync += self.start.eq(self.sum * (form.offset - (1 << form.code_bits - 1)))

    def _packed(self, form: Format, row: int) -> Value:
        """A row's codes as they were read."""
        bits = self.lanes * form.code_bits
        first = 8 * header_bytes(self.chip, form) + row * bits
        return self.weights[first : first + bits]

    def _dot(self, r: int) -> Value:
        codes = Cat(quad[r] ^ self.flip for quad in self.codes)
        products = [codes.word_select(k, 8) * self.x_codes[k] for k in range(self.lanes)]
        before = self.start if self.lanes == 32 else Mux(self.first, self.start, self.sums[r])
        return (fold(products, lambda a, b: (a + b)[:32]) + before)[:32]


def _register(shape: object, name: str) -> Signal:
    return Signal(shape, name=name, reset_less=True)


def extended(code: Value) -> Value:
    """An int8 code in 24 bits. (As a choice, which Verilator computes at once; it takes copies of a bit one by one.)"""
    return Cat(code, Mux(code[7], 0xFFFF, 0))


def planes(form: Format, packed: Value) -> Value:
    """A row's codes a byte each: the lowest code of all bytes, then the next of all bytes."""
    bits, count = form.code_bits, len(packed) // 8
    return Cat(Cat(packed[8 * at + bits * p : 8 * at + bits * (p + 1)], Const(0, 8 - bits)) for p in range(8 // bits) for at in range(count))


def x_order(form: Format, lanes: int, lane: int) -> int:
    """The column whose code `planes` gives to a lane."""
    count = lanes * form.code_bits // 8
    return lane % count * (8 // form.code_bits) + lane // count
