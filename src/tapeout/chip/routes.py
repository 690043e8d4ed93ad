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


@cache
def tree(grid: Grid, source: int) -> tuple[Hop, ...]:
    """The whole multicast tree from `source`, in order of depth."""
    return _ring(grid, source) if grid.topology is Topology.RING else _mesh(grid, source)


@cache
def route(grid: Grid, source: int, targets: int) -> tuple[Hop, ...]:
    """The part of the tree that reaches the tiles of bit mask `targets`, in order of depth."""
    by_target = {hop.target: hop for hop in tree(grid, source)}
    used: set[Hop] = set()
    for tile in range(grid.tiles):
        if targets >> tile & 1 and tile != source:
            at = tile
            while at != source:
                used.add(by_target[at])
                at = by_target[at].source
    return tuple(sorted(used, key=lambda hop: (hop.depth, hop.source, hop.target)))


@cache
def links(grid: Grid) -> tuple[tuple[int, int], ...]:
    """Every directed link (from tile, to tile) of the chip; the position in this tuple is the link's number."""
    pairs = {(hop.source, hop.target) for source in range(grid.tiles) for hop in tree(grid, source)}
    return tuple(sorted(pairs))


def _mesh(grid: Grid, source: int) -> tuple[Hop, ...]:
    row, column = divmod(source, grid.columns)
    hops = [
        Hop(row * grid.columns + at, row * grid.columns + at + step, abs(at - column))
        for step, span in ((1, range(column, grid.columns - 1)), (-1, range(column, 0, -1)))
        for at in span
    ]
    for across in range(grid.columns):
        start = abs(across - column)
        for step, span in ((1, range(row, grid.rows - 1)), (-1, range(row, 0, -1))):
            hops += [
                Hop(at * grid.columns + across, (at + step) * grid.columns + across, start + abs(at - row))
                for at in span
            ]
    return tuple(sorted(hops, key=lambda hop: (hop.depth, hop.source, hop.target)))


def _ring(grid: Grid, source: int) -> tuple[Hop, ...]:
    n = grid.columns
    right, left = n // 2, (n - 1) // 2
    hops = [Hop((source + at) % n, (source + at + 1) % n, at) for at in range(right)]
    hops += [Hop((source - at) % n, (source - at - 1) % n, at) for at in range(left)]
    return tuple(sorted(hops, key=lambda hop: (hop.depth, hop.source, hop.target)))
