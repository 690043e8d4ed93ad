"""The same small random weights as a Hugging Face folder and as a GGUF file, family by family. It shares no code with the readers.

GGUF follows llama.cpp's converter: names of its own, norms of Gemma plus one, rows of Q and K permuted for Llama alone, GPT-2's matrices
turned to [rows, columns], fused matrices left as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from files import f32, gguf_bytes, safetensors_bytes, text, u32

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCABULARY, CONTEXT = 64, 6, 4, 2, 16, 96, 40, 48
Q, KV = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
Tensors = dict[str, NDArray[np.float32]]

LLAMA_LAYER = {
    "input_layernorm": ("attn_norm", (WIDTH,)), "self_attn.q_proj": ("attn_q", (Q, WIDTH)),
    "self_attn.k_proj": ("attn_k", (KV, WIDTH)), "self_attn.v_proj": ("attn_v", (KV, WIDTH)),
    "self_attn.o_proj": ("attn_output", (WIDTH, Q)), "post_attention_layernorm": ("ffn_norm", (WIDTH,)),
    "mlp.gate_proj": ("ffn_gate", (HIDDEN, WIDTH)), "mlp.up_proj": ("ffn_up", (HIDDEN, WIDTH)),
    "mlp.down_proj": ("ffn_down", (WIDTH, HIDDEN)),
}  # fmt: skip
"""Stem in a folder -> (stem in a GGUF, shape of its weight)."""
QK_NORMS = {"self_attn.q_norm": ("attn_q_norm", (HEAD_DIM,)), "self_attn.k_norm": ("attn_k_norm", (HEAD_DIM,))}
GEMMA2_LAYER = LLAMA_LAYER | {
    "post_attention_layernorm": ("post_attention_norm", (WIDTH,)), "pre_feedforward_layernorm": ("ffn_norm", (WIDTH,)),
    "post_feedforward_layernorm": ("post_ffw_norm", (WIDTH,)),
}  # fmt: skip
PHI3_LAYER = {
    "input_layernorm": ("attn_norm", (WIDTH,)), "self_attn.qkv_proj": ("attn_qkv", (Q + 2 * KV, WIDTH)),
    "self_attn.o_proj": ("attn_output", (WIDTH, Q)), "post_attention_layernorm": ("ffn_norm", (WIDTH,)),
    "mlp.gate_up_proj": ("ffn_up", (2 * HIDDEN, WIDTH)), "mlp.down_proj": ("ffn_down", (WIDTH, HIDDEN)),
}  # fmt: skip
GPT2_LAYER = {
    "ln_1": ("attn_norm", (WIDTH,)), "attn.c_attn": ("attn_qkv", (WIDTH, 3 * WIDTH)), "ln_2": ("ffn_norm", (WIDTH,)),
    "attn.c_proj": ("attn_output", (WIDTH, WIDTH)), "mlp.c_fc": ("ffn_up", (WIDTH, HIDDEN)), "mlp.c_proj": ("ffn_down", (HIDDEN, WIDTH)),
}  # fmt: skip
MODEL = {"model.embed_tokens": ("token_embd", (VOCABULARY, WIDTH)), "model.norm": ("output_norm", (WIDTH,))}
GPT2_MODEL = {
    "transformer.wte": ("token_embd", (VOCABULARY, WIDTH)), "transformer.wpe": ("position_embd", (CONTEXT, WIDTH)),
    "transformer.ln_f": ("output_norm", (WIDTH,)),
}  # fmt: skip

CONFIG = {
    "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 2.0**-17, "rope_theta": 500.0, "tie_word_embeddings": True,
}  # fmt: skip
METADATA = {
    "block_count": u32(LAYERS), "context_length": u32(CONTEXT), "embedding_length": u32(WIDTH), "feed_forward_length": u32(HIDDEN),
    "attention.head_count": u32(HEADS), "attention.head_count_kv": u32(KV_HEADS), "attention.key_length": u32(HEAD_DIM),
    "attention.value_length": u32(HEAD_DIM), "attention.layer_norm_rms_epsilon": f32(2.0**-17), "rope.freq_base": f32(500.0),
}  # fmt: skip
GPT2_CONFIG = {
    "n_embd": WIDTH, "n_inner": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": VOCABULARY, "n_positions": CONTEXT,
    "layer_norm_epsilon": 2.0**-17, "activation_function": "gelu_new",
}  # fmt: skip
GPT2_METADATA = {
    "block_count": u32(LAYERS), "context_length": u32(CONTEXT), "embedding_length": u32(WIDTH), "feed_forward_length": u32(HIDDEN),
    "attention.head_count": u32(HEADS), "attention.layer_norm_epsilon": f32(2.0**-17),
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """One family's two files."""

    architecture: str
    """In config.json."""
    gguf: str
    layer: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=lambda: LLAMA_LAYER)
    model: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=lambda: MODEL)
    biased: tuple[str, ...] = ()
    prefix: str = "model.layers"
    config: Mapping[str, Any] = field(default_factory=lambda: CONFIG)
    metadata: Mapping[str, tuple[int, bytes]] = field(default_factory=lambda: METADATA)

    def tensors(self, seed: int = 0) -> tuple[Tensors, Tensors]:
        """The same weights by their names in a folder, and in a GGUF."""
        rng, folder, gguf = np.random.default_rng(seed), {}, {}
        stems = [(stem, *row) for stem, row in self.model.items()]
        for i in range(LAYERS):
            stems += [
                (f"{self.prefix}.{i}.{stem}", f"blk.{i}.{theirs}", shape)
                for stem, (theirs, shape) in self.layer.items()
            ]
        for stem, theirs, shape in stems:
            folder[f"{stem}.weight"] = weight = rng.normal(0, 0.3, shape).astype(np.float32)
            gguf[f"{theirs}.weight"] = self._converted(theirs, weight)
            if theirs.rpartition(".")[2] in self.biased:
                rows = shape[1] if self.gguf == "gpt2" and len(shape) == 2 else shape[0]
                folder[f"{stem}.bias"] = gguf[f"{theirs}.bias"] = rng.normal(0, 0.3, rows).astype(np.float32)
        return folder, gguf

    def _converted(self, theirs: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        part = theirs.rpartition(".")[2]
        if self.gguf.startswith("gemma") and weight.ndim == 1:
            return weight + np.float32(1)
        if self.gguf == "gpt2" and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
            return np.ascontiguousarray(weight.T)
        if self.gguf == "llama" and part in ("attn_q", "attn_k"):
            return np.concatenate(
                [head[[i // 2 + i % 2 * 8 for i in range(16)]] for head in np.split(weight, len(weight) // 16)]
            )
        return weight

    def write(self, folder: Path, seed: int = 0) -> tuple[Path, Path]:
        """(Hugging Face folder, GGUF file)."""
        theirs, ours = self.tensors(seed)
        (folder / "hf").mkdir()
        (folder / "hf" / "config.json").write_text(json.dumps({"architectures": [self.architecture], **self.config}))
        (folder / "hf" / "model.safetensors").write_bytes(safetensors_bytes(theirs))
        metadata = {f"{self.gguf}.{key}": value for key, value in self.metadata.items()}
        tensors = {name: ("F32", weight.shape, weight.tobytes()) for name, weight in ours.items()}
        (folder / "m.gguf").write_bytes(gguf_bytes({"general.architecture": text(self.gguf), **metadata}, tensors))
        return folder / "hf", folder / "m.gguf"


WINDOWED = METADATA | {"attention.sliding_window": u32(9)}
NO_HEAD_DIM = {key: value for key, value in CONFIG.items() if key != "head_dim"}
CAPS = {"attn_logit_softcapping": f32(12.0), "final_logit_softcapping": f32(6.0)}

FAMILIES: dict[str, Files] = {
    "llama": Files("LlamaForCausalLM", "llama"),
    "llama with linear rope": Files(
        "LlamaForCausalLM", "llama", config=CONFIG | {"rope_scaling": {"type": "linear", "factor": 4.0}},
        metadata=METADATA | {"rope.scaling.type": text("linear"), "rope.scaling.factor": f32(4.0)},
    ),
    "mistral": Files("MistralForCausalLM", "llama", config=CONFIG | {"sliding_window": 9}, metadata=WINDOWED),
    "qwen2": Files("Qwen2ForCausalLM", "qwen2", biased=("attn_q", "attn_k", "attn_v"), config=NO_HEAD_DIM),
    "qwen3": Files("Qwen3ForCausalLM", "qwen3", LLAMA_LAYER | QK_NORMS),
    "phi3": Files("Phi3ForCausalLM", "phi3", PHI3_LAYER, config=CONFIG | {"sliding_window": 9}, metadata=WINDOWED),
    "phi3 with partial rotation": Files(
        "Phi3ForCausalLM", "phi3", PHI3_LAYER, config=CONFIG | {"partial_rotary_factor": 0.5},
        metadata=METADATA | {"rope.dimension_count": u32(8)},
    ),
    "gemma": Files("GemmaForCausalLM", "gemma"),
    "gpt2": Files(
        "GPT2LMHeadModel", "gpt2", GPT2_LAYER, GPT2_MODEL,
        ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down", "output_norm"), "transformer.h",
        GPT2_CONFIG, GPT2_METADATA,
    ),
    "gemma2": Files(
        "Gemma2ForCausalLM", "gemma2", GEMMA2_LAYER, metadata=WINDOWED | CAPS,
        config=CONFIG | {
            "sliding_window": 9, "query_pre_attn_scalar": HEAD_DIM, "attn_logit_softcapping": 12.0, "final_logit_softcapping": 6.0,
        },
    ),
    "gemma3": Files(
        "Gemma3ForCausalLM", "gemma3", GEMMA2_LAYER | QK_NORMS, metadata=WINDOWED,
        config=CONFIG | {"sliding_window": 9, "query_pre_attn_scalar": HEAD_DIM},
    ),
}  # fmt: skip
