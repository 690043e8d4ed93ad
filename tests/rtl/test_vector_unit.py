"""The vector unit against the simulator's functions: every bit, every cycle."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import Elaboratable, EnableInserter
from bench import Bench
from vector_ops import KINDS, Maker, execute

from chips import make_chip
from tapeout.isa.footprint import footprints
from tapeout.isa.layout import pack_rows
from tapeout.isa.opcodes import FORMAT_IDS, Flag, MicroOp, Op, Unit
from tapeout.isa.timing import latency, occupancy
from tapeout.numerics.formats import FORMATS
from tapeout.numerics.scales import scale_values
from tapeout.rtl.lane import ONE
from tapeout.rtl.vector_unit import VectorUnit


def run(maker, chip, gap=0, wrap=lambda unit: unit):
    """Run the maker's micro-ops as close as they may stand (and `gap` cycles): (bench, schedule)."""
    bench = Bench(
        wrap(VectorUnit(chip, gated=False)),
        Unit.VECTOR,
        bytearray(maker.memory),
        bytearray(maker.stream),
        position=maker.position,
    )
    bench.extra = lambda ctx, unit: ctx.set(unit.token_id, int(maker.tokens[ctx.get(unit.token_index) % 64]))
    schedule, cycle, end = [], 3, 0
    for op in maker.ops:
        schedule.append((cycle, op))
        end = max(end, cycle + latency(op, chip))
        cycle += occupancy(op, chip) + gap
    bench.run(schedule, end + 3)
    return bench, schedule


def check(maker, chip, gap=0, wrap=lambda unit: unit):
    bench, schedule = run(maker, chip, gap, wrap)
    assert not bench.overflow
    assert sorted(bench.done) == sorted((op.op.name.lower(), cycle + latency(op, chip)) for cycle, op in schedule)
    wrong = np.flatnonzero(np.frombuffer(bytes(bench.memory), np.uint8) != maker.result())
    assert not wrong.size, (
        f"{wrong.size} bytes from {wrong[:4]}: {[str(op) for op in maker.ops if op.dst <= wrong[0]][-1:]}"
    )
    marks = [(cycle, mark) for cycle, op in schedule for mark in footprints(op, chip)]
    for _, cycle, first, size in bench.writes:
        assert any(mark.write and covers(mark, cycle - issue, first, size) for issue, mark in marks), (
            cycle,
            first,
            size,
        )

    streams = [(cycle, cycle + occupancy(op, chip)) for cycle, op in schedule if op.flags & Flag.STREAM]
    for name, cycle, first, _ in bench.reads:
        # A group of an embedding row may begin in the middle of the first word, and a stream buffer has no footprint.
        announced = any(not mark.write and covers(mark, cycle - issue, first + 2, 2) for issue, mark in marks)
        assert announced or (name in ("c", "row") and any(start <= cycle < end for start, end in streams)), (
            name,
            cycle,
            first,
        )


def covers(mark, cycle, first, size):
    """Whether an access of `size` bytes is one that the footprint announces."""
    runs = (
        mark.offset + i * mark.outer_stride + k * mark.inner_stride
        for i in range(mark.outer)
        for k in range(mark.inner)
    )
    return mark.start <= cycle < mark.end and any(at <= first and first + size <= at + mark.size for at in runs)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("lanes", [4, 32])
def test_every_micro_op_has_the_bits_and_cycles_of_the_simulator(kind, lanes):
    maker, chip = Maker(np.random.default_rng(lanes + kind), 64), make_chip(tile__vector__lanes=str(lanes))
    for _ in range(4):
        maker.add(kind)
    check(maker, chip)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 32])
def test_micro_ops_of_all_kinds_follow_one_another_without_a_gap(lanes):
    rng = np.random.default_rng(100 + lanes)
    maker, chip = Maker(rng, 64), make_chip(tile__vector__lanes=str(lanes))
    for kind in rng.permutation(np.repeat(KINDS, 4)):
        maker.add(Op(kind))
    check(maker, chip)


class Asleep(Elaboratable):
    """A unit that is clocked only while it is active or starts, as in its tile."""

    def __init__(self, unit):
        self.unit = unit

    def __getattr__(self, name):
        return getattr(self.unit, name)

    def elaborate(self, platform):
        return EnableInserter(self.unit.active | self.unit.go)(self.unit)


@pytest.mark.parametrize("gap", [1, 9, 30, 70])
def test_it_may_sleep_whenever_it_is_not_active(gap):
    rng = np.random.default_rng(200 + gap)
    maker, chip = Maker(rng, 64), make_chip(tile__vector__lanes="8")
    for kind in rng.permutation(np.repeat(KINDS, 2)):
        maker.add(Op(kind))
    check(maker, chip, gap, Asleep)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
def test_it_is_active_until_its_last_write_and_no_longer(kind):
    maker, chip, seen = Maker(np.random.default_rng(300 + kind), 64), make_chip(tile__vector__lanes="4"), []
    op = maker.add(kind)
    bench = Bench(VectorUnit(chip, gated=False), Unit.VECTOR, bytearray(maker.memory), bytearray(maker.stream))
    bench.extra = lambda ctx, unit: seen.append(ctx.get(unit.active))
    bench.run([(2, op)], latency(op, chip) + 9)
    assert seen == [0] * 3 + [1] * latency(op, chip) + [0] * 6


LARGE = {"inside": -2, "behind": 0}
"""Where two numbers stand whose sum and product are infinite, from the end of the row on."""


@pytest.mark.parametrize("where", LARGE)
@pytest.mark.parametrize(("kind", "columns"), [(Op.NORM, 38), (Op.ROPE, 6), (Op.SWIGLU, 33)])
def test_an_infinite_result_is_reported_but_not_one_behind_the_row(kind, columns, where):
    maker, chip = Maker(np.random.default_rng(400), 64, position=1), make_chip(tile__vector__lanes="4")
    x, y, out = maker.place(256), maker.place(256), maker.place(256)
    turns = maker.bytes_at(np.full(64, 1 << 29, np.uint32).view(np.uint8), False, 4)
    for at in (x, y):
        words = np.full(64, 1.5, np.float32)
        words[columns + LARGE[where] :][:2] = 3e38
        maker.memory[at : at + 256] = words.view(np.uint8)
    flags, numbers = Flag.ADD if kind is Op.NORM else Flag.NONE, {"s2": ONE, "s3": ONE}
    maker.ops = [MicroOp(kind, columns=columns, heads=1, tokens=1, flags=flags, a=x, b=y, c=turns, dst=out, **numbers)]
    reported = run(maker, chip)[0].overflow
    assert reported is (where == "inside")
    assert reported is not execute(maker.ops[0], maker.memory, maker.stream, maker.tokens, maker.position, 64)


@pytest.mark.parametrize(
    ("name", "scale", "factor"),
    [("mxfp4", 252, 1.0), ("mxfp4", 253, 1.0), ("nvfp4", 0x7E, -(2.0**116)), ("nvfp4", 0x7E, 2.0**117)],
)
def test_an_infinite_embedding_is_reported(name: str, scale: int, factor: float):
    maker, chip, form = Maker(np.random.default_rng(500), 64), make_chip(tile__vector__lanes="2"), FORMATS[name]
    row = pack_rows(form, np.full((1, 32), 12, np.int8), np.full((1, 32 // form.block), scale, np.uint8), None, factor)[
        0
    ]
    maker.tokens[:] = 0
    at, numbers = maker.bytes_at(row, False, 2), {"format": FORMAT_IDS.index(name), "s0": row.size, "s3": 1}
    maker.ops = [MicroOp(Op.EMBED, columns=32, tokens=1, b=at, dst=maker.place(128), s1=128, **numbers)]
    reported = run(maker, chip)[0].overflow
    assert reported is (12.0 * float(scale_values(form.scale, np.array(scale, np.uint8))) * abs(factor) >= 2.0**128)
    assert reported is not execute(maker.ops[0], maker.memory, maker.stream, maker.tokens, 0, 64)
