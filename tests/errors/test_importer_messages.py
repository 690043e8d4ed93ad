"""What a person reads when a model file is not what it should be: the exact line for each."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from files import (
    boolean,
    f32,
    floats,
    folder_config,
    gguf_bytes,
    gguf_metadata,
    gguf_tensors,
    llama2c_bytes,
    safetensors_bytes,
    text,
    texts,
    u32,
    write_folder,
)
from tapeout.base.errors import BadInput
from tapeout.importers.load import load_model

DAMAGED = "it is truncated or damaged"
MATH = "it may change what the model computes"


def message(source: str | Path) -> str:
    with pytest.raises(BadInput) as caught:
        load_model(source)
    return str(caught.value)


def with_tensor(name: str, kind: str, shape: tuple[int, ...], raw: bytes) -> bytes:
    return gguf_bytes(tensors=gguf_tensors() | {name: (kind, shape, raw)})


def without(name: str) -> bytes:
    return gguf_bytes(tensors={key: row for key, row in gguf_tensors().items() if key != name})


def keys(**changes) -> bytes:
    return gguf_bytes(gguf_metadata(**changes))


def patched(raw: bytes, at: int, form: str, value: int) -> bytes:
    return raw[:at] + struct.pack(form, value) + raw[at + struct.calcsize(form) :]


def overlapping() -> bytes:
    raw = gguf_bytes()
    name = b"blk.0.attn_norm.weight"
    return patched(raw, raw.index(name) + len(name) + 4 + 8 + 4, "<Q", 0)


def huge_dimension() -> bytes:
    raw = gguf_bytes()
    name = b"blk.0.attn_norm.weight"
    return patched(raw, raw.index(name) + len(name) + 4, "<Q", 2**63)


GGUF_LINES: dict[str, tuple[Callable[[], bytes], str]] = {
    "architecture": (
        lambda: keys(general__architecture=text("mamba")),
        "general.architecture is 'mamba', not one of llama, qwen2, qwen3, phi3, gemma, gpt2, gemma2, gemma3",
    ),
    "tensor type": (
        lambda: with_tensor("blk.1.attn_q.weight", "Q2_K", (64, 64), bytes(64 * 64)),
        "blk.1.attn_q.weight: has type Q2_K, not one of F32, F16, BF16, Q8_0, Q4_0, Q4_1, MXFP4, Q4_K, Q5_K, Q6_K",
    ),
    "rope scaling": (
        lambda: keys(llama__rope__scaling__type=text("yarn")),
        "llama.rope.scaling.type is 'yarn', and only none and linear are understood",
    ),
    "rope factor": (
        lambda: keys(llama__rope__scaling__factor=f32(4.0)),
        "llama.rope.scaling.factor is 4.0; without a type only 0.0 or 1.0 is understood",
    ),
    "experts": (
        lambda: keys(llama__expert_count=u32(8)),
        "llama.expert_count is 8, and only 0 is understood",
    ),
    "partial rope": (
        lambda: keys(llama__rope__dimension_count=u32(8)),
        "llama.rope.dimension_count is 8, and only the head's width 16 is understood",
    ),
    "unknown key": (
        lambda: keys(llama__attention__sinks=u32(64)),
        f"llama.attention.sinks is not understood; {MATH}",
    ),
    "unknown tensor": (
        lambda: with_tensor("rope_factors_long.weight", "F32", (8,), bytes(32)),
        f"tensor rope_factors_long.weight is not understood; {MATH}",
    ),
    "rope factors of nothing": (
        lambda: with_tensor("rope_freqs.weight", "F32", (8,), bytes(32)),
        "RoPE is scaled by 0.0 to 0.0; positive numbers are needed",
    ),
    "bias": (
        lambda: with_tensor("blk.0.attn_q.bias", "F32", (64,), bytes(256)),
        f"tensor blk.0.attn_q.bias is not understood; {MATH}",
    ),
    "missing tensor": (lambda: without("blk.1.ffn_up.weight"), "tensor blk.1.ffn_up.weight is missing"),
    "missing key": (
        lambda: keys(llama__attention__layer_norm_rms_epsilon=None),
        "llama.attention.layer_norm_rms_epsilon is missing",
    ),
    "text for a number": (
        lambda: keys(llama__block_count=text("two")),
        "llama.block_count is 'two', not a whole number",
    ),
    "list for a number": (
        lambda: keys(llama__attention__head_count_kv=texts(["1", "2"])),
        "llama.attention.head_count_kv is an array of 2, not a whole number",
    ),
    "heads": (
        lambda: keys(llama__attention__head_count_kv=u32(3)),
        "4 query heads are not a multiple of 3 key/value heads",
    ),
    "layers": (
        lambda: keys(llama__block_count=u32(4_000_000_000)),
        "4,000,000,000 layers need 9 tensors each, the file has 20",
    ),
    "epsilon": (
        lambda: keys(llama__attention__layer_norm_rms_epsilon=f32(float("nan"))),
        "eps is nan, not a positive number",
    ),
    "shape": (
        lambda: keys(llama__feed_forward_length=u32(128)),
        "blk.0.ffn_gate.weight: has shape [96, 64], the hyperparameters ask for [128, 64]",
    ),
    "split": (lambda: keys(split__count=u32(2)), "split.count is 2, and only 0 or 1 is understood"),
    "pre-tokenizer": (
        lambda: keys(
            tokenizer__ggml__model=text("gpt2"),
            tokenizer__ggml__pre=text("falcon"),
            tokenizer__ggml__tokens=texts([str(i) for i in range(40)]),
            tokenizer__ggml__merges=texts([]),
        ),
        "tokenizer.ggml.pre is 'falcon', not one of gpt-2, smollm, llama-bpe, qwen2",
    ),
    "tokenizer": (
        lambda: keys(tokenizer__ggml__model=text("t5")),
        "tokenizer.ggml.model is 't5', not one of gpt2, llama",
    ),
    "end token": (
        lambda: keys(
            tokenizer__ggml__model=text("llama"),
            tokenizer__ggml__tokens=texts([str(i) for i in range(40)]),
            tokenizer__ggml__eos_token_id=u32(40),
        ),
        "tokenizer.ggml.eos_token_id is 40, not a token id below 40",
    ),
    "end in front": (
        lambda: keys(tokenizer__ggml__model=text("llama"), tokenizer__ggml__add_eos_token=boolean(True)),
        "tokenizer.ggml.add_eos_token is true; a prompt that ends the text cannot be continued",
    ),
    "version": (lambda: gguf_bytes(version=1), "is GGUF version 1, not little-endian version 2 or 3"),
    "byte order": (
        lambda: patched(gguf_bytes(), 4, "<I", 3 << 24),
        "is big-endian GGUF, not little-endian version 2 or 3",
    ),
    "tensor count": (
        lambda: patched(gguf_bytes(tensors={}), 8, "<Q", 2**60),
        "claims 1,152,921,504,606,846,976 tensors, more than its 512 bytes can hold",
    ),
    "header cut": (lambda: gguf_bytes()[:10], f"the header needs 8 bytes at byte 8, the file ends at 10; {DAMAGED}"),
    "data cut": (
        lambda: gguf_bytes()[:-40],
        f"tensor blk.1.ffn_down.weight spans bytes 234,400 to 258,976, the file ends at 258,936; {DAMAGED}",
    ),
    "overlap": (
        overlapping,
        "tensors blk.0.attn_norm.weight and token_embd.weight overlap at byte 1,696",
    ),
    "huge": (
        huge_dimension,
        "blk.0.attn_norm.weight: has shape [9223372036854775808], the hyperparameters ask for [64]",
    ),
    "not a number": (
        lambda: with_tensor("output_norm.weight", "F32", (64,), struct.pack("<f", float("nan")) * 64),
        "output_norm.weight: holds a NaN or an infinity",
    ),
}


@pytest.mark.parametrize("case", GGUF_LINES)
def test_gguf(tmp_path: Path, case: str):
    make, wanted = GGUF_LINES[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(make())
    assert message(path) == f"m.gguf: {wanted}"


FOLDER_LINES: dict[str, tuple[Callable[[], dict], str]] = {
    "architecture": (
        lambda: folder_config(architectures=["MambaForCausalLM"]),
        "f/config.json: architectures is ['MambaForCausalLM'], not one of LlamaForCausalLM, MistralForCausalLM, Qwen2ForCaus"
        "alLM, Qwen3ForCausalLM, Phi3ForCausalLM, GemmaForCausalLM, Gemma2ForCausalLM, Gemma3ForCausalLM, GPT2LMHeadModel",
    ),
    "rope scaling": (
        lambda: folder_config(rope_scaling={"rope_type": "yarn", "factor": 8.0}),
        "f/config.json: rope_scaling is of type 'yarn', and only 'default' (none), 'linear' and 'llama3' are understood",
    ),
    "bias": (
        lambda: folder_config(attention_bias=True),
        "f/config.json: attention_bias is True, and only False is understood",
    ),
    "activation": (
        lambda: folder_config(hidden_act="gelu"),
        "f/config.json: hidden_act is 'gelu', and only 'silu' is understood",
    ),
    "quantized": (
        lambda: folder_config(quantization_config={"bits": 4}),
        "f/config.json: quantization_config is {'bits': 4}; only the format 'pack-quantized' is understood",
    ),
    "width": (
        lambda: folder_config(hidden_size="64"),
        "f/config.json: hidden_size is '64', not a whole number",
    ),
    "layers": (
        lambda: folder_config(num_hidden_layers=10**9),
        "f/config.json: 1,000,000,000 layers need 9 tensors each, the file has 20",
    ),
    "odd head": (
        lambda: folder_config(head_dim=15),
        "f/config.json: head_dim is 15, which is odd; rotary positions turn pairs",
    ),
    "untied": (
        lambda: folder_config(tie_word_embeddings=False),
        "f: tensor lm_head.weight is missing",
    ),
}


@pytest.mark.parametrize("case", FOLDER_LINES)
def test_folder(tmp_path: Path, case: str):
    make, wanted = FOLDER_LINES[case]
    assert message(write_folder(tmp_path / "f", config=make())) == wanted


SAFETENSORS_LINES: dict[str, tuple[Callable[[], bytes], str]] = {
    "header": (
        lambda: struct.pack("<Q", 1 << 40) + b"{}",
        "claims a header of 1,099,511,627,776 bytes, the file has 10; it is truncated",
    ),
    "not json": (
        lambda: struct.pack("<Q", 2) + b"{]",
        "has a header that is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
    ),
    "twice": (
        lambda: struct.pack("<Q", 15) + b'{"a":1, "a":2} ',
        "has a header that is not JSON (a name stands twice)",
    ),
    "row": (
        lambda: safetensors_bytes({}, a={"dtype": "F32"}),
        "a: is not described by dtype, shape and data_offsets",
    ),
    "size": (
        lambda: safetensors_bytes({}, a={"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 8]}),
        "a: has 8 bytes, its shape [2, 3] of F32 needs 24",
    ),
    "overlap": (
        lambda: safetensors_bytes(
            {"a": np.zeros(4, np.float32)}, b={"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}
        ),
        "tensors a and b overlap at byte 174",
    ),
}


@pytest.mark.parametrize("case", SAFETENSORS_LINES)
def test_safetensors(tmp_path: Path, case: str):
    make, wanted = SAFETENSORS_LINES[case]
    folder = write_folder(tmp_path / "f")
    (folder / "model.safetensors").write_bytes(make())
    assert message(folder) == f"model.safetensors: {wanted}"


def test_a_tensor_of_integers(tmp_path: Path):
    weights = floats() | {"norm": np.zeros(64, np.int64)}
    assert message(write_folder(tmp_path / "f", weights)) == (
        "model.safetensors: model.norm.weight: has type I64, not one of F32, F16, BF16"
    )


def test_a_shard_outside_the_folder(tmp_path: Path):
    folder = write_folder(tmp_path / "f")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    assert message(folder) == f"{index}: names the file '../secret.safetensors', which is not in the folder itself"


def test_a_llama2c_tokenizer_cut_short(tmp_path: Path):
    (tmp_path / "m.bin").write_bytes(llama2c_bytes())
    (tmp_path / "tok40.bin").write_bytes(struct.pack("<ifi", 3, 0.0, 3) + b"abc" + struct.pack("<fi", 0.0, 9))
    assert message(tmp_path / "m.bin") == f"tok40.bin: ends within token 1 of 40; {DAMAGED}"


def test_what_is_no_model(tmp_path: Path):
    kinds = "a model is a GGUF file, a llama2.c checkpoint, or a Hugging Face folder with config.json"
    (tmp_path / "x").write_bytes(llama2c_bytes()[:-1])
    assert message(tmp_path / "x") == f"{tmp_path}/x: is not a model that is understood; {kinds}"
    (tmp_path / "empty").touch()
    assert message(tmp_path / "empty") == f"{tmp_path}/empty: is empty"
    assert message(tmp_path) == f"{tmp_path}: is a folder without config.json; {kinds}"
    assert message("llama-9") == (
        "llama-9: is neither a file or folder nor the name of a model; known names: fable, fable-ternary, smollm2-135m-instruct"
    )


def test_what_has_not_been_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert message("smollm2-135m-instruct") == (
        "smollm2-135m-instruct: has not been fetched; run `tapeout fetch smollm2-135m-instruct` once"
    )
