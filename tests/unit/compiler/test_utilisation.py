"""The matrix units are kept busy: a promise of the presets, in cycles that depend on no machine."""

import pytest

from smollm2 import smollm2_model
from tapeout.chip.presets import load_chip
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.prepare import prepare_model
from tapeout.isa.opcodes import Unit
from tapeout.isa.predict import predict
from tapeout.isa.profile import busy_cycles
from tapeout.isa.program import Program

CONTEXT = 64


def matrix_busy(program: Program) -> float:
    """Share of a decode step in which the matrix unit is busy, mean over tiles."""
    entry = program.entry("token_head")
    return busy_cycles(program, entry, CONTEXT)[Unit.MATRIX] / predict(program, entry, CONTEXT).wall


def test_the_embedded_model_keeps_tiny_busy():
    assert matrix_busy(compile_model(prepare_model("fable"), load_chip("tiny"))) >= 0.6


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2_keeps_fpga_busy():
    assert matrix_busy(compile_model(smollm2_model(), load_chip("fpga"))) >= 0.8
