"""Random programs on random chips: RTL and simulator agree on every cycle and every byte, and what is changed in one of them is named."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("amaranth")

from random_programs import random_program, random_rtl_chip, random_steps
from random_runs import Step, Tally, crashers, kinds_for, run_programs, run_seed

from tapeout.base.errors import BadInput, Hazard, Overflow
from tapeout.chip.spec import ChipSpec, Topology
from tapeout.flow.cosim import FIELDS, Mismatch, Pair, compare_traces
from tapeout.isa.check import check_program
from tapeout.isa.opcodes import Op
from tapeout.isa.program import Image, Program
from tapeout.isa.trace import schedule_trace
from tapeout.rtl.engine import RtlEngine
from tapeout.sim.engine import ProgramEngine

SEEDS = {
    "3x2-4x8": 9,
    "1x3-8x8-ring": 15,
    "3x1-16x16-streamed": 36,
    "2x1-8x8": 20,
    "1x1-8x8-streamed": 14,
    "1x1-8x32-streamed": 54,
}
"""Chips of `random_rtl_chip`, by rows x columns of tiles, rows x lanes of the matrix unit, and what else they are; the slowest to build first."""
PROGRAMS = 50
CHANGED, CHANGES, TRIES = "1x1-8x32-streamed", 20, 12
"""Where bits are changed, in how many programs, and how many are tried until one shows."""


@pytest.fixture(scope="module")
def tallies() -> Iterator[dict[str, Future[Tally]]]:
    """Every chip built and its programs run, two chips at a time."""
    pool = ProcessPoolExecutor(2, get_context("spawn"))
    yield {name: pool.submit(run_programs, random_rtl_chip(seed), PROGRAMS) for name, seed in SEEDS.items()}
    pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SEEDS)
def test_fifty_random_programs_are_equal_in_rtl_and_simulator(tallies, name):
    tally = tallies[name].result()
    assert (tally.difference, tally.programs) == ("", PROGRAMS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SEEDS)
def test_they_run_every_micro_op_flag_and_format_that_the_chip_has(tallies, name):
    assert tallies[name].result().kinds == kinds_for(random_rtl_chip(SEEDS[name]))


@pytest.mark.parametrize("name", SEEDS)
def test_the_name_of_a_chip_tells_what_it_is(name):
    chip = random_rtl_chip(SEEDS[name])
    grid, unit = chip.grid, chip.tile.matrix
    told = [f"{grid.rows}x{grid.columns}", f"{unit.rows}x{unit.lanes}"]
    told += ["ring"] * (grid.topology is Topology.RING and grid.tiles > 1) + ["streamed"] * (chip.external is not None)
    assert name == "-".join(told)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("seed", "chip"), [pytest.param(s, c, id=name) for name, s, c in crashers()])
def test_what_once_failed_is_equal(seed, chip):
    """Where the chip has since learned more formats, on that one: it is built already."""
    today = random_rtl_chip(int(chip.name.removeprefix("random")))
    formats = today.tile.matrix.formats
    more = replace_formats(chip, formats) == today and set(chip.tile.matrix.formats) <= set(formats)
    run_seed(seed, chip, set(), today if more else None)


def replace_formats(chip: ChipSpec, formats: Sequence[str]) -> ChipSpec:
    """`chip` with other formats of its matrix units."""
    return chip.with_fields({"tile.matrix.formats": f"[{', '.join(formats)}]"}, chip.name)


@given(chip=st.integers(0, 2**32 - 1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_random_programs_are_legal_and_keep_their_schedule(chip, seed):
    program = random_program(seed, random_rtl_chip(chip))
    check_program(program)
    engine = ProgramEngine(program, trace=True)
    try:
        for step in random_steps(seed, program):
            engine.step(*step)
            for run in engine.last_runs:
                promised = schedule_trace(program, program.entry(run.entry), run.position)
                compare_traces(program, run.trace, promised, "schedule", FIELDS[:-1])
    except Overflow:
        pass


# --- one bit is changed in the RTL's memory, and not in the simulator's ---


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_changed_weight_is_named_with_micro_op_tile_cycle_and_both_values():
    named = r"micro-op \d+ \[\d+ tile0 matmul .*\], tile 0, matrix unit, compute cycle \d+: written 0x\w+ in the simulator, 0x\w+ in the RTL"
    found = found_changes(flip_weight)
    assert all(re.fullmatch(named, text) for text in found), found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_changed_field_is_named_with_micro_op_tile_cycle_and_both_values():
    named = r"micro-op \d+ \[\d+ tile\d+ .*\], tile \d+, \w+ unit, compute cycle \d+: .* \w+ in the simulator, \w+ in the RTL"
    found = found_changes(flip_field)
    assert all(re.fullmatch(named, text) for text in found), found


def found_changes(flip: Callable[[np.random.Generator, Program], Program]) -> list[str]:
    """What the pair says to programs with a bit flipped, the first that leaves a program legal and shows: what a pair of simulators says."""
    found, chip = [], random_rtl_chip(SEEDS[CHANGED])
    for seed in range(CHANGES):
        program, rng = random_program(seed, chip), np.random.default_rng([seed, 4])
        steps = random_steps(seed, program)
        for changed in [flip(rng, program) for _ in range(TRIES)]:
            expected = difference_of_simulators(program, changed, steps)
            if expected:
                assert difference(program, RtlEngine(changed), steps) == expected, f"program seed {seed}"
                found.append(expected)
                break
    assert len(found) > CHANGES // 2, f"a changed bit can be seen in only {len(found)} programs"
    return found


def difference_of_simulators(program: Program, changed: Program, steps: Sequence[Step]) -> str:
    """Empty where `changed` is not a program, too."""
    try:
        check_program(changed)
        return difference(program, ProgramEngine(changed, trace=True), steps)
    except (BadInput, Hazard, Overflow):
        return ""


def difference(program: Program, other: RtlEngine | ProgramEngine, steps: Sequence[Step]) -> str:
    """What a pair says that runs `program` in its simulator and `other` in place of its RTL."""
    pair = Pair(program)
    pair.rtl = other
    try:
        for step in steps:
            pair.step(*step)
    except Mismatch as said:
        return str(said)
    return ""


def flip_weight(rng: np.random.Generator, program: Program) -> Program:
    """One bit of the weights in tile 0's SRAM, if there are any."""
    start = next(region.start for region in program.sram if region.name.startswith("weights"))
    images = [flip_image(rng, image) if image.address == start else image for image in program.images]
    return replace(program, images=tuple(images))


def flip_image(rng: np.random.Generator, image: Image) -> Image:
    data = image.data.copy()
    data[rng.integers(data.size)] ^= 1 << rng.integers(8)
    return replace(image, data=data)


CHANGED_FIELDS = {
    Op.NORM: "a s0 columns tokens s2 s3", Op.ROPE: "a s0 columns heads tokens", Op.QUANT: "a s0 columns group tokens",
    Op.SWIGLU: "a b s0 columns tokens", Op.ARGMAX: "columns s0", Op.SCORE: "s3", Op.SEND: "columns rows",
}  # fmt: skip
"""Besides the issue cycle: fields that decide which binary32 is read and what becomes of it. Others would have it read what is no packet."""


def flip_field(rng: np.random.Generator, program: Program) -> Program:
    """One of the low bits of a micro-op's field."""
    ops = program.ops.copy()
    index = int(rng.integers(ops.size))
    name = str(rng.choice(["issue", *CHANGED_FIELDS.get(program.op(index).op, "").split()]))
    ops[name][index] ^= 1 << rng.integers(8)
    return replace(program, ops=ops)
