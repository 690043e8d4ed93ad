"""Static routes: the tree along which a tile's packets reach the others. No headers, no arbitration: the tree is wiring.

Mesh: along the source's row first, then up and down every column. Ring: both ways round, the shorter way; ties go right.
"""

from dataclasses import dataclass
from functools import cache

from tapeout.chip.spec import Grid, Topology


@dataclass(frozen=True, slots=True)
class Hop:
    """One directed link of a route: from tile to tile, `depth` hops from the source (the first has depth 0)."""

    source: int
    target: int
    depth: int


def tree(grid: Grid, source: int) -> tuple[Hop, ...]:
    """The whole multicast tree from `source`, in order of depth."""
    return _tree(grid.columns, grid.rows, grid.topology, source)


def route(grid: Grid, source: int, targets: int) -> tuple[Hop, ...]:
    """The part of the tree that reaches the tiles of bit mask `targets`, in order of depth."""
    return _route(grid.columns, grid.rows, grid.topology, source, targets)


@cache
def links(columns: int, rows: int, topology: Topology) -> tuple[tuple[int, int], ...]:
    """Every directed link (from tile, to tile) of a grid; the position in this tuple is the link's number."""
    tiles = range(columns * rows)
    pairs = {(hop.source, hop.target) for source in tiles for hop in _tree(columns, rows, topology, source)}
    return tuple(sorted(pairs))


@cache
def _tree(columns: int, rows: int, topology: Topology, source: int) -> tuple[Hop, ...]:
    return _ring(columns, source) if topology is Topology.RING else _mesh(columns, rows, source)


@cache
def _route(columns: int, rows: int, topology: Topology, source: int, targets: int) -> tuple[Hop, ...]:
    by_target = {hop.target: hop for hop in _tree(columns, rows, topology, source)}
    used: set[Hop] = set()
    for tile in range(columns * rows):
        if targets >> tile & 1 and tile != source:
            at = tile
            while at != source:
                used.add(by_target[at])
                at = by_target[at].source
    return tuple(sorted(used, key=lambda hop: (hop.depth, hop.source, hop.target)))


def _mesh(columns: int, rows: int, source: int) -> tuple[Hop, ...]:
    row, column = divmod(source, columns)
    hops = [
        Hop(row * columns + at, row * columns + at + step, abs(at - column))
        for step, span in ((1, range(column, columns - 1)), (-1, range(column, 0, -1)))
        for at in span
    ]
    for across in range(columns):
        start = abs(across - column)
        for step, span in ((1, range(row, rows - 1)), (-1, range(row, 0, -1))):
            hops += [Hop(at * columns + across, (at + step) * columns + across, start + abs(at - row)) for at in span]
    return tuple(sorted(hops, key=lambda hop: (hop.depth, hop.source, hop.target)))


def _ring(columns: int, source: int) -> tuple[Hop, ...]:
    n = columns
    right, left = n // 2, (n - 1) // 2
    hops = [Hop((source + at) % n, (source + at + 1) % n, at) for at in range(right)]
    hops += [Hop((source - at) % n, (source - at - 1) % n, at) for at in range(left)]
    return tuple(sorted(hops, key=lambda hop: (hop.depth, hop.source, hop.target)))
