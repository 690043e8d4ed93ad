"""The memory model: when streamed bytes arrive. One deterministic definition for schedule, simulator and the RTL's harness.

The streamer works through a list of descriptors in order, in wall cycles of the chip's clock; compute is held where its buffer runs dry.
In every wall cycle w, in this order:

1. beats sent `latency` cycles ago arrive in the stream buffers they are for (a multicast beat in several);
2. in a refresh (the last `refresh` cycles of every `interval`) nothing more happens;
3. the credit grows by the rate (milli-bytes per cycle), but never above rate + one beat;
4. while the credit pays for a beat, the list goes on: a read beat is sent if every buffer it is for has room for it; a write starts once its bytes
   are whole in the tile's write buffer, and gives their room back with its last beat.

A stream buffer is a ring: room is taken when a beat is sent, and given back in the order of use, when the micro-op that used the beat and all
that used earlier ones have completed.
A send to external memory takes room in its tile's write buffer when it issues, and its bytes stand there whole when it completes.

An event of the compute domain in compute cycle c happens after the streamer's wall cycle c + held. A micro-op that needs n beats issues when they
have arrived; until then compute is held, one wall cycle at a time. A descriptor is a whole number of beats, its last one part-filled.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tapeout.chip.spec import ChipSpec

READ, WRITE = 0, 1

# Slots of the scalar state.
WALL, CREDIT, AT, BEAT, IN_FLIGHT, BUSY = 0, 1, 2, 3, 4, 5
SCALARS = 6
# Rows of the per-tile state [rows, tiles]: beats sent to, freed by, arrived in, used by the tile; bytes pushed to and taken from its write buffer,
# and bytes for which room in it was claimed.
SENT, FREED, ARRIVED, USED, PUSHED, TAKEN, CLAIMED = 0, 1, 2, 3, 4, 5, 6
TILE_ROWS = 7


@dataclass(frozen=True, slots=True)
class MemoryTiming:
    """The chip's external memory in cycles and bytes; integers, so that hardware can count the same."""

    rate_millibytes: int
    beat_bytes: int
    latency: int
    interval: int
    refresh: int
    buffer_beats: int
    write_bytes: int

    def as_array(self) -> NDArray[np.int64]:
        """The fields in order, as the compiled functions take them."""
        return np.array(
            [self.rate_millibytes, self.beat_bytes, self.latency, self.interval, self.refresh, self.buffer_beats, self.write_bytes],
            np.int64,
        )  # fmt: skip


def memory_timing(chip: ChipSpec) -> MemoryTiming:
    """The memory of `chip` in its own clock cycles, each time rounded to the nearest whole cycle (latency and interval at least 1)."""
    memory = chip.external
    if memory is None:
        return MemoryTiming(1, 64, 1, 1 << 40, 0, 0, 0)
    cycles = chip.clock_mhz / 1000
    return MemoryTiming(
        rate_millibytes=max(1, round(memory.gb_per_s * 1e6 / chip.clock_mhz)),
        beat_bytes=memory.beat_bytes,
        latency=max(1, round(memory.latency_ns * cycles)),
        interval=max(1, round(memory.refresh_interval_ns * cycles)),
        refresh=round(memory.refresh_ns * cycles),
        buffer_beats=chip.tile.stream_kib * 1024 // memory.beat_bytes,
        write_bytes=memory.write_buffer_kib * 1024,
    )


@dataclass(frozen=True, slots=True)
class Streamer:
    """State of the streamer over one step's descriptor list. Arrays are changed in place by `advance` and `wait`.

    kinds [descriptors] READ or WRITE, masks [descriptors] bit per tile, sizes [descriptors] bytes.
    """

    timing: NDArray[np.int64]
    kinds: NDArray[np.int64]
    masks: NDArray[np.int64]
    sizes: NDArray[np.int64]
    scalars: NDArray[np.int64]
    tiles: NDArray[np.int64]
    ring: NDArray[np.int64]


def new_streamer(
    timing: MemoryTiming, tiles: int, kinds: NDArray[np.int64], masks: NDArray[np.int64], sizes: NDArray[np.int64]
) -> Streamer:
    """A streamer at wall cycle 0, buffers empty, before its first descriptor."""
    scalars = np.zeros(SCALARS, np.int64)
    return Streamer(
        timing.as_array(), kinds, masks, sizes, scalars, np.zeros((TILE_ROWS, tiles), np.int64),
        np.zeros((timing.latency + 1, tiles + 1), np.int64),
    )  # fmt: skip


@njit(cache=True)
def beats_of(size, beat_bytes):
    """Beats of `size` bytes."""
    return (size + beat_bytes - 1) // beat_bytes


@njit(cache=True)
def _send_beat(w, timing, kinds, masks, sizes, scalars, tiles, ring):
    """Step 4 for one beat: True if it was sent."""
    at = scalars[AT]
    if at >= kinds.size:
        return False
    mask, size, beat = masks[at], sizes[at], timing[1]
    count = tiles.shape[1]
    if kinds[at] == READ:
        for t in range(count):
            if mask >> t & 1 and tiles[SENT, t] - tiles[FREED, t] >= timing[5]:
                return False
        slot = (w + timing[2]) % (timing[2] + 1)
        for t in range(count):
            if mask >> t & 1:
                tiles[SENT, t] += 1
                ring[slot, t] += 1
        ring[slot, count] += 1
        scalars[IN_FLIGHT] += 1
    else:
        for t in range(count):
            if mask >> t & 1 and scalars[BEAT] == 0 and tiles[PUSHED, t] - tiles[TAKEN, t] < size:
                return False
    scalars[BEAT] += 1
    if scalars[BEAT] == (size + beat - 1) // beat:
        if kinds[at] == WRITE:
            for t in range(count):
                if mask >> t & 1:
                    tiles[TAKEN, t] += size
        scalars[AT] += 1
        scalars[BEAT] = 0
    return True


@njit(cache=True)
def _cycle(timing, kinds, masks, sizes, scalars, tiles, ring):
    """One wall cycle, steps 1 to 4."""
    w, count = scalars[WALL], tiles.shape[1]
    slot = w % (timing[2] + 1)
    if ring[slot, count]:
        for t in range(count):
            tiles[ARRIVED, t] += ring[slot, t]
            ring[slot, t] = 0
        scalars[IN_FLIGHT] -= ring[slot, count]
        ring[slot, count] = 0
    scalars[WALL] = w + 1
    if w % timing[3] >= timing[3] - timing[4]:
        return
    price = timing[1] * 1000
    credit = min(scalars[CREDIT] + timing[0], timing[0] + price)
    while credit >= price and _send_beat(w, timing, kinds, masks, sizes, scalars, tiles, ring):
        credit -= price
        scalars[BUSY] += 1
    scalars[CREDIT] = credit


@njit(cache=True)
def advance(wall, timing, kinds, masks, sizes, scalars, tiles, ring):
    """Run all wall cycles up to and including `wall`."""
    while scalars[WALL] <= wall:
        if scalars[AT] >= kinds.size and scalars[IN_FLIGHT] == 0:
            # Nothing left to happen but credit, which is full again before anybody looks.
            scalars[CREDIT] = timing[0]
            scalars[WALL] = wall + 1
        else:
            _cycle(timing, kinds, masks, sizes, scalars, tiles, ring)


@njit(cache=True)
def _stuck(timing, kinds, masks, sizes, scalars, tiles):
    """Whether no wall cycle can change anything while compute is held."""
    if scalars[IN_FLIGHT]:
        return False
    at = scalars[AT]
    if at >= kinds.size:
        return True
    for t in range(tiles.shape[1]):
        if masks[at] >> t & 1:
            if kinds[at] == READ and tiles[SENT, t] - tiles[FREED, t] >= timing[5]:
                return True
            if kinds[at] == WRITE and scalars[BEAT] == 0 and tiles[PUSHED, t] - tiles[TAKEN, t] < sizes[at]:
                return True
    return False


@njit(cache=True)
def wait_for_beats(tile, beats, timing, kinds, masks, sizes, scalars, tiles, ring):
    """Hold compute until `beats` unused beats stand in the tile's buffer: wall cycles held, or -1 if they can never come."""
    held = 0
    while tiles[ARRIVED, tile] - tiles[USED, tile] < beats:
        if _stuck(timing, kinds, masks, sizes, scalars, tiles):
            return -1
        _cycle(timing, kinds, masks, sizes, scalars, tiles, ring)
        held += 1
    return held


@njit(cache=True)
def wait_for_room(tile, size, timing, kinds, masks, sizes, scalars, tiles, ring):
    """Hold compute until the tile's write buffer has room for `size` bytes, and claim it: wall cycles held, or -1 if it never has."""
    held = 0
    while tiles[CLAIMED, tile] - tiles[TAKEN, tile] + size > timing[6]:
        if _stuck(timing, kinds, masks, sizes, scalars, tiles):
            return -1
        _cycle(timing, kinds, masks, sizes, scalars, tiles, ring)
        held += 1
    tiles[CLAIMED, tile] += size
    return held


@njit(cache=True)
def wait_for_end(timing, kinds, masks, sizes, scalars, tiles, ring):
    """Hold compute until the list is done and all beats have arrived: wall cycles held, or -1 if that never happens."""
    held = 0
    while scalars[AT] < kinds.size or scalars[IN_FLIGHT]:
        if _stuck(timing, kinds, masks, sizes, scalars, tiles):
            return -1
        _cycle(timing, kinds, masks, sizes, scalars, tiles, ring)
        held += 1
    return held


NEED, FREE, ROOM, PUSH, END = 0, 1, 2, 3, 4
"""Kinds of compute-domain events: use beats (held until there), free beats, wait for write room, push written bytes, end of the step."""


@njit(cache=True)
def _play(cycles, kinds_of, tiles_of, amounts, timing, kinds, masks, sizes, scalars, tiles, ring, held):
    total = 0
    for i in range(cycles.size):
        advance(cycles[i] + total, timing, kinds, masks, sizes, scalars, tiles, ring)
        kind, tile, amount = kinds_of[i], tiles_of[i], amounts[i]
        wait = 0
        if kind == NEED:
            wait = wait_for_beats(tile, amount, timing, kinds, masks, sizes, scalars, tiles, ring)
            tiles[USED, tile] += amount
        elif kind == FREE:
            tiles[FREED, tile] += amount
        elif kind == ROOM:
            wait = wait_for_room(tile, amount, timing, kinds, masks, sizes, scalars, tiles, ring)
        elif kind == PUSH:
            tiles[PUSHED, tile] += amount
        else:
            wait = wait_for_end(timing, kinds, masks, sizes, scalars, tiles, ring)
        held[i] = wait
        if wait < 0:
            return i
        total += wait
    return -1


def play(
    streamer: Streamer,
    cycles: NDArray[np.int64],
    kinds: NDArray[np.int64],
    tiles: NDArray[np.int64],
    amounts: NDArray[np.int64],
) -> tuple[NDArray[np.int64], int]:
    """Play compute events in order of compute cycle (ties in the order given); amounts are beats or bytes.

    Returns the wall cycles held before each event, and the index of an event that can never happen (-1: none).
    """
    held = np.zeros(cycles.size, np.int64)
    stuck = _play(
        cycles, kinds, tiles, amounts, streamer.timing, streamer.kinds, streamer.masks, streamer.sizes, streamer.scalars,
        streamer.tiles, streamer.ring, held,
    )  # fmt: skip
    return held, int(stuck)
