"""Binary32 divide and square root, correctly rounded, two digits at a time: one divider for every cycle, and small ones that take their time.

A division subtracts the divisor where it goes, 26 times: the quotient of two mantissas then has its 24 bits and the bit behind them wherever
it begins, and what remains says whether anything follows. A root brings two digits of the radicand in where a division brings none.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.binary32 import BIAS, FIELD, is_zero, keep, mantissa, parts, register, rounded

QUOTIENT = 26
"""Digits of a quotient or root: 24, the one that rounds, and one because a quotient of mantissas may begin with 0."""
PER_STEP = 2
STEPS = QUOTIENT // PER_STEP


def divide_step(m: Module, rest: Value, divisor: Value) -> tuple[Value, Value]:
    """PER_STEP more digits, highest first in the highest bit: (what remains, twice too large each time; digits)."""
    digits = []
    for k in range(PER_STEP):
        less, left, fits = Signal(26, name=f"less{k}"), Signal(25, name=f"left{k}"), Signal(name=f"fits{k}")
        m.d.comb += less.eq(rest - divisor)
        m.d.comb += fits.eq(~less[25])
        m.d.comb += left.eq(Mux(fits, less[:24], rest[:24]) << 1)
        rest, digits = left, [fits, *digits]
    return rest, Cat(*digits)


def root_step(m: Module, rest: Value, root: Value, radicand: Value) -> tuple[Value, Value]:
    """PER_STEP more digits of the root, from as many pairs of digits of the radicand: (what remains, the root so far)."""
    for k in range(PER_STEP):
        pair = radicand[len(radicand) - 2 * k - 2 : len(radicand) - 2 * k]
        less, left, longer = Signal(29, name=f"less{k}"), Signal(27, name=f"left{k}"), Signal(QUOTIENT, name=f"root{k}")
        m.d.comb += less.eq(Cat(pair, rest) - Cat(Const(1, 2), root))
        m.d.comb += left.eq(Mux(less[28], Cat(pair, rest), less))
        m.d.comb += longer.eq(Cat(~less[28], root))
        rest, root = left, longer
    return rest, root


def quotient_rounded(m: Module, sign: Value, field: Value, quotient: Value, rest: Value) -> tuple[Value, Value]:
    """Bits and `infinite` of a quotient that begins in its first or second digit."""
    late = ~quotient[QUOTIENT - 1]
    return rounded(m, sign, field - late, Cat(rest.any(), Mux(late, quotient << 1, quotient)[:QUOTIENT]))


class Divide32Pipelined(wiring.Component):
    """y = a / b, b not zero: a quotient every cycle."""

    STAGES = STEPS + 1

    a: In(32)
    b: In(32)
    y: Out(32)
    infinite: Out(1)

    def elaborate(self, platform):
        m = Module()
        rest, divisor, quotient = mantissa(self.a), mantissa(self.b), Const(0, 0)
        # Sign, whether a is zero, and exponent field.
        about = Cat(self.a[31] ^ self.b[31], is_zero(self.a), (parts(self.a).field - parts(self.b).field + BIAS)[:10])
        for k in range(STEPS):
            rest, quotient, divisor, about = self._stage(m, k, rest, quotient, divisor, about)
        bits, infinite = quotient_rounded(m, about[0], about[2:].as_signed(), quotient, rest)
        keep(m, self, Mux(about[1], Cat(Const(0, 31), about[0]), bits), infinite & ~about[1])
        return m

    def _stage(
        self, m: Module, k: int, rest: Value, quotient: Value, divisor: Value, about: Value
    ) -> tuple[Value, ...]:
        step = Module()
        m.submodules[f"step{k}"] = step
        rest, digits = divide_step(step, rest, divisor)
        following = (rest, Cat(digits, quotient), divisor, about)
        registers = [
            register(name, len(x)) for name, x in zip(("rest", "quotient", "divisor", "about"), following, strict=True)
        ]
        step.d.sync += [place.eq(x) for place, x in zip(registers, following, strict=True)]
        return tuple(registers)


class Divide32(wiring.Component):
    """y = a / b, b not zero: `done` CYCLES after `start`, and y stands until the next start."""

    CYCLES = STEPS + 2

    start: In(1)
    a: In(32)
    b: In(32)
    done: Out(1)
    y: Out(32)
    infinite: Out(1)

    def elaborate(self, platform):
        m = Module()
        rest, quotient, divisor = register("rest", 25), register("quotient", QUOTIENT), register("divisor", 24)
        sign, zero, field = register("sign", 1), register("zero", 1), register("field", FIELD)
        turn = countdown(m, self.start, self.done)
        following, digits = divide_step(m, rest, divisor)
        with m.If(self.start):
            m.d.sync += [rest.eq(mantissa(self.a)), divisor.eq(mantissa(self.b)), zero.eq(is_zero(self.a))]
            m.d.sync += [sign.eq(self.a[31] ^ self.b[31]), field.eq(parts(self.a).field - parts(self.b).field + BIAS)]
        with m.Elif(turn):
            m.d.sync += [rest.eq(following), quotient.eq(Cat(digits, quotient))]
        bits, infinite = quotient_rounded(m, sign, field, quotient, rest)
        keep(m, self, Mux(zero, Cat(Const(0, 31), sign), bits), infinite & ~zero)
        return m


class Sqrt32(wiring.Component):
    """y = the square root of a, which is not below zero: `done` CYCLES after `start`, and y stands until the next start. Never infinite."""

    CYCLES = STEPS + 2

    start: In(1)
    a: In(32)
    done: Out(1)
    y: Out(32)
    infinite: Out(1)

    def elaborate(self, platform):
        m = Module()
        rest, root, radicand = register("rest", 27), register("root", QUOTIENT), register("radicand", 2 * QUOTIENT)
        sign, zero, field = register("sign", 1), register("zero", 1), register("field", 8)
        turn = countdown(m, self.start, self.done)
        following, longer = root_step(m, rest, root, radicand)
        exponent = Signal(9)
        # Half of an even exponent: the radicand is 1 to 4, and its first pair of digits is not 0.
        m.d.comb += exponent.eq(parts(self.a).field + BIAS)
        with m.If(self.start):
            m.d.sync += [
                rest.eq(0),
                root.eq(0),
                radicand.eq(Mux(exponent[0], mantissa(self.a) << 28, mantissa(self.a) << 27)),
            ]
            m.d.sync += [sign.eq(self.a[31]), zero.eq(is_zero(self.a)), field.eq(exponent >> 1)]
        with m.Elif(turn):
            m.d.sync += [rest.eq(following), root.eq(longer), radicand.eq(radicand << 2 * PER_STEP)]
        bits, _ = rounded(m, sign, field, Cat(rest.any(), root))
        keep(m, self, Mux(zero, Cat(Const(0, 31), sign), bits), Const(0))
        return m


def countdown(m: Module, start: Value, done: Value) -> Value:
    """Whether a digit step is due; raises `done` once the result of STEPS of them has been rounded and registered."""
    left = Signal(range(STEPS + 2))
    last = Signal()
    with m.If(start):
        m.d.sync += left.eq(STEPS + 1)
    with m.Elif(left != 0):
        m.d.sync += left.eq(left - 1)
    m.d.sync += last.eq((left == 1) & ~start)
    m.d.comb += done.eq(last)
    return left > 1
