"""One of each hazard, seeded: the simulator names it as it runs, the static checker refuses the program before. Exact messages.

In a message {0}, {1} stand for the micro-ops of the case, in full. A case without a text for one of the two passes there.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from programs import CHIP, assemble, read
from tapeout.base.errors import BadInput, Hazard
from tapeout.isa.check import check_program
from tapeout.isa.opcodes import Flag, MicroOp, Op
from tapeout.isa.predict import predict
from tapeout.isa.program import WRITE, ZERO, Base
from tapeout.isa.timing import SEND_PIPE, latency, occupancy
from tapeout.sim.engine import ProgramEngine

V, P, R = 0x2000, 0x4000, 0x6000
"""Regions of `programs.SRAM`: vectors, packets, results."""
ROW_BLOCK = 8 * (1 + 2 * 34)
"""Bytes of a matrix of 8 rows x 64 columns, int8."""


def operand(issue: int = 0, a: int = P, **changes: Any) -> MicroOp:
    return MicroOp(Op.OPERAND, issue=issue, a=a, s0=68, tokens=1, columns=64, **changes)


def matmul(issue: int, dst: int = R, rows: int = 8, **changes: Any) -> MicroOp:
    return MicroOp(Op.MATMUL, issue=issue, dst=dst, s0=128, rows=rows, columns=64, tokens=1, **changes)


def streamed(issue: int, dst: int = R, rows: int = 8, **changes: Any) -> MicroOp:
    """A matmul whose weights come from the stream."""
    return matmul(issue, dst, rows, flags=Flag.STREAM, s4=rows // 8 * ROW_BLOCK, **changes)


def quant(issue: int = 0, a: int = V, dst: int = P, **changes: Any) -> MicroOp:
    return MicroOp(Op.QUANT, issue=issue, a=a, s0=256, dst=dst, s1=68, columns=64, group=32, tokens=1, **changes)


def send(issue: int = 0, tile: int = 0, a: int = P, dst: int = P + 0x1000, targets: int = 2) -> MicroOp:
    """4 cycles busy."""
    return MicroOp(Op.SEND, tile, issue=issue, a=a, s0=64, dst=dst, s1=64, rows=1, columns=64, s2=targets)


def send_out(issue: int = 0, columns: int = 64) -> MicroOp:
    return MicroOp(Op.SEND, issue=issue, flags=Flag.EXTERNAL, a=P, rows=1, columns=columns)


def write(size: int) -> tuple[int, ...]:
    return (WRITE, 0, 0, 1, size, 0, 0, 0, 0)


def score(issue: int = 0, dst: int = R, **changes: Any) -> MicroOp:
    return MicroOp(
        Op.SCORE, issue=issue, a=P, s0=34, s1=34, b=V, dst=dst, s2=32, heads=1, tokens=1, rows=8, columns=32, **changes
    )


def streamed_norm(issue: int) -> MicroOp:
    return MicroOp(
        Op.NORM, issue=issue, a=V, dst=P + 0x100, columns=32, tokens=1, flags=Flag.STREAM, s2=0x3727C5AC, s3=0x3D000000, s4=128
    )  # fmt: skip


def value(issue: int, a: int = R, **changes: Any) -> MicroOp:
    return MicroOp(Op.VALUE, issue=issue, a=a, s2=32, b=V + 0x1000, heads=1, tokens=1, rows=8, columns=32, **changes)


OPERAND_BUSY, OPERAND_DONE = occupancy(operand(), CHIP), latency(operand(), CHIP)
QUANT_BUSY, QUANT_DONE = occupancy(quant(), CHIP), latency(quant(), CHIP)
SCORE_DONE = latency(score(), CHIP)
NORM_DONE = latency(streamed_norm(0), CHIP)
ARRIVES = SEND_PIPE + CHIP.link.hop_cycles
"""Cycles from a send's issue to its first byte in a neighbour."""


@dataclass(frozen=True)
class Case:
    """Micro-ops, what the simulator and the checker say of them, and how the program is put together."""

    ops: list[MicroOp]
    seen: str
    """After "segment 'seeded' (turn 0, block 0), cycle N: "; the whole text where it does not begin with an op."""
    refused: str
    """After "program, segment 'seeded': "; the whole text where it begins with "program"."""
    how: dict[str, Any] = field(default_factory=dict)


CASES = {
    "a byte read in flight": Case(
        [quant(), operand(QUANT_DONE - 1)],
        "[{1}] reads bytes that are still in flight from [{0}]",
        f"a byte is read in cycle {QUANT_DONE - 1}, in use until {QUANT_DONE}: {{0}} | {{1}}",
    ),
    "a byte overwritten in flight": Case(
        [quant(), send(4, tile=1, a=P + 0x1000, dst=P, targets=1)],
        "[{1}] overwrites bytes that are still in use by [{0}]",
        f"a byte is overwritten in cycle {4 + ARRIVES}, in use until {QUANT_DONE}: {{0}} | {{1}}",
    ),
    "a byte overwritten while read": Case(
        [operand(), send(OPERAND_BUSY - 1 - ARRIVES, tile=1, a=P + 0x1000, dst=P, targets=1)],
        "[{1}] overwrites bytes that are still in use by [{0}]",
        f"a byte is overwritten in cycle {OPERAND_BUSY - 1}, in use until {OPERAND_BUSY}: {{0}} | {{1}}",
    ),
    "a read port used twice": Case(
        [operand(), send(2, a=P + 0x100)],
        "[{1}] uses an SRAM bank port that is taken by [{0}]",
        "the read port of bank 4 of tile 0 is used twice in cycle 2: {0} | {1}",
    ),
    "a write port used twice": Case(
        [send(0, tile=1, dst=R, targets=1), send(0, tile=2, dst=R + 0x100, targets=1)],
        "[{1}] uses an SRAM bank port that is taken by [{0}]",
        f"the write port of bank 6 of tile 0 is used twice in cycle {ARRIVES}: {{0}} | {{1}}",
    ),
    "a link slot used twice": Case(
        [send(targets=0b1010), send(1, tile=1, a=R, dst=R + 0x1000, targets=0b1000)],
        "[{1}] uses a link slot that is taken by [{0}]",
        f"the link from tile 1 to tile 3 is used twice in cycle {ARRIVES}: {{0}} | {{1}}",
    ),
    "a busy unit": Case(
        [quant(), quant(QUANT_BUSY - 1, a=V + 0x1000, dst=R)],
        "[{1}] issues while its unit is busy with [{0}]",
        f"unit vector is busy until cycle {QUANT_BUSY}: {{0}} | {{1}}",
    ),
    "an operand not loaded": Case(
        [operand(), matmul(OPERAND_DONE - 1)],
        "[{1}] multiplies before the operand is loaded by [{0}]",
        f"the operand is loaded in cycle {OPERAND_DONE}: {{0}} | {{1}}",
    ),
    "query states scored and already used": Case(
        [score(), value(SCORE_DONE - 1, a=R + 0x1000)],
        "[{1}] uses query states that are in flight from [{0}]",
        f"the query states are in flight until cycle {SCORE_DONE}: {{0}} | {{1}}",
    ),
    "query states reset in flight": Case(
        [score(), score(SCORE_DONE - 1, dst=R + 0x1000, flags=Flag.FIRST)],
        "[{1}] uses query states that are in flight from [{0}]",
        f"the query states are in flight until cycle {SCORE_DONE}: {{0}} | {{1}}",
    ),
    "an address outside the SRAM": Case(
        [operand(a=0x10000 - 34)],
        "[{0}] addresses bytes outside the SRAM",
        "bytes 0xffde..0x10022 leave no region: {0}",
    ),
    "an address outside the SRAM in a later turn": Case(
        [operand(a_base=1)],
        "segment 'seeded' (turn 2, block 0), cycle 0: [{0}] addresses bytes outside the SRAM",
        "bytes 0x4000..0x16044 leave region packets, which ends at 0x6000: {0}",
        {"bases": (ZERO, Base("moving", outer=0x9000)), "count": 3, "repeat": 1},
    ),
    "a write into a constant region": Case(
        [quant(dst=0x100)],
        "[{0}] writes into a constant region",
        "writes into constant region weights: {0}",
    ),
    "a completion after the segment": Case(
        [quant()],
        "[{0}] completes after its segment has ended",
        f"completes in cycle {QUANT_DONE}, after the segment's {QUANT_DONE - 1}: {{0}}",
        {"cycles": QUANT_DONE - 1},
    ),
    "a stream buffer overrun": Case(
        [operand(), streamed(OPERAND_DONE, rows=16)],
        "[{1}] waits for bytes that can never come: stream buffer overrun, or no descriptor brings them",
        "overruns the stream buffer of 1024 bytes: {1}",
        {"descriptors": [read(2 * ROW_BLOCK)]},
    ),
    "a stream that is never fed": Case(
        [operand(), streamed(OPERAND_DONE)],
        "[{1}] takes other bytes from the stream than its descriptor brings",
        "takes 552 bytes of the stream, the next descriptor brings 0: {1}",
    ),
    "a stream that brings other bytes": Case(
        [operand(), streamed(OPERAND_DONE)],
        "[{1}] takes other bytes from the stream than its descriptor brings",
        "takes 552 bytes of the stream, the next descriptor brings 544: {1}",
        {"descriptors": [read(ROW_BLOCK - 8)]},
    ),
    "stream bytes that nobody takes": Case(
        [operand()],
        "entry 'token_head': tile 0 was brought the bytes of 1 descriptors that no micro-op takes",
        "brings tile 0 64 bytes that nobody takes",
        {"descriptors": [read(64)]},
    ),
    "a write without a descriptor": Case(
        [send_out()],
        "[{0}] takes other bytes from the stream than its descriptor brings",
        "program, loop 'loop': tile 0 writes +64 bytes more than its descriptors carry",
    ),
    "a write descriptor without a write": Case(
        [operand()],
        "[{0}] ends while the streamer cannot finish its list, before it",
        "program, loop 'loop': tile 0 writes -64 bytes more than its descriptors carry",
        {"descriptors": [write(64)]},
    ),
    "a descriptor outside external memory": Case(
        [operand(), streamed(OPERAND_DONE)],
        "descriptor 0 of the step: bytes 0xffdc..0x10204 leave the 65536 of external memory",
        "a descriptor's bytes 0xffdc..0x10204 leave the 65536 of external memory",
        {"descriptors": [read(ROW_BLOCK, address=0xFFDC)]},
    ),
    "a stream that waits behind a full buffer of another tile": Case(
        [
            operand(), operand(tile=1), streamed(OPERAND_DONE), streamed(OPERAND_DONE, tile=1),
            streamed(OPERAND_DONE + 30, R + 0x1000, tile=1),
        ],
        "[{2}] waits for bytes that can never come: stream buffer overrun, or no descriptor brings them",
        "",
        {"descriptors": [read(ROW_BLOCK, mask=2), read(ROW_BLOCK, mask=2), read(ROW_BLOCK)]},
    ),
    "more in flight than the write buffer holds": Case(
        [send_out(0, 5000), send_out(313, 5000)],
        "[{1}] waits for room in the write buffer that never comes free",
        "",
        {"descriptors": [write(5000), write(5000)]},
    ),
    "room that an earlier micro-op has not given back": Case(
        [streamed_norm(0), streamed(1), streamed(NORM_DONE - 1, R + 0x1000)],
        "[{2}] waits for bytes that can never come: stream buffer overrun, or no descriptor brings them",
        "overruns the stream buffer of 1024 bytes: {2}",
        {"descriptors": [read(128), read(ROW_BLOCK), read(ROW_BLOCK)]},
    ),
    "a segment too short": Case(
        [operand()],
        "segment 'seeded' lasts 15 cycles; the sequencer needs 16 to fetch the next segment",
        "lasts 15 cycles; the sequencer needs 16 to fetch the next segment",
        {"cycles": 15},
    ),
    "two that take from the stream in one cycle": Case(
        [operand(), streamed(OPERAND_DONE), streamed_norm(OPERAND_DONE)],
        "segment 'seeded': [{2}] takes from the stream in the same cycle as [{1}]",
        "take from the stream in one cycle: {1} | {2}",
        {"descriptors": [read(ROW_BLOCK), read(128)]},
    ),
    "micro-ops out of order": Case(
        [operand(10), quant(5, dst=R)],
        "segment 'seeded': [{1}] stands behind [{0}], which issues later",
        "is not in order of issue: {0} | {1}",
    ),
}  # fmt: skip


def filled(template: str, ops: list[MicroOp]) -> str:
    return template.format(*(" ".join(str(op).split()) for op in ops))


@pytest.mark.parametrize("name", CASES)
def test_the_simulator_names(name):
    case = CASES[name]
    with pytest.raises(Hazard) as caught:
        ProgramEngine(assemble(case.ops, **case.how)).step([0], 0)
    wanted = filled(case.seen, case.ops)
    if wanted.startswith("["):
        at_fault = next(op for op in case.ops if wanted.startswith(filled("[{0}]", [op])))
        wanted = f"segment 'seeded' (turn 0, block 0), cycle {at_fault.issue}: {wanted}"
    assert str(caught.value) == wanted


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].refused])
def test_the_checker_refuses(name):
    case = CASES[name]
    with pytest.raises(BadInput) as caught:
        check_program(assemble(case.ops, **case.how))
    wanted = filled(case.refused, case.ops)
    assert str(caught.value) == (wanted if wanted.startswith("program") else f"program, segment 'seeded': {wanted}")


def test_a_message_shows_both_micro_ops_in_full():
    with pytest.raises(Hazard) as caught:
        ProgramEngine(assemble([quant(), operand(QUANT_DONE - 1)])).step([0], 0)
    late = QUANT_DONE - 1
    assert str(caught.value) == (
        f"segment 'seeded' (turn 0, block 0), cycle {late}: [{late} tile0 operand x=0x4000 x_stride=68 tokens=1 columns=64] "
        "reads bytes that are still in flight from [0 tile0 quant x=0x2000 x_stride=256 out=0x4000 out_stride=68 "
        "aux=0x0 aux_stride=0 columns=64 group=32 tokens=1]"
    )


FINE = {
    "a read as its writer completes": [quant(), operand(QUANT_DONE)],
    "an overwrite as its reader is done": [
        operand(), send(OPERAND_BUSY - ARRIVES, tile=1, a=P + 0x1000, dst=P, targets=1)
    ],
    "one read port, one after the other": [operand(), send(OPERAND_BUSY, a=P + 0x100)],
    "one link, one packet behind the other": [
        send(targets=0b1010), send(5, tile=1, a=R, dst=R + 0x1000, targets=0b1000)
    ],
    "a unit that has just become free": [quant(), quant(QUANT_BUSY, a=V + 0x1000, dst=R)],
    "an operand that has just been loaded": [operand(), matmul(OPERAND_DONE)],
    "query states that are just complete": [score(), value(SCORE_DONE, a=R + 0x1000)],
    "scores that go on with the same states": [score(), score(4, dst=R + 0x1000)],
    "query states apart": [score(), value(SCORE_DONE - 1, a=R + 0x1000, slot=1)],
}  # fmt: skip


def test_stream_room_comes_free_in_the_order_of_use():
    """4, 18 and 18 beats of a buffer's 32: the second micro-op completes early, and gives its room back with the first."""
    ops = [streamed_norm(0), streamed(1), streamed(NORM_DONE, R + 0x1000)]
    program = assemble(ops, descriptors=[read(128), read(ROW_BLOCK), read(ROW_BLOCK)])
    check_program(program)
    engine = ProgramEngine(program)
    engine.step([0], 0)
    promised = predict(program, program.entry("token_head"), 0)
    assert engine.last_runs[0].held_by_op == promised.held_by_op
    assert promised.held_by_op[2] > 0


@pytest.mark.parametrize("name", FINE)
def test_one_cycle_later_is_fine(name):
    program = assemble(FINE[name])
    check_program(program)
    ProgramEngine(program).step([0], 0)


def test_the_checker_knows_more_than_one_run_sees():
    """A write that leaves its region only in a later turn, into bytes that belong to another."""
    op = quant(dst_base=1)
    program = assemble([op], bases=(ZERO, Base("moving", outer=0x1000)), count=3)
    with pytest.raises(BadInput, match=r"bytes 0x4000\.\.0x6044 leave region packets, which ends at 0x6000: "):
        check_program(program)
