"""Walks an entry's loops and segments in the order of time: one turn after the other, each with what it changes in the address registers."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import enum, memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.load_bus import LOAD, Space, chosen, row_of
from tapeout.rtl.records import ROWS, SEGMENT_ROW


class Turn(enum.Enum, shape=unsigned(2)):
    """How a turn follows the one before: the first of a loop, of its next outer iteration, another segment, or the same one again."""

    LOOP = 0
    OUTER = 1
    SEGMENT = 2
    INNER = 3


class LoopWalker(wiring.Component):
    """`start` at `start_row`; while `valid`, `row`, `kind` and `inner` say what comes next, and `step` goes on. A new segment takes three cycles to
    find, and two more for each one that is to run zero times. `finished` when nothing is left.

    Works in the domain `sync`, is loaded in the domain `load`.
    """

    start: In(1)
    start_row: In(range(ROWS))
    blocks: In(16)
    step: In(1)
    valid: Out(1)
    row: Out(SEGMENT_ROW)
    kind: Out(Turn)
    inner: Out(16)
    outer: Out(16)
    finished: Out(1)
    load: In(LOAD)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.table = table = memory.Memory(shape=SEGMENT_ROW, depth=ROWS, init=[])
        write, read = table.write_port(domain="load"), table.read_port()
        m.d.comb += [
            write.en.eq(chosen(m, self.load, Space.SEGMENTS, "load_row")), write.addr.eq(self.load.address), write.data.eq(row_of(self.load,
            Space.SEGMENTS)),
        ]  # fmt: skip
        at, times = Signal(range(ROWS)), Signal(16)
        m.d.comb += [
            self.row.eq(read.data),
            read.addr.eq(at),
            times.eq(Mux(self.row.per_block, self.blocks, self.row.repeat)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.finished.eq(1)
                with m.If(self.start):
                    m.d.sync += [at.eq(self.start_row), self.outer.eq(0), self.inner.eq(0), self.kind.eq(Turn.LOOP)]
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += read.en.eq(1)
                m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "TURN"
                with m.If(times == 0):
                    self._next_row(m, at, skipped=True)
            with m.State("TURN"):
                m.d.comb += self.valid.eq(1)
                with m.If(self.step):
                    m.d.sync += [self.inner.eq(self.inner + 1), self.kind.eq(Turn.INNER)]
                    with m.If(self.inner + 1 == times):
                        self._next_row(m, at, skipped=False)
        return m

    def _next_row(self, m: Module, at: Signal, skipped: bool) -> None:
        """To the segment that follows. A skipped segment passes on what it would have changed itself."""
        m.next = "FETCH"
        m.d.sync += self.inner.eq(0)
        with m.If(~self.row.ends_loop):
            m.d.sync += at.eq(at + 1)
            if not skipped:
                m.d.sync += self.kind.eq(Turn.SEGMENT)
        with m.Elif(self.outer + 1 != self.row.count):
            m.d.sync += [at.eq(self.row.first_row), self.outer.eq(self.outer + 1), self.kind.eq(Turn.OUTER)]
        with m.Elif(self.row.ends_entry):
            m.next = "IDLE"
        with m.Else():
            m.d.sync += [at.eq(at + 1), self.outer.eq(0), self.kind.eq(Turn.LOOP)]
