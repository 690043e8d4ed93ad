"""`Tiles`: what a chip of the template is to the estimator, beside its flat rates: widths of units, depths of pipelines, room, wires, memory.

Every field is a number or an array of designs. `estimate/tiled.py` adds up a layer from them; nothing here was fitted.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from tapeout.chip.memory import memory_timing
from tapeout.chip.routes import tree
from tapeout.chip.spec import ChipSpec, WeightStore

Value = float | NDArray[np.float64]

# Depths of the pipelines as built, in cycles. They are those of isa/timing.py, which this room may not import; tests/agree/test_both_doors.py
# holds them equal.
OPERAND_PIPE = 2
MATMUL_PIPE = 7
NORM_SCALARS = 49
VECTOR_PIPE = 18
LANE_PIPE = 12
SCORE_PIPE = 9
VALUE_PIPE = 1
ATTNOUT_PIPE = 27
SEND_PIPE = 2
SEGMENT_MIN = 16


@dataclass(frozen=True, slots=True)
class Tiles:
    """One chip. A tile's units unless it says otherwise."""

    count: Value
    hertz: Value
    rows: Value
    lanes: Value
    """Of the matrix unit."""
    chunk_tokens: Value
    """Tokens that may share one reading of a weight."""
    operand_bytes: Value
    vector_lanes: Value
    keys: Value
    attention_lanes: Value
    dividers: Value
    block_keys: Value
    queries: Value
    sram_bytes: Value
    bank_bytes: Value
    banks: Value
    stream_bytes: Value
    """Of the stream buffer; 0 without external memory."""
    streamed: bool
    """Weights are in external memory; else in SRAM."""
    link_bytes: Value
    """Per cycle and link."""
    gather_cycles: Value
    """From a sender's first byte to its arrival at the farthest tile: its pipeline and the hops; 0 for a lone tile."""
    memory_bytes: Value
    """Of external memory per cycle, refresh taken off; 0 without."""
    memory_latency: Value
    beat_bytes: Value
    capacity_bytes: Value
    write_bytes: Value
    """Of the write buffer."""
    host_s: Value
    """One way."""

    def chunk(self, rows: slice) -> "Tiles":
        """A run of designs: every array cut, every number kept."""
        cut = {f.name: v[rows] for f in fields(self) if isinstance(v := getattr(self, f.name), np.ndarray)}
        return replace(self, **cut)


def tiles_of(chip: ChipSpec) -> Tiles:
    """All of it from the chip's own fields; memory by its model in whole cycles, so that rounding is the same."""
    tile, outside, timing = chip.tile, chip.external, memory_timing(chip)
    rate = timing.rate_millibytes / 1000 * (1 - timing.refresh / timing.interval)
    return Tiles(
        count=chip.grid.tiles, hertz=chip.clock_mhz * 1e6, rows=tile.matrix.rows, lanes=tile.matrix.lanes, chunk_tokens=tile.matrix.tokens,
        operand_bytes=tile.matrix.operand_kib * 1024, vector_lanes=tile.vector.lanes, keys=tile.attention.keys,
        attention_lanes=tile.attention.lanes, dividers=tile.attention.dividers, block_keys=tile.attention.block_keys,
        queries=tile.attention.queries, sram_bytes=tile.sram.kib * 1024, bank_bytes=tile.sram.bank_bytes, banks=tile.sram.banks,
        stream_bytes=tile.stream_kib * 1024, streamed=chip.weight_store is WeightStore.EXTERNAL,
        link_bytes=chip.link.bytes_per_cycle, gather_cycles=_gather_cycles(chip),
        memory_bytes=rate if outside else 0.0, memory_latency=timing.latency if outside else 0, beat_bytes=timing.beat_bytes if outside else 4,
        capacity_bytes=outside.capacity_gib * 2**30 if outside else 0.0, write_bytes=timing.write_bytes, host_s=chip.host.latency_us * 1e-6,
    )  # fmt: skip


def _gather_cycles(chip: ChipSpec) -> int:
    if chip.grid.tiles == 1:
        return 0
    depth = 1 + max(hop.depth for tile in range(chip.grid.tiles) for hop in tree(chip.grid, tile))
    return SEND_PIPE + depth * chip.link.hop_cycles
