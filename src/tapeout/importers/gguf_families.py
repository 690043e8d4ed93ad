"""What each architecture's GGUF metadata says and means: one row per `general.architecture`, after llama.cpp's converter.

In a file of architecture llama the rows of Q and K stand in the order of neighbouring RoPE pairs; in the others a pair is (i, i + d/2), and
rows are permuted at import (exact). Norms of Gemma's files hold 1 + weight already.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tapeout.importers.tensors import Names


class Keys(Protocol):
    """A file's metadata under its architecture's name."""

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number. Raises `BadInput`."""
        ...

    def real(self, key: str, default: float | None = None) -> float:
        """A number. Raises `BadInput`."""
        ...


Q_K_V = {f"attn_{part}": (part,) for part in "qkv"}
LAYER = {
    "attn_norm": ("attn_norm",), **Q_K_V, "attn_output": ("o",), "ffn_norm": ("ffn_norm",), "ffn_gate": ("gate",),
    "ffn_up": ("up",), "ffn_down": ("down",),
}  # fmt: skip
MODEL = {"token_embd": ("embed",), "output_norm": ("norm",), "output": ("head",)}
QK_NORMS = {"attn_q_norm": ("q_norm",), "attn_k_norm": ("k_norm",)}
POST_NORMS = {"post_attention_norm": ("attn_post_norm",), "post_ffw_norm": ("ffn_post_norm",)}
FUSED_QKV = {name: parts for name, parts in LAYER.items() if name not in Q_K_V} | {"attn_qkv": ("q", "k", "v")}
PHI3 = {name: parts for name, parts in FUSED_QKV.items() if name != "ffn_gate"} | {"ffn_up": ("gate", "up")}
GPT2 = {name: parts for name, parts in FUSED_QKV.items() if name != "ffn_gate"}

LLAMA_NAMES = Names("blk.{}.", LAYER, MODEL)

Read = Callable[[Keys], dict[str, Any]]
"""Metadata -> arguments of `Style`."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """How metadata and tensors of one architecture are read."""

    names: Names = LLAMA_NAMES
    read: Read = lambda keys: {}
    keys: frozenset[str] = frozenset()
    """Those that `read` asks for."""
    neighbours: bool = False
    """Rows of Q and K stand in the order of neighbouring pairs already."""
    rope_scaling: bool = True
    """RoPE may be scaled: linearly, or by a factor for every pair in tensor rope_freqs.weight."""


WINDOW = "attention.sliding_window"


def _window(keys: Keys, local: Callable[[int], bool] = lambda layer: True) -> dict[str, Any]:
    window, layers = keys.whole(WINDOW, 0), keys.whole("block_count")
    places = tuple(map(local, range(min(layers, 2**16))))
    return {"window": window, "local_layers": places} if window > 0 and any(places) else {}


def _gemma(keys: Keys) -> dict[str, Any]:
    return {"activation": "gelu", "embed_scale": math.sqrt(max(keys.whole("embedding_length"), 1))}


def _scalar(keys: Keys, large: int) -> dict[str, Any]:
    """The file does not say what scores are divided by: the largest model of a family, known by its layers, by its width over its heads."""
    if keys.whole("block_count") != large:
        return {}
    return {"scalar": keys.whole("embedding_length") / max(keys.whole("attention.head_count"), 1)}


def _gemma2(keys: Keys) -> dict[str, Any]:
    caps = {
        "score_cap": keys.real("attn_logit_softcapping", 50.0), "logit_cap": keys.real("final_logit_softcapping", 30.0)
    }  # fmt: skip
    windows = _window(keys, lambda layer: layer % 2 == 0)
    return _gemma(keys) | caps | windows | _scalar(keys, 46) | {"post_norms": True}


def _gemma3(keys: Keys) -> dict[str, Any]:
    pattern = max(keys.whole("attention.sliding_window_pattern", 6), 1)
    windows = _window(keys, lambda layer: (layer + 1) % pattern != 0)
    theta = keys.real("rope.freq_base_swa", 10000.0)
    return _gemma(keys) | windows | _scalar(keys, 62) | {"post_norms": True, "qk_norm": True, "local_theta": theta}


def _gpt2(keys: Keys) -> dict[str, Any]:
    return {
        "positions": True, "layer_norm": True, "qkv_bias": True, "biases": True, "gated": False, "activation": "gelu",
    }  # fmt: skip


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(read=_window, keys=frozenset({WINDOW}), neighbours=True),
    "qwen2": Architecture(read=lambda keys: {"qkv_bias": True}),
    "qwen3": Architecture(Names("blk.{}.", LAYER | QK_NORMS, MODEL), lambda keys: {"qk_norm": True}),
    "phi3": Architecture(Names("blk.{}.", PHI3, MODEL), _window, frozenset({WINDOW}), rope_scaling=False),
    "gemma": Architecture(read=_gemma),
    "gpt2": Architecture(Names("blk.{}.", GPT2, MODEL | {"position_embd": ("positions",)}), _gpt2, rope_scaling=False),
    "gemma2": Architecture(
        Names("blk.{}.", LAYER | POST_NORMS, MODEL), _gemma2,
        frozenset({WINDOW, "attn_logit_softcapping", "final_logit_softcapping"}),
    ),
    "gemma3": Architecture(
        Names("blk.{}.", LAYER | POST_NORMS | QK_NORMS, MODEL), _gemma3,
        frozenset({WINDOW, "attention.sliding_window_pattern", "rope.freq_base_swa"}),
    ),
}  # fmt: skip
"""By `general.architecture`. Mistral's files are of llama."""
