"""The first test to run: one tiny model on one tiny chip, from weights to logits, in a few seconds."""

import numpy as np

from chips import make_chip
from strategies import random_model, random_tokens
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.graph.reference import ReferenceEngine
from tapeout.isa.check import check_program
from tapeout.isa.predict import predict
from tapeout.isa.program import load, save
from tapeout.sim.engine import ProgramEngine


def test_a_tiny_model_runs_on_a_tiny_chip(tmp_path):
    model = random_model(
        0, format="int8", layers=1, width=32, hidden=64, heads=2, kv_heads=1, head_dim=16, vocabulary=40
    )
    program = compile_model(model, make_chip("2x2"), context=32)
    check_program(program)
    save(program, tmp_path / "program")
    engine = ProgramEngine(load(tmp_path / "program"))
    ids = random_tokens(0, model, 11)
    want = ReferenceEngine(model).step(ids, 0, every=True)
    np.testing.assert_array_equal(engine.step(ids[:10], 0).view(np.uint32), want[9].view(np.uint32))
    np.testing.assert_array_equal(engine.step(ids[10:], 10).view(np.uint32), want[10].view(np.uint32))
    (run,) = engine.last_runs
    assert run.wall == predict(program, program.entry(run.entry), run.position).wall
