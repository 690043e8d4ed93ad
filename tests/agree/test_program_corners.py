"""Where a program could go wrong without anybody seeing it in `test_program.py`: text cut around the length of a chunk, every format from
both stores, the cache in external memory on every grid, the last position of the context, a real model of an odd width.

Expected bits come from `graph/reference.py`; expected cycles from `isa/predict.py`, which computes no bit.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from chips import GRIDS, make_chip, random_chip
from strategies import random_model, random_tokens
from tapeout.chip.presets import load_chip
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.generate import generate
from tapeout.graph.reference import ReferenceEngine
from tapeout.graph.types import Model
from tapeout.importers.load import load_model
from tapeout.isa.check import check_program
from tapeout.isa.predict import predict, steps_for
from tapeout.isa.program import Program
from tapeout.isa.trace import schedule_trace
from tapeout.numerics.formats import FORMATS
from tapeout.quantize import quantize
from tapeout.sim.engine import ProgramEngine

STORIES = Path(__file__).parents[3] / "shared" / "data" / "models" / "stories260K.bin"
SMALL = {"tile__sram__kib": "96", "tile__sram__banks": "32"}
"""An SRAM too small for the cache of `deep_model`."""


def deep_model(seed: int) -> Model:
    return random_model(seed, layers=5, width=64, hidden=96, heads=4, kv_heads=2, head_dim=32, context=256)


def assert_same(got: np.ndarray, want: np.ndarray) -> None:
    """Equal bits; shows the first that differ."""
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


def assert_predicted(engine: ProgramEngine) -> None:
    """The runs of the last step took the cycles, and the holds at each micro-op, that were predicted."""
    for run in engine.last_runs:
        time = predict(engine.program, engine.program.entry(run.entry), run.position)
        assert (run.cycles, run.held, run.wall) == (time.cycles, time.held, time.wall)
        assert run.held_by_op == time.held_by_op


def cuts(rng: np.random.Generator, chunk: int, count: int) -> list[int]:
    """Lengths of steps, at most `count` tokens in all: around the length of a chunk, and any other."""
    lengths = [1, max(chunk - 1, 1), chunk, chunk + 1]
    while sum(lengths) < count:
        lengths.append(int(rng.choice([1, 1, 2, chunk, chunk + 1, 2 * chunk + 1])))
    while sum(lengths) > count:
        lengths.pop()
    rng.shuffle(lengths)
    return lengths


def assert_agrees(program: Program, model: Model, seed: int, count: int) -> None:
    """Step by step, the text cut at random, the simulator makes the reference's logits in the predicted cycles."""
    check_program(program)
    ids = random_tokens(seed, model, count)
    want = ReferenceEngine(model).step(ids, 0, every=True)
    engine, position = ProgramEngine(program), 0
    for length in cuts(np.random.default_rng(seed), program.chunk, count):
        got = engine.step(ids[position : position + length], position)
        position += length
        assert_same(got, want[position - 1])
        assert_predicted(engine)


def cache_in(program: Program) -> str:
    """Where the KV cache lives."""
    return "sram" if any(region.name == "kv" for region in program.sram) else "external"


@pytest.mark.parametrize("seed", range(100, 140))
def test_a_text_cut_around_the_chunk_gives_the_same_bits(seed):
    model = random_model(seed)
    assert_agrees(compile_model(model, random_chip(seed)), model, seed, 45)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("form", [*FORMATS, "mixed"])
def test_every_format_from_both_stores(form, streamed):
    model = random_model(31, format=form, layers=3, width=72, hidden=104)
    assert_agrees(compile_model(model, make_chip("2x2", streamed)), model, 5, 40)


@pytest.mark.parametrize("streamed", [False, True])
def test_uneven_shards_change_cycles_and_no_bit(streamed):
    """Three KV heads and widths of 5 and 7 groups divide evenly over no grid but the smallest."""
    model = random_model(17, format="mixed", layers=2, width=152, hidden=216, heads=6, kv_heads=3, head_dim=16)
    ids = random_tokens(3, model, 30)
    want = ReferenceEngine(model).step(ids, 0, every=True)
    walls = set()
    for grid in GRIDS:
        engine = ProgramEngine(compile_model(model, make_chip(grid, streamed)))
        assert_same(engine.step(ids, 0, every=True), want)
        assert_predicted(engine)
        walls.add(engine.totals.wall)
    assert len(walls) == len(GRIDS)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_cache_in_external_memory_gives_the_same_bits_on(grid):
    model = deep_model(23)
    inside, outside = (compile_model(model, make_chip(grid, True, **sram)) for sram in ({}, SMALL))
    assert (cache_in(inside), cache_in(outside)) == ("sram", "external")
    for program in (inside, outside):
        assert_agrees(program, model, 7, 60)


def test_a_write_buffer_of_just_the_records_of_a_chunk_is_enough():
    model = deep_model(23)
    chip = make_chip("1x1", True, external__write_buffer_kib="1", tile__stream_kib="8", **SMALL)
    program = compile_model(model, chip)
    assert (cache_in(program), program.chunk) == ("external", 4)
    assert_agrees(program, model, 3, 40)


@pytest.mark.parametrize("chunk", [1, 2, 4, 8])
def test_the_chunk_changes_no_bit(chunk):
    model = random_model(29)
    program = compile_model(model, make_chip(), chunk=chunk)
    assert program.chunk == chunk
    assert_agrees(program, model, 11, 33)


def test_going_back_overwrites_what_was_held():
    model = random_model(43)
    ids, other = random_tokens(1, model, 20), random_tokens(2, model, 20)
    engine = ProgramEngine(compile_model(model, make_chip()))
    engine.step(other, 0)
    engine.step(ids[:9], 0)
    assert_same(engine.step(ids[9:], 9), ReferenceEngine(model).step(ids, 0))


def test_the_whole_context_is_used():
    """Its last position lies in a block, and in a chunk, that reach beyond it."""
    model = random_model(47, context=37)
    ids = random_tokens(1, model, 37)
    engine = ProgramEngine(compile_model(model, make_chip(streamed=True)))
    engine.step(ids[:-1], 0)
    assert_same(engine.step(ids[-1:], 36), ReferenceEngine(model).step(ids, 0))


@pytest.mark.parametrize("seed", range(6))
def test_steps_are_cut_as_predicted(seed):
    model = random_model(seed)
    program = compile_model(model, random_chip(seed))
    engine, count = ProgramEngine(program), 1 + 7 * seed
    engine.step(random_tokens(seed, model, count), 0)
    planned = [(entry.name, position, tokens) for entry, position, tokens in steps_for(program, count, 0)]
    assert [(run.entry, run.position, run.tokens) for run in engine.last_runs] == planned


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_micro_op_issues_and_completes_as_the_schedule_says(grid, small):
    model = deep_model(3)
    program = compile_model(model, make_chip(grid, True, **(SMALL if small else {})))
    engine = ProgramEngine(program, trace=True)
    engine.step(random_tokens(1, model, 25), 0)
    for run in engine.last_runs:
        assert run.trace is not None
        promised = schedule_trace(program, program.entry(run.entry), run.position)
        for column in ("op", "outer", "inner", "issue", "completion", "held"):
            np.testing.assert_array_equal(run.trace[column], promised[column], err_msg=column)


def test_what_is_written_depends_on_the_token_and_when_does_not():
    model = random_model(3)
    program = compile_model(model, make_chip())
    one, two = (ProgramEngine(program, trace=True) for _ in range(2))
    one.step([1], 0)
    two.step([2], 0)
    traces = one.last_runs[0].trace, two.last_runs[0].trace
    assert (traces[0]["issue"] == traces[1]["issue"]).all()
    assert (traces[0]["written"] != traces[1]["written"]).any()


def test_stories260k_as_int8_on_tiny():
    """Its hidden width 172 is no multiple of 32."""
    if not STORIES.is_file():
        reason = f"{STORIES.name} is not there"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    model = quantize(load_model(STORIES), "int8")
    program = compile_model(model, load_chip("tiny"), context=64)
    check_program(program)
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("Once upon a time, there was a little girl")
    engine = ProgramEngine(program)
    said, want = generate(engine, ids, 24), generate(ReferenceEngine(model), ids, 24)
    assert (said.token_ids, said.logits_sha256) == (want.token_ids, want.logits_sha256)
    assert_predicted(engine)
