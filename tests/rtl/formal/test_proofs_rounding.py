"""Rounding, for every input: the nearest by distance, ties to the even one; no rounder's own way of working is repeated here.

There is no register between input and result, so that one cycle is all there is (the quantizer's codes: the cycles from a group's start to them).
"""

from types import ModuleType

import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from prove import Opened, anything, claim, constant, given, holds, mutant

from tapeout.rtl import binary32, nearest, quantizer

pytestmark = pytest.mark.slow


def is_nearest(m: Module, whole: Value, exact: Value, below: Value) -> None:
    """`whole` is rne(exact / 2^below): what lies between is at most half a unit, and half a unit only where `whole` is even."""
    width = max(len(whole), len(exact)) + 34
    between, unit = Signal(width), Signal(width)
    scaled = (whole << below)[:width]
    m.d.comb += [between.eq(Mux(scaled > exact, scaled - exact, exact - scaled)), unit.eq(Const(1, width) << below)]
    claim(m, "No other value is nearer", (between << 1) <= unit)
    claim(m, "A tie goes to the even value", ((between << 1) != unit) | ~whole[0])


def rounding(width: int, module: ModuleType = binary32):
    """significand * 2^(field - BIAS - width + 1), the significand's highest bit set, as a binary32 number."""

    def build(m: Module) -> None:
        sign, field, exact = (
            anything(m, 1, "sign"),
            anything(m, binary32.FIELD, "field"),
            anything(m, width, "significand"),
        )
        given(m, exact[-1])
        bits, infinite = (Signal.like(value) for value in (Const(0, 32), sign))
        m.d.comb += Cat(bits, infinite).eq(Cat(*module.rounded(m, sign, field, exact)))
        moved = Signal(signed(13))
        m.d.comb += moved.eq(bits[23:31] - field)
        with m.If((field > 0) & ~infinite):
            claim(m, "The exponent moves by a carry at most", (moved == 0) | (moved == 1))
            claim(m, "The sign stays", bits[31] == sign)
            is_nearest(m, Mux(moved[0], Cat(Const(0, 1), bits[:23], 1), Cat(bits[:23], 1)), exact, Const(width - 24))
        last = Const((1 << width) - (1 << width - 25), width)
        claim(m, "Infinite is what rounds to 2^128", infinite == ((field > 254) | (field == 254) & (exact >= last)))
        with m.If(field <= 0):
            # On the grid of multiples of 2^-149, 2^-126 is nearest from 2^-126 - 2^-150 on: itself a tie, and 2^-126 is even.
            survives = (field == 0) & (exact >= (1 << width) - (1 << width - 24))
            claim(m, "What is below 2^-126 becomes it or +0", bits == Mux(survives, Cat(Const(1 << 23, 31), sign), 0))

    return build


@pytest.mark.parametrize("width", [26, 28, 48])
def test_a_significand_is_rounded_to_the_nearest_binary32_and_flushed(width: int, tmp_path) -> None:
    assert (verdict := holds(rounding(width), tmp_path, 1)), verdict


@pytest.mark.parametrize(
    ("old", "new", "failed"),
    [
        ("rest.any() | kept[0]", "1", "A tie goes to the even value"),
        ("(rest.any() | kept[0])", "kept[0]", "No other value is nearer"),
        ("(at == 0) & kept.all()", "(at == 0) & kept[1:].all()", "What is below 2^-126 becomes it or +0"),
    ],
)
def test_a_broken_rounding_is_refuted(old: str, new: str, failed: str, tmp_path) -> None:
    verdict = holds(rounding(28, mutant(binary32, (old, new))), tmp_path, 1)
    assert verdict.refutes(failed), verdict


@pytest.mark.parametrize("width", [24, 28, 49, 64])
def test_normalising_moves_the_highest_bit_to_the_top(width: int, tmp_path) -> None:
    def build(m: Module) -> None:
        x = anything(m, width, "x")
        normal, zeros = binary32.normalise(m, x)
        claim(m, "The highest bit is set, but for a zero", normal[-1] == (x != 0))
        claim(m, "Nothing is lost", (x == 0) | ((normal >> zeros) == x) & (zeros < width))

    assert (verdict := holds(build, tmp_path, 1)), verdict


def to_integer(least: int, module: ModuleType = nearest):
    def build(m: Module) -> None:
        mantissa, distance = anything(m, 24, "mantissa"), anything(m, signed(11), "distance")
        given(m, distance >= least)
        value = module.nearest(m, "value", mantissa, distance, least)
        with m.If(distance < 32):
            is_nearest(m, value, mantissa, distance[:5])
        with m.Else():
            claim(m, "A quarter and less is 0", value == 0)

    return build


@pytest.mark.parametrize("least", [0, quantizer.LEAST_SHIFT])
def test_a_mantissa_becomes_the_nearest_integer(least: int, tmp_path) -> None:
    assert (verdict := holds(to_integer(least), tmp_path, 1)), verdict


def test_a_broken_nearest_integer_is_refuted(tmp_path) -> None:
    verdict = holds(to_integer(0, mutant(nearest, ("wide[: FAR - 1].any() | wide[FAR]", "1"))), tmp_path, 1)
    assert verdict.refutes("A tie goes to the even value"), verdict


def scale(module: ModuleType = quantizer):
    """127 * n * 2^e against mantissa * 2^(field - 150): both in units of 2^(field - 151), so that e - 1 is a whole exponent too."""

    def build(m: Module) -> None:
        magnitude, wide = anything(m, 31, "magnitude"), 64
        field, found = magnitude[23:], module.group_scale(m, magnitude)
        given(m, Mux(field == 0, magnitude == 0, field != 255))
        n, e, up, exact = Signal(4), Signal(signed(9)), Signal(signed(10)), Signal(wide)
        m.d.comb += [n.eq(found.n), e.eq(found.e), up.eq(e + 150 - field), exact.eq(Cat(0, magnitude[:23], field != 0))]

        def reaches(halves: Value) -> Value:
            """Whether 127 * halves * 2^(e - 1) does. By more than 24 bits up everything does, and down nothing."""
            return (up > 24) | (up >= 0) & (((127 * halves) << up[:5])[:wide] >= exact)

        claim(m, "A scale is n * 2^e with n in 8..15 and e from -100 on", (n >= 8) & (e >= -100))
        claim(m, "The scale reaches the magnitude", reaches(2 * n))
        smaller = reaches(Mux(n == 8, 15, 2 * n - 2)[:5])
        claim(m, "No smaller scale does", ~smaller | (n == 8) & (e == -100))

    return build


def test_a_groups_scale_is_the_smallest_that_reaches(tmp_path) -> None:
    assert (verdict := holds(scale(), tmp_path, 1)), verdict


@pytest.mark.parametrize(
    ("old", "new", "failed"),
    [("& rest)", "& 0)", "The scale reaches the magnitude"), ("range(9, 15)", "range(8, 14)", "No smaller scale does")],
)
def test_a_broken_scale_is_refuted(old: str, new: str, failed: str, tmp_path) -> None:
    verdict = holds(scale(mutant(quantizer, (old, new))), tmp_path, 1)
    assert verdict.refutes(failed), verdict


def test_the_codes_of_a_group_need_no_clamp(tmp_path) -> None:
    def build(m: Module) -> None:
        magnitude, value, cycle = constant(m, 31, "magnitude"), constant(m, 32, "value"), Signal(3)
        box = Opened(unit := quantizer.Quantizer(1))
        m.submodules.box = box.module
        given(m, (value[:31] <= magnitude) & (value[23:31] != 0) & (magnitude[23:] != 255))
        m.d.sync += cycle.eq(cycle + 1)
        m.d.comb += [
            unit.start.eq(cycle == 0),
            unit.magnitude.eq(magnitude),
            unit.valid.eq(cycle == 1),
            unit.values.eq(value),
        ]
        with m.If(cycle == 3):
            claim(m, "A code is within 127", box["whole0"] <= 127)
            claim(
                m,
                "A mantissa moves as far as the shifter is built for",
                box["distance0"] >= quantizer.LEAST_SHIFT,
            )

    assert (verdict := holds(build, tmp_path, 5)), verdict
