"""The vector unit's loops: which word of a micro-op is due. From the outside: tokens; norm's passes, or rope's heads; groups; words.

A word is the V values that the lanes take in a cycle. A *row* is what a pass or a head walks. A group of quant may be longer than what is left of
its row: the words behind the row have nothing in them.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.isa.opcodes import Op
from tapeout.rtl.binary32 import register
from tapeout.rtl.norm_scalars import ITERATIONS
from tapeout.rtl.ports import ISSUE
from tapeout.rtl.vector_control import STEPS

GROUP = 32
LARGEST_WAIT = STEPS
"""Idle cycles between norm's first and second pass: the last word is written back, and the largest value is known."""
SUM_WAIT = 7 + ITERATIONS
"""Idle cycles between norm's second and third pass: the squares are summed, and r is worked out."""

KINDS = {op: op.name.lower() for op in (Op.NORM, Op.ROPE, Op.QUANT, Op.SWIGLU, Op.EMBED, Op.ARGMAX)}
KIND = data.StructLayout(dict.fromkeys(KINDS.values(), 1))
PASS = data.StructLayout({"residual": 1, "squares": 1, "scaled": 1})


class VectorLoops(wiring.Component):
    """`step`: a word is due, of `kind` (in norm: of `turn`), with `count` values that are there; `forward` is how far the next one lies."""

    def __init__(self, lanes: int, issue: data.StructLayout = ISSUE):
        self.lanes = lanes
        super().__init__(
            {
                "go": In(1), "op": In(issue), "running": Out(1), "step": Out(1), "kind": Out(KIND), "turn": Out(PASS), "count": Out(6),
                "forward": Out(6), "place": Out(4), "group": Out(8), "group_first": Out(1), "row_first": Out(1), "group_ends": Out(1),
                "row_ends": Out(1), "token_ends": Out(1), "all_ends": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        self._columns, self._left, self._group_left = (
            register("columns", 20),
            register("left", 20),
            register("group_left", 8),
        )
        self._heads, self._heads_left, self._tokens_left = (
            register("heads", 10),
            register("heads_left", 10),
            register("tokens_left", 7),
        )
        self._wait = Signal(range(max(LARGEST_WAIT, SUM_WAIT) + 1))
        m.d.comb += self.step.eq(self.running & (self._wait == 0))
        self._place(m)
        self._word(m)
        self._row(m)
        with m.If(self.go):
            self._load(m)
        return m

    def _place(self, m: Module) -> None:
        """What ends with this word."""
        last, kind = Signal(), self.kind
        m.d.comb += [last.eq(self._group_left <= self.lanes), self.forward.eq(Mux(last, self._group_left, self.lanes))]
        m.d.comb += self.count.eq(Mux(self._left < self.forward, self._left, self.forward))
        m.d.comb += self.row_ends.eq((self._left <= self.forward) & (last | ~kind.quant))
        m.d.comb += self.group_ends.eq(last | self.row_ends)
        again = (kind.rope & (self._heads_left != 1)) | (kind.norm & ~self.turn.scaled)
        m.d.comb += [
            self.token_ends.eq(self.row_ends & ~again),
            self.all_ends.eq(self.token_ends & (self._tokens_left == 1)),
        ]
        m.d.comb += self.place.eq((GROUP - self._group_left) >> (self.lanes - 1).bit_length())

    def _word(self, m: Module) -> None:
        """Within a row."""
        with m.If(self.step):
            m.d.sync += [self.group_first.eq(self.group_ends), self.row_first.eq(self.row_ends)]
            m.d.sync += self._group_left.eq(Mux(self.group_ends, self.group, self._group_left - self.lanes))
            m.d.sync += self._left.eq(
                Mux(self.row_ends, self._columns, Mux(self._left < self.forward, 0, self._left - self.forward))
            )

    def _row(self, m: Module) -> None:
        """Heads, passes, tokens."""
        turn = self.turn
        with m.If(self._wait != 0):
            m.d.sync += self._wait.eq(self._wait - 1)
        with m.Elif(self.step & self.row_ends):
            m.d.sync += self._heads_left.eq(Mux(self.token_ends, self._heads, self._heads_left - 1))
            m.d.sync += turn.eq(Cat(turn.scaled, turn.residual, turn.squares))
            with m.If(self.kind.norm):
                m.d.sync += self._wait.eq(Mux(turn.residual, LARGEST_WAIT, Mux(turn.squares, SUM_WAIT, 0)))
            with m.If(self.token_ends):
                m.d.sync += self._tokens_left.eq(self._tokens_left - 1)
            with m.If(self.all_ends):
                m.d.sync += self.running.eq(0)

    def _load(self, m: Module) -> None:
        op = self.op
        m.d.sync += self.kind.eq(Cat(op.op == code for code in KINDS))
        group = Signal(8)
        m.d.comb += group.eq(Mux(op.op == Op.QUANT, op.group, Mux(op.op == Op.ROPE, op.columns, GROUP)))
        m.d.sync += [
            self.group.eq(group),
            self._group_left.eq(group),
            self._columns.eq(op.columns),
            self._left.eq(op.columns),
        ]
        m.d.sync += [self._heads.eq(op.heads), self._heads_left.eq(op.heads)]
        m.d.sync += self._tokens_left.eq(Mux(op.op == Op.ARGMAX, 1, op.tokens))
        m.d.sync += [
            self.running.eq(1),
            self.group_first.eq(1),
            self.row_first.eq(1),
            self.turn.eq(1),
            self._wait.eq(0),
        ]
