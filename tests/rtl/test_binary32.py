"""The binary32 boxes in Amaranth's simulator, against the compiled rules of the contract."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.sim import Simulator
from numbers32 import SPECIAL, random_pairs, special_pairs

from tapeout.numerics.kernels import add32, div32, f32_of, mul32, shift32, sqrt32
from tapeout.rtl.binary32 import Add32, ExponentAdd, FromInteger, Mul32
from tapeout.rtl.divide import Divide32, Divide32Pipelined, Sqrt32

SHIFTS = (-1024, -300, -254, -253, -150, -127, -126, -3, -1, 0, 1, 3, 100, 126, 127, 128, 253, 254, 300, 1023)


def as_float(bits):
    return np.uint32(bits).view(np.float32)


def wanted(kernel, *operands):
    """(bits, 0), or (anything, 1) where the result is infinite."""
    with np.errstate(over="ignore", under="ignore"):
        y = np.float32(kernel(*operands))
    return (int(y.view(np.uint32)), 0) if np.isfinite(y) else (None, 1)


def pipelined(unit, rows, names):
    """Feed a row of operands every cycle: the (y, infinite) of each."""
    found = []

    async def drive(ctx):
        for cycle in range(len(rows) + unit.STAGES):
            if cycle >= unit.STAGES:
                found.append((ctx.get(unit.y), ctx.get(unit.infinite)))
            if cycle < len(rows):
                for name, x in zip(names, rows[cycle], strict=True):
                    ctx.set(getattr(unit, name), int(x))
            await ctx.tick()

    simulate(unit, drive)
    return found


def iterative(unit, rows, names):
    """Start with each row of operands, and see `done` in its cycle and in no other."""
    found = []

    async def drive(ctx):
        for row in rows:
            for name, x in zip(names, row, strict=True):
                ctx.set(getattr(unit, name), int(x))
            ctx.set(unit.start, 1)
            for cycle in range(unit.CYCLES):
                assert not ctx.get(unit.done) or cycle == 0, f"done after {cycle} cycles"
                await ctx.tick()
                ctx.set(unit.start, 0)
            assert ctx.get(unit.done), f"not done after {unit.CYCLES} cycles"
            found.append((ctx.get(unit.y), ctx.get(unit.infinite)))

    simulate(unit, drive)
    return found


def simulate(unit, drive):
    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()


def check(found, expected, rows):
    assert len(found) == len(expected)
    for (y, infinite), (bits, over), row in zip(found, expected, rows, strict=True):
        assert infinite == over, f"{[hex(int(x)) for x in row]}: infinite is {infinite}"
        assert over or y == bits, f"{[hex(int(x)) for x in row]}: {y:08x}, not {bits:08x}"


def pairs(count, seed):
    """Random pairs, and a part of the crossed special ones."""
    crossed = special_pairs()
    chosen = np.random.default_rng(seed).choice(crossed.shape[1], count, replace=False)
    return np.concatenate([random_pairs(count, seed), crossed[:, chosen]], axis=1).T


@pytest.mark.parametrize(("unit", "kernel"), [(Add32, add32), (Mul32, mul32)])
def test_sums_and_products_are_those_of_the_contract(unit, kernel):
    rows = pairs(2000, 1)
    expected = [wanted(kernel, as_float(a), as_float(b)) for a, b in rows]
    check(pipelined(unit(), rows, "ab"), expected, rows)


@pytest.mark.parametrize("unit", [Divide32Pipelined, Divide32])
def test_quotients_are_those_of_the_contract(unit):
    rows = [(a, b) for a, b in pairs(1000 if unit is Divide32Pipelined else 150, 2) if b & 0x7FFFFFFF]
    expected = [wanted(div32, as_float(a), as_float(b)) for a, b in rows]
    check((pipelined if unit is Divide32Pipelined else iterative)(unit(), rows, "ab"), expected, rows)


def test_roots_are_those_of_the_contract():
    rows = [(x,) for x in [*SPECIAL, *random_pairs(100, 3)[0]] if not x >> 31]
    check(iterative(Sqrt32(), rows, "a"), [wanted(sqrt32, as_float(x)) for (x,) in rows], rows)


@pytest.mark.parametrize("width", [17, 31, 40, 64])
def test_integers_are_rounded_once(width):
    random = np.random.default_rng(width)
    bits = random.integers(1, width, 1500)
    values = [int(random.integers(0, 1 << 62)) % (1 << int(b)) * int(random.choice([-1, 1])) for b in bits]
    values += [
        x for b in range(width - 1) for y in (1 << b, -(1 << b)) for x in (y - 1, y, y + 1) if x < 1 << width - 1
    ]
    values += [0, -(1 << width - 1), (1 << width - 1) - 1]
    rows = [(i, int(k)) for i, k in zip(values, random.choice(edge_shifts(width), len(values)), strict=True)]
    expected = [wanted(f32_of, np.int64(i), np.int64(k)) for i, k in rows]
    check(pipelined(FromInteger(width), rows, "ik"), expected, rows)


def edge_shifts(width):
    """Exponents of which many bring an integer of at most `width` bits to 2^-126 or to 2^128."""
    return [*SHIFTS, *range(-126 - width, -124), *range(128 - width, 130)]


def test_an_exponent_is_added_and_rounded_once():
    rows = [(x, k) for x in SPECIAL for k in SHIFTS]
    rows += [(x, int(t) - (int(x) >> 23 & 255)) for x in SPECIAL for t in (-1, 0, 1, 254, 255)]
    check(pipelined(ExponentAdd(), rows, "xk"), [wanted(shift32, as_float(x), np.int64(k)) for x, k in rows], rows)
