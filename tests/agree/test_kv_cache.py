"""K and V in fewer bits: reference, fast engine and program say the same; what is not built is refused by name."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_program import CONTEXT, differing_bits, in_the_least_sram, same_text

from chips import make_chip, random_chip
from native_paths import PATHS
from strategies import random_model, random_tokens
from tapeout.base.errors import BadInput
from tapeout.chip.presets import load_chip
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.prepare import prepare_model
from tapeout.graph.fast import FastEngine
from tapeout.graph.reference import ReferenceEngine
from tapeout.numerics.formats import KV_FORMATS
from tapeout.quantize.kv_cache import kv_cache
from tapeout.sim.engine import ProgramEngine

LESS = [name for name in KV_FORMATS if name != "int8"]


def shared_logits(model, tokens: list[int]) -> np.ndarray:
    """Of every token, by every path of the fast engine, after the reference has said the same."""
    wanted = ReferenceEngine(model, 64).step(tokens, 0, every=True)
    for path in PATHS:
        assert differing_bits(FastEngine(model, 64, threads=1, path=path).step(tokens, 0, every=True), wanted) == 0
    return wanted


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_every_format_says_on_fast_what_it_says_on_the_reference(seed):
    model = random_model(seed)
    tokens = random_tokens(seed, model, 12)
    made = [shared_logits(kv_cache(model, name), tokens).tobytes() for name in KV_FORMATS]
    assert len(set(made)) == len(KV_FORMATS)


@pytest.mark.parametrize("name", LESS)
@pytest.mark.parametrize("seed", range(6))
def test_a_random_chip_says_what_the_reference_says(seed, name):
    model = kv_cache(random_model(seed), name)
    same_text(model, random_chip(seed), random_tokens(seed, model, 23), [1, 9, 17])


@pytest.mark.parametrize("name", LESS)
def test_a_cache_in_external_memory_gives_the_same_bits(name):
    model = kv_cache(random_model(3, odd=False, layers=3, width=32, hidden=32, heads=3, kv_heads=3, head_dim=64), name)
    tokens = random_tokens(3, model, 21)
    outside = in_the_least_sram(model)
    assert any(region.name == "kv" for region in outside.external)
    one, two = ProgramEngine(outside), ReferenceEngine(model, CONTEXT)
    for start, end in ((0, 9), (9, 20), (20, 21)):
        assert differing_bits(one.step(tokens[start:end], start), two.step(tokens[start:end], start)) == 0


def test_four_bits_take_about_half_the_room():
    model, chip = random_model(4, head_dim=64), make_chip()
    sizes = [
        next(region.size for region in compile_model(kv_cache(model, name), chip, CONTEXT).sram if region.name == "kv")
        for name in KV_FORMATS
    ]
    records = [64 + 4 + 64 + 2, 64 + 4 + 32 + 2, 32 + 4 + 32 + 2]
    assert [size / sizes[0] for size in sizes] == pytest.approx([record / records[0] for record in records], abs=0.01)


def test_heads_that_do_not_pack_are_refused():
    with pytest.raises(BadInput, match="heads of 6; codes of 4 bits need a multiple of 4"):
        compile_model(kv_cache(random_model(1, head_dim=6), "int4"), make_chip(), CONTEXT)


def test_the_embedded_model_runs_with_it_and_a_program_remembers_it(tapeout, tmp_path):
    program = tmp_path / "fable.tap"
    assert tapeout("compile", "fable", "--kv", "int4", "-o", program)[0] == 0
    model = prepare_model("fable", kv="int4")
    tokens = [1, 50, 60, 70]
    want = FastEngine(model, 64, threads=1).step(tokens, 0)
    assert differing_bits(ProgramEngine(compile_model(model, load_chip("tiny"), 64)).step(tokens, 0), want) == 0
    code, out, err = tapeout("run", program, "--tokens", "2", "--json")
    assert code == 0, err
    assert '"kv": "int4"' in out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["run", "--kv", "int5"], "--kv: 'int5' is no format of a KV cache; choose from int8, k8v4, int4"),
        (["eval", "fable", "--text", "none.txt", "--kv", "fp8"], "choose from int8, k8v4, int4"),
    ],
)
def test_a_mistake_is_one_line(tapeout, arguments, names):
    code, out, err = tapeout(*arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith(names)


def test_a_format_that_only_the_changed_chip_takes_runs_and_tells_no_change(tapeout):
    arguments = (
        "fable",
        "--weights",
        "nvfp4",
        "--kv",
        "k8v4",
        "--set",
        "tile.matrix.formats=[int8,nvfp4]",
        "--tokens",
        "2",
    )
    code, out, err = tapeout("run", *arguments, "--json")
    told = json.loads(out)
    assert (code, told["weights"], told["kv"], told["changes"]) == (0, "nvfp4", "k8v4", {}), err
    assert "edge without --set does not run it" in err
