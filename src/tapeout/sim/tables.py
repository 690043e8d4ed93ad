"""A program as integer tables, so that the compiled clock can run it without a Python object in its loop."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.chip.routes import links
from tapeout.isa.footprint import footprints, link_uses
from tapeout.isa.opcodes import RECORD
from tapeout.isa.program import READ, WRITE, Entry, Program, transfers, walk
from tapeout.isa.timing import latency, occupancy

COLUMNS = {name: number for number, name in enumerate((*(RECORD.names or ()), "occupancy", "latency", "unit"))}
"""Column of every record field, and of the timing, in `Tables.ops`."""

MARK_COLUMNS = (
    "tile",
    "base",
    "offset",
    "size",
    "write",
    "start",
    "end",
    "outer",
    "outer_stride",
    "inner",
    "inner_stride",
)
"""Columns of `Tables.marks`."""


@dataclass(frozen=True, slots=True)
class Tables:
    """ops [micro-ops, columns]; marks [footprints, columns] with mark_at [micro-ops + 1]; uses [link uses, (link, start, end)] with use_at."""

    ops: NDArray[np.int64]
    marks: NDArray[np.int64]
    mark_at: NDArray[np.int64]
    uses: NDArray[np.int64]
    use_at: NDArray[np.int64]
    constant: NDArray[np.int64]
    """[constant regions, (start, end)]."""


def make_tables(program: Program) -> Tables:
    """Work out timing and footprints of every micro-op once."""
    grid = program.chip.grid
    number = {pair: at for at, pair in enumerate(links(grid.columns, grid.rows, grid.topology))}
    rows, marks, uses, mark_at, use_at = [], [], [], [0], [0]
    for index in range(program.ops.size):
        op = program.op(index)
        rows.append([int(program.ops[index][name]) for name in RECORD.names or ()])
        rows[-1] += [occupancy(op, program.chip), latency(op, program.chip), int(op.unit)]
        marks += [[int(getattr(mark, name)) for name in MARK_COLUMNS] for mark in footprints(op, program.chip)]
        uses += [[number[use.source, use.target], use.start, use.end] for use in link_uses(op, program.chip)]
        mark_at.append(len(marks))
        use_at.append(len(uses))
    constant = [[region.start, region.end] for region in program.sram if region.constant and region.size]
    return Tables(
        _array(rows, len(COLUMNS)), _array(marks, len(MARK_COLUMNS)), np.array(mark_at, np.int64), _array(uses, 3),
        np.array(use_at, np.int64), _array(constant, 2),
    )  # fmt: skip


def _array(rows: list[list[int]], columns: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(-1, columns)


@dataclass(frozen=True, slots=True)
class Turns:
    """An entry at one position, loops unrolled: one row per segment run.

    segments [turns, (first op, ops, cycles, i, k, j)]; bases [turns, base registers]. Reads and writes are the descriptors by tile: those of tile t
    are list[at[t]:at[t+1]], numbers into the transfer arrays.
    """

    segments: NDArray[np.int64]
    bases: NDArray[np.int64]
    kinds: NDArray[np.int64]
    masks: NDArray[np.int64]
    sizes: NDArray[np.int64]
    addresses: NDArray[np.int64]
    reads: NDArray[np.int64]
    read_at: NDArray[np.int64]
    writes: NDArray[np.int64]
    write_at: NDArray[np.int64]
    names: tuple[str, ...]


def unroll(program: Program, entry: Entry, position: int, token_ids: tuple[int, ...], last: int) -> Turns:
    """All segment runs of an entry, with the content of the base registers in each."""
    turns = list(walk(program, entry, position))
    segments = [[s.first_op, s.ops, s.cycles, i, k, s.block(k)] for s, i, k in turns]
    bases = [[base.value(i, k, position, last) for base in program.bases] for _, i, k in turns]
    moved = transfers(program, entry, position, token_ids, last)
    tiles = program.chip.grid.tiles
    reads, read_at = _by_tile(moved.kinds == READ, moved.masks, tiles)
    writes, write_at = _by_tile(moved.kinds == WRITE, moved.masks, tiles)
    return Turns(
        _array(segments, 6), _array(bases, len(program.bases)), moved.kinds, moved.masks, moved.sizes, moved.addresses,
        reads, read_at, writes, write_at, tuple(s.name for s, _, _ in turns),
    )  # fmt: skip


def _by_tile(
    wanted: NDArray[np.bool_], masks: NDArray[np.int64], tiles: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lists = [np.flatnonzero(wanted & (masks >> tile & 1 == 1)) for tile in range(tiles)]
    at = np.concatenate([[0], np.cumsum([part.size for part in lists])]).astype(np.int64)
    return np.concatenate(lists).astype(np.int64), at
