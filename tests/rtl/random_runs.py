"""Runs a program of `random_programs` in the simulator and in the RTL and compares all that the contract fixes."""

from collections.abc import Sequence

import numpy as np
from random_programs import random_program, random_rtl_chip, random_steps

from tapeout.base.errors import Overflow
from tapeout.chip.spec import ChipSpec
from tapeout.flow.cosim import Mismatch, Pair
from tapeout.isa.check import check_program
from tapeout.isa.program import Program

Step = tuple[list[int], int, bool]


class Unlike(Mismatch):
    """A difference, with the seeds that make it again."""

    def __init__(self, chip: str, seed: int, difference: object):
        super().__init__(f"chip {chip}, program seed {seed}: {difference}")


def run_seed(seed: int, chip: ChipSpec) -> Pair | None:
    """Make program `seed` for `chip`, prove it legal, run it twice, compare. None where a result overflows binary32. Raises `Unlike`."""
    program = random_program(seed, chip)
    check_program(program)
    try:
        return compare(program, random_steps(seed, program))
    except Overflow:
        return None
    except (Mismatch, AssertionError) as difference:
        raise Unlike(chip.name, seed, difference) from difference


def compare(program: Program, steps: Sequence[Step]) -> Pair:
    """Every micro-op's times and written bytes, every run's cycles, and all memory after each step. Raises `Mismatch`."""
    pair = Pair(program)
    for ids, position, every in steps:
        pair.step(ids, position, every)
        compare_memory(pair, f"after {len(ids)} tokens from position {position}")
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


__all__ = ["Unlike", "compare", "compare_memory", "random_rtl_chip", "run_seed"]
