"""Every family's style: micro-op simulator = reference = fast engine, bit for bit, and as many cycles as promised."""

import numpy as np
import pytest

from chips import make_chip, random_chip
from styles import STYLES, family_model
from tapeout.base.errors import BadInput
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.graph.check import check_quantized
from tapeout.graph.fast import FastEngine
from tapeout.graph.reference import ReferenceEngine
from tapeout.graph.types import Model
from tapeout.isa.check import check_program
from tapeout.isa.predict import predict
from tapeout.sim.engine import ProgramEngine

CONTEXT = 44
TOKENS = [int(t) for t in np.random.default_rng(4).integers(0, 70, 41)]


def differing_bits(one, two) -> int:
    return int(np.count_nonzero(one.view(np.uint32) != two.view(np.uint32)))


def same_bits(model: Model, chip, cuts: list[int], count: int = len(TOKENS)) -> None:
    """The first tokens cut at `cuts`: every step's logits on the chip, on the reference and on its twin, and the cycles."""
    check_quantized(model)
    program = compile_model(model, chip, CONTEXT)
    check_program(program)
    on_chip, wanted, quick = ProgramEngine(program), ReferenceEngine(model, CONTEXT), FastEngine(model, CONTEXT)
    for start, end in zip([0, *cuts], [*cuts, count], strict=True):
        made = wanted.step(TOKENS[start:end], start, every=True)
        assert differing_bits(quick.step(TOKENS[start:end], start, every=True), made) == 0
        assert differing_bits(on_chip.step(TOKENS[start:end], start), made[-1]) == 0
        for run in on_chip.last_runs:
            promised = predict(program, program.entry(run.entry), run.position)
            assert (run.cycles, run.held, run.held_by_op) == (promised.cycles, promised.held, promised.held_by_op)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", STYLES)
def test_a_family_says_the_same_everywhere(name, streamed):
    same_bits(family_model(name), make_chip("2x2", streamed), [13, 14, 40])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", STYLES)
def test_a_family_says_the_same_on_a_random_chip(name, seed):
    cuts = sorted({int(c) for c in np.random.default_rng(seed).integers(1, 40, 3)})
    same_bits(family_model(name, seed, tied=bool(seed % 2)), random_chip(seed), cuts)


def in_the_least_sram(model: Model):
    """The chip with the smallest SRAM that takes the model: its cache is outside."""
    for kib in range(8, 1024, 4):
        chip = make_chip("2x2", True, tile__sram__kib=str(kib), tile__sram__banks="1" if kib > 64 else str(kib // 4))
        try:
            compile_model(model, chip, CONTEXT)
        except BadInput:
            continue
        return chip
    raise AssertionError("no size of SRAM is enough")


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3", "gpt2"])
def test_a_cache_in_external_memory_gives_the_same_bits(name):
    model = family_model(name, 1)
    chip = in_the_least_sram(model)
    assert any(region.name == "kv" for region in compile_model(model, chip, CONTEXT).external)
    same_bits(model, chip, [9, 20, 21])


def test_what_lies_before_the_window_does_not_matter():
    """Two texts that differ only before what any layer can see of the last token end in the same logits."""
    model = family_model("mistral", 2)  # three layers of 7 tokens: the last token sees 1 + 3 * 6
    one, two = list(TOKENS), [(token + 1) % 70 for token in TOKENS[:22]] + TOKENS[22:]
    ends = []
    for tokens in (one, two):
        program = ProgramEngine(compile_model(model, make_chip("2x2"), CONTEXT))
        for engine in (ReferenceEngine(model, CONTEXT), FastEngine(model, CONTEXT), program):
            ends.append(engine.step(tokens, 0).tobytes())
    assert len(set(ends)) == 1
    nearer = [*TOKENS[:23], (TOKENS[23] + 1) % 70, *TOKENS[24:]]
    assert ReferenceEngine(model, CONTEXT).step(nearer, 0).tobytes() not in ends
