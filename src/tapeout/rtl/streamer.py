"""The streamer: works through an entry's descriptor list on its own, ahead of compute, one beat of external memory per cycle at most.

The front end walks the same loops as the conductor, works out addresses and fills a queue. The back end asks the memory for one beat at a time: a
read
when every buffer it is for has room, a write once its bytes stand whole in the tile's write buffer. The memory says when (its rate, latency and
refresh are
the model of chip/memory.py); the streamer never skips ahead of a descriptor that waits.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.memory import memory_timing
from tapeout.chip.spec import ChipSpec
from tapeout.isa.program import ROW, WRITE
from tapeout.rtl.address_registers import AddressRegisters
from tapeout.rtl.load_bus import LOAD, Space, chosen, row_of
from tapeout.rtl.loop_walker import LoopWalker
from tapeout.rtl.records import BASES, ROWS, TRANSFER
from tapeout.rtl.stream_account import COUNT_BITS

EXTERNAL_BITS = 40
QUEUE = 32
TOKENS = 64
"""Token ids that the host can set for one step."""


class Streamer(wiring.Component):
    """Memory side: `request`, held until `grant`, for `tiles` (mask), at byte `address`, `size` bytes of a write; `arrival` of a read beat for a
    mask of tiles.
    Tile side: `used`, `freed`, `pushed` count beats and bytes up for ever; `arrived` too. `starved`: the queue ran empty before the list did.
    """

    def __init__(self, chip: ChipSpec):
        self.chip, self.tiles, self.timing = chip, chip.grid.tiles, memory_timing(chip)
        super().__init__(
            {
                "load": In(LOAD), "start": In(1), "start_row": In(range(ROWS)), "blocks": In(16), "setup": In(1), "number": In(range(BASES)),
                "position": In(24), "last": In(8), "streaming": In(1), "freed": In(COUNT_BITS * self.tiles), "pushed": In(32 * self.tiles),
                "request": Out(1), "write": Out(1), "mask": Out(self.tiles), "address": Out(EXTERNAL_BITS), "size": Out(16), "grant": In(1),
                "first_beat": Out(1), "last_beat": Out(1), "arrival": In(1), "arrival_mask": In(self.tiles), "arrived": Out(COUNT_BITS * self.tiles),
                "taken": Out(32 * self.tiles), "idle": Out(1), "starved": Out(1),
            }
        )  # fmt: skip
        self.entry = data.StructLayout(
            {
                "write": unsigned(1),
                "mask": unsigned(self.tiles),
                "size": unsigned(32),
                "address": unsigned(EXTERNAL_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFO(width=self.entry.size, depth=QUEUE)
        finished = self._front_end(m, queue)
        self._back_end(m, queue, finished)
        return m

    # --- descriptors to transfers ---

    def _front_end(self, m: Module, queue: fifo.SyncFIFO) -> Signal:
        m.submodules.walker = walker = LoopWalker()
        m.submodules.bases = bases = AddressRegisters(EXTERNAL_BITS)
        row, valid, finished = self._descriptors(m), Signal(), Signal()
        at, left = Signal(16), Signal(16)
        m.d.comb += [
            walker.load.eq(self.load), walker.start.eq(self.start), walker.start_row.eq(self.start_row), walker.blocks.eq(self.blocks),
            bases.load.eq(self.load), bases.setup.eq(self.setup), bases.number.eq(self.number), bases.position.eq(self.position),
            bases.last.eq(self.last), bases.kind.eq(walker.kind), row.addr.eq(at), row.en.eq(0),
        ]  # fmt: skip
        m.d.sync += valid.eq(row.en)
        with m.FSM():
            with m.State("TURN"):
                m.d.comb += finished.eq(walker.finished & ~valid)
                with m.If(walker.valid & ~self.setup):
                    m.d.comb += bases.apply.eq(1)
                    m.d.sync += [at.eq(walker.row.first_descriptor), left.eq(walker.row.descriptors)]
                    m.next = "READ"
            with m.State("READ"):
                with m.If(left == 0):
                    m.next = "STEP"
                with m.Elif(queue.w_level < QUEUE - 2):
                    m.d.comb += row.en.eq(1)
                    m.d.sync += [at.eq(at + 1), left.eq(left - 1)]
            with m.State("STEP"):
                m.d.comb += walker.step.eq(1)
                m.next = "TURN"
        self._resolve(m, queue, row.data, valid, bases)
        return finished

    def _descriptors(self, m: Module) -> memory.ReadPort:
        m.submodules.descriptors = store = memory.Memory(shape=TRANSFER, depth=self.chip.tile.micro_ops, init=[])
        write = store.write_port(domain="load")
        m.d.comb += [
            write.en.eq(chosen(m, self.load, Space.DESCRIPTORS, "load_descriptor")), write.addr.eq(self.load.address),
            write.data.eq(row_of(self.load, Space.DESCRIPTORS)),
        ]  # fmt: skip
        return store.read_port()

    def _resolve(self, m: Module, queue: fifo.SyncFIFO, row: object, valid: Signal, bases: AddressRegisters) -> None:
        """The address: base register, and for an embedding row the token's place."""
        entry, place, base = Signal(self.entry), Signal(EXTERNAL_BITS), Signal(EXTERNAL_BITS)
        with m.Switch(row.base):
            for number in range(BASES):
                with m.Case(number):
                    m.d.comb += base.eq(bases.values.word_select(number, EXTERNAL_BITS))
        m.submodules.tokens = tokens = memory.Memory(shape=20, depth=TOKENS, init=[])
        write, read = tokens.write_port(domain="load"), tokens.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(chosen(m, self.load, Space.TOKENS, "load_token")), write.addr.eq(self.load.address), write.data.eq(row_of(self.load,
            Space.TOKENS)),
            read.addr.eq(row.token), place.eq(Mux(row.kind == ROW, read.data * row.row_bytes, 0)),
            entry.write.eq(row.kind == WRITE), entry.mask.eq(row.mask), entry.size.eq(row.size),
            entry.address.eq(row.address + base + place),
            queue.w_data.eq(entry), queue.w_en.eq(valid),
        ]  # fmt: skip

    # --- transfers to beats ---

    def _back_end(self, m: Module, queue: fifo.SyncFIFO, finished: Signal) -> None:
        head, offset, beat = Signal(self.entry), Signal(32), self.timing.beat_bytes
        flying = Signal(16)
        m.d.comb += [
            head.eq(queue.r_data), self.write.eq(head.write), self.mask.eq(head.mask), self.address.eq(head.address + offset),
            self.first_beat.eq(offset == 0), self.last_beat.eq(offset + beat >= head.size),
            self.size.eq(Mux(self.last_beat, head.size - offset, beat)),
            self.request.eq(self.streaming & queue.r_rdy & Mux(head.write, self._whole(head, offset), self._room(m, head))),
            queue.r_en.eq(self.grant & self.last_beat), self.idle.eq(finished & ~queue.r_rdy & (flying == 0)),
        ]  # fmt: skip
        with m.If(self.grant):
            m.d.sync += offset.eq(Mux(self.last_beat, 0, offset + beat))
        m.d.sync += flying.eq(flying + (self.grant & ~head.write) - self.arrival)
        with m.If(self.streaming & ~queue.r_rdy & ~finished):
            m.d.sync += self.starved.eq(1)
        for tile in range(self.tiles):
            taken, arrived = self.taken.word_select(tile, 32), self.arrived.word_select(tile, COUNT_BITS)
            with m.If(self.grant & head.write & self.last_beat & head.mask[tile]):
                m.d.sync += taken.eq(taken + head.size)
            with m.If(self.arrival & self.arrival_mask[tile]):
                m.d.sync += arrived.eq(arrived + 1)

    def _room(self, m: Module, head: object) -> object:
        """Every buffer that the beat is for has room for it."""
        full = []
        for tile in range(self.tiles):
            sent = Signal(COUNT_BITS, name=f"sent{tile}")
            with m.If(self.grant & ~head.write & head.mask[tile]):
                m.d.sync += sent.eq(sent + 1)
            filled = (sent - self.freed.word_select(tile, COUNT_BITS))[:COUNT_BITS]
            full.append(head.mask[tile] & (filled >= self.timing.buffer_beats))
        return ~Cat(full).any()

    def _whole(self, head: object, offset: Signal) -> object:
        """The bytes of a write stand in the write buffer before its first beat goes."""
        short = [
            head.mask[tile] & ((self.pushed.word_select(tile, 32) - self.taken.word_select(tile, 32))[:32] < head.size)
            for tile in range(self.tiles)
        ]
        return (offset != 0) | ~Cat(short).any()


__all__ = ["EXTERNAL_BITS", "QUEUE", "TOKENS", "Streamer"]
