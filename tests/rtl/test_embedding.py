"""Groups of embedding rows become exact binary32 numbers."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.sim import Simulator

from tapeout.isa.layout import pack_rows
from tapeout.isa.opcodes import FORMAT_IDS
from tapeout.numerics.formats import FORMATS
from tapeout.rtl.embedding import EmbeddingGroup
from tapeout.rtl.ports import BUILT_FORMATS

LANES = 8
HALVES = (0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xBC01, 0x7BFF)
"""Zeros of both signs, subnormals, and the least and greatest numbers of binary16."""


def unpack(form, data, odd):
    """The group in `data` as (codes, scale, minimum): what the box says of it."""
    unit, found = EmbeddingGroup(LANES), []

    async def drive(ctx):
        ctx.set(unit.words, int.from_bytes(bytes(2 * odd) + data.tobytes(), "little"))
        for name, value in (("take", 1), ("odd", odd), ("format", FORMAT_IDS.index(form.name))):
            ctx.set(getattr(unit, name), value)
        await ctx.tick()
        ctx.set(unit.words, 0)
        ctx.set(unit.take, 0)
        for place in range(32 // LANES):
            ctx.set(unit.place, place)
            found.extend(ctx.get(code) for code in unit.codes)
        found.extend([ctx.get(unit.scale), ctx.get(unit.minimum)])

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    *codes, scale, minimum = np.array(found, np.uint32).view(np.float32)
    return codes, scale, minimum


@pytest.mark.parametrize("name", BUILT_FORMATS)
def test_codes_with_their_offset_scale_and_minimum_are_exact(name):
    form, rng = FORMATS[name], np.random.default_rng(9)
    for number, half in enumerate(HALVES):
        codes = rng.integers(form.low, form.high + 1, (1, 32)).astype(np.int8)
        codes[0, :2] = form.low, form.high
        scale, minimum = (np.array([[x]], np.uint16).view(np.float16) for x in (half, HALVES[-1 - number]))
        found = unpack(form, pack_rows(form, codes, scale, minimum)[0], number % 2)
        assert found[0] == (codes[0].astype(np.float32) + form.offset).tolist()
        assert found[1:] == (scale[0, 0], minimum[0, 0] if form.has_minimum else 0)
        assert not np.signbit([x for x in (*found[0], *found[1:]) if x == 0]).any()
