"""A micro-op as text and as a record, and back."""

import numpy as np
import pytest

from chips import make_chip
from programs import assemble, read
from strategies import random_model
from tapeout.base.errors import BadInput
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.isa.opcodes import ADDRESSES, FORMAT_IDS, OPCODES, RECORD, Flag, MicroOp, Op, from_record, to_records
from tapeout.isa.text import parse_op, program_lines

BITS = {name: 8 * RECORD[name].itemsize for name in RECORD.names or ()}


def random_op(rng: np.random.Generator, op: Op) -> MicroOp:
    """A micro-op with every field of its opcode drawn from all that fit, and no others."""

    def drawn(slot: str) -> int:
        if slot == "format":
            return int(rng.integers(len(FORMAT_IDS)))
        return int(rng.integers(1 << BITS[slot], dtype=np.uint64))

    slots = OPCODES[op].slots.values()
    bases = [f"{slot}_base" for slot in slots if slot in ADDRESSES]
    values = {slot: drawn(slot) for slot in ("tile", "issue", *slots, *bases)}
    flags = Flag(int(rng.integers(1 << 7)) & int(OPCODES[op].flags))
    return MicroOp(op, flags=flags, **values)


@pytest.mark.parametrize("op", Op)
def test_parsing_what_is_printed_gives_the_same_micro_op(op):
    rng = np.random.default_rng(int(op))
    for _ in range(200):
        made = random_op(rng, op)
        assert parse_op(str(made)) == made


@pytest.mark.parametrize("op", Op)
def test_a_record_holds_every_field(op):
    rng = np.random.default_rng(100 + int(op))
    made = [random_op(rng, op) for _ in range(50)]
    records = to_records(made)
    assert records.nbytes == 64 * len(made)
    assert [from_record(record) for record in records] == made


def test_a_printed_micro_op_is_pleasant_to_read():
    op = MicroOp(
        Op.MATMUL, 3, format=2, flags=Flag.STREAM, issue=1234, dst=0x6000, dst_base=5, s0=128, rows=8, columns=64, tokens=2,
        s4=552,
    )  # fmt: skip
    assert str(op) == (
        "   1234 tile3  matmul   out=0x6000+B5 out_stride=128 weight=0x0 rows=8 columns=64 tokens=2 format=int4m "
        "stream_bytes=552 stream"
    )


def test_a_field_is_read_by_its_meaning():
    op = MicroOp(Op.SCORE, s0=34, s1=68)
    assert (op.named("q_head_stride"), op.named("q_stride")) == (34, 68)


FIELDS = "fields: x, x_stride, tokens, columns"
NAMES = "operand, matmul, norm, rope, quant, swiglu, embed, argmax, score, value, attnout, send, bias, "
NAMES += "headnorm, layernorm, gelu, geglu, position, scale, softcap, nearscore, nearvalue"
WRONG = {
    "0 tile0 operand y=4": f"micro-op: 'y=4' is no field or flag of operand; {FIELDS}",
    "0 tile0 operand stream fast": f"micro-op: 'fast' is no field or flag of operand; {FIELDS}",
    "0 tile0 operand tokens=two": "micro-op: 'two' is no value of tokens",
    "0 tile0 operand x=4+Bx": "micro-op: '4+Bx' is no value of a",
    "0 tile0 matmul format=int5": "micro-op: 'int5' is no value of format",
    "0 tile0 multiply": f"micro-op: '0 tile0 multiply' does not begin with cycle, tile and one of {NAMES}",
    "soon": f"micro-op: 'soon' does not begin with cycle, tile and one of {NAMES}",
}


@pytest.mark.parametrize("text", WRONG)
def test_text_that_is_no_micro_op_is_refused(text):
    with pytest.raises(BadInput) as caught:
        parse_op(text)
    assert str(caught.value) == WRONG[text]


def test_a_program_prints_itself():
    op = MicroOp(Op.OPERAND, a=0x4000, s0=68, tokens=1, columns=64)
    assert list(program_lines(assemble([op], descriptors=[read(64, mask=3, address=256)]))) == [
        "program seeded (int8) on bench, context 8",
        "base B0 zero: 0*i + 0*k + 0*POS + 0*LAST",
        "entry token tokens=1",
        "  loop 'loop' x 1",
        "    segment 'seeded' cycles=16 repeat=1",
        "            0 tile0  operand  x=0x4000 x_stride=68 tokens=1 columns=64",
        "      descriptor read  tiles=0x3 bytes=64 address=0x100+B0",
        "entry token_head tokens=1",
        "  loop 'loop' x 1",
        "    segment 'seeded' cycles=16 repeat=1",
        "entry head tokens=1",
    ]


def test_every_micro_op_of_a_compiled_program_can_be_read_back():
    program = compile_model(random_model(5), make_chip(streamed=True))
    lines = [line for line in program_lines(program) if " tile" in line and "descriptor" not in line]
    ops = [program.op(index) for index in range(program.ops.size)]
    assert sorted(map(parse_op, lines), key=str) == sorted(ops, key=str)
