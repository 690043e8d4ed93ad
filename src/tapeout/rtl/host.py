"""The host's stream: words in, words out, ready/valid both ways. Everything that reaches the chip comes through here.

A command is a word `command`<<28 | `space`<<20 | `tile`<<12 | `unit`<<8, then

  LOAD   first row, rows, and the rows' words (load_bus.ROW_WORDS each)
  READ   first word, words; answers with so many words of the tile's SRAM
  START  first row of the entry in the segment table; answers when the run is over: status, cycles and held cycles (low word, high word each)
"""

from amaranth.hdl import Array, Cat, Module, Signal, unsigned
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.load_bus import LOAD, ROW_WORDS, Space
from tapeout.rtl.records import ROWS

ANSWER_WORDS = 5
COUNT_BITS = 48
"""Of the cycles of a run."""


class Command(enum.Enum, shape=unsigned(4)):
    """What the host asks for."""

    LOAD = 0
    READ = 1
    START = 2


class Host(wiring.Component):
    """`start` and `start_row` to the conductor, `done`, `status`, `cycles` and `held` back; `read` of the SRAM word at load.address, answered in
    the next cycle.

    `open`: the load clock must tick at the end of this cycle; `awake`: the host's own clock must.
    """

    in_valid: In(1)
    in_ready: Out(1)
    in_data: In(32)
    out_valid: Out(1)
    out_ready: In(1)
    out_data: Out(32)
    load: Out(LOAD)
    read: Out(1)
    read_data: In(32)
    open: Out(1)
    awake: Out(1)
    start: Out(1)
    start_row: Out(range(ROWS))
    done: In(1)
    status: In(8)
    cycles: In(COUNT_BITS)
    held: In(COUNT_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left, command = Signal(32), Signal(Command)
        m.d.comb += [self.open.eq(self.load.valid | self.read), self.awake.eq(1)]
        m.d.sync += self.load.valid.eq(0)
        with m.If(self.load.valid):
            m.d.sync += self.load.address.eq(self.load.address + 1)
        with m.FSM():
            self._header(m, command, left)
            self._load(m, left)
            self._read(m, left)
            self._run(m, left)
        return m

    def _header(self, m: Module, command: Signal, left: Signal) -> None:
        with m.State("COMMAND"):
            m.d.comb += self.in_ready.eq(~self.load.valid)
            with m.If(self.in_valid & self.in_ready):
                m.d.sync += [
                    command.eq(self.in_data[28:]), self.load.space.eq(self.in_data[20:24]), self.load.tile.eq(self.in_data[12:17]),
                    self.load.unit.eq(self.in_data[8:10]),
                ]  # fmt: skip
                m.next = "FIRST"
        with m.State("FIRST"):
            m.d.comb += self.in_ready.eq(1)
            with m.If(self.in_valid):
                m.d.sync += [self.load.address.eq(self.in_data), self.start_row.eq(self.in_data)]
                m.next = "COUNT"
                with m.If(command == Command.START):
                    m.next = "START"
        with m.State("COUNT"):
            m.d.comb += self.in_ready.eq(1)
            with m.If(self.in_valid):
                m.d.sync += left.eq(self.in_data)
                m.next = "LOAD"
                with m.If(command == Command.READ):
                    m.next = "READ"

    def _load(self, m: Module, left: Signal) -> None:
        words, of_space = Signal(5), Signal(5)
        table = Array([ROW_WORDS[space] for space in Space])
        m.d.comb += of_space.eq(table[self.load.space.as_value()[:3]])
        with m.State("LOAD"):
            m.d.comb += self.in_ready.eq(left != 0)
            with m.If(left == 0):
                m.next = "COMMAND"
            with m.Elif(self.in_valid):
                m.d.sync += [self.load.data.eq(Cat(self.load.data[32:], self.in_data)), words.eq(words + 1)]
                with m.If(words + 1 == of_space):
                    m.d.sync += [words.eq(0), left.eq(left - 1), self.load.valid.eq(1)]

    def _read(self, m: Module, left: Signal) -> None:
        with m.State("READ"):
            m.d.comb += self.read.eq(left != 0)
            m.next = "WORD"
            with m.If(left == 0):
                m.next = "COMMAND"
        with m.State("WORD"):
            m.d.comb += [self.out_valid.eq(1), self.out_data.eq(self.read_data)]
            with m.If(self.out_ready):
                m.d.sync += [self.load.address.eq(self.load.address + 1), left.eq(left - 1)]
                m.next = "READ"

    def _run(self, m: Module, left: Signal) -> None:
        answer = Signal(32 * ANSWER_WORDS)
        with m.State("START"):
            m.d.comb += self.start.eq(1)
            m.next = "RUN"
        with m.State("RUN"):
            m.d.comb += self.awake.eq(self.done)
            with m.If(self.done):
                pad = (64 - COUNT_BITS) * [0]
                m.d.sync += [
                    answer.eq(Cat(self.status, *[0] * 24, self.cycles, *pad, self.held, *pad)),
                    left.eq(ANSWER_WORDS),
                ]
                m.next = "ANSWER"
        with m.State("ANSWER"):
            m.d.comb += [self.out_valid.eq(1), self.out_data.eq(answer[:32])]
            with m.If(self.out_ready):
                m.d.sync += [answer.eq(answer[32:]), left.eq(left - 1)]
                with m.If(left == 1):
                    m.next = "COMMAND"
