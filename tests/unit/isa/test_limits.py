"""What a micro-op may not ask for whatever its cycle: the simulator and the static checker refuse it in the same words."""

from dataclasses import replace
from typing import Any

import pytest

from programs import assemble
from tapeout.base.errors import BadInput, Hazard
from tapeout.isa.check import check_program
from tapeout.isa.limits import check_limits
from tapeout.isa.opcodes import Flag, MicroOp, Op, to_records
from tapeout.isa.program import ZERO, Base

V, P, R = 0x2000, 0x4000, 0x6000
"""Regions of `programs.SRAM`: vectors, packets, results."""


def operand(**changes: Any) -> MicroOp:
    return MicroOp(Op.OPERAND, **{"a": P, "s0": 68, "tokens": 1, "columns": 64, **changes})


def matmul(**changes: Any) -> MicroOp:
    return MicroOp(Op.MATMUL, **{"dst": R, "s0": 128, "rows": 8, "columns": 64, "tokens": 1, **changes})


def quant(**changes: Any) -> MicroOp:
    return MicroOp(Op.QUANT, **{"a": V, "dst": P, "s1": 68, "columns": 64, "group": 32, "tokens": 1, **changes})


def score(**changes: Any) -> MicroOp:
    fields = {"a": P, "b": V, "dst": R, "s2": 32, "heads": 1, "tokens": 1, "rows": 8, "columns": 32}
    return MicroOp(Op.SCORE, **{**fields, **changes})


def send(**changes: Any) -> MicroOp:
    return MicroOp(Op.SEND, **{"a": P, "s0": 64, "dst": R, "s1": 64, "rows": 1, "columns": 64, "s2": 2, **changes})


CASES: dict[str, tuple[MicroOp, str]] = {
    "a tile that is not there": (operand(tile=4), "is for tile 4 of 4"),
    "a flag": (operand(flags=Flag.ADD), "has flags <Flag.ADD: 2> that are not for it"),
    "a base register": (operand(a_base=7), "names a base register that is not there"),
    "half a group": (operand(columns=40), "has 40 columns, not groups of 32"),
    "no token": (operand(tokens=0), "has 0 tokens; the matrix unit takes 1 to 8"),
    "too many tokens": (operand(tokens=9), "has 9 tokens; the matrix unit takes 1 to 8"),
    "an operand too large": (operand(tokens=8, columns=2048), "needs 17408 bytes of the operand buffer's 16384"),
    "a product too wide": (matmul(tokens=8, columns=2048), "needs 17408 bytes of the operand buffer's 16384"),
    "half a row block": (matmul(rows=12), "has 12 rows, not blocks of 8"),
    "weights at an odd word": (matmul(b=2), "has b 0x2, not a multiple of 4"),
    "results at an odd word": (matmul(dst=R + 2), "has dst 0x6002, not a multiple of 4"),
    "packets at an odd byte": (operand(a=P + 1), "has a 0x4001, not a multiple of 2"),
    "packets at an odd stride": (quant(s1=35), "has s1 0x23, not a multiple of 2"),
    "a scale at an odd byte": (quant(b=P + 0x101, group=64, flags=Flag.AUX), "has b 0x4101, not a multiple of 2"),
    "nothing to quantize": (quant(columns=0), "has no columns"),
    "two scales, each twice": (quant(flags=Flag.AUX), "writes a scale twice and has 64 columns, more than a group of 32"),
    "a group of odd size": (quant(group=7), "has group 0x7, not a multiple of 2"),
    "records at an odd byte": (score(b=V + 1), "has b 0x2001, not a multiple of 2"),
    "records that an odd base moves": (score(b_base=1), "has b 0x2000 + base odd, not a multiple of 2"),
    "an odd head": (score(columns=31), "has columns 0x1f, not a multiple of 2"),
    "a copy of odd size": (send(columns=33), "has columns 0x21, not a multiple of 2"),
    "a query state too many": (score(slot=256), "uses query state 256 of 256"),
    "a send to itself": (send(s2=3), "has targets 0x3, not other tiles of 4"),
    "two pieces to external memory": (
        send(rows=2, flags=Flag.EXTERNAL), "sends 2 pieces to external memory, not 1"
    ),
    "part of an operand": (matmul(flags=Flag.STREAM, s4=548), "takes 548 bytes of the stream and needs 552"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_refused_alike(name):
    op, problem = CASES[name]
    program, shown = assemble([op], bases=(ZERO, Base("odd", outer=3)), cycles=10_000), " ".join(str(op).split())
    with pytest.raises(Hazard) as seen:
        check_limits(program)
    assert str(seen.value) == f"[{shown}] {problem}"
    with pytest.raises(BadInput) as refused:
        check_program(program)
    assert str(refused.value) == f"program, segment 'seeded': {problem}: {shown}"


def test_groups_of_nothing_are_refused_before_any_cycle_is_counted():
    program = assemble([quant()])
    program = replace(program, ops=to_records([quant(group=0)]))
    with pytest.raises(Hazard, match="has no group"):
        check_limits(program)
    with pytest.raises(BadInput, match="has no group"):
        check_program(program)


@pytest.mark.parametrize("op", [operand(), matmul(), quant(), score(), send()], ids=lambda op: op.op.name)
def test_what_keeps_the_rules_passes(op):
    check_limits(assemble([op]))


def test_each_unit_has_a_quarter_of_the_instruction_memory():
    chip = assemble([]).chip.with_fields({"tile.micro_ops": "8"}, "bench")
    check_limits(assemble([quant(), quant(), send(), operand()], chip=chip))
    with pytest.raises(Hazard, match="tile 0 needs 3 micro-ops for its vector unit of 2: 1 too many"):
        check_limits(assemble([quant()] * 3, chip=chip))
