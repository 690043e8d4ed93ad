"""`RtlEngine`: the Verilated chip, as an Engine. Cuts a step into entry runs, as the program engine does, and keeps what the chip wrote down."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.isa.program import Program, cut_into_bodies, issue_cycles, segment_times
from tapeout.isa.trace import Trace
from tapeout.rtl.limits import check_banks, check_chip, check_one_port, check_program
from tapeout.rtl.simulate import Simulation, build

PATIENCE = 20
"""A run that takes so many times its issue cycles will never end."""


@dataclass(frozen=True, slots=True)
class Run:
    """One start of an entry: compute cycles, wall cycles held, and every micro-op's issue, completion and hash of written bytes, in order of
    issue."""

    entry: str
    position: int
    tokens: int
    cycles: int
    held: int
    trace: Trace


class RtlEngine:
    """`banked`: the SRAM in banks behind a crossbar, as it is built, instead of its flat model. Raises `BadInput` where the RTL cannot build the
    chip or hold the program, before any tool starts, or where a tool is missing."""

    def __init__(self, program: Program, banked: bool = False, waves: bool = False):
        check_chip(program.chip)
        check_program(program)
        if banked:
            check_banks(program.chip)
            check_one_port(program)
        self.program, self.context = program, program.context
        self.simulation = Simulation(program, build(program.chip, banked, waves))
        self.last_runs: list[Run] = []

    def step(self, token_ids: Sequence[int], position: int, every: bool = False) -> NDArray[np.float32]:
        """See `base.engine.Engine`; what it refuses, the program engine has refused before."""
        self.last_runs, rows = [], []
        for body, offset, count in cut_into_bodies(self.program, len(token_ids)):
            ids, at = tuple(token_ids[offset : offset + count]), position + offset
            if every:
                self._run(body.name, ids, at, 0)
                rows += [self._head(row, at) for row in range(count)]
            elif offset + count < len(token_ids):
                self._run(body.name, ids, at, 0)
            else:
                self._run(f"{body.name}_head", ids, at, count - 1)
                rows.append(self._logits())
        return np.stack(rows) if every else rows[-1]

    def _head(self, row: int, position: int) -> NDArray[np.float32]:
        self._run("head", (), position, row)
        return self._logits()

    def _run(self, name: str, ids: tuple[int, ...], position: int, last: int) -> None:
        entry = self.program.entry(name)
        events = sum(times * segment.ops for segment, times in segment_times(self.program, entry, position))
        limit = PATIENCE * (issue_cycles(self.program, entry, position) + 100_000)
        # The rows behind the real tokens work on token 0, whatever the step before left there.
        padded = ids + (0,) * (entry.tokens - len(ids))
        cycles, held, trace = self.simulation.run(name, position, padded, last, events, limit)
        self.last_runs.append(Run(name, position, len(ids), cycles, held, trace))

    def _logits(self) -> NDArray[np.float32]:
        """What the host would read after a head."""
        logits = np.zeros(self.program.vocabulary, np.float32)
        for piece in self.program.logits:
            words = self.simulation.sram(piece.tile, piece.address, 4 * piece.rows).view(np.float32)
            logits[piece.first_id : piece.first_id + piece.rows] = words
        return logits
