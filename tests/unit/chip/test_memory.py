"""The memory model: the compiled functions against the same text run by plain Python, and what no run may break."""

import numpy as np
import pytest

from chips import make_chip
from tapeout.chip import memory
from tapeout.chip.memory import (
    ARRIVED,
    BUSY,
    CLAIMED,
    END,
    FREE,
    FREED,
    IN_FLIGHT,
    NEED,
    PUSH,
    PUSHED,
    READ,
    ROOM,
    SENT,
    TAKEN,
    USED,
    WALL,
    WRITE,
    MemoryTiming,
    Streamer,
    memory_timing,
    new_streamer,
    play,
)

Event = tuple[int, int, int, int]
"""(cycle, kind, tile, amount)."""


def random_timing(rng: np.random.Generator) -> MemoryTiming:
    interval = int(rng.integers(20, 200))
    return MemoryTiming(
        rate_millibytes=int(rng.choice([3_000, 17_500, 64_000, 200_000])),
        beat_bytes=int(rng.choice([16, 32, 64])),
        latency=int(rng.integers(1, 40)),
        interval=interval,
        refresh=int(rng.integers(0, interval // 2)),
        buffer_beats=int(rng.integers(12, 40)),
        write_bytes=1024,
    )


def random_work(
    rng: np.random.Generator, timing: MemoryTiming, tiles: int
) -> tuple[list[tuple[int, int, int]], list[Event]]:
    """A descriptor list and the compute events that use all of it, in order: reads, multicast or not, and writes."""
    descriptors: list[tuple[int, int, int]] = []
    events: list[Event] = []
    cycle = 0
    for _ in range(int(rng.integers(4, 16))):
        cycle += int(rng.integers(1, 30))
        if rng.random() < 0.3:
            tile, size = int(rng.integers(tiles)), int(rng.integers(1, 500))
            descriptors.append((WRITE, 1 << tile, size))
            events += [(cycle, ROOM, tile, size), (cycle + 8, PUSH, tile, size)]
            cycle += 8
        else:
            mask, size = int(rng.integers(1, 1 << tiles)), int(rng.integers(1, 6 * timing.beat_bytes))
            descriptors.append((READ, mask, size))
            beats = -(-size // timing.beat_bytes)
            reached = [tile for tile in range(tiles) if mask >> tile & 1]
            events += [(cycle, NEED, tile, beats) for tile in reached] + [
                (cycle + 9, FREE, tile, beats) for tile in reached
            ]
            cycle += 9
    events.append((cycle + 1, END, 0, 0))
    return descriptors, events


def streamer_for(timing: MemoryTiming, tiles: int, descriptors: list[tuple[int, int, int]]) -> Streamer:
    kinds, masks, sizes = (np.array([row[at] for row in descriptors], np.int64) for at in range(3))
    return new_streamer(timing, tiles, kinds, masks, sizes)


def played(streamer: Streamer, events: list[Event]) -> tuple[list[int], int]:
    columns = [np.array([event[at] for event in events], np.int64) for at in range(4)]
    held, stuck = play(streamer, *columns)
    return held.tolist(), stuck


def pure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every compiled function of the module by its Python text."""
    for name, value in vars(memory).copy().items():
        if hasattr(value, "py_func"):
            monkeypatch.setattr(memory, name, value.py_func)


@pytest.mark.parametrize("seed", range(20))
def test_compiled_and_plain_python_agree(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    timing, tiles = random_timing(rng), int(rng.integers(1, 5))
    descriptors, events = random_work(rng, timing, tiles)
    compiled = streamer_for(timing, tiles, descriptors)
    want = played(compiled, events)
    pure(monkeypatch)
    assert not hasattr(memory._play, "py_func")
    plain = streamer_for(timing, tiles, descriptors)
    assert played(plain, events) == want
    assert (plain.scalars == compiled.scalars).all()
    assert (plain.tiles == compiled.tiles).all()


@pytest.mark.parametrize("seed", range(40))
def test_no_byte_is_lost_or_comes_twice(seed):
    rng = np.random.default_rng(seed)
    timing, tiles = random_timing(rng), int(rng.integers(1, 5))
    descriptors, events = random_work(rng, timing, tiles)
    streamer = streamer_for(timing, tiles, descriptors)
    held, stuck = played(streamer, events)
    assert stuck == -1
    assert min(held) >= 0
    for tile in range(tiles):
        mine = [(kind, size) for kind, mask, size in descriptors if mask >> tile & 1]
        beats = sum(-(-size // timing.beat_bytes) for kind, size in mine if kind == READ)
        size = sum(size for kind, size in mine if kind == WRITE)
        assert [int(streamer.tiles[row, tile]) for row in (SENT, FREED, ARRIVED, USED)] == [beats] * 4
        assert [int(streamer.tiles[row, tile]) for row in (PUSHED, TAKEN, CLAIMED)] == [size] * 3
    assert streamer.scalars[BUSY] == sum(-(-size // timing.beat_bytes) for _, _, size in descriptors)
    assert streamer.scalars[IN_FLIGHT] == 0


@pytest.mark.parametrize("seed", range(20))
def test_buffers_refresh_and_rate_are_respected_in_every_cycle(seed):
    rng = np.random.default_rng(seed)
    timing = random_timing(rng)
    descriptors = [(READ, 1, int(rng.integers(1, 4 * timing.beat_bytes))) for _ in range(60)]
    streamer = streamer_for(timing, 1, descriptors)
    args = (
        streamer.timing,
        streamer.kinds,
        streamer.masks,
        streamer.sizes,
        streamer.scalars,
        streamer.tiles,
        streamer.ring,
    )
    price, sent_at, before = timing.beat_bytes * 1000, [], 0
    for wall in range(1500):
        memory.advance(wall, *args)
        sent = int(streamer.tiles[SENT, 0])
        assert sent - streamer.tiles[FREED, 0] <= timing.buffer_beats
        if wall % timing.interval >= timing.interval - timing.refresh:
            assert sent == before, "nothing is sent in a refresh"
        sent_at += [wall] * (sent - before)
        before = sent
        arrived = int(streamer.tiles[ARRIVED, 0])
        assert arrived == sum(cycle + timing.latency <= wall for cycle in sent_at)
        if arrived > streamer.tiles[FREED, 0] and rng.random() < 0.3:
            streamer.tiles[FREED, 0] = streamer.tiles[USED, 0] = arrived
    for first in range(0, len(sent_at), 7):
        for last in range(first, len(sent_at), 5):
            cycles = sent_at[last] - sent_at[first] + 1
            assert (last - first + 1) * price <= cycles * timing.rate_millibytes + price


def test_ten_beats_by_hand():
    """A beat of 32 bytes costs two cycles at 16 bytes per cycle and arrives five later; compute asks for all at cycle 3."""
    timing = MemoryTiming(16_000, 32, 5, 1 << 40, 0, 16, 0)
    streamer = streamer_for(timing, 1, [(READ, 1, 320)])
    held, stuck = played(streamer, [(3, NEED, 0, 10), (7, FREE, 0, 10), (8, END, 0, 0)])
    # Sent in cycles 1, 3, ..., 19; the last arrives in 24: held until then.
    assert (held, stuck) == ([21, 0, 0], -1)
    assert streamer.scalars[WALL] == 8 + 21 + 1


def test_a_refresh_stops_the_stream_for_its_length():
    quick = MemoryTiming(32_000, 32, 1, 1 << 40, 0, 64, 0)
    slow = MemoryTiming(32_000, 32, 1, 10, 4, 64, 0)
    waits = [
        played(streamer_for(timing, 1, [(READ, 1, 32 * 12)]), [(0, NEED, 0, 12), (1, FREE, 0, 12), (2, END, 0, 0)])[0][
            0
        ]
        for timing in (quick, slow)
    ]
    # Twelve beats in cycles 0 to 11; or six in 0 to 5 and six in 10 to 15; each arrives one later.
    assert waits == [12, 16]


def test_a_multicast_is_sent_once_and_arrives_in_every_buffer():
    timing = MemoryTiming(32_000, 32, 1, 1 << 40, 0, 4, 0)
    streamer = streamer_for(timing, 3, [(READ, 0b101, 64)])
    played(streamer, [(0, NEED, 0, 2), (0, NEED, 2, 2), (1, FREE, 0, 2), (1, FREE, 2, 2), (2, END, 0, 0)])
    assert streamer.tiles[ARRIVED].tolist() == [2, 0, 2]
    assert streamer.scalars[BUSY] == 2


def test_more_than_the_buffer_can_never_come():
    timing = MemoryTiming(32_000, 32, 1, 1 << 40, 0, 4, 0)
    assert played(streamer_for(timing, 1, [(READ, 1, 5 * 32)]), [(0, NEED, 0, 5)]) == ([-1], 0)


def test_room_is_taken_when_a_send_issues():
    """Two sends in flight together may not fill more than the write buffer, though neither has completed."""
    timing = MemoryTiming(8_000, 32, 1, 1 << 40, 0, 4, 100)
    events = [(0, ROOM, 0, 60), (3, ROOM, 0, 60), (5, PUSH, 0, 60), (8, PUSH, 0, 60)]
    assert played(streamer_for(timing, 1, [(WRITE, 1, 60)] * 2), events)[1] == 1
    one_after_the_other = [(0, ROOM, 0, 60), (5, PUSH, 0, 60), (6, ROOM, 0, 60), (11, PUSH, 0, 60), (12, END, 0, 0)]
    held, stuck = played(streamer_for(timing, 1, [(WRITE, 1, 60)] * 2), one_after_the_other)
    assert stuck == -1
    assert held[2] > 0, "held until the first is carried away"


def test_the_memory_of_a_chip_in_its_own_cycles():
    chip = make_chip("1x1", streamed=True, clock_mhz="500", external__gb_per_s="12", external__latency_ns="41")
    timing = memory_timing(chip)
    assert timing.rate_millibytes == 24_000
    assert timing.latency == 20
    assert (timing.interval, timing.refresh) == (450, 30)
    assert timing.buffer_beats == 64 * 1024 // 32
    assert timing.write_bytes == 8 * 1024


def test_a_chip_without_external_memory_has_an_empty_streamer():
    streamer = streamer_for(memory_timing(make_chip("1x1")), 1, [])
    assert played(streamer, [(100, END, 0, 0)]) == ([0], -1)
