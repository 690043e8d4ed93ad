"""Runs programs of `random_programs` in the simulator and in the RTL, compares all that the contract fixes, and keeps the seeds that differ.

A crasher is a chip and a seed, in a small file of tests/crashers: `test_random_programs.py` runs every one of them again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np
from random_programs import random_program, random_rtl_chip, random_steps

from tapeout.base.errors import Overflow
from tapeout.chip.spec import ChipSpec
from tapeout.flow.cosim import Mismatch, Pair
from tapeout.isa.check import check_program
from tapeout.isa.opcodes import FORMAT_IDS, OPCODES, Flag, MicroOp, Op
from tapeout.isa.program import Program
from tapeout.rtl.ports import BUILT, UNBUILT_FLAGS, tables_of

CRASHERS = Path(__file__).parents[1] / "crashers"

Step = tuple[list[int], int, bool]


@dataclass(slots=True)
class Tally:
    """What has been run and found equal; `overflows`: programs given up because a result is not finite; `kinds`: see `kinds_of`.

    `difference`: what ended it, with the seed that makes it again; empty where all are equal.
    """

    programs: int = 0
    overflows: int = 0
    micro_ops: int = 0
    cycles: int = 0
    held: int = 0
    kinds: set[str] = field(default_factory=set)
    difference: str = ""


def run_programs(chip: ChipSpec, programs: int) -> Tally:
    """Run programs of seeds 0, 1, .. until `programs` have agreed to their end, or one does not: its seed is then in tests/crashers."""
    tally, seeds = Tally(), count()
    while tally.programs < programs and not tally.difference:
        seed = next(seeds)
        try:
            pair = run_seed(seed, chip, tally.kinds)
        except Overflow:
            tally.overflows += 1
            continue
        except (Mismatch, AssertionError) as difference:
            tally.difference = f"chip {chip.name}, program seed {seed}: {difference}"
            keep_crasher(chip, seed, str(difference))
            continue
        tally.programs += 1
        tally.micro_ops += pair.events
        tally.cycles += pair.cycles
        tally.held += pair.held
    return tally


def run_seed(seed: int, chip: ChipSpec, kinds: set[str], on: ChipSpec | None = None) -> Pair:
    """Make program `seed` for `chip`, prove it legal, run it twice, compare. Raises `Mismatch`, and `Overflow` where a result is not finite.

    The kinds of all micro-ops that were run and equal are added to `kinds`. on: a chip that also runs what `chip` runs, in its place.
    """
    program = random_program(seed, chip)
    program = replace(program, chip=on) if on else program
    check_program(program)
    return compare(program, random_steps(seed, program), kinds)


def compare(program: Program, steps: Sequence[Step], kinds: set[str]) -> Pair:
    """Every micro-op's times and written bytes, every run's cycles, and all memory after each step. Raises `Mismatch`."""
    pair = Pair(program)
    for ids, position, every in steps:
        pair.step(ids, position, every)
        compare_memory(pair, f"after {len(ids)} tokens from position {position}")
        issued = np.unique(np.concatenate([run.trace["op"] for run in pair.rtl.last_runs]))
        kinds.update(*(kinds_of(program.op(int(index))) for index in issued))
    return pair


def compare_memory(pair: Pair, when: str) -> None:
    """The whole SRAM of every tile, and external memory. Raises `Mismatch`."""
    chip, simulation = pair.simulator._chip, pair.rtl.simulation
    for tile in range(pair.program.chip.grid.tiles):
        expected = chip.signed[tile].view(np.uint8)
        _same(expected, simulation.sram(tile, 0, expected.size), f"SRAM of tile {tile}", when)
    _same(chip.external.view(np.uint8), simulation.external, "external memory", when)


def _same(expected: np.ndarray, found: np.ndarray, what: str, when: str) -> None:
    different = np.flatnonzero(expected != found)
    if different.size:
        at = int(different[0])
        raise Mismatch(
            f"{what}, byte {at:#x}, {when}: {expected[at]:#x} in the simulator, {found[at]:#x} in the RTL ({different.size} bytes differ)"
        )


# --- what has been tried ---


def kinds_of(op: MicroOp) -> set[str]:
    """What is worth trying in a micro-op: itself, each of its flags, its weight format, a product's from SRAM and from the stream."""
    name, slots = op.op.name.lower(), OPCODES[op.op].slots
    found = {name} | {f"{name} {flag.name.lower()}" for flag in Flag if flag & op.flags and flag.name}
    if "format" in slots:
        found.add(f"{name} {FORMAT_IDS[op.format]}{' stream' if op.flags & Flag.STREAM and op.op is Op.MATMUL else ''}")
    if op.op is Op.SEND and op.s2.bit_count() > 1 and not op.flags & Flag.EXTERNAL:
        found.add("send to several")
    return found


def kinds_for(chip: ChipSpec) -> set[str]:
    """All kinds that a chip can run."""
    away, alone = chip.external is not None, chip.grid.tiles == 1
    ops = [op for op in BUILT if op is not Op.SEND or away or not alone]
    bare = [MicroOp(op, format=k) for op in ops for k in _formats(op, chip)]
    lacking = UNBUILT_FLAGS if away else UNBUILT_FLAGS | Flag.STREAM | Flag.EXTERNAL
    flagged = [
        MicroOp(op.op, format=op.format, flags=flag)
        for op in bare
        for flag in Flag
        if flag & OPCODES[op.op].flags & ~lacking
    ]
    several = {"send to several"} if chip.grid.tiles > 2 else set()
    return several.union(*map(kinds_of, bare + flagged))


def _formats(op: Op, chip: ChipSpec) -> list[int]:
    """Weights may be in the chip's formats, a table in some others too."""
    if op is Op.MATMUL:
        return [FORMAT_IDS.index(name) for name in chip.tile.matrix.formats]
    return list(tables_of(chip)) if op is Op.EMBED else [0]


# --- what has failed ---


def keep_crasher(chip: ChipSpec, seed: int, difference: str) -> None:
    """Write tests/crashers/CHIP-SEED.json."""
    CRASHERS.mkdir(exist_ok=True)
    told = {"difference": difference, "program_seed": seed, "chip": chip.model_dump(mode="json")}
    (CRASHERS / f"{chip.name}-{seed}.json").write_text(json.dumps(told, indent=1) + "\n")


def crashers() -> Iterator[tuple[str, int, ChipSpec]]:
    """(name, program seed, chip) of every kept failure."""
    for path in sorted(CRASHERS.glob("*.json")):
        told = json.loads(path.read_text())
        yield path.stem, told["program_seed"], ChipSpec.from_data(told["chip"], str(path))


__all__ = ["Tally", "compare", "crashers", "kinds_for", "random_rtl_chip", "run_programs", "run_seed"]
