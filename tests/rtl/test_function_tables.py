"""Tables that are interpolated, and the sine of a whole turn from a quarter of its table."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.sim import Simulator

from tapeout.numerics.kernels import sine24
from tapeout.numerics.tables import EXP2, SIGMOID, SINE
from tapeout.rtl.rom import Rom
from tapeout.rtl.trig import FRACTION, SineTable


def look_up(unit, port, inputs, read):
    """What `read` gives a cycle after each input."""
    found = []

    async def drive(ctx):
        for x in inputs:
            ctx.set(getattr(unit, port), int(x))
            await ctx.tick()
            found.append(read(ctx))

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    return found


@pytest.mark.parametrize("table", [SINE[:257], EXP2, SIGMOID], ids=["sine", "exp2", "sigmoid"])
def test_one_access_gives_an_entry_and_the_distance_to_the_next(table):
    rom = Rom(table)
    found = look_up(rom, "addr", range(len(table) - 1), lambda ctx: (ctx.get(rom.low), ctx.get(rom.step)))
    assert found == [(a, abs(b - a)) for a, b in zip(table.tolist(), table.tolist()[1:], strict=False)]


def test_a_quarter_of_the_table_gives_the_sine_of_every_phase():
    edges = [
        (quarter << 30) + at for quarter in range(4) for at in (0, 1, 2**22 - 1, 2**22, 2**29, 2**30 - 2**22, 2**30 - 1)
    ]
    phases = [*edges, *np.random.default_rng(8).integers(0, 1 << 32, 500).tolist()]
    table = SineTable()
    names = ("low", "step", "fraction", "negative")
    for phase, row in zip(
        phases, look_up(table, "phase", phases, lambda ctx: [ctx.get(getattr(table, x)) for x in names]), strict=True
    ):
        low, step, fraction, negative = row
        size = low + (step * fraction + negative * ((1 << FRACTION) - 1) >> FRACTION)
        assert (-size if negative else size) == sine24(phase), f"phase {phase:#x}"
