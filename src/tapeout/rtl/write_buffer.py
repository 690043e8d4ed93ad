"""A tile's bytes on their way to external memory: written piece by piece by the link unit, read beat by beat when the memory takes them.

Every send begins at a whole word, so the store has twice the bytes that the programs may claim: no send is shorter than half a word.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.memory import memory_timing
from tapeout.chip.spec import ChipSpec
from tapeout.rtl.memory import FlatMemory, Read, Write


class WriteBuffer(wiring.Component):
    """In (link clock `link`): `valid`, `bytes`, `data` of a piece, `last` of the send. Out (domain `sync`): `take` the next beat of `size` bytes,
    `first` and `last` of its descriptor; `data` stands in the cycle after.
    """

    def __init__(self, chip: ChipSpec):
        timing = memory_timing(chip)
        self.width, self.beat_words = chip.link.bytes_per_cycle, timing.beat_bytes // 4
        self.store = FlatMemory(
            "write_store", 2 * timing.write_bytes // 4, {"beat": Read(self.beat_words, "sync")},
            {"piece": Write(self.width // 4, "link")},
        )  # fmt: skip
        super().__init__(
            {
                "valid": In(1), "bytes": In(range(self.width + 1)), "piece": In(8 * self.width), "last": In(1), "take": In(1),
                "last_beat": In(1), "size": In(16), "data": Out(8 * timing.beat_bytes),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = self.store
        tail, head = Signal(store.bits), Signal(store.bits)
        m.d.comb += [
            store.piece.addr.eq(tail), store.piece.data.eq(self.piece), store.piece.en.eq(Mux(self.valid, (1 << self.bytes) - 1, 0)),
            store.beat.addr.eq(head), store.beat.en.eq(self.take), self.data.eq(store.beat.data),
        ]  # fmt: skip
        with m.If(self.valid):
            m.d.link += tail.eq(tail + ((self.bytes + 3) >> 2))
        with m.If(self.take):
            m.d.sync += head.eq(head + ((self.size + 3) >> 2))
        return m
