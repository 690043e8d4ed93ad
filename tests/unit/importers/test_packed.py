"""Folders of packed codes: the ternary twin as it is stored, what it says, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from family_files import FAMILIES, Files
from files import safetensors_bytes
from tapeout.base.errors import BadInput
from tapeout.chip.presets import load_chip
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.generate import generate
from tapeout.flow.prepare import prepare_model
from tapeout.graph.fast import FastEngine
from tapeout.graph.reference import ReferenceEngine
from tapeout.graph.types import Matrix
from tapeout.importers.catalogue import catalogue_path
from tapeout.importers.load import load_model
from tapeout.importers.packed import unpacked
from tapeout.importers.safetensors_file import read_safetensors
from tapeout.numerics.formats import FORMATS
from tapeout.quantize import quantize
from tapeout.quantize.round_to_nearest import encode
from tapeout.sim.engine import ProgramEngine

EXPECTED = " silver key at the"
"""What follows, greedily, in 8 tokens."""


def test_the_twin_is_stored_ternary_and_its_table_int8():
    model = load_model("fable-ternary")
    assert model.stored == "ternary"
    for name, weight in model.weights.items():
        if isinstance(weight, Matrix):
            assert weight.format.name == ("int8" if name == "embed" else "ternary")
            assert weight.codes.min() >= weight.format.low
            assert weight.codes.max() <= weight.format.high


def test_words_are_read_lowest_bits_first():
    tensors = read_safetensors(catalogue_path("fable-ternary") / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    words, scale = tensors[f"{name}_packed"].integers(), tensors[f"{name}_scale"].read()
    found = unpacked(tensors, frozenset((2, 8)))[name].read()
    assert isinstance(found, Matrix)
    assert np.array_equal(found.scale.astype(np.float32), np.asarray(scale))
    for row, column in ((0, 0), (3, 17), (383, 127)):
        assert found.codes[row, column] == (int(words[row, column // 16]) >> 2 * (column % 16) & 3) - 2


def test_the_twin_tells_a_story_and_every_rung_agrees():
    model = load_model("fable-ternary")
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("Lily found a")
    program = ProgramEngine(compile_model(model, load_chip("tiny"), 24))
    made = [
        generate(engine, ids, 8, frozenset()) for engine in (program, FastEngine(model, 24), ReferenceEngine(model, 24))
    ]
    assert len({(one.token_ids, one.logits_sha256) for one in made}) == 1
    assert model.tokenizer.decode(made[0].token_ids) == EXPECTED


def write_packed(folder: Path, tensors: dict, family: Files, left: str = "?") -> Path:
    """A folder of a family, int8 codes in groups of 32 in place of the floats of its matrices but those that have `left` in their names."""
    packing = {"format": "pack-quantized", "config_groups": {"all": {"weights": {"num_bits": 8, "strategy": "group"}}}}
    config = {"architectures": [family.architecture], "quantization_config": packing, **family.config}
    packed = {}
    for name, values in tensors.items():
        if values.ndim == 1 or left in name:
            packed[name] = values
            continue
        matrix = encode(name, values, FORMATS["int8"])
        packed[f"{name}_packed"] = (matrix.codes.view(np.uint8) + np.uint8(128)).view(np.int32)
        packed[f"{name}_scale"], packed[f"{name}_shape"] = matrix.scale, np.array(values.shape, np.int64)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(packed))
    return folder


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "gpt2"])
def test_packed_codes_of_every_family_are_the_codes_of_its_floats(name: str, tmp_path: Path):
    family = FAMILIES[name]
    tensors, _ = family.tensors(1)
    packed = load_model(write_packed(tmp_path / "packed", tensors, family))
    (tmp_path / "floats").mkdir()
    floats = load_model(family.write(tmp_path / "floats", 1)[0])
    rounded = quantize(floats, "int8")
    assert packed.stored == "int8"
    for weight, wanted in ((packed.weights[key], rounded.weights[key]) for key in rounded.weights):
        same = (weight.codes, wanted.codes) if isinstance(weight, Matrix) else (weight, wanted)
        assert np.array_equal(*same)


def test_a_repeated_head_must_be_the_same_codes_and_what_stands_transposed_no_codes(tmp_path: Path):
    llama, gpt2 = FAMILIES["llama"], FAMILIES["gpt2"]
    tensors = llama.tensors(1)[0]
    table = tensors["model.embed_tokens.weight"]
    load_model(write_packed(tmp_path / "same", tensors | {"lm_head.weight": table}, llama))
    with pytest.raises(BadInput, match=re.escape("lm_head.weight differs from the embedding")):
        load_model(write_packed(tmp_path / "other", tensors | {"lm_head.weight": table[::-1].copy()}, llama))
    with pytest.raises(BadInput, match="is packed and stands transposed"):
        load_model(write_packed(tmp_path / "gpt2", gpt2.tensors(1)[0], gpt2))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "marlin-24", "only the format 'pack-quantized' is understood"),
        ("config_groups", {"a": 1}, "only weights are quantized"),
    ],
)
def test_another_packing_is_refused(tmp_path, key, value, message):
    folder = tmp_path / "model"
    shutil.copytree(catalogue_path("fable-ternary"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=message):
        load_model(folder)


def ordered(folder: Path, order: str) -> Path:
    """fable-ternary, its columns said to have been calibrated in an order."""
    shutil.copytree(catalogue_path("fable-ternary"), folder)
    config = json.loads((folder / "config.json").read_text())
    for group in config["quantization_config"]["config_groups"].values():
        group["weights"]["actorder"] = order
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("order", ["static", "weight"])
def test_an_order_of_columns_that_only_calibration_took_changes_nothing(tmp_path: Path, order: str):
    found, wanted = load_model(ordered(tmp_path / "model", order)), load_model(catalogue_path("fable-ternary"))
    name = "layers.0.q"
    assert np.array_equal(found.weights[name].codes, wanted.weights[name].codes)


def test_columns_that_stand_in_another_order_are_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="actorder of a config group is 'group'"):
        load_model(ordered(tmp_path / "model", "group"))


@pytest.mark.parametrize("weights", ["stored", "int8"])
def test_an_embedding_left_in_floats_is_rounded_and_codes_stay(tmp_path: Path, weights: str):
    """As llm-compressor leaves it."""
    family = FAMILIES["llama"]
    tensors, _ = family.tensors(1)
    whole = load_model(write_packed(tmp_path / "whole", tensors, family))
    model = prepare_model(write_packed(tmp_path / "part", tensors, family, left="embed"), weights)
    assert model.notes[-1] == "matrices stored as floats rounded to the nearest: embed to int8"
    assert all(np.array_equal(model.weights[name].codes, whole.weights[name].codes) for name in ("embed", "layers.0.q"))
    FastEngine(model, 8).step([1, 2], 0)
