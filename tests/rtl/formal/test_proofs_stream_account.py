"""The tile's account of its stream buffer: what a micro-op in flight may still read is not given back, and nothing else is kept.

With the streamer's proof (a beat is sent only where it has room) and the tile's rule (a micro-op issues when its beats have arrived) this is why no
beat is overwritten before it was used: arrived <= sent <= freed + room, and freed <= the first beat of any micro-op in flight.

Some of the 5 kinds of micro-op, few of each in flight in place of 31, counts of 3 bits in place of 16. Given: one micro-op takes from the stream per
cycle; a buffer has fewer beats than the counts count; each kind completes in order, and fewer than IN_FLIGHT are in flight.
"""

import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from prove import BITWISE, Opened, anything, claim, given, holds, lemma, mutant, proved

from tapeout.rtl import stream_account

pytestmark = pytest.mark.slow

BITS = 3
ONE_KIND, THREE_KINDS = (("matmul",), 4), (("matmul", "norm", "embed"), 2)
"""Kinds, and places for those in flight: at most one fewer are."""
KEPT = "What a micro-op in flight takes is not given back"
BACK = "What no micro-op in flight takes is given back"
ONCE = "Room that was given back stays so"
COUNTED = "Used beats are those of all micro-ops that issued"


class InFlight:
    """The micro-ops of a kind in flight, oldest first: whether from the stream, and how many beats were used since, with its own."""

    def __init__(self, m: Module, box: stream_account.StreamAccount, name: str, places: int, taken: Value):
        self.name, self.places, self.count = name, places, Signal(range(places), name=f"{name}_count")
        self.issued, self.streamed, self.done = (getattr(part, name) for part in (box.issued, box.streamed, box.done))
        self.ops = [(Signal(name=f"{name}_streamed{k}"), Signal(BITS, name=f"{name}_since{k}")) for k in range(places)]
        for port in (self.issued, self.streamed, self.done):
            m.d.comb += port.eq(anything(m, 1, port.name))
        given(m, (~self.issued | (self.count < places - 1)) & (~self.done | (self.count != 0)))
        m.d.sync += self.count.eq(self.count + self.issued - self.done)
        for k, (streamed, since) in enumerate(self.ops):
            older = self.ops[k + 1] if k + 1 < places else (streamed, since)
            new = self.issued & (self.count - self.done == k)
            m.d.sync += streamed.eq(Mux(new, self.streamed, Mux(self.done, older[0], streamed)))
            m.d.sync += since.eq(Mux(new, 0, Mux(self.done, older[1], since)) + taken)

    def takes(self, k: int) -> Value:
        """Whether the k-th is there, and takes from the stream beyond this cycle."""
        return (self.count > k) & self.ops[k][0] & ~(self.done & (k == 0))


def account(names: tuple[str, ...], places: int, *fault: tuple[str, str]):
    """Any micro-ops that issue and complete, beside what the account says of them."""
    takers = "".join(f"Op.{name.upper()}, " for name in names)
    small = (
        ("Op.MATMUL, Op.NORM, Op.EMBED, Op.SCORE, Op.VALUE", takers),
        ("= 32", f"= {places}"),
        ("= 16", f"= {BITS}"),
    )

    def build(m: Module) -> None:
        box = mutant(stream_account, *small, *fault).StreamAccount()
        body, used, kept_before = Opened(box), Signal(BITS), Signal(BITS)
        m.submodules.box = body.module
        taken, kept = Signal(BITS), Signal(BITS)
        kinds = [InFlight(m, box, name, places, taken) for name in names]
        wants = [kind.issued & kind.streamed for kind in kinds]
        m.d.comb += [
            box.beats.eq(anything(m, BITS, "beats")),
            taken.eq(Mux(Cat(wants).any(), box.beats, 0)),
            kept.eq(used - box.freed),
        ]
        given(m, (sum(wants) <= 1) & (kept + taken < 1 << BITS))
        m.d.sync += used.eq(used + taken)
        behind = [(kind.takes(k), kind.ops[k][1]) for kind in kinds for k in range(places - 1)]
        needed: Value = Const(0)
        for takes, beats in behind:
            claim(m, KEPT, ~takes | (beats <= kept))
            needed |= takes & (beats == kept)
        claim(m, BACK, (kept == 0) | needed)
        m.d.sync += kept_before.eq(kept + taken)
        claim(m, ONCE, kept <= kept_before)
        claim(m, COUNTED, box.used == used)
        for kind in kinds:
            _lemmas(m, body, kind, used, kept_before)

    return build


def _lemmas(m: Module, body: Opened, kind: InFlight, used: Value, most: Value) -> None:
    """The account's ring is the queue of those in flight, and each of them is younger than the one before."""
    flags, into, out, first, last = (
        body[f"{kind.name}_{what}"] for what in ("flags", "flag_in", "flag_out", "first", "last")
    )
    starts, bits = Array(body[f"{kind.name}_start{k}"] for k in range(kind.places)), len(first)
    streamed: Value = Const(0, bits)
    lemma(m, "As many are in flight as issued and are not done", (into - out)[:bits] == kind.count)
    for k, (from_stream, since) in enumerate(kind.ops[:-1]):
        mine = (kind.count > k) & from_stream
        start = starts[(first + streamed)[:bits]]
        lemma(
            m,
            "What is in flight is flagged",
            (kind.count <= k) | (flags.bit_select((out + k)[:bits], 1) == from_stream),
        )
        lemma(m, "What is in flight has its start", ~mine | ((used - start)[:BITS] == since))
        lemma(m, "What issued later has used less since", ~mine | (since <= most))
        most, streamed = Mux(mine, since, most), (streamed + mine)[:bits]
    lemma(m, "As many starts are kept as take from the stream", (last - first)[:bits] == streamed)


@pytest.mark.parametrize(("names", "places"), [ONE_KIND, THREE_KINDS])
def test_room_is_given_back_once_it_is_used_and_not_before(names: tuple[str, ...], places: int, tmp_path) -> None:
    """By induction: for ever, for any micro-ops and any hold pattern between issue and completion."""
    assert (verdict := proved(account(names, places), tmp_path, BITWISE)), verdict


@pytest.mark.parametrize(
    ("size", "old", "new", "failed"),
    [
        (ONE_KIND, "starts[last].eq(self.used)", "starts[last].eq(self.used + self.beats)", KEPT),
        (THREE_KINDS, "Mux(behind > oldest, behind, oldest)", "Mux(behind < oldest, behind, oldest)", KEPT),
        (ONE_KIND, "oldest.eq(first + ends)", "oldest.eq(first)", BACK),
        (ONE_KIND, "self.used + self.beats", "self.used + 1", COUNTED),
    ],
)
def test_a_broken_account_is_refuted(size, old: str, new: str, failed: str, tmp_path) -> None:
    verdict = holds(account(*size, (old, new)), tmp_path, 6)
    assert verdict.refutes(failed), verdict
