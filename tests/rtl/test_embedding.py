"""Groups of embedding rows become exact binary32 numbers."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.sim import Simulator

from tapeout.isa.layout import pack_rows
from tapeout.isa.opcodes import FORMAT_IDS
from tapeout.numerics.formats import FORMATS, Format
from tapeout.numerics.scales import scale_values
from tapeout.rtl.embedding import EmbeddingGroup

FORMS = dict(enumerate(FORMATS.values()))
SCALES = {
    "binary16": (0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xBC01, 0x7BFF),
    "e8m0": (0, 1, 2, 127, 128, 253, 254), "e4m3": (0, 1, 7, 8, 0x38, 0x7E),
    "wide": (0, 1 << 23, 1, 1 << 23 | 0x3FFFF, 1 << 18 | 3, 0x3C0400, 30 << 18 | 0x3FFFF),
}  # fmt: skip
"""Zeros of both signs, subnormals, and the least and greatest numbers of each kind."""


def unpack(lanes: int, groups: list[tuple[Format, bytes]]) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(codes, the scale of each, minimum or factor) of first groups of rows: what the box says of them; every second one is odd."""
    unit, said = EmbeddingGroup(lanes, FORMS), []

    async def drive(ctx):
        for odd, (form, data) in enumerate(groups):
            codes, scales = [], []
            ctx.set(unit.words, int.from_bytes(bytes(2 * (odd % 2)) + data, "little"))
            number = FORMAT_IDS.index(form.name)
            for name, value in (("take", 1), ("odd", odd % 2), ("format", number), ("leads", form.has_factor)):
                ctx.set(getattr(unit, name), value)
            await ctx.tick()
            ctx.set(unit.words, 0)
            ctx.set(unit.take, 0)
            for place in range(32 // lanes):
                ctx.set(unit.place, place)
                codes.extend(ctx.get(code) for code in unit.codes)
                high = unit.high_scale if lanes == 32 else unit.scale
                scales.extend([ctx.get(unit.scale)] * (lanes // 2) + [ctx.get(high)] * (lanes // 2))
            said.append([*codes, *scales, ctx.get(unit.minimum)])

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    numbers = np.array(said, np.uint32).view(np.float32)
    return [(row[:32], row[32:64], row[64]) for row in numbers]


def random_row(rng: np.random.Generator, form: Format, number: int) -> tuple[bytes, np.ndarray, float]:
    """A row of one group with the kind's scale `number`: (bytes, values without minimum and factor, minimum or factor)."""
    kind, blocks, factor, bits = (
        form.scale,
        32 // form.block,
        -0.75 if form.has_factor else 1.0,
        SCALES[form.scale.name],
    )
    codes = rng.integers(form.low, form.high + 1, (1, 32)).astype(np.int8)
    codes[0, :2] = form.low, form.high
    if form.values:
        codes = rng.choice(np.array(form.values, np.int8), (1, 32))
    stored = (
        np.array([[bits[number], bits[number - 1]][:blocks]], np.uint32),
        np.array([[bits[-1 - number]]], np.uint32),
    )
    scale, minimum = (
        x.astype(np.uint16).view(np.float16) if kind.name == "binary16" else x.astype(kind.dtype) for x in stored
    )
    values = (codes[0].astype(np.float64) + form.offset) * np.repeat(scale_values(kind, scale)[0], 32 // blocks)
    last = factor if form.has_factor else scale_values(kind, minimum)[0, 0] if form.has_minimum else 0.0
    return pack_rows(form, codes, scale, minimum, factor)[0].tobytes(), values, last


@pytest.mark.parametrize("lanes", [2, 8, 16, 32])
def test_codes_scales_and_minimum_or_factor_are_exact_in_every_format(lanes):
    rng = np.random.default_rng(lanes)
    rows = [
        (form, *random_row(rng, form, number))
        for form in FORMS.values()
        for number in range(len(SCALES[form.scale.name]))
    ]
    for (form, _, values, last), (codes, scales, found) in zip(
        rows, unpack(lanes, [row[:2] for row in rows]), strict=True
    ):
        assert (codes.astype(np.float64) * scales).tolist() == values.tolist(), form.name
        assert found == last
        assert not np.signbit([x for x in (*codes, *scales, found) if x == 0]).any()
        assert all(x == 0 or abs(x) >= 2.0**-126 for x in scales)
        if form.has_factor:
            assert not codes[scales == 0].any()
