"""The heart: micro-op simulator = reference = fast engine, bit for bit, and simulator = schedule, cycle for cycle."""

import numpy as np
import pytest

from chips import GRIDS, make_chip, random_chip
from smollm2 import smollm2_model
from strategies import random_model
from tapeout.base.errors import BadInput
from tapeout.chip.presets import load_chip
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.generate import generate
from tapeout.flow.prepare import prepare_model
from tapeout.flow.run import encode_prompt
from tapeout.graph.fast import FastEngine
from tapeout.graph.reference import ReferenceEngine
from tapeout.graph.types import Model
from tapeout.isa.check import check_program
from tapeout.isa.predict import predict
from tapeout.isa.trace import schedule_trace
from tapeout.sim.engine import ProgramEngine

CONTEXT = 40


def differing_bits(one, two) -> int:
    return int(np.count_nonzero(one.view(np.uint32) != two.view(np.uint32)))


def same_text(model: Model, chip, tokens: list[int], cuts: list[int]) -> None:
    """Run `tokens` cut at `cuts` on the chip and on the reference; compare every step's logits and every run's cycles."""
    program = compile_model(model, chip, CONTEXT)
    check_program(program)
    on_chip, wanted = ProgramEngine(program), ReferenceEngine(model, CONTEXT)
    for start, end in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        made = on_chip.step(tokens[start:end], start)
        assert differing_bits(made, wanted.step(tokens[start:end], start)) == 0
        for run in on_chip.last_runs:
            promised = predict(program, program.entry(run.entry), run.position)
            assert (run.cycles, run.held, run.held_by_op) == (promised.cycles, promised.held, promised.held_by_op)


@pytest.mark.parametrize("seed", range(16))
def test_a_random_chip_says_what_the_reference_says(seed):
    model = random_model(seed)
    rng = np.random.default_rng(seed)
    tokens = [int(t) for t in rng.integers(0, model.graph.vocabulary, 23)]
    same_text(model, random_chip(seed), tokens, sorted({int(c) for c in rng.integers(1, 22, 3)}))


def test_every_grid_gives_one_and_the_same_bits():
    model = random_model(7, odd=False)
    tokens = [int(t) for t in np.random.default_rng(7).integers(0, model.graph.vocabulary, 9)]
    made = [
        ProgramEngine(compile_model(model, make_chip(grid, streamed), CONTEXT)).step(tokens, 0)
        for grid in GRIDS
        for streamed in (False, True)
    ]
    assert [differing_bits(made[0], other) for other in made] == [0] * len(made)


def in_the_least_sram(model: Model):
    """The program for the smallest SRAM that takes the model: its cache is outside."""
    for kib in range(4, 2048, 4):
        try:
            chip = make_chip(
                "2x2", True, tile__sram__kib=str(kib), tile__sram__banks=str(min(kib // 4, 64) if kib <= 256 else 1)
            )
            return compile_model(model, chip, CONTEXT)
        except BadInput:
            continue
    raise AssertionError("no size of SRAM is enough")


@pytest.mark.parametrize("seed", range(3))
def test_a_cache_in_external_memory_gives_the_same_bits(seed):
    model = random_model(seed, odd=False)
    tokens = [int(t) for t in np.random.default_rng(seed).integers(0, model.graph.vocabulary, 21)]
    inside = compile_model(model, make_chip("2x2", True), CONTEXT)
    outside = in_the_least_sram(model)
    assert any(region.name == "kv" for region in outside.external)
    one, two = ProgramEngine(inside), ProgramEngine(outside)
    for start, end in ((0, 9), (9, 20), (20, 21)):
        assert differing_bits(one.step(tokens[start:end], start), two.step(tokens[start:end], start)) == 0


def test_logits_of_every_token_are_those_of_single_steps():
    model = random_model(3)
    tokens = [int(t) for t in np.random.default_rng(3).integers(0, model.graph.vocabulary, 11)]
    program = compile_model(model, make_chip(), CONTEXT)
    together, apart = ProgramEngine(program).step(tokens, 0, every=True), ProgramEngine(program)
    for position, token in enumerate(tokens):
        assert differing_bits(together[position], apart.step([token], position)) == 0


@pytest.mark.parametrize("streamed", [False, True])
def test_the_simulator_traces_what_the_schedule_promised(streamed):
    model = random_model(5)
    program = compile_model(model, make_chip("2x2", streamed), CONTEXT)
    engine = ProgramEngine(program, trace=True)
    engine.step([1] * 9, 0)
    run = engine.last_runs[-1]
    promised = schedule_trace(program, program.entry(run.entry), run.position)
    for column in ("op", "outer", "inner", "issue", "completion", "held"):
        assert (run.trace[column] == promised[column]).all(), column


@pytest.mark.parametrize("chip", ["tiny", "edge", "fpga"])
def test_the_embedded_model_says_the_same_for_64_tokens(chip):
    model = prepare_model("fable")
    engines = [
        ProgramEngine(compile_model(model, load_chip(chip), 80)), ReferenceEngine(model, 80), FastEngine(model, 80, threads=1)
    ]  # fmt: skip
    said = [generate(engine, model.tokenizer.encode("Once upon a time"), 64) for engine in engines]
    assert len({(one.token_ids, one.logits_sha256) for one in said}) == 1


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.parametrize("chip", ["edge", "fpga"])
def test_smollm2_says_the_same_for_8_tokens(chip):
    model = smollm2_model()
    program = compile_model(model, load_chip(chip), 64)
    check_program(program)
    engines = [ProgramEngine(program), ReferenceEngine(model, 64), FastEngine(model, 64, threads=1)]
    said = [generate(engine, model.tokenizer.encode("The capital of France is"), 8) for engine in engines]
    assert len({(one.token_ids, one.logits_sha256) for one in said}) == 1


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2_takes_a_prompt_of_500_tokens_with_its_cache_outside():
    model = smollm2_model()
    program = compile_model(model, load_chip("edge"), 2048)
    assert any(region.name == "kv" for region in program.external)
    tokens = [int(t) for t in np.random.default_rng(0).integers(0, 49152, 500)]
    on_chip, quick = ProgramEngine(program), FastEngine(model, 2048, threads=1)
    assert differing_bits(on_chip.step(tokens, 0), quick.step(tokens, 0)) == 0
    assert differing_bits(on_chip.step([5], 500), quick.step([5], 500)) == 0


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2_on_edge_knows_the_capital_of_france():
    model = smollm2_model()
    ids = encode_prompt(model, "What is the capital of France?", raw=False)
    program = compile_model(model, load_chip("edge"), len(ids) + 12)
    said = generate(ProgramEngine(program), ids, 12, model.tokenizer.end_ids)
    assert "Paris" in model.tokenizer.decode(said.token_ids)
