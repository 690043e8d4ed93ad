"""The unit sequencer: every micro-op of the turns is handed over in the cycle that the program says, once, in order, whatever holds the clock.

A turn is a segment's run. Given, of any program: a segment's micro-ops of one unit have rising issue cycles inside of the segment; of the conductor:
the next turn is published once, at least a cycle before this one ends.
"""

from types import ModuleType

import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import Array, DomainRenamer, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data
from prove import Opened, anything, claim, constant, given, holds, lemma, look, mutant, proved

from tapeout.isa.opcodes import ADDRESSES, Flag, Op, Unit
from tapeout.rtl import unit_sequencer
from tapeout.rtl.ports import ADDRESS_BITS, ISSUE

pytestmark = pytest.mark.slow

ROWS = 8
"""Of the instruction memory."""
BEAT = 32
ISSUES = "A micro-op issues in its own cycle and in no other"
HANDED = "The unit gets a micro-op in the cycle after, and only then"
WHOLE = "The unit gets the micro-op as it stands in the program, with its bases added"
NEVER = "No micro-op is said to be late"

SPAN = data.StructLayout({"start": 16, "end": 16, "last": 24})
"""A turn: its micro-ops, and its last cycle."""


class Turns:
    """Any sequence of turns, as the conductor counts them: `this` while `running`, and `next` once it is `published`."""

    def __init__(self, m: Module, box: unit_sequencer.UnitSequencer, ranges: data.View, tick: Value):
        self.this, self.next, self.running, self.published = Signal(SPAN), Signal(SPAN), Signal(), Signal()
        now, parity, switch, ends = Signal(24), Signal(), Signal(), Signal()
        begin, last = anything(m, 1, "begin"), anything(m, 24, "last")
        m.d.comb += [
            box.now.eq(now), box.parity.eq(parity), box.publish.eq(anything(m, 1, "publish") & ~self.published),
            ends.eq(self.running & (now == self.this.last)), switch.eq(self.published & Mux(self.running, ends, begin)),
        ]  # fmt: skip
        given(m, ~box.publish | ~ends & (ranges.start <= ranges.end) & (ranges.end <= ROWS))
        with m.If(tick):
            m.d.sync += now.eq(now + 1)
            with m.If(box.publish):
                m.d.sync += [self.published.eq(1), self.next.eq(SPAN.const({})), self.next.last.eq(last)]
                m.d.sync += [self.next.start.eq(ranges.start), self.next.end.eq(ranges.end)]
            with m.If(switch):
                m.d.sync += [
                    now.eq(0),
                    parity.eq(~parity),
                    self.this.eq(self.next),
                    self.running.eq(1),
                    self.published.eq(0),
                ]
            with m.Elif(ends):
                m.d.sync += [self.running.eq(0), self.this.end.eq(self.this.start)]


def within(at: Value, span: data.View) -> Value:
    return (span.start <= at) & (at < span.end)


def clocked(m: Module, box: unit_sequencer.UnitSequencer, body: Opened) -> Signal:
    """The sequencer on its clocks, that tick when it asks for it or others do, and stand still while compute is held. Returns when compute ticks."""
    tick, unit, other = Signal(), anything(m, 1, "unit_is_active"), anything(m, 1, "other_unit_issues")
    clocks = EnableInserter({"sync": tick & (box.clocking | unit), "issue": tick & (box.match | other)})
    m.submodules.box = DomainRenamer({"issue": "sync", "load": "sync"})(clocks(body.module))
    m.d.comb += tick.eq(~anything(m, 1, "hold"))
    return tick


def in_turns(module: ModuleType = unit_sequencer):
    """Claims for one row of the instruction memory: it is any, so they hold for all."""

    def build(m: Module) -> None:
        box = module.UnitSequencer(Unit.LINK, ROWS, BEAT)
        body, watched, following = Opened(box), constant(m, range(ROWS), "watched"), Signal(13)
        store, ranges = body.part("micro_ops"), look(m, body.part("ranges"), box.next_segment)
        row, head, second = (look(m, store, at) for at in (watched, box.pointer, following))
        m.d.comb += [following.eq(box.pointer + 1), box.next_segment.eq(anything(m, 6, "segment"))]
        turns = Turns(m, box, ranges, clocked(m, box, body))
        for there, span in ((turns.running, turns.this), (turns.published, turns.next)):
            _in_order(m, there, span, (watched, row), (box.pointer, head))
            _in_order(m, there, span, (box.pointer, head), (following, second))
        due = turns.running & within(watched, turns.this) & (row.issue == box.now)
        claim(m, ISSUES, (box.match & (box.pointer == watched)) == due)
        claim(m, NEVER, ~box.late)
        _lemmas(m, box, body, turns, (watched, row), head)

    return build


def _in_order(m: Module, there: Value, span: data.View, *rows: tuple[Value, data.View]) -> None:
    """Two rows of any program: they issue inside of their turn, the earlier one earlier."""
    (one, first), (two, second) = rows
    for at, row in rows:
        given(m, ~there | ~within(at, span) | (row.issue <= span.last))
    both = there & within(one, span) & within(two, span)
    given(m, ~both | (one == two) | ((one < two) == (first.issue < second.issue)) & (first.issue != second.issue))


def handing_over(unit: Unit, *fault: tuple[str, str]):
    """From the head of the stream to the unit's registers, with 4 base registers in place of 32."""
    module = mutant(
        unit_sequencer,
        ("import BASES, MICRO_OP", "import MICRO_OP"),
        ("POINTER_BITS = 12", "BASES, POINTER_BITS = 4, 12"),
        *fault,
    )

    def build(m: Module) -> None:
        box = module.UnitSequencer(unit, ROWS, BEAT)
        body, wanted, after, issued = Opened(box), Signal(ISSUE), Signal(ISSUE), Signal()
        for name in ("now", "parity", "publish", "values", "position", "block", "stream_address"):
            m.d.comb += getattr(box, name).eq(anything(m, len(getattr(box, name)), name))
        tick = clocked(m, box, body)
        m.d.comb += wanted.eq(_expected(m, unit, box, body["head"].data))
        with m.If(tick):
            m.d.sync += issued.eq(box.match)
            with m.If(box.match):
                m.d.sync += after.eq(wanted)
        claim(m, HANDED, box.go == issued)
        claim(m, WHOLE, box.op.as_value() == after.as_value())

    return build


def _expected(m: Module, unit: Unit, box: unit_sequencer.UnitSequencer, head: data.View) -> Signal:
    """A micro-op with its bases added, and where its operand stands in the stream buffer."""
    wanted, values = (
        Signal(ISSUE),
        Array(box.values.word_select(k, ADDRESS_BITS) for k in range(len(box.values) // ADDRESS_BITS)),
    )
    m.d.comb += [getattr(wanted, name).eq(getattr(head, name)) for name in unit_sequencer.PASSED_ON]
    m.d.comb += [wanted.position.eq(box.position), wanted.inner.eq(box.block)]
    for slot in ADDRESSES:
        m.d.comb += getattr(wanted, slot).eq(getattr(head, slot) + values[getattr(head, f"{slot}_base")[:2]])
    if unit is not Unit.LINK:
        streamed = (head.flags & int(Flag.STREAM)) != 0
        with m.If(streamed & (head.op == int(Op.NORM)) & (unit is Unit.VECTOR)):
            m.d.comb += wanted.c.eq(box.stream_address)
        with m.Elif(streamed):
            m.d.comb += wanted.b.eq(box.stream_address)
    return wanted


def _lemmas(m: Module, box, body: Opened, turns: Turns, watched: tuple[Value, data.View], head: data.View) -> None:
    """How the sequencer and the turns stand to each other in every cycle."""
    (at, row), pointer = watched, box.pointer
    have, tag, ready, end = (body[name] for name in ("have", "tag", "ready", "end"))
    now, coming = have & (tag == box.parity), have & (tag != box.parity)
    read, published = body["head"], body["ranges"]
    lemma(m, "The head is the row that the pointer names", ~have | (read.data.as_value() == head.as_value()))
    lemma(
        m,
        "A head of this turn still waits",
        ~now | turns.running & within(pointer, turns.this) & (box.now <= head.issue),
    )
    lemma(m, "The end is this turn's", ~now | (end == turns.this.end))
    lemma(m, "A turn ends with its last cycle", ~turns.running | (box.now <= turns.this.last))
    left = turns.running & within(at, turns.this) & (row.issue >= box.now)
    lemma(m, "What is left of this turn is the head or after it", ~left | now & (pointer <= at))
    lemma(m, "What is published is read", ~ready | turns.published & ~coming)
    same = (published.start == turns.next.start) & (published.end == turns.next.end)
    lemma(m, "The range read is the published one", ~ready | same)
    fetched = turns.published & ~ready
    empty = turns.next.start == turns.next.end
    lemma(m, "The next turn's first is fetched", ~fetched | Mux(empty, ~have, coming))
    lemma(
        m, "Nothing is fetched too early", ~coming | fetched & (pointer == turns.next.start) & (end == turns.next.end)
    )
    for there, span in ((turns.running, turns.this), (turns.published, turns.next)):
        lemma(m, "A turn's micro-ops are a range", ~there | (span.start <= span.end) & (span.end <= ROWS))


def test_each_micro_op_issues_in_its_cycle_once_and_in_order(tmp_path) -> None:
    """By induction: for ever, for any program of 8 rows, any turns and any hold pattern."""
    assert (verdict := proved(in_turns(), tmp_path)), verdict


@pytest.mark.parametrize("unit", Unit)
def test_each_micro_op_that_issues_is_handed_over_once_and_whole(unit: Unit, tmp_path) -> None:
    """By induction: for ever, for any micro-op, any bases and any hold pattern."""
    assert (verdict := proved(handing_over(unit), tmp_path)), verdict


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(head.data.issue == self.now)", "(head.data.issue <= self.now + 1)"),
        ("have & (tag == self.parity) & (", "have & ("),
        ("take.eq(ready & (~have | (self.match & ~more)))", "take.eq(ready & ~have & ~self.match)"),
    ],
)
def test_a_sequencer_that_is_early_or_late_is_refuted(old: str, new: str, tmp_path) -> None:
    verdict = holds(in_turns(mutant(unit_sequencer, (old, new))), tmp_path, 5)
    assert verdict.refutes(ISSUES), verdict


@pytest.mark.parametrize(
    ("old", "new", "failed"),
    [("take | self.go)", "take)", HANDED), ("getattr(head, slot) + base", "getattr(head, slot)", WHOLE)],
)
def test_a_sequencer_that_hands_over_twice_or_a_part_is_refuted(old: str, new: str, failed: str, tmp_path) -> None:
    verdict = holds(handing_over(Unit.LINK, (old, new)), tmp_path, 5)
    assert verdict.refutes(failed), verdict
