"""Every weight format in RTL: a one-layer model whose weights, embedding and head are of one format is the same in RTL, simulator and schedule."""

import json
from functools import cache

import pytest

pytest.importorskip("amaranth")

from chips import make_chip
from strategies import random_model
from tapeout.chip.presets import load_chip, preset_names
from tapeout.chip.spec import ChipSpec
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.cosim import Pair
from tapeout.numerics.formats import FORMATS

PROMPT, CONTEXT = (3, 17, 1, 5), 16
SIZES = {
    "tile__matrix__rows": "4", "tile__matrix__tokens": "2", "tile__matrix__operand_kib": "2", "tile__attention__lanes": "16",
    "tile__attention__queries": "16", "tile__sram__kib": "128", "tile__sram__banks": "16", "tile__micro_ops": "2048",
}  # fmt: skip
WIDE_FORMATS = ("int8", "int4", "int4m", "ternary", "nvfp4")
"""What presets list, and the one with a scale for each half and a factor; more only make the build longer."""
WIDE = {
    "tile__vector__lanes": "8", "tile__matrix__lanes": "32", "tile__stream_kib": "16", "tile__matrix__formats": json.dumps(WIDE_FORMATS),
}  # fmt: skip
"""The matrix lanes of fpga and edge, on which the halves of a group are multiplied in one cycle."""
NARROW = {"tile__vector__lanes": "2", "tile__matrix__lanes": "8"}


@cache
def chip_of(name: str) -> ChipSpec:
    """tiny; or one small tile: narrow, with all formats, or wide."""
    if name in ("narrow", "wide"):
        return make_chip("1x1", name == "wide", **SIZES, **(WIDE if name == "wide" else NARROW))
    return load_chip(name)


def run(chip: ChipSpec, form: str) -> Pair:
    """Four tokens, and one more. Raises `Mismatch` where anything differs."""
    model = random_model(
        [7, list(FORMATS).index(form)],
        layers=1,
        width=64,
        heads=2,
        kv_heads=1,
        head_dim=16,
        hidden=96,
        vocabulary=40,
        format=form,
    )
    pair = Pair(compile_model(model, chip, CONTEXT))
    logits = pair.step(PROMPT, 0)
    pair.step([int(logits.argmax())], len(PROMPT))
    return pair


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "form"), [*(("narrow", form) for form in FORMATS), *(("wide", form) for form in WIDE_FORMATS)]
)
def test_a_model_in_one_format_is_equal_in_rtl_and_simulator(name: str, form: str):
    pair = run(chip_of(name), form)
    assert pair.cycles + pair.held == pair.predicted


PRESETS = [(name, form) for name in preset_names() for form in load_chip(name).tile.matrix.formats]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("preset", "form"), PRESETS)
def test_every_format_of_a_preset_is_equal_on_tiny_itself_and_for_others_on_a_tile_of_as_many_lanes(
    preset: str, form: str
):
    chip = chip_of("tiny" if preset == "tiny" else "wide")
    assert chip.tile.matrix.lanes == load_chip(preset).tile.matrix.lanes
    run(chip, form)
