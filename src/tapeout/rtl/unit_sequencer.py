"""One unit's micro-op stream: fetches in order, waits for the cycle that the compiler fixed, and hands the micro-op over.

The conductor counts `now`, the cycle of the segment about to be issued, and flips `parity` with every turn. A fetched micro-op carries the parity
of its
turn: it matches when parity and issue cycle are its own. Nothing else can make it issue: no handshake, no scoreboard.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.isa.opcodes import ADDRESSES, Flag, Op, Unit
from tapeout.rtl.load_bus import LOAD, Space, chosen, row_of
from tapeout.rtl.ports import ADDRESS_BITS, ISSUE
from tapeout.rtl.records import BASES, MICRO_OP, RANGE_ROW, SEGMENTS

POINTER_BITS = 12
PASSED_ON = (
    "op",
    "format",
    "flags",
    "rows",
    "columns",
    "tokens",
    "heads",
    "group",
    "slot",
    "s0",
    "s1",
    "s2",
    "s3",
    "s4",
)
STREAM_SLOT = {Unit.MATRIX: "b", Unit.VECTOR: "b", Unit.ATTENTION: "b"}
"""Where the stream buffer's address goes; the norm's weight is in `c`."""


class UnitSequencer(wiring.Component):
    """Works on the unit's own clock (`sync`), which must tick in every cycle that ends with `clocking` high: only the comparison with `now` never
    rests.
    The micro-op that is handed over stands in registers of the domain `issue`, whose clock ticks where any unit's `match` is high.

    `micro_ops`: depth of the instruction memory. `beat_bytes`: of the stream, 0 where there is none.
    """

    def __init__(self, unit: Unit, micro_ops: int, beat_bytes: int, issue: data.StructLayout = ISSUE):
        self.unit, self.micro_ops, self.beat_bytes = unit, micro_ops, beat_bytes
        super().__init__(
            {
                "load": In(LOAD), "tile": In(5), "now": In(24), "parity": In(1), "publish": In(1),
                "next_segment": In(range(SEGMENTS)), "values": In(ADDRESS_BITS * BASES), "position": In(24), "block": In(16),
                "stream_address": In(ADDRESS_BITS), "match": Out(1), "kind": Out(4), "stream": Out(1), "external": Out(1), "beats": Out(16),
                "bytes": Out(20), "clocking": Out(1), "go": Out(1), "op": Out(issue), "pointer": Out(POINTER_BITS), "late": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        have, tag, ready = Signal(), Signal(), Signal()
        end, following = Signal(POINTER_BITS), Signal(POINTER_BITS)
        more, take = Signal(), Signal()
        head, ranges = self._memories(m)
        m.d.comb += [
            self.match.eq(have & (tag == self.parity) & (head.data.issue == self.now)),
            following.eq(self.pointer + 1), more.eq(following != end), take.eq(ready & (~have | (self.match & ~more))),
            head.addr.eq(Mux(take, ranges.start, following)),
            head.en.eq(Mux(take, ranges.start != ranges.end, self.match & more)),
        ]  # fmt: skip
        with m.If(self.match):
            m.d.sync += [self.pointer.eq(following), have.eq(more)]
        with m.If(take):
            m.d.sync += [
                self.pointer.eq(ranges.start), end.eq(ranges.end), have.eq(ranges.start != ranges.end), tag.eq(~self.parity), ready.eq(0),
            ]  # fmt: skip
        with m.If(self.publish):
            m.d.sync += ready.eq(1)
            # The turn before has not been fetched yet, or a micro-op of the one before that still waits: something would run late.
            with m.If(ready | (have & (tag != self.parity))):
                m.d.sync += self.late.eq(1)
        self._needs(m, head.data)
        self._hand_over(m, head.data)
        m.d.comb += self.clocking.eq(self.match | self.publish | take | self.go)
        return m

    def _memories(self, m: Module) -> tuple[memory.ReadPort, object]:
        """The instruction memory's read port, whose output register is the head of the stream; and the range of the published turn."""
        m.submodules.micro_ops = ops = memory.Memory(shape=MICRO_OP, depth=self.micro_ops, init=[])
        m.submodules.ranges = spans = memory.Memory(shape=RANGE_ROW, depth=SEGMENTS, init=[])
        for store, space in ((ops, Space.MICRO_OPS), (spans, Space.RANGES)):
            write = store.write_port(domain="load")
            mine = (self.load.tile == self.tile) & (self.load.unit == int(self.unit))
            m.d.comb += [
                write.en.eq(chosen(m, self.load, space, f"load_{space.name.lower()}") & mine), write.addr.eq(self.load.address),
                write.data.eq(row_of(self.load, space)),
            ]  # fmt: skip
        ranges = spans.read_port()
        m.d.comb += [ranges.addr.eq(self.next_segment), ranges.en.eq(self.publish)]
        return ops.read_port(), ranges.data

    def _needs(self, m: Module, head: object) -> None:
        """What the micro-op takes from the stream, or sends to the write buffer."""
        m.d.comb += [self.kind.eq(head.op), self.bytes.eq(head.columns)]
        if not self.beat_bytes:
            return
        shift = self.beat_bytes.bit_length() - 1
        rows = (head.s0 + (self.beat_bytes - 1))[shift : shift + 16] * head.tokens
        once = (head.s4 + (self.beat_bytes - 1))[shift : shift + 16]
        m.d.comb += [
            self.stream.eq((head.flags & int(Flag.STREAM)) != 0),
            self.external.eq((head.flags & int(Flag.EXTERNAL)) != 0),
            self.beats.eq(Mux(head.op == int(Op.EMBED), rows, once) if self.unit is Unit.VECTOR else once),
        ]

    def _hand_over(self, m: Module, head: object) -> None:
        """The micro-op with its bases added, into the unit's registers."""
        m.d.sync += self.go.eq(self.match)
        with m.If(self.match):
            m.d.issue += [getattr(self.op, name).eq(getattr(head, name)) for name in PASSED_ON]
            m.d.issue += [self.op.position.eq(self.position), self.op.inner.eq(self.block)]
            for slot in ADDRESSES:
                base = self.values.word_select(getattr(head, f"{slot}_base")[: (BASES - 1).bit_length()], ADDRESS_BITS)
                m.d.issue += getattr(self.op, slot).eq(getattr(head, slot) + base)
            if self.beat_bytes and self.unit in STREAM_SLOT:
                with m.If(self.stream):
                    self._stream_slot(m, head)

    def _stream_slot(self, m: Module, head: object) -> None:
        if self.unit is Unit.VECTOR:
            with m.If(head.op == int(Op.NORM)):
                m.d.issue += self.op.c.eq(self.stream_address)
            with m.Else():
                m.d.issue += self.op.b.eq(self.stream_address)
        else:
            m.d.issue += getattr(self.op, STREAM_SLOT[self.unit]).eq(self.stream_address)
