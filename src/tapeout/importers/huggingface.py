"""Hugging Face folders of LlamaForCausalLM -> `Model` with float32 or packed weights: config.json, *.safetensors, tokenizer.json.

Hugging Face turns pairs (i, i + d/2) of a head; here a pair is two neighbours, so the rows of Q and K are permuted
(exact). Keys of config.json that LlamaForCausalLM itself ignores are ignored; those that change what it computes are
read, or have one of the values of `NEUTRAL`, or are refused.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.base.reading import shown
from tapeout.graph.types import Matrix, Model, Weight
from tapeout.importers.llama import Llama, assemble, check_shape
from tapeout.importers.packed import take_packing, unpacked
from tapeout.importers.safetensors_file import Stored, read_safetensors
from tapeout.importers.tokenizer import folder_tokenizer, read_json

ARCHITECTURE = "LlamaForCausalLM"

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "sliding_window": (None,),
    "quantization_config": (None,),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
}
"""Keys that change what is computed unless they are absent or have one of these values."""

LAYER_TENSORS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v",
    "self_attn.o_proj": "o", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "gate", "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}  # fmt: skip
"""model.layers.N.KEY.weight in the file is layers.N.VALUE in the graph."""

MODEL_TENSORS = {"model.embed_tokens.weight": "embed", "model.norm.weight": "norm", "lm_head.weight": "head"}

IGNORED_ENDING = ".rotary_emb.inv_freq"
"""A buffer that old checkpoints carry; it follows from the hyperparameters."""


def import_folder(folder: Path) -> Model:
    """Read a folder. Raises `BadInput` that names the first thing that is not understood."""
    config = read_json(folder / "config.json")
    bits = take_packing(f"{folder.name}/config.json", config)
    _refuse(folder.name, config)
    tensors = unpacked(_tensors(folder), bits)
    llama = _hyperparameters(folder, config, len(tensors))
    named = _named(folder.name, tensors, llama)
    weights = {name: stored.read() for name, stored in named.items()}
    _refuse_other_head(folder.name, tensors, weights)
    _pair_neighbours(weights, llama)
    tokenizer = folder_tokenizer(folder, _end_ids(folder, config))
    notes = ("the rows of q and k are permuted so that rotary pairs are neighbours",)
    return assemble(llama, weights, tokenizer, str(folder), notes)


def neighbours(rows: NDArray, heads: int) -> NDArray:
    """Permute the rows of each head so that rows i and i + d/2 become rows 2i and 2i + 1."""
    total, columns = rows.shape
    return np.ascontiguousarray(rows.reshape(heads, 2, -1, columns).swapaxes(1, 2)).reshape(total, columns)


def _refuse(name: str, config: Mapping[str, Any]) -> None:
    architectures = config.get("architectures")
    if architectures != [ARCHITECTURE]:
        raise BadInput(f"{name}/config.json", f"architectures is {shown(architectures)}, not [{ARCHITECTURE!r}]")
    for key, allowed in NEUTRAL.items():
        if key in config and config[key] not in allowed:
            raise BadInput(
                f"{name}/config.json", f"{key} is {shown(config[key])}, and only {allowed[0]!r} is understood"
            )


def _theta(where: str, config: Mapping[str, Any]) -> float:
    """RoPE's base. Raises `BadInput` for any scaling; newer files keep both under `rope_parameters`."""
    theta = config.get("rope_theta", 10000.0)
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key) or {}
        if not isinstance(rope, dict):
            raise BadInput(where, f"{key} is {shown(rope)}, not a mapping")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise BadInput(where, f"{key} is of type {shown(kind)}, and only 'default' (none) is understood")
        theta = rope.get("rope_theta", theta)
    return _real(where, "rope_theta", theta)


def _hyperparameters(folder: Path, config: Mapping[str, Any], tensors: int) -> Llama:
    where = f"{folder.name}/config.json"

    def whole(key: str, default: int | None = None) -> int:
        value = config.get(key)
        value = default if value is None else value
        if value is None:
            raise BadInput(where, f"{key} is missing")
        if type(value) is not int:
            raise BadInput(where, f"{key} is {shown(value)}, not a whole number")
        return value

    heads, width = whole("num_attention_heads"), whole("hidden_size")
    llama = Llama(
        name=folder.resolve().name,
        vocabulary=whole("vocab_size"),
        context=whole("max_position_embeddings", 2048),
        width=width,
        layers=whole("num_hidden_layers"),
        heads=heads,
        kv_heads=whole("num_key_value_heads", heads),
        head_dim=whole("head_dim", width // max(heads, 1)),
        hidden=whole("intermediate_size"),
        theta=_theta(where, config),
        eps=_real(where, "rms_norm_eps", config.get("rms_norm_eps", 1e-6)),
        tied=bool(config.get("tie_word_embeddings", False)),
    )
    llama.check(where, tensors)
    return llama


def _real(where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(where, f"{key} is {shown(value)}, not a number")
    if abs(value) > sys.float_info.max:
        raise BadInput(where, f"{key} is {shown(value)}, not a finite number")
    return float(value)


def _tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of the folder: of the index's shards, else of model.safetensors or the one file there is."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return _shards(folder, index)
    files = sorted(folder.glob("*.safetensors"))
    single = folder / "model.safetensors"
    if single not in files and len(files) != 1:
        raise BadInput(str(folder), f"has {len(files)} .safetensors files and neither model.safetensors nor its index")
    return read_safetensors(single if single in files else files[0])


def _shards(folder: Path, index: Path) -> dict[str, Stored]:
    table = read_json(index).get("weight_map")
    if not (isinstance(table, dict) and all(isinstance(name, str) for name in table.values())):
        raise BadInput(str(index), "has no weight_map of tensor names to file names")
    shards = {}
    for name in sorted(set(table.values())):
        if Path(name).name != name:
            raise BadInput(str(index), f"names the file {name!r}, which is not in the folder itself")
        shards[name] = read_safetensors(folder / name)
    for tensor, name in table.items():
        if tensor not in shards[name]:
            raise BadInput(str(index), f"says {tensor} is in {name}, which does not hold it")
    return {tensor: shards[name][tensor] for tensor, name in table.items()}


def _named(folder: str, tensors: Mapping[str, Stored], llama: Llama) -> dict[str, Stored]:
    """The tensors by their names in the graph, all there and of the right shape. Raises `BadInput`."""
    names = dict(MODEL_TENSORS)
    for layer in range(llama.layers):
        names |= {f"model.layers.{layer}.{key}.weight": f"layers.{layer}.{ours}" for key, ours in LAYER_TENSORS.items()}
    for name in tensors:
        if name not in names and not name.endswith(IGNORED_ENDING):
            raise BadInput(folder, f"tensor {name} is not understood", "it may change what the model computes")
    theirs = {ours: name for name, ours in names.items()}
    named = {}
    for ours, shape in llama.shapes().items():
        if theirs[ours] not in tensors:
            raise BadInput(folder, f"tensor {theirs[ours]} is missing")
        named[ours] = tensors[theirs[ours]]
        check_shape(named[ours].where, named[ours].shape, shape)
    return named


def _refuse_other_head(folder: str, tensors: Mapping[str, Stored], weights: Mapping[str, Weight]) -> None:
    """A tied model's file may repeat the table as its head, as long as it is the same table. Raises `BadInput`."""
    if "head" in weights or "lm_head.weight" not in tensors:
        return
    check_shape(tensors["lm_head.weight"].where, tensors["lm_head.weight"].shape, weights["embed"].shape)
    if not np.array_equal(np.asarray(tensors["lm_head.weight"].read()), np.asarray(weights["embed"])):
        raise BadInput(folder, "tie_word_embeddings is true, but lm_head.weight differs from the embedding")


def _pair_neighbours(weights: dict[str, Weight], llama: Llama) -> None:
    for layer in range(llama.layers):
        for part, heads in (("q", llama.heads), ("k", llama.kv_heads)):
            rows = weights[f"layers.{layer}.{part}"]
            weights[f"layers.{layer}.{part}"] = (
                replace(rows, codes=neighbours(rows.codes, heads), scale=neighbours(rows.scale, heads))
                if isinstance(rows, Matrix)
                else neighbours(rows, heads)
            )


def _end_ids(folder: Path, config: Mapping[str, Any]) -> frozenset[int]:
    """`eos_token_id` of the model's and of the generation's configuration: one id or several."""
    generation = read_json(folder / "generation_config.json", default={})
    ids: set[int] = set()
    for found in (config.get("eos_token_id"), generation.get("eos_token_id")):
        ids |= {token for token in (found if isinstance(found, list) else [found]) if type(token) is int}
    return frozenset(ids)
