"""Programs of families whose micro-ops the RTL does not build are refused by that micro-op, before any tool starts."""

import pytest

pytest.importorskip("amaranth")

from chips import make_chip
from styles import family_model
from tapeout.base.errors import BadInput
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.isa.opcodes import Op
from tapeout.rtl.limits import check_program
from tapeout.rtl.ports import BUILT


@pytest.mark.parametrize(
    ("name", "micro_op"),
    [
        ("qwen2", "bias"), ("qwen3", "headnorm"), ("mistral", "nearscore"), ("gemma", "scale"), ("gpt2", "position"),
        ("gemma2", "scale"), ("gemma3", "scale"),
    ],
)  # fmt: skip
def test_a_family_is_refused_by_its_micro_op(name: str, micro_op: str):
    program = compile_model(family_model(name, form="int8"), make_chip("1x1"), 20)
    with pytest.raises(BadInput, match=rf"\[\d+ tile0 {micro_op} .*\] is not built in the RTL"):
        check_program(program)


def test_scaled_rotation_is_taken():
    check_program(compile_model(family_model("llama 3.1", form="int8"), make_chip("1x1"), 20))


def test_what_is_built_comes_first():
    assert BUILT == tuple(Op)[: len(BUILT)]
    assert BUILT[-1] is Op.SEND
