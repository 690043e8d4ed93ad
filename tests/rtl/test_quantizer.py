"""Scales and codes of groups, against the compiled rules of the contract."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.sim import Simulator

from tapeout.numerics.kernels import code_of, group_scale
from tapeout.rtl.quantizer import Quantizer

LANES = 2


def quantize(groups):
    """Groups of LANES values, one word each, one every cycle: (codes, n, e) of each."""
    unit, found = Quantizer(LANES), []

    async def drive(ctx):
        for cycle in range(len(groups) + Quantizer.STAGES + 1):
            if ctx.get(unit.word.valid):
                codes = [(ctx.get(code) ^ 128) - 128 for code in unit.codes]
                found.append((codes, ctx.get(unit.scale.n), ctx.get(unit.scale.e)))
            before, now = groups[cycle - 1 : cycle], groups[cycle : cycle + 1]
            ctx.set(unit.start, len(now))
            ctx.set(unit.valid, len(before) if cycle else 0)
            for group in now:
                ctx.set(unit.magnitude, int(np.abs(group).max().view(np.uint32)))
            for group in before:
                ctx.set(unit.values, int.from_bytes(group.tobytes(), "little"))
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    return found


def wanted(group):
    n, e = group_scale(np.abs(group).max())
    return [code_of(x, n, e) for x in group], n, e


def check(groups):
    groups = [np.array(group, np.float32) for group in groups]
    assert quantize(groups) == [wanted(group) for group in groups]


def test_every_threshold_of_the_scale_is_exact():
    steps = [np.float32(127 * n * 2.0**e) for n in range(8, 16) for e in (-101, -100, -99, -3, 0, 90, 117)]
    near = [
        f(x)
        for x in steps
        for f in (lambda x: x, lambda x: np.nextafter(x, np.float32(0)), lambda x: x * np.float32(1 + 2.0**-23))
    ]
    check([(x, -x / 3) for x in near])


def test_zeros_and_the_least_and_greatest_numbers():
    least, greatest = np.float32(2.0**-126), np.finfo(np.float32).max
    check([(0.0, -0.0), (least, -least), (greatest, least), (-greatest, greatest / 2), (2.0**-97, 2.0**-110)])


def test_ties_of_codes_go_to_the_even_one():
    check([(1016.0, 4.0), (1016.0, 12.0), (1016.0, -20.0), (1778.0, 91.0)])


def test_random_groups_have_the_codes_of_the_contract():
    rng = np.random.default_rng(7)
    large = rng.normal(size=300) * 2.0 ** rng.uniform(-120, 110, 300)
    check(np.stack([large, large * rng.uniform(-1, 1, 300)], 1))
