"""The engine: cycles and waits to the micro-op, traces, what a step may ask."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from programs import assemble, read
from tapeout.base.errors import BadInput
from tapeout.isa.opcodes import Flag, MicroOp, Op
from tapeout.isa.program import Image
from tapeout.isa.timing import latency
from tapeout.isa.trace import FNV_OFFSET, FNV_PRIME
from tapeout.sim.engine import ProgramEngine

V, P, R = 0x2000, 0x4000, 0x6000


def quant(issue: int = 0) -> MicroOp:
    return MicroOp(Op.QUANT, issue=issue, a=V, dst=P, columns=32, group=32, tokens=1)


def streamed_norm(issue: int) -> MicroOp:
    return MicroOp(
        Op.NORM,
        issue=issue,
        a=V,
        dst=P + 0x1000,
        columns=32,
        tokens=1,
        flags=Flag.STREAM,
        s2=0x3727C5AC,
        s3=0x3D000000,
        s4=128,
    )


def fnv(data: bytes) -> int:
    digest = FNV_OFFSET
    for byte in data:
        digest = (digest ^ byte) * FNV_PRIME % 2**64
    return digest


def test_nothing_is_held_without_external_memory():
    program = assemble([quant()], cycles=100, count=3)
    engine = ProgramEngine(program)
    engine.step([0], 0)
    (run,) = engine.last_runs
    assert (run.entry, run.cycles, run.held, run.wall, run.held_by_op) == ("token_head", 300, 0, 300, {})


def test_a_wait_belongs_to_the_micro_op_that_waited():
    """Latency is 40 cycles and 4 beats of 32 bytes at 12 bytes per cycle follow: the norm waits, quant and the end do not."""
    op = streamed_norm(100)
    late, early = (
        ProgramEngine(assemble([quant(), replace(op, issue=at)], descriptors=[read(128)])) for at in (100, 30)
    )
    late.step([0], 0)
    early.step([0], 0)
    assert late.last_runs[0].held_by_op == {}
    (run,) = early.last_runs
    assert list(run.held_by_op) == [1]
    assert run.held == run.held_by_op[1] > 0
    assert 30 + run.held >= 40 + 128 // 12, "latency and transfer are over"


def test_totals_add_up():
    engine = ProgramEngine(assemble([streamed_norm(0)], descriptors=[read(128)]))
    engine.step([0], 0)
    one = engine.totals.wall
    engine.step([0], 1)
    assert engine.totals.wall == 2 * one
    assert engine.totals.held_by_op[0] == engine.totals.held


def test_a_trace_tells_cycles_and_written_bytes():
    x = np.linspace(-2, 3, 32, dtype=np.float32)
    ops = [quant(), streamed_norm(latency(quant(), assemble([]).chip))]
    program = replace(assemble(ops, descriptors=[read(128)], count=2), images=(Image(0, V, x.view(np.uint8)),))
    engine = ProgramEngine(program, trace=True)
    engine.step([0], 0)
    (run,) = engine.last_runs
    trace = run.trace
    assert trace is not None
    cycles = program.entries[0].loops[0].segments[0].cycles
    assert trace["op"].tolist() == [0, 1, 0, 1]
    assert trace["outer"].tolist() == [0, 0, 1, 1]
    assert trace["issue"].tolist() == [0, ops[1].issue, cycles, cycles + ops[1].issue]
    assert (trace["completion"] - trace["issue"]).tolist() == [latency(op, program.chip) for op in ops * 2]
    assert trace["held"].tolist()[0] == 0
    assert trace["held"].tolist()[-1] == run.held
    assert int(trace["written"][0]) == fnv(engine._chip.signed[0, P : P + 34].tobytes())


@pytest.mark.parametrize(
    ("ids", "position", "message"),
    [
        ([], 0, "token ids: none given; a step takes one or more"),
        ([1], 0, "token ids: 1 is not one of 0..0"),
        ([0], 1, "position: 1, but 0 positions are held; run earlier tokens first"),
        ([0] * 9, 0, "position: 0 + 9 tokens exceed the context of 8; compile with more"),
    ],
)
def test_a_step_that_cannot_be(ids: Sequence[int], position: int, message: str):
    with pytest.raises(BadInput) as caught:
        ProgramEngine(assemble([quant()])).step(ids, position)
    assert str(caught.value) == message


def test_going_back_is_allowed():
    engine = ProgramEngine(assemble([quant()]))
    engine.step([0, 0, 0], 0)
    engine.step([0], 1)
    with pytest.raises(BadInput, match="2 positions are held"):
        engine.step([0], 3)


def test_every_token_has_its_logits():
    engine = ProgramEngine(assemble([quant()]))
    assert engine.step([0, 0, 0], 0, every=True).shape == (3, 1)
    assert [run.entry for run in engine.last_runs] == ["token", "head"] * 3
