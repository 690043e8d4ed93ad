"""A family's Hugging Face folder and its GGUF hold the same model: the same graph, the same numbers, the same bits on a chip."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chips import make_chip
from family_files import FAMILIES, LAYERS
from files import f32, text, u32
from tapeout.base.errors import BadInput
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.graph.fast import FastEngine
from tapeout.graph.reference import ReferenceEngine
from tapeout.graph.types import Attention, Model
from tapeout.importers.load import load_model
from tapeout.quantize.round_to_nearest import quantize
from tapeout.sim.engine import ProgramEngine


def unnamed(model: Model) -> str:
    """The graph without its name, and with scores divided by what a model without a number divides by."""
    ops = [replace(op, scalar=op.scale_of) if isinstance(op, Attention) else op for op in model.graph.ops]
    return repr(replace(model.graph, name="", ops=tuple(ops)))


@pytest.mark.parametrize("name", FAMILIES)
def test_both_files_hold_the_same_model(name: str, tmp_path: Path):
    one, two = (load_model(path) for path in FAMILIES[name].write(tmp_path))
    assert unnamed(one) == unnamed(two)
    assert list(one.weights) == list(two.weights)
    assert [key for key in one.weights if not np.array_equal(one.weights[key], two.weights[key])] == []


@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_both_files_say_the_same_bits_everywhere(name: str, form: str, tmp_path: Path):
    ids = np.random.default_rng(1).integers(0, 40, 14).tolist()
    said = []
    for path in FAMILIES[name].write(tmp_path):
        model = quantize(load_model(path), form)
        engines = ReferenceEngine(model), FastEngine(model), ProgramEngine(compile_model(model, make_chip("2x2"), 20))
        said += [np.concatenate([engine.step(ids[:11], 0), engine.step(ids[11:], 11)]) for engine in engines]
    assert len({logits.tobytes() for logits in said}) == 1


def test_the_pairs_of_llama_3_1_turn_as_both_files_say(tmp_path: Path):
    """rope_freqs.weight holds what config.json's llama3 scaling works out to."""
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    llama = FAMILIES["llama"]
    folder, _ = replace(llama, config=llama.config | {"rope_scaling": scaling}).write(tmp_path)
    factors = {op.factors for op in load_model(folder).graph.ops if hasattr(op, "factors")}.pop()
    waves = 2 * np.pi * 500.0 ** (np.arange(0, 16, 2) / 16)
    share = np.clip((64 / waves - 1) / 3, 0, 1)
    assert np.allclose(factors, 1 / (share + (1 - share) / 8), rtol=1e-6)
    assert factors[0] == 1.0
    assert factors[-1] == 8.0


@pytest.mark.parametrize(
    ("name", "config", "metadata", "wanted"),
    [
        ("phi3", {"rope_scaling": {"type": "longrope"}}, {}, "rope_scaling is of type 'longrope', and only 'default'"),
        ("phi3", {"rope_scaling": {"type": "yarn"}}, {}, "is of type 'yarn', and only"),
        ("qwen3", {"attention_bias": True}, {}, "attention_bias is True, and only False is understood"),
        ("gemma", {"hidden_act": "relu"}, {}, "hidden_act is 'relu', and only 'gelu_pytorch_tanh' is understood"),
        ("gpt2", {"activation_function": "gelu"}, {}, "activation_function is 'gelu', and only 'gelu_new' is"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, {}, "scale_attn_by_inverse_layer_idx is True, and only False"),
        ("mistral", {"sliding_window": -1}, {}, "sliding_window is -1, not at least 1"),
        ("mistral", {"layer_types": ["chunked_attention"] * LAYERS}, {}, "layer_types is "),
        ("phi3 with partial rotation", {"partial_rotary_factor": 0.45}, {}, "7 of 16 numbers of a head are rotated"),
        ("gemma2", {"attn_logit_softcapping": 1e30}, {}, "softcap is 1e\\+30; it must lie between"),
        ("qwen2", {}, {"rope.dimension_count": u32(7)}, "qwen2.rope.dimension_count is 7; an even number up to 16"),
        ("gemma2", {}, {"attn_logit_softcapping": f32(-3.0)}, "softcap is -3.0; it must lie between"),
    ],
)  # fmt: skip
def test_what_a_family_does_not_take_is_refused_by_name(name, config, metadata, wanted, tmp_path: Path):
    files = FAMILIES[name]
    folder, gguf = replace(files, config=files.config | config, metadata=files.metadata | metadata).write(tmp_path)
    with pytest.raises(BadInput, match=wanted):
        load_model(folder if config else gguf)


ODD = [
    None,
    True,
    "x",
    "",
    -1,
    0,
    1,
    7,
    0.5,
    -0.0,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    2**31,
    2**70,
    [],
    [1],
    {},
    {"a": 1},
]
ODD_RAW = [
    u32(0),
    u32(1),
    u32(7),
    u32(2**32 - 1),
    f32(0.0),
    f32(-1.0),
    f32(1e38),
    f32(float("nan")),
    f32(1e-40),
    text("x"),
]
ROPE_KEYS = (
    "rope_scaling",
    "rope_parameters",
    "layer_types",
    "sliding_window_pattern",
    "max_window_layers",
    "use_sliding_window",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_odd_value_in_a_configuration_is_refused_or_harmless(name: str, tmp_path: Path):
    folder, _ = FAMILIES[name].write(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for key in (*config, *ROPE_KEYS):
        for value in ODD:
            (folder / "config.json").write_text(json.dumps(config | {key: value}))
            with contextlib.suppress(BadInput):
                load_model(folder)


@pytest.mark.parametrize("kind", ["default", "linear", "llama3", "longrope"])
def test_an_odd_value_in_a_scaling_is_refused_or_harmless(kind: str, tmp_path: Path):
    folder, _ = FAMILIES["gemma3"].write(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    good = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    for key in (*good, "rope_type", "rope_theta", "partial_rotary_factor", "full_attention", "sliding_attention"):
        for value in ODD:
            scaling = {"rope_type": kind, **good, key: value}
            (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": scaling}))
            with contextlib.suppress(BadInput):
                load_model(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_odd_value_in_metadata_is_refused_or_harmless(name: str, tmp_path: Path):
    files = FAMILIES[name]
    for at, (key, value) in enumerate((key, value) for key in files.metadata for value in ODD_RAW):
        (tmp_path / str(at)).mkdir()
        _, gguf = replace(files, metadata=files.metadata | {key: value}).write(tmp_path / str(at))
        with contextlib.suppress(BadInput):
            load_model(gguf)


def test_learned_positions_are_quantized_as_the_embedding_is(tmp_path: Path):
    model = quantize(load_model(FAMILIES["gpt2"].write(tmp_path)[0]), "int4")
    formats = {kind.name: kind.format for kind in model.graph.weights}
    assert (formats["positions"], formats["embed"], formats["layers.0.up"]) == ("int8", "int8", "int4")
    assert formats["layers.0.up_bias"] == "f32"
