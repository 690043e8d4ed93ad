"""Binary32 in hardware: add, multiply, integer to binary32, exponent addition, as docs/numerics.md section 1 has them.

All are pipelined: new operands every cycle, the result STAGES cycles later, no valid bits. Operands are zero or normal. A result that would
be infinite raises `infinite`; what `y` then is does not matter. The rounding at the end is shared with the dividers in `divide.py`.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

FIELD = signed(12)
"""An exponent field on its way to a result: as stored, but it may still lie far outside 1..254."""
BIAS = 127

PARTS = data.StructLayout({"fraction": unsigned(23), "field": unsigned(8), "sign": unsigned(1)})
"""The bits of a binary32 number."""


def parts(x: Value) -> data.View:
    """A binary32 number's sign, exponent field and fraction."""
    return data.View(PARTS, x)


def is_zero(x: Value) -> Value:
    """Whether a binary32 number is a zero: there are no subnormal operands."""
    return parts(x).field == 0


def mantissa(x: Value) -> Value:
    """24 bits: the fraction with its hidden bit, 0 for a zero."""
    return Cat(parts(x).fraction, parts(x).field.any())


def register(name: str, shape: Shape | int) -> Signal:
    """A register of the datapath: no reset, since nothing looks at it before something is in it."""
    return Signal(shape, name=name, reset_less=True)


def normalise(m: Module, x: Value, name: str = "normal") -> tuple[Value, Value]:
    """Shift `x` left until its highest bit is set: (x shifted, by how much). A zero stays, and its count means nothing."""
    width = len(x)
    counts = []
    for step in reversed(range((width - 1).bit_length())):
        empty, moved = Signal(name=f"{name}_empty{step}"), Signal(width, name=f"{name}_by{step}")
        m.d.comb += empty.eq(~x[width - (1 << step) :].any())
        m.d.comb += moved.eq(Mux(empty, Cat(Const(0, 1 << step), x[: width - (1 << step)]), x))
        x, counts = moved, [empty, *counts]
    return x, Cat(*counts)


def rounded(m: Module, sign: Value, field: Value, significand: Value) -> tuple[Value, Value]:
    """Round to nearest even, then flush: (bits, infinite). `significand` has its highest bit set: 24 bits and those to be rounded off.

    A value just below 2^-126 rounds on IEEE's grid of subnormals, where only 2^-126 - 2^-150 and above reach 2^-126: those whose first 24
    bits are all ones.
    """
    kept, guard, rest = significand[-24:], significand[-25], significand[:-25]
    at, packed, edge = Signal(FIELD), Signal(31), Signal()
    m.d.comb += at.eq(field)
    m.d.comb += packed.eq(Cat(kept[:23], at[:8]) + (guard & (rest.any() | kept[0])))
    m.d.comb += edge.eq((at == 0) & kept.all())
    bits = Mux(at > 0, Cat(packed, sign), Mux(edge, Cat(Const(1 << 23, 31), sign), 0))
    return bits, (at > 254) | ((at > 0) & packed[23:].all())


class Add32(wiring.Component):
    """y = a + b. To subtract flip the sign of b."""

    STAGES = 3

    a: In(32)
    b: In(32)
    y: Out(32)
    infinite: Out(1)

    def elaborate(self, platform):
        m = Module()
        greater, lesser, distance = self._order(m)
        total, field, sign, zero_sign = self._add(m, greater, lesser, distance)
        normal, zeros = normalise(m, total)
        bits, infinite = rounded(m, sign, field + 1 - zeros, normal)
        keep(m, self, Mux(normal[-1], bits, Cat(Const(0, 31), zero_sign)), infinite & normal[-1])
        return m

    def _order(self, m: Module) -> tuple[Value, Value, Value]:
        """The operands by magnitude, and how far the lesser one's mantissa moves right: by 31 it is only a hint that something is there."""
        greater, lesser, distance = register("greater", 32), register("lesser", 32), register("distance", 5)
        swap, apart = Signal(), Signal(signed(9))
        high, low = Mux(swap, self.b, self.a), Mux(swap, self.a, self.b)
        m.d.comb += swap.eq(self.a[:31] < self.b[:31])
        m.d.comb += apart.eq(parts(high).field - parts(low).field)
        m.d.sync += [greater.eq(high), lesser.eq(low), distance.eq(Mux(apart[5:].any(), 31, apart[:5]))]
        return greater, lesser, distance

    def _add(self, m: Module, greater: Value, lesser: Value, distance: Value) -> tuple[Value, Value, Value, Value]:
        """The exact sum but for one bit that says whether anything nonzero lies below: (28 bits, field of the greater, sign, sign if zero)."""
        total, field = register("total", 28), register("field", 8)
        sign, zero_sign = register("sign", 1), register("zero_sign", 1)
        wide, moved = Signal(51), Signal(27)
        m.d.comb += wide.eq(Cat(Const(0, 27), mantissa(lesser)) >> distance)
        m.d.comb += moved.eq(Cat(wide[:25].any(), wide[25:]))
        whole = Cat(Const(0, 3), mantissa(greater))
        m.d.sync += total.eq(Mux(greater[31] ^ lesser[31], whole - moved, whole + moved))
        m.d.sync += [field.eq(parts(greater).field), sign.eq(greater[31]), zero_sign.eq(greater[31] & lesser[31])]
        return total, field, sign, zero_sign


class Mul32(wiring.Component):
    """y = a * b."""

    STAGES = 2

    a: In(32)
    b: In(32)
    y: Out(32)
    infinite: Out(1)

    def elaborate(self, platform):
        m = Module()
        keep(m, self, *product(m, self.a, self.b))
        return m


def product(m: Module, a: Value, b: Value) -> tuple[Value, Value]:
    """a * b, a cycle later: (bits, infinite), not registered."""
    product, field = register("product", 48), register("field", FIELD)
    sign, zero = register("sign", 1), register("zero", 1)
    m.d.sync += product.eq(mantissa(a) * mantissa(b))
    m.d.sync += field.eq(parts(a).field + parts(b).field - BIAS)
    m.d.sync += [sign.eq(a[31] ^ b[31]), zero.eq(is_zero(a) | is_zero(b))]
    high = product[47]
    bits, infinite = rounded(m, sign, field + high, Mux(high, product, product << 1)[:48])
    return Mux(zero, Cat(Const(0, 31), sign), bits), infinite & ~zero


class FromInteger(wiring.Component):
    """y = F(i, k): the integer `i` times 2^k, value and exponent rounded together, once."""

    STAGES = 2

    def __init__(self, width: int):
        self.width = width
        super().__init__({"i": In(signed(width)), "k": In(signed(11)), "y": Out(32), "infinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        keep(m, self, *from_integer(m, self.i, self.k))
        return m


class IntegerTimes(wiring.Component):
    """y = F(i, k), or, where `times` is high in the cycle behind that of i, F(i, k) * f with the f of that cycle. As late as `FromInteger`: the
    first rounding and the product are of one cycle, and the second rounding stands behind the last register."""

    STAGES = FromInteger.STAGES

    def __init__(self, width: int):
        self.width = width
        super().__init__(
            {
                "i": In(signed(width)), "k": In(signed(11)), "times": In(1), "f": In(32), "y": Out(32), "infinite": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        rounded_once, too_large = from_integer(m, self.i, self.k)
        y, whole, over, times = Signal(32), register("whole", 32), register("over", 1), register("timed", 1)
        m.d.comb += y.eq(rounded_once)
        scaled, infinite = product(m, y, self.f)
        m.d.sync += [whole.eq(y), over.eq(too_large), times.eq(self.times)]
        m.d.comb += [self.y.eq(Mux(times, scaled, whole)), self.infinite.eq(over | (times & infinite))]
        return m


def from_integer(m: Module, i: Value, k: Value) -> tuple[Value, Value]:
    """F(i, k), a cycle later: (bits, infinite), not registered."""
    width = max(len(i), 26)
    magnitude = Signal(width)
    m.d.comb += magnitude.eq(Mux(i[-1], -i, i))
    shifted, zeros = normalise(m, magnitude)
    normal, field, sign = register("normal", width), register("field", FIELD), register("sign", 1)
    m.d.sync += [normal.eq(shifted), field.eq(k + (width - 1 + BIAS) - zeros), sign.eq(i[-1])]
    bits, infinite = rounded(m, sign, field, normal)
    return Mux(normal[-1], bits, 0), infinite & normal[-1]


class ExponentAdd(wiring.Component):
    """y = X(x, k): x times 2^k, rounded once where it falls below 2^-126."""

    STAGES = 1

    x: In(32)
    k: In(signed(11))
    y: Out(32)
    infinite: Out(1)

    def elaborate(self, platform):
        m = Module()
        x = parts(self.x)
        bits, infinite = rounded(m, x.sign, x.field + self.k, Cat(Const(0, 2), mantissa(self.x)))
        keep(m, self, Mux(is_zero(self.x), self.x, bits), infinite & ~is_zero(self.x))
        return m


def keep(m: Module, unit: wiring.Component, y: Value, infinite: Value) -> None:
    """Register a result and drive the outputs from there."""
    y_register, infinite_register = register("y_register", 32), register("infinite_register", 1)
    m.d.sync += [y_register.eq(y), infinite_register.eq(infinite)]
    m.d.comb += [unit.y.eq(y_register), unit.infinite.eq(infinite_register)]
