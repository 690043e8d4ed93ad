"""The attention unit: score, value, attnout (their meanings stand in isa.opcodes), `keys` keys or a few output columns in every cycle.

One pipeline of items, numbered by the cycles behind an item's address (stage 0): a score is written in stage 9 and the greatest one noted in 10;
a value is in its sums after stage 9; in stage 9 too an output leaves the sums, and is written in stage 27. What a micro-op leaves behind in a
state, the next one finds there because it passes the same stages later.
"""

from collections.abc import Iterable

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring

from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import Unit
from tapeout.rtl import scores, weighing
from tapeout.rtl.attention_out import AttentionOut
from tapeout.rtl.attention_walk import COUNT, AttentionWalk
from tapeout.rtl.binary32 import register
from tapeout.rtl.clock_gate import own_clock, wants
from tapeout.rtl.delay import delayed
from tapeout.rtl.kv_records import RecordCut, kv_words, query_words
from tapeout.rtl.ports import attention_out_lanes, unit_signature
from tapeout.rtl.query_states import QueryStates
from tapeout.rtl.scores import Scores
from tapeout.rtl.weighing import Weighing

DATA = 1
"""Stage in which what was read stands."""
SCORED = DATA + scores.SCORED
NOTED = SCORED + 1
"""Stage at whose end m is updated."""
EXPONENT = DATA + scores.EXPONENT
"""Stage at whose end E is updated."""
WEIGHED = DATA + weighing.SUMS
"""Stage at whose end L and N are updated, or read."""
LEAVING = WEIGHED + 1
"""Stage in which L and N of an output stand."""

SCORE_PIPE = SCORED
VALUE_PIPE = 1
"""Nothing but a later micro-op of this unit, further down the same pipeline, sees what value did."""
ATTNOUT_PIPE = LEAVING + AttentionOut.STAGES


CLOCKS = ("scoring", "weighing", "leaves")
"""Clocks of the unit's boxes."""


class AttentionUnit(wiring.Component):
    """See the module and `rtl.ports`.

    Scores, weighing and dividers have clocks of their own, open while something is in them. Without `gated` they have the unit's clock
    and an enable instead, for Amaranth's simulator, which cannot simulate gated clocks.
    """

    def __init__(self, chip: ChipSpec, gated: bool = True):
        self.chip, self.gated, self.keys = chip, gated, chip.tile.attention.keys
        reads = {"q": query_words(chip), "kv": kv_words(chip), "scores": self.keys}
        writes = {"scores_out": self.keys, "out": attention_out_lanes(chip)}
        super().__init__(unit_signature(Unit.ATTENTION, chip, reads, writes) | wants(CLOCKS))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walk = walk = AttentionWalk(self.chip)
        m.submodules.states = states = QueryStates(self.chip)
        m.d.comb += [walk.go.eq(self.go), walk.op.eq(self.op)]
        self._stages(m, walk)
        self._read(m, walk)
        cut, mask = self._cut(m, walk), self._mask(m, walk)
        scoring = self._score(m, walk, cut, mask, states)
        value_path = self._weigh(m, walk, cut, mask, states)
        leaves = self._out(m, walk, value_path, states)
        m.d.comb += [
            self.active.eq(Cat(*self.score, *self.value, *self.leaving, leaves.active).any()),
            self.overflow.eq((self.score[SCORED] & scoring.infinite) | leaves.overflow),
            self.done.score.eq(self.score[SCORED - 1] & self.last[SCORED - 1]), self.done.value.eq(self.value[0] & self.last[0]),
            self.done.attnout.eq(leaves.done),
        ]  # fmt: skip
        return m

    def _stages(self, m: Module, walk: AttentionWalk) -> None:
        """Lists by stage."""
        self.score = delayed(m, walk.score, NOTED, "score", reset_less=False)
        self.value = delayed(m, walk.value, WEIGHED, "value", reset_less=False)
        self.leaving = delayed(m, walk.out, LEAVING, "leaving", reset_less=False)
        self.last = delayed(m, walk.last, LEAVING, "last")
        self.reset = delayed(m, walk.reset, NOTED, "reset")
        self.state = delayed(m, walk.state, LEAVING, "state")
        self.address = delayed(m, Mux(walk.out, walk.row >> 2, walk.scores), LEAVING, "address")

    def _gate(self, m: Module, name: str, unit: wiring.Component, wanted: Iterable[Value]) -> wiring.Component:
        """Put `unit` in on a clock of its own, open while any of `wanted` is high."""
        m.submodules[name] = own_clock(m, self, name, Cat(*wanted).any(), self.gated)(unit)
        return unit

    def _read(self, m: Module, walk: AttentionWalk) -> None:
        m.d.comb += [
            self.q.en.eq(walk.score & walk.start), self.q.addr.eq(walk.row >> 2),
            self.kv.en.eq(walk.score | walk.value), self.kv.stream.eq(walk.stream), self.kv.addr.eq(walk.kv >> 2),
            self.scores.en.eq(walk.value), self.scores.addr.eq(walk.scores),
        ]  # fmt: skip

    def _mask(self, m: Module, walk: AttentionWalk) -> Value:
        """Which of the item's keys count, in the stage after DATA: POS - j*rows is known one stage behind the address."""
        before, position = register("before", 24), register("position", 24)
        names = ("rows", "upto", "recent", "index")
        rows, upto, recent, index = (delayed(m, getattr(walk, name), DATA, name)[DATA] for name in names)
        m.d.sync += [before.eq(walk.inner * walk.rows), position.eq(walk.position)]
        cached, count, mask = Signal(25), Signal(COUNT), register("mask", self.keys)
        m.d.comb += cached.eq(position - before)
        m.d.comb += count.eq(Mux(recent, upto, Mux(cached[24], 0, Mux(cached[:24] < rows, cached[:COUNT], rows))))
        m.d.sync += mask.eq(Cat(index + k < count for k in range(self.keys)))
        return mask

    def _cut(self, m: Module, walk: AttentionWalk) -> RecordCut:
        m.submodules.cut = cut = RecordCut(self.chip)
        self.columns = delayed(m, walk.columns, DATA, "columns")[DATA]
        m.d.comb += [
            cut.en.eq(self.score[DATA] | self.value[DATA]), cut.data.eq(self.kv.data), cut.columns.eq(self.columns),
            cut.key.eq(self.score[DATA]), cut.odd.eq(delayed(m, walk.kv[1], DATA, "kv_odd")[DATA]),
        ]  # fmt: skip
        return cut

    def _score(self, m: Module, walk: AttentionWalk, cut: RecordCut, mask: Value, states: QueryStates) -> Scores:
        scoring = self._gate(m, "scoring", Scores(self.chip), self.score[DATA:])
        m.d.comb += [
            scoring.start.eq(delayed(m, self.q.en, DATA, "starts")[DATA]), scoring.query.eq(self.q.data), scoring.columns.eq(self.columns),
            scoring.odd.eq(delayed(m, walk.row[1], DATA, "row_odd")[DATA]), scoring.mask.eq(mask),
            scoring.constant.eq(delayed(m, walk.constant, DATA, "constant")[DATA]),
            self.scores_out.addr.eq(self.address[SCORED]),
            states.e_en.eq(self.score[EXPONENT]), states.e_state.eq(self.state[EXPONENT]), states.e_reset.eq(self.reset[EXPONENT]),
            states.e.eq(scoring.e_top), states.top_en.eq(self.score[NOTED]), states.top_state.eq(self.state[NOTED]),
            states.top_reset.eq(self.reset[NOTED]), states.top.eq(scoring.top),
        ]  # fmt: skip
        for k in range(self.keys):
            written = self.score[SCORED] & scoring.counts[k]
            m.d.comb += [
                getattr(scoring, f"codes{k}").eq(getattr(cut, f"codes{k}")), getattr(scoring, f"tail{k}").eq(getattr(cut, f"tail{k}")),
                self.scores_out.data[32 * k : 32 * k + 32].eq(getattr(scoring, f"y{k}")),
                self.scores_out.en[4 * k : 4 * k + 4].eq(written.replicate(4)),
            ]  # fmt: skip
        return scoring

    def _weigh(self, m: Module, walk: AttentionWalk, cut: RecordCut, mask: Value, states: QueryStates) -> Weighing:
        passing = [*self.value[DATA:], *self.leaving[WEIGHED - 1 : WEIGHED + 1]]
        path = self._gate(m, "weighing", Weighing(self.chip), passing)
        column = delayed(m, walk.index, WEIGHED - 1, "column")[-1]
        m.d.comb += [
            path.en.eq(self.value[DATA]), states.peek_state.eq(self.state[DATA]), path.top.eq(states.peek_top), path.e.eq(states.peek_e),
            path.turn.eq(states.peek_turn), path.mask.eq(mask), path.state.eq(self.state[WEIGHED - 1]), path.weigh.eq(self.value[WEIGHED - 1]),
            path.out.eq(self.leaving[WEIGHED - 1]), path.column.eq(column),
        ]  # fmt: skip
        for k in range(self.keys):
            m.d.comb += [
                getattr(path, f"codes{k}").eq(getattr(cut, f"codes{k}")), getattr(path, f"tail{k}").eq(getattr(cut, f"tail{k}")),
                getattr(path, f"score{k}").eq(self.scores.data[32 * k : 32 * k + 32]),
            ]  # fmt: skip
        return path

    def _out(self, m: Module, walk: AttentionWalk, path: Weighing, states: QueryStates) -> AttentionOut:
        unit = AttentionOut(self.chip)
        leaves = self._gate(m, "leaves", unit, [self.leaving[LEAVING], unit.active])
        mask = Cat(walk.index + p < walk.columns for p in range(leaves.dividers))
        m.d.comb += [
            leaves.en.eq(self.leaving[LEAVING]), leaves.last.eq(self.last[LEAVING]), leaves.length.eq(path.length),
            states.out_state.eq(self.state[LEAVING]), leaves.e.eq(states.out_e), leaves.addr.eq(self.address[LEAVING]),
            leaves.mask.eq(delayed(m, mask, LEAVING, "columns_out")[-1]),
            self.out.en.eq(leaves.port.en), self.out.addr.eq(leaves.port.addr), self.out.data.eq(leaves.port.data),
            *(getattr(leaves, f"n{p}").eq(getattr(path, f"n{p}")) for p in range(leaves.dividers)),
        ]  # fmt: skip
        return leaves
