"""What a chip of the template is timed with: the busiest tile's share of a model, cycles by cause, and how reading overlaps with a layer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.chip.machine import Value
from tapeout.chip.tiles import Tiles
from tapeout.graph.shapes import ModelShape

Mask = bool | np.bool_ | NDArray[np.bool_]

GROUP = 32
PACKET = 34
"""32 codes and their scale."""
GAPS = 4
"""Times per layer that the matrix units stand still and the stream buffers fill: attention, two norms, the gated product."""
SPREAD_PIECES = 4
"""Gate, up and head are cut at least so often, so that the vector unit works on a piece while the next is multiplied."""
STREAM_PIECES = 4
"""Pieces that a stream buffer holds at least."""
PAIR_BYTES = 16
"""Two numbers and their token ids, of each tile: the greatest of its logits."""
HEAD_PIECES = 16
"""Pieces of the head per turn of its loop, whose end drains the matrix unit; the last two turns are no loop."""


def up(value: Value, to: Value) -> Value:
    """value / to, rounded up."""
    return np.ceil(value / to)


def align(value: Value, to: Value) -> Value:
    """Rounded up to a multiple."""
    return np.ceil(value / to) * to


@dataclass(frozen=True, slots=True)
class Share:
    """What the busiest tile holds of a model; sizes in groups of 32 where they say so."""

    shape: ModelShape
    layer_bytes: float
    """Per weight of a layer's matrices, scales counted; embedding and head have their own."""
    head_bytes: float
    groups: int
    """Of the residual, all tiles together."""
    width: Value
    hidden: Value
    vocabulary: Value
    """Groups of its rows."""
    kv_heads: Value

    @property
    def queries(self) -> Value:
        """Query heads."""
        return self.kv_heads * (self.shape.heads // self.shape.kv_heads)

    @property
    def together(self) -> int:
        """Query heads that fill whole groups of 32: they leave the attention unit as one."""
        heads = self.shape.heads // self.shape.kv_heads * self.shape.kv_heads
        return next((n for n in range(1, heads) if n * self.shape.head_width % GROUP == 0), heads)


def share(shape: ModelShape, tiles: Tiles, layer_bytes: float, head_bytes: float) -> Share:
    """Deal a model out: rows in groups of 32, KV heads in bundles whose queries fill whole groups."""
    per_kv = shape.heads // shape.kv_heads * shape.head_width
    bundle = next((b for b in range(1, shape.kv_heads) if b * per_kv % GROUP == 0), shape.kv_heads)
    bundles = up(shape.kv_heads / bundle, 1)

    def dealt(rows: int) -> Value:
        return up(up(rows, GROUP), tiles.count)

    return Share(
        shape, layer_bytes, head_bytes, int(up(shape.width, GROUP)), dealt(shape.width), dealt(shape.hidden), dealt(shape.vocabulary),
        np.minimum(up(bundles, tiles.count) * bundle, shape.kv_heads),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cycles:
    """By cause, as in `forward.CAUSES`."""

    compute: Value = 0.0
    attention: Value = 0.0
    elementwise: Value = 0.0
    links: Value = 0.0
    pipes: Value = 0.0
    weights: Value = 0.0
    kv_cache: Value = 0.0

    def __add__(self, other: "Cycles") -> "Cycles":
        return Cycles(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def __mul__(self, times: Value) -> "Cycles":
        return Cycles(*(value * times for value in self.values()))

    def values(self) -> tuple[Value, ...]:
        """In the order of the fields."""
        return (
            self.compute, self.attention, self.elementwise, self.links, self.pipes, self.weights, self.kv_cache,
        )  # fmt: skip

    @property
    def total(self) -> Value:
        """All together."""
        return sum(self.values(), 0.0)


@dataclass(frozen=True, slots=True)
class Times:
    """A run through all layers: its cycles, and how many cycles' worth of bytes the last layer read ahead."""

    cycles: Cycles
    ahead: Value


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer takes, and what reading does meanwhile; all in cycles.

    first: with at most one block in the cache; further: each block behind it. multiplied: the matrix unit's work. read: weights and norms; kept:
    the first block and new records of a cache in external memory. The matrix unit stands still while the attention unit works (`attention`) and in
    the other pauses together (`still`). unread: what a further block leaves of its time to other reading. buffers: until they are full.
    """

    layers: float
    embedding: Cycles
    first: Cycles
    further: Cycles
    multiplied: Value
    read: Value
    kept: Value
    attention: Value
    still: Value
    unread: Value
    buffers: Value

    def run(self, blocks: Value) -> Times:
        """Embedding and all layers, with `blocks` further blocks in the mean. Reading goes on while there is multiplied, and in pauses until the
        buffers are full: what is left is waited for."""
        pause = self.attention + self.unread * blocks
        early = np.minimum(pause, self.buffers) + np.minimum(self.still, (GAPS - 1) * self.buffers)
        moved = self.read + self.kept
        wait = np.maximum(moved - self.multiplied - early, 0.0)
        of_cache = self.kept / np.maximum(moved, 1e-9)
        waits = Cycles(weights=wait * (1 - of_cache), kv_cache=wait * of_cache)
        ahead = np.clip(self.first.total + wait + self.unread * blocks - moved, 0.0, self.buffers)
        return Times(self.embedding + (self.first + self.further * blocks + waits) * self.layers, ahead)
