"""Writers of small model files, good ones and broken ones. They share no code with the readers under test."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCABULARY, CONTEXT = 64, 2, 4, 2, 16, 96, 40, 128
"""The shape of every small model here."""

GGUF_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q6_K": 14, "Q2_K": 10, "BF16": 30}


def shapes(tied: bool = True) -> dict[str, tuple[int, ...]]:
    """Weight name in the graph -> shape of the small model."""
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    found: dict[str, tuple[int, ...]] = {"embed": (VOCABULARY, WIDTH), "norm": (WIDTH,)}
    for i in range(LAYERS):
        layer = {"attn_norm": (WIDTH,), "q": (q, WIDTH), "k": (kv, WIDTH), "v": (kv, WIDTH), "o": (WIDTH, q)}
        layer |= {"ffn_norm": (WIDTH,), "gate": (HIDDEN, WIDTH), "up": (HIDDEN, WIDTH), "down": (WIDTH, HIDDEN)}
        found |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    return found if tied else found | {"head": (VOCABULARY, WIDTH)}


def floats(seed: int = 0, tied: bool = True) -> dict[str, NDArray[np.float32]]:
    """Random weights of the small model, by their names in the graph."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(1, 0.1, shape) if len(shape) == 1 else rng.normal(0, 0.2, shape)).astype(np.float32)
        for name, shape in shapes(tied).items()
    }


# --- GGUF -------------------------------------------------------------------------------------------


def u32(value: int) -> tuple[int, bytes]:
    """A GGUF value: (type, bytes)."""
    return 4, struct.pack("<I", value)


def f32(value: float) -> tuple[int, bytes]:
    """A GGUF float."""
    return 6, struct.pack("<f", value)


def boolean(value: bool) -> tuple[int, bytes]:
    """A GGUF truth value."""
    return 7, struct.pack("<?", value)


def text(value: str) -> tuple[int, bytes]:
    """A GGUF string."""
    return 8, string(value)


def texts(values: list[str]) -> tuple[int, bytes]:
    """A GGUF array of strings."""
    return 9, struct.pack("<IQ", 8, len(values)) + b"".join(map(string, values))


def numbers(kind: int, values: list) -> tuple[int, bytes]:
    """A GGUF array of int32 (kind 5) or float32 (kind 6)."""
    return 9, struct.pack("<IQ", kind, len(values)) + struct.pack(f"<{len(values)}{'i' if kind == 5 else 'f'}", *values)


def string(value: str) -> bytes:
    """Length and UTF-8."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_metadata(**changes: Any) -> dict[str, tuple[int, bytes] | None]:
    """The small model's metadata; `changes` by key with dots as `__`, None removes."""
    metadata: dict[str, tuple[int, bytes] | None] = {
        "general.architecture": text("llama"),
        "general.name": text("small"),
        "llama.block_count": u32(LAYERS),
        "llama.context_length": u32(CONTEXT),
        "llama.embedding_length": u32(WIDTH),
        "llama.feed_forward_length": u32(HIDDEN),
        "llama.attention.head_count": u32(HEADS),
        "llama.attention.head_count_kv": u32(KV_HEADS),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.rope.freq_base": f32(10000.0),
        "llama.rope.dimension_count": u32(HEAD_DIM),
        "llama.vocab_size": u32(VOCABULARY),
    }
    return metadata | {key.replace("__", "."): value for key, value in changes.items()}


def gguf_name(name: str) -> str:
    """A weight's name in a GGUF."""
    fixed = {"embed": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight"}
    if name in fixed:
        return fixed[name]
    _, layer, part = name.split(".")
    parts = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
    parts |= {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    return f"blk.{layer}.{parts.get(part, part)}.weight"


def gguf_tensors(kind: str = "F32", seed: int = 0, tied: bool = True) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """(type, shape, bytes) of every tensor: norms F32, matrices of `kind` with random codes and finite scales."""
    rng = np.random.default_rng(seed + 1)
    tensors = {}
    for name, values in floats(seed, tied).items():
        own = "F32" if values.ndim == 1 else kind
        tensors[gguf_name(name)] = (own, values.shape, _stored(own, values, rng))
    return tensors


def _stored(kind: str, values: NDArray[np.float32], rng: np.random.Generator) -> bytes:
    if kind == "F32":
        return values.tobytes()
    if kind == "F16":
        return values.astype("<f2").tobytes()
    if kind == "BF16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    halves, codes = {"Q4_0": (1, 16), "Q4_1": (2, 16), "Q8_0": (1, 32)}[kind]
    blocks = values.size // 32
    scales = rng.normal(0, 0.02, (blocks, halves)).astype("<f2").view(np.uint8)
    return np.hstack([scales, rng.integers(0, 256, (blocks, codes), np.uint8)]).tobytes()


def gguf_bytes(
    metadata: Mapping[str, tuple[int, bytes] | None] | None = None,
    tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]] | None = None,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A GGUF file."""
    metadata = gguf_metadata() if metadata is None else metadata
    tensors = gguf_tensors() if tensors is None else tensors
    keys = {key: value for key, value in metadata.items() if value is not None}
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for key, (kind, raw) in keys.items():
        out += string(key) + struct.pack("<I", kind) + raw
    data = b""
    for name, (kind, shape, raw) in tensors.items():
        out += string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        out += struct.pack("<IQ", GGUF_TYPES[kind], len(data))
        data += raw + bytes(-len(raw) % alignment)
    return out + bytes(-len(out) % alignment) + data


def byte_symbols() -> list[str]:
    """GPT-2's 256 printable symbols, in the order of the bytes they stand for."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


# --- safetensors and Hugging Face folders -----------------------------------------------------------


def safetensors_bytes(tensors: Mapping[str, NDArray], **rows: Any) -> bytes:
    """A safetensors file; `rows` replace or add rows of its table (None removes)."""
    names = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64"}
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        extent = [len(data), len(data) + values.nbytes]
        table[name] = {"dtype": names[str(values.dtype)], "shape": list(values.shape), "data_offsets": extent}
        data += values.tobytes()
    table = {name: row for name, row in (table | rows).items() if row is not None}
    header = json.dumps(table).encode()
    return struct.pack("<Q", len(header)) + header + data


def folder_config(**changes: Any) -> dict[str, Any]:
    """config.json of the small model."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
        "rope_scaling": None, "eos_token_id": 2,
    }  # fmt: skip
    return config | changes


def folder_name(name: str) -> str:
    """A weight's name in a Hugging Face checkpoint."""
    fixed = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
    if name in fixed:
        return fixed[name]
    _, layer, part = name.split(".")
    parts = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    parts |= {part: f"self_attn.{part}_proj" for part in "qkvo"}
    parts |= {part: f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    return f"model.layers.{layer}.{parts[part]}.weight"


def write_folder(
    folder: Path, tensors: Mapping[str, NDArray] | None = None, config: Mapping[str, Any] | None = None, **extra: bytes
) -> Path:
    """A Hugging Face folder; `tensors` by their names in the graph, `extra` files by name with `__` for the dot."""
    folder.mkdir(exist_ok=True)
    tensors = floats() if tensors is None else tensors
    (folder / "config.json").write_text(json.dumps(folder_config() if config is None else config))
    named = {folder_name(name): values for name, values in tensors.items()}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(named))
    for name, raw in extra.items():
        (folder / name.replace("__", ".")).write_bytes(raw)
    return folder


# --- llama2.c ---------------------------------------------------------------------------------------


def llama2c_bytes(tied: bool = True, seed: int = 0) -> bytes:
    """A llama2.c checkpoint of the small model."""
    weights = floats(seed, tied)
    header = (WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY if tied else -VOCABULARY, CONTEXT)
    out = struct.pack("<7i", *header) + weights["embed"].tobytes()
    for part in ("attn_norm", "q", "k", "v", "o", "ffn_norm", "gate", "down", "up"):
        out += b"".join(weights[f"layers.{i}.{part}"].tobytes() for i in range(LAYERS))
    out += weights["norm"].tobytes() + bytes(2 * 4 * CONTEXT * HEAD_DIM // 2)
    return out if tied else out + weights["head"].tobytes()


def llama2c_tokenizer(pieces: list[tuple[bytes, float]]) -> bytes:
    """A llama2.c tokenizer."""
    out = struct.pack("<i", max(len(piece) for piece, _ in pieces))
    return out + b"".join(struct.pack("<fi", score, len(piece)) + piece for piece, score in pieces)
