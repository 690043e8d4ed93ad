"""The streamer: every byte of the descriptor list is asked for once and in order, and no beat is sent that has no room, whatever holds compute or
the memory.

A queue of 4 transfers in place of 32; everything else is the product's: the walk of the loops, any descriptors, any base registers (a stub: theirs is
a clock of its own). Given: a descriptor has bytes and a base register that exists; the memory grants only what is asked for; a tile gives back no
more room than was taken. What becomes of a beat in the tile: test_proofs_stream_account.py.
"""

from types import ModuleType

import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import DomainRenamer, Module, Mux, Signal
from prove import Opened, anything, claim, constant, given, holds, lemma, look, mutant, proved

from chips import make_chip
from tapeout.chip.memory import memory_timing
from tapeout.isa.program import ROW, WRITE
from tapeout.rtl import streamer
from tapeout.rtl.records import BASES
from tapeout.rtl.stream_account import COUNT_BITS

pytestmark = pytest.mark.slow

CHIP = make_chip("1x3", True, tile__micro_ops="16", tile__stream_kib="1", external__beat_bytes="512")
TILES, TIMING = CHIP.grid.tiles, memory_timing(CHIP)
SMALL = ("QUEUE = 32", "QUEUE = 4")
NEXT = "What is queued is the next descriptor of the turn"
ALL = "A turn ends when all of its descriptors are queued"
FITS = "No transfer comes to a full queue"
ORDER = "The queue gives every transfer back, in order"
FOLLOWS = "A beat begins where the one before it ended"
ENDS = "A transfer ends with its last byte"
ROOM = "A beat is sent only if every buffer that it is for has room"
STANDS = "A write begins when its bytes stand in the write buffer"
GIVEN_BACK = "The write buffer's room is given back once per write, with its last beat"
IDLE = "The streamer is idle when nothing is queued or on its way"


class Streaming:
    """The streamer with anything around it."""

    def __init__(self, m: Module, module: ModuleType):
        self.box = box = module.Streamer(CHIP)
        self.body = Opened(box)
        self.queue, self.walker, self.bases = (self.body.part(name) for name in ("queue", "walker", "bases"))
        self.fifo, values = Opened(self.queue), Module()
        values.d.comb += self.bases.values.eq(anything(values, len(self.bases.values), "values"))
        self.body.replace("queue", self.fifo.module)
        self.body.replace("bases", values)
        self.descriptors = self.body.part("descriptors")
        m.submodules.box = DomainRenamer({"load": "sync"})(self.body.module)
        for name in (
            "start",
            "start_row",
            "blocks",
            "setup",
            "streaming",
            "freed",
            "pushed",
            "grant",
            "arrival",
            "arrival_mask",
        ):
            m.d.comb += getattr(box, name).eq(anything(m, len(getattr(box, name)), name))
        self.head = self.body["head"]
        given(m, ~box.grant | box.request)
        given(m, ~self.queue.r_rdy | (self.head.size != 0))


def front(module: ModuleType):
    """From descriptors to the queue."""

    def build(m: Module) -> None:
        s = Streaming(m, module)
        at, left, taken = Signal(16), Signal(16), Signal()
        row, entry, valid, queue = look(m, s.descriptors, at), s.body["entry"], s.body["valid"], s.queue
        with m.If(s.bases.apply):
            m.d.sync += [at.eq(s.walker.row.first_descriptor), left.eq(s.walker.row.descriptors), taken.eq(1)]
        with m.Elif(s.walker.step):
            m.d.sync += taken.eq(0)
        given(m, row.base < BASES)
        with m.If(queue.w_en):
            m.d.sync += [at.eq(at + 1), left.eq(left - 1)]
            claim(m, NEXT, (left != 0) & (s.body["row"].data.as_value() == row.as_value()))
            same = (entry.mask == row.mask[:TILES]) & (entry.size == row.size) & (entry.write == (row.kind == WRITE))
            base = s.bases.values.word_select(row.base[:5], streamer.EXTERNAL_BITS)
            claim(m, NEXT, same & ((row.kind == ROW) | (entry.address == (row.address + base)[: len(base)])))
            claim(m, FITS, queue.w_rdy)
        claim(m, ALL, ~s.bases.apply | (left == 0) & ~taken & s.walker.valid)
        claim(m, ALL, ~s.walker.step | (left == 0) & taken & s.walker.valid)
        claim(m, ALL, ~s.body["finished"] | (left == 0))
        waiting = s.body.state("TURN")
        lemma(m, "What is left to read is what is left to queue", left == Mux(waiting, 0, s.body["left"] + valid))
        lemma(m, "The next to be read comes after what is being read", waiting | (s.body["at"] == (at + valid)[:16]))
        lemma(m, "A turn that was taken is not over", taken == ~waiting)
        lemma(m, "A turn that was taken is the walk's", ~taken | s.walker.valid)
        lemma(m, "What was read is the next", ~valid | (s.body["row"].data.as_value() == row.as_value()))
        lemma(m, "Two places are left for what is being read", queue.w_level + valid <= 4)

    return build


def queue(module: ModuleType):
    """Through the queue: one transfer of the list, any, is watched."""

    def build(m: Module) -> None:
        s = Streaming(m, module)
        fifo, into, out = s.queue, Signal(16), Signal(16)
        watched, noted, ahead = constant(m, 16, "watched"), Signal(fifo.width), Signal(16)
        m.d.sync += [into.eq(into + fifo.w_en), out.eq(out + fifo.r_en)]
        m.d.comb += ahead.eq(watched - out)
        with m.If(fifo.w_en & (into == watched)):
            m.d.sync += noted.eq(fifo.w_data)
        claim(m, ORDER, ~fifo.r_rdy | (out != watched) | (fifo.r_data == noted))
        claim(m, ORDER, ~fifo.r_en | fifo.r_rdy)
        place = look(m, s.fifo.part("storage"), (s.fifo["consume"] + ahead)[:2])
        lemma(m, "As many transfers are queued as came and did not leave", fifo.level == (into - out)[:16])
        lemma(m, "The transfer stands in its place", (ahead >= fifo.level) | (place == noted))
        _ring(m, s)

    return build


def _ring(m: Module, s: Streaming) -> None:
    given(m, ~s.queue.w_en | s.queue.w_rdy)  # claimed by `front`
    at = (s.fifo["consume"] + s.queue.level)[:2]
    lemma(m, "The queue is a ring", (s.fifo["produce"] == at) & (s.queue.level <= 4))


def back(module: ModuleType):
    """From the queue's head to beats."""

    def build(m: Module) -> None:
        s = Streaming(m, module)
        box, head, sent, flying = s.box, s.head, Signal(32), Signal(16)
        ends, popped = Signal(), s.queue.r_en & s.queue.r_rdy
        m.d.comb += ends.eq(sent + box.size == head.size)
        m.d.sync += flying.eq(flying + (box.grant & ~box.write) - box.arrival)
        given(m, head.size <= 1 << 31)
        with m.If(box.grant):
            m.d.sync += sent.eq(Mux(ends, 0, sent + box.size))
            claim(m, FOLLOWS, box.address == (head.address + sent)[: len(box.address)])
            claim(m, FOLLOWS, (box.mask == head.mask) & (box.write == head.write) & (box.first_beat == (sent == 0)))
            claim(m, ENDS, (box.size != 0) & (box.size <= TIMING.beat_bytes) & (ends | (box.size == TIMING.beat_bytes)))
        claim(m, ENDS, (popped == (box.grant & ends)) & (~box.grant | (box.last_beat == ends)))
        claim(m, IDLE, ~box.idle | ~s.queue.r_rdy & (flying == 0))
        lemma(m, "What was sent of a transfer is less than all of it", Mux(s.queue.r_rdy, sent < head.size, sent == 0))
        lemma(m, "The offset is what was sent", s.body["offset"] == sent)
        lemma(m, "The beats on their way are counted", s.body["flying"] == flying)
        _ring(m, s)

    return build


def rooms(module: ModuleType):
    """Room in the stream buffers and in the write buffers, of each tile."""

    def build(m: Module) -> None:
        s = Streaming(m, module)
        box, head = s.box, s.head
        for tile in range(TILES):
            sent, taken, standing = Signal(COUNT_BITS), Signal(32), Signal(32)
            freed, pushed = box.freed.word_select(tile, COUNT_BITS), box.pushed.word_select(tile, 32)
            freed_before = Signal(COUNT_BITS)
            filled, gave = (sent - freed)[:COUNT_BITS], (freed - freed_before)[:COUNT_BITS]
            m.d.sync += freed_before.eq(freed)
            given(m, gave <= (sent - freed_before)[:COUNT_BITS])
            with m.If(box.grant & head.mask[tile]):
                with m.If(~box.write):
                    m.d.sync += sent.eq(sent + 1)
                    claim(m, ROOM, filled < TIMING.buffer_beats)
                with m.Else():
                    m.d.comb += standing.eq(pushed - taken)
                    claim(m, STANDS, ~box.first_beat | (standing >= head.size))
                    with m.If(box.last_beat):
                        m.d.sync += taken.eq(taken + head.size)
            claim(m, GIVEN_BACK, box.taken.word_select(tile, 32) == taken)
            lemma(m, "Sent beats are counted", s.body[f"sent{tile}"] == sent)
            lemma(m, "No more is sent than there is room", (sent - freed_before)[:COUNT_BITS] <= TIMING.buffer_beats)

    return build


PARTS = {
    "descriptors_are_queued_once_and_in_order": front,
    "the_queue_loses_and_repeats_nothing": queue,
    "a_transfers_beats_are_its_bytes_once_and_in_order": back,
    "beats_and_writes_wait_for_room": rooms,
}


@pytest.mark.parametrize("part", PARTS)
def test_the_streamer_loses_and_repeats_nothing(part: str, tmp_path) -> None:
    """By induction: for ever, for any list, any memory and any pattern of room."""
    assert (verdict := proved(PARTS[part](mutant(streamer, SMALL)), tmp_path)), verdict


@pytest.mark.parametrize(
    ("part", "old", "new", "failed"),
    [
        (front, "left.eq(walker.row.descriptors)", "left.eq(walker.row.descriptors + 1)", NEXT),
        (front, "at.eq(at + 1), left", "at.eq(at + 2), left", NEXT),
        (front, "walker.step.eq(1)", "walker.step.eq(0)", ALL),
        (front, "depth=QUEUE", "depth=QUEUE - 3", FITS),
        (queue, "self.grant & self.last_beat)", "self.last_beat)", ORDER),
        (back, "offset + beat >= head.size", "offset + beat > head.size", ENDS),
        (back, "Mux(self.last_beat, 0, offset + beat)", "offset + beat", FOLLOWS),
        (rooms, "filled >= self", "filled > self", ROOM),
        (rooms, "(offset != 0) | ~Cat(short).any()", "1", STANDS),
    ],
)
def test_a_broken_streamer_is_refuted(part, old: str, new: str, failed: str, tmp_path) -> None:
    verdict = holds(part(mutant(streamer, SMALL, (old, new))), tmp_path, 10)
    assert verdict.refutes(failed), verdict
