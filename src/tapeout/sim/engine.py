"""`ProgramEngine`: the chip, as an Engine. Cuts a step into entry runs, keeps SRAM and external memory between them, counts cycles."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput, Hazard, Overflow
from tapeout.chip.memory import memory_timing, new_streamer
from tapeout.isa.limits import check_limits, check_order
from tapeout.isa.program import Entry, Program, cut_into_bodies
from tapeout.isa.trace import EVENT, Trace, issued_together
from tapeout.sim.clock import Feed, Log, Static, run_entry
from tapeout.sim.hazard import MESSAGES, OVERFLOW
from tapeout.sim.state import new_chip
from tapeout.sim.tables import Turns, make_tables, unroll


@dataclass(frozen=True, slots=True)
class Run:
    """One start of an entry. Cycles are the chip's: compute cycles, and wall cycles held (by micro-op; -1: by the end of the step)."""

    entry: str
    position: int
    tokens: int
    cycles: int
    held: int
    held_by_op: dict[int, int]
    trace: Trace | None = None

    @property
    def wall(self) -> int:
        """Cycles on the clock, holds counted."""
        return self.cycles + self.held


@dataclass(slots=True)
class Totals:
    """Sums over all runs of an engine."""

    runs: int = 0
    cycles: int = 0
    held: int = 0
    held_by_op: Counter[int] = field(default_factory=Counter)

    @property
    def wall(self) -> int:
        """Cycles on the clock, holds counted."""
        return self.cycles + self.held

    def add(self, run: Run) -> None:
        """Count one more run."""
        self.runs += 1
        self.cycles += run.cycles
        self.held += run.held
        self.held_by_op.update(run.held_by_op)


class ProgramEngine:
    """Runs a program. `trace`: keep every micro-op's issue, completion and hash of written bytes in `last_runs`."""

    def __init__(self, program: Program, trace: bool = False):
        check_limits(program)
        check_order(program)
        tables, chip = make_tables(program), program.chip
        beat = chip.external.beat_bytes if chip.external else 64
        unit, sram = chip.tile.matrix, chip.tile.sram
        limits = np.array([sram.kib * 1024, sram.bank_bytes, unit.rows, unit.lanes, beat], np.int64)
        self.program, self.context, self.trace = program, program.context, trace
        self.last_runs: list[Run] = []
        self.totals = Totals()
        self.on_progress: Callable[[int, int], None] = lambda done, total: None
        self._static = Static(
            tables.ops, tables.marks, tables.mark_at, tables.uses, tables.use_at, tables.constant, limits
        )
        self._chip = new_chip(program)
        self._held_tokens = 0

    def step(self, token_ids: Sequence[int], position: int, every: bool = False) -> NDArray[np.float32]:
        """See `base.engine.Engine`. Raises `BadInput` on ids or positions that cannot be, `Hazard` on an illegal program, `Overflow`."""
        self._check(token_ids, position)
        self.last_runs = []
        rows: list[NDArray[np.float32]] = []
        for body, offset, count in cut_into_bodies(self.program, len(token_ids)):
            done = offset + count
            rows += self._body(body, tuple(token_ids[offset:done]), position + offset, every, done == len(token_ids))
            self.on_progress(done, len(token_ids))
        self._held_tokens = position + len(token_ids)
        return np.stack(rows) if every else rows[-1]

    def _body(
        self, body: Entry, ids: tuple[int, ...], position: int, every: bool, final: bool
    ) -> list[NDArray[np.float32]]:
        """Run a body, and the head as asked; returns the logits made."""
        if every:
            self._run(body, ids, position, 0)
            return [self._head(row, position) for row in range(len(ids))]
        if not final:
            self._run(body, ids, position, 0)
            return []
        self._run(self.program.entry(f"{body.name}_head"), ids, position, len(ids) - 1)
        return [self._logits()]

    def _head(self, row: int, position: int) -> NDArray[np.float32]:
        self._run(self.program.entry("head"), (), position, row)
        return self._logits()

    def _check(self, token_ids: Sequence[int], position: int) -> None:
        if not token_ids:
            raise BadInput("token ids", "none given", "a step takes one or more")
        for token in token_ids:
            if not 0 <= token < self.program.vocabulary:
                raise BadInput("token ids", f"{token} is not one of 0..{self.program.vocabulary - 1}")
        if not 0 <= position <= self._held_tokens:
            raise BadInput(
                "position", f"{position}, but {self._held_tokens} positions are held", "run earlier tokens first"
            )
        if position + len(token_ids) > self.context:
            raise BadInput(
                "position",
                f"{position} + {len(token_ids)} tokens exceed the context of {self.context}",
                "compile with more",
            )

    def _run(self, entry: Entry, ids: tuple[int, ...], position: int, last: int) -> None:
        turns = unroll(self.program, entry, position, ids, last)
        self._check_external(turns)
        tokens = np.zeros(max(entry.tokens, 1), np.int64)
        tokens[: len(ids)] = ids
        feed, log = self._feed(turns), self._log(turns)
        code, index, other, turn, cycles, held = run_entry(
            turns.segments, turns.bases, position, tokens, self._static, feed, log, self._chip
        )
        if code:
            raise self._error(int(code), int(index), int(other), turns, int(turn))
        _check_taken(entry, turns, feed)
        ends = self.program.ops.size
        by_op = {(int(op) if op < ends else -1): int(log.held[op]) for op in np.flatnonzero(log.held)}
        run = Run(entry.name, position, len(ids), int(cycles), int(held), by_op, _trace(log) if self.trace else None)
        self.last_runs.append(run)
        self.totals.add(run)

    def _check_external(self, turns: Turns) -> None:
        """Every descriptor stays inside external memory."""
        size = self.program.external_bytes
        outside = np.flatnonzero((turns.addresses < 0) | (turns.addresses + turns.sizes > size))
        if outside.size:
            start, count = int(turns.addresses[outside[0]]), int(turns.sizes[outside[0]])
            raise Hazard(
                f"descriptor {outside[0]} of the step: bytes {start:#x}..{start + count:#x} leave the {size} of external memory"
            )

    def _feed(self, turns: Turns) -> Feed:
        tiles = self.program.chip.grid.tiles
        made = new_streamer(memory_timing(self.program.chip), tiles, turns.kinds, turns.masks, turns.sizes)
        return Feed(
            made.timing, made.kinds, made.masks, made.sizes, made.scalars, made.tiles, made.ring, turns.addresses, turns.reads,
            turns.read_at, turns.writes, turns.write_at, np.zeros(tiles, np.int64), np.zeros(tiles, np.int64),
        )  # fmt: skip

    def _log(self, turns: Turns) -> Log:
        events = int(turns.segments[:, 1].sum()) if self.trace else 0
        return Log(
            np.zeros(self.program.ops.size + 1, np.int64),
            np.zeros((events, 6), np.int64),
            np.zeros(events, np.uint64),
            np.zeros(1, np.int64),
        )

    def _error(self, code: int, index: int, other: int, turns: Turns, turn: int) -> Exception:
        """The exception for a code, with both micro-ops in full."""
        segment, i, j = turns.names[turn], int(turns.segments[turn, 3]), int(turns.segments[turn, 4])
        text = " ".join(str(self.program.op(index)).split())
        where = f"segment {segment!r} (turn {i}, block {j}), cycle {int(self.program.ops[index]['issue'])}: [{text}]"
        if code == OVERFLOW:
            return Overflow(where)
        second = f" [{' '.join(str(self.program.op(other)).split())}]" if other >= 0 else ""
        return Hazard(f"{where} {MESSAGES[code]}{second}")

    def _logits(self) -> NDArray[np.float32]:
        """What the host reads after a head; held against the chip's own choice."""
        logits = np.zeros(self.program.vocabulary, np.float32)
        for piece in self.program.logits:
            at = piece.address // 4
            logits[piece.first_id : piece.first_id + piece.rows] = self._chip.words[piece.tile, at : at + piece.rows]
        chosen = int(self._chip.numbers[0, self.program.result_address // 4 + 1])
        assert chosen == int(np.argmax(logits)), f"the chip chose {chosen}, its logits say {int(np.argmax(logits))}"
        return logits


def _check_taken(entry: Entry, turns: Turns, feed: Feed) -> None:
    """What the streamer brought has been used."""
    for tile, left in enumerate(np.diff(turns.read_at) - feed.read_next):
        if left:
            raise Hazard(
                f"entry {entry.name!r}: tile {tile} was brought the bytes of {left} descriptors that no micro-op takes"
            )


def _trace(log: Log) -> Trace:
    trace = np.zeros(log.events.shape[0], EVENT)
    for column, name in enumerate(("op", "outer", "inner", "issue", "completion", "held")):
        trace[name] = log.events[:, column]
    trace["written"] = log.hashes
    return issued_together(trace)
