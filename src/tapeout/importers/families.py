"""What each family's config.json says and means: one row per architecture of Hugging Face's transformers.

Keys that a family itself ignores are ignored; those that change what it computes are read, or have one of the values of
`neutral`, or are refused. A new family is a row here, and one in `gguf_families.py`.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tapeout.base.errors import BadInput
from tapeout.base.reading import shown
from tapeout.graph.style import Style
from tapeout.importers.llama import Llama
from tapeout.importers.tensors import Names
from tapeout.numerics.tables import llama3_factors


@dataclass(frozen=True, slots=True)
class Config:
    """config.json: values by key, checked as they are asked for. Raises `BadInput`."""

    where: str
    data: Mapping[str, Any]

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self.data.get(key)
        value = default if value is None else value
        if value is None:
            raise BadInput(self.where, f"{key} is missing")
        if type(value) is not int:
            raise BadInput(self.where, f"{key} is {shown(value)}, not a whole number")
        return value

    def real(self, key: str, default: float) -> float:
        """A finite number."""
        value = self.data.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput(self.where, f"{key} is {shown(value)}, not a number")
        if not abs(value) <= sys.float_info.max:
            raise BadInput(self.where, f"{key} is {shown(value)}, not a finite number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.data.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise BadInput(self.where, f"{key} is {shown(value)}, not true or false")
        return value

    def mapping(self, key: str) -> "Config":
        """What stands under a key; empty where nothing does."""
        value = self.data.get(key) or {}
        if not isinstance(value, dict):
            raise BadInput(self.where, f"{key} is {shown(value)}, not a mapping")
        return Config(f"{self.where}, {key}", value)


# --- rotation ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rotation:
    """RoPE's base, and how much slower each pair turns."""

    theta: float
    rotary: int
    """Numbers of a head; 0: all."""
    factors: tuple[float, ...]


def read_rotation(config: Config, head_dim: int, part: str = "") -> Rotation:
    """RoPE of a model, from `rope_theta` and `rope_scaling`, or where newer files keep both, `rope_parameters` (there: of `part`)."""
    theta, share = config.real("rope_theta", 10000.0), config.real("partial_rotary_factor", 1.0)
    scaling: tuple[Mapping[str, Any], str] = config.data, "default"
    for key in ("rope_scaling", "rope_parameters"):
        found = config.mapping(key)
        if part in found.data:
            found = found.mapping(part)
        kind = found.data.get("rope_type", found.data.get("type", "default"))
        if not isinstance(kind, str) or kind not in SCALINGS:
            raise BadInput(config.where, f"{key} is of type {shown(kind)}, and only {KINDS} are understood")
        if kind != "default":
            scaling = found.data, kind
        theta, share = found.real("rope_theta", theta), found.real("partial_rotary_factor", share)
    if not (0 < theta < math.inf and 0 < share <= 1):
        raise BadInput(
            config.where, f"rope_theta is {theta} and partial_rotary_factor {share}", "theta > 0, 0 < factor <= 1"
        )
    if not 0 <= head_dim <= MOST_HEAD:
        raise BadInput(config.where, f"a head is of {shown(head_dim)} numbers", f"0 to {MOST_HEAD:,} are understood")
    rotary = int(head_dim * share)
    if share < 1 and (rotary < 2 or rotary % 2):
        raise BadInput(
            config.where, f"{rotary} of {head_dim} numbers of a head are rotated", "an even number is needed"
        )
    factors = SCALINGS[scaling[1]](Config(config.where, scaling[0]), theta, rotary)
    if not all(2.0**-20 <= factor <= 2.0**20 for factor in factors):
        raise BadInput(config.where, f"RoPE is scaled by {shown(max(factors))}", "a positive number is needed")
    return Rotation(theta, 0 if rotary == head_dim else rotary, factors)


MOST_HEAD = 2**16
"""No head is wider, and no file can make us count further."""


def _linear(config: Config, theta: float, rotary: int) -> tuple[float, ...]:
    return (config.real("factor", 1.0),) * (rotary // 2)


def _llama3(config: Config, theta: float, rotary: int) -> tuple[float, ...]:
    low, high = config.real("low_freq_factor", 1.0), config.real("high_freq_factor", 4.0)
    factor, context = config.real("factor", 8.0), config.whole("original_max_position_embeddings", 8192)
    if not (0 < low < high < 2.0**20 and 2.0**-20 < factor < 2.0**20 and 0 < context < 2**32):
        raise BadInput(
            config.where, f"llama3 scaling has factors {low}, {high} and {factor}", "0 < low < high, factor > 0"
        )
    return llama3_factors(theta, rotary, factor, low, high, context)


SCALINGS: Mapping[str, Callable[[Config, float, int], tuple[float, ...]]] = {
    "default": lambda config, theta, rotary: (),
    "linear": _linear,
    "llama3": _llama3,
}
"""Kinds of RoPE scaling: how much slower each pair turns."""
KINDS = "'default' (none), 'linear' and 'llama3'"


# --- windows ----------------------------------------------------------------------------------------


def _layers(config: Config) -> int:
    layers = config.whole("num_hidden_layers")
    if not 0 < layers < 2**16:
        raise BadInput(config.where, f"layers is {shown(layers)}, not 1 to {2**16 - 1}")
    return layers


def read_windows(config: Config, local: Callable[[int], bool]) -> dict[str, Any]:
    """Style's window and its layers: those that `layer_types` names, else those that `local` says."""
    window = config.whole("sliding_window", 0)
    if window < 0:
        raise BadInput(config.where, f"sliding_window is {window}, not at least 1")
    kinds, layers = config.data.get("layer_types"), _layers(config)
    if kinds is None:
        places = tuple(map(local, range(layers)))
    elif isinstance(kinds, list) and len(kinds) == layers and all(kind in LAYER_KINDS for kind in kinds):
        places = tuple(kind == LAYER_KINDS[1] for kind in kinds)
    else:
        raise BadInput(
            config.where, f"layer_types is {shown(kinds)}", f"{layers} of {' and '.join(LAYER_KINDS)} are understood"
        )
    return {"window": window, "local_layers": places} if window and any(places) else {}


LAYER_KINDS = ("full_attention", "sliding_attention")


# --- the families -----------------------------------------------------------------------------------

Q_K_V_O = {f"self_attn.{part}_proj": (part,) for part in "qkvo"}
GATE_UP_DOWN = {f"mlp.{part}_proj": (part,) for part in ("gate", "up", "down")}
NORMS = {"input_layernorm": ("attn_norm",), "post_attention_layernorm": ("ffn_norm",)}
MODEL = {"model.embed_tokens": ("embed",), "model.norm": ("norm",), "lm_head": ("head",)}

LLAMA_NAMES = Names("model.layers.{}.", NORMS | Q_K_V_O | GATE_UP_DOWN, MODEL)
QK_NORMS = {"self_attn.q_norm": ("q_norm",), "self_attn.k_norm": ("k_norm",)}
QWEN3_NAMES = Names("model.layers.{}.", LLAMA_NAMES.layer | QK_NORMS, MODEL)
FUSED = {"self_attn.qkv_proj": ("q", "k", "v"), "self_attn.o_proj": ("o",), "mlp.gate_up_proj": ("gate", "up")}
PHI3_NAMES = Names("model.layers.{}.", NORMS | FUSED | {"mlp.down_proj": ("down",)}, MODEL)
FOUR_NORMS = {
    "input_layernorm": ("attn_norm",), "post_attention_layernorm": ("attn_post_norm",),
    "pre_feedforward_layernorm": ("ffn_norm",), "post_feedforward_layernorm": ("ffn_post_norm",),
}  # fmt: skip
GEMMA2_NAMES = Names("model.layers.{}.", FOUR_NORMS | Q_K_V_O | GATE_UP_DOWN, MODEL)
GEMMA3_NAMES = Names("model.layers.{}.", GEMMA2_NAMES.layer | QK_NORMS, MODEL)
GPT2_NAMES = Names(
    "transformer.h.{}.",
    {
        "ln_1": ("attn_norm",), "attn.c_attn": ("q", "k", "v"), "attn.c_proj": ("o",), "ln_2": ("ffn_norm",),
        "mlp.c_fc": ("up",), "mlp.c_proj": ("down",),
    },
    {
        "transformer.wte": ("embed",), "transformer.wpe": ("positions",), "transformer.ln_f": ("norm",),
        "lm_head": ("head",),
    },
    frozenset({"c_attn", "c_proj", "c_fc"}),
)  # fmt: skip

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",), "attention_bias": (False, None), "mlp_bias": (False, None), "quantization_config": (None,),
    "rope_interleaved": (False, None),
}  # fmt: skip
"""Keys that change what is computed unless they are absent or have one of these values."""
GEMMA_ACT = ("gelu_pytorch_tanh", "gelu", None)
"""Gemma's own files say "gelu" and mean its tanh formula."""
GEMMA = NEUTRAL | {
    "hidden_act": GEMMA_ACT, "hidden_activation": GEMMA_ACT, "use_bidirectional_attention": (False, None),
}  # fmt: skip

LLAMA_KEYS = {
    "context": "max_position_embeddings", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "hidden": "intermediate_size", "eps": "rms_norm_eps",
}  # fmt: skip
GPT2_KEYS = {
    "context": "n_positions", "width": "n_embd", "layers": "n_layer", "heads": "n_head", "kv_heads": "n_head",
    "hidden": "n_inner", "eps": "layer_norm_epsilon",
}  # fmt: skip

Read = Callable[[Config, int], dict[str, Any]]
"""(config, width of a head) -> arguments of `Style`."""


@dataclass(frozen=True, slots=True)
class Family:
    """How config.json and tensors of one architecture are read."""

    names: Names = LLAMA_NAMES
    read: Read = lambda config, head_dim: {}
    neutral: Mapping[str, tuple[Any, ...]] = field(
        default_factory=lambda: {**NEUTRAL, "sliding_window": (None,), "partial_rotary_factor": (1, None)}
    )
    keys: Mapping[str, str] = field(default_factory=lambda: LLAMA_KEYS)
    head_dim: int = 0
    """Where the file does not say: 0, width over heads."""
    tied: bool = False
    """Where the file does not say."""
    norms_plus_one: bool = False
    """Norms multiply by 1 + their weight: 1 is added at import, in binary32, as transformers adds it when it runs."""
    global_part: str = ""
    """Under `rope_parameters`: what is about layers that are not local."""
    prefix: str = ""
    """What some files leave out in front of every tensor but the head."""
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)
    """Endings of buffers that old checkpoints carry; they follow from the hyperparameters."""

    def spelled(self, tensor: str, tensors: Mapping[str, Any]) -> str:
        """A tensor's name with the prefix that its file leaves out."""
        whole = not self.prefix or any(name.startswith(self.prefix) for name in tensors)
        return tensor if whole or tensor.startswith("lm_head") else self.prefix + tensor

    def hyperparameters(self, config: Config, name: str) -> Llama:
        """The hyperparameters, not yet checked against each other."""
        keys = self.keys
        heads, width = config.whole(keys["heads"]), config.whole(keys["width"])
        head_dim = config.whole("head_dim", self.head_dim or width // max(heads, 1))
        style = Style(**self.read(config, head_dim))
        turn = Rotation(10000.0, 0, ()) if style.positions else read_rotation(config, head_dim, self.global_part)
        return Llama(
            name=name,
            vocabulary=config.whole("vocab_size"),
            context=config.whole(keys["context"], 2048),
            width=width,
            layers=config.whole(keys["layers"]),
            heads=heads,
            kv_heads=config.whole(keys["kv_heads"], heads),
            head_dim=head_dim,
            hidden=config.whole(keys["hidden"], 4 * width if style.positions else None),
            theta=turn.theta,
            eps=config.real(keys["eps"], 1e-5 if style.positions else 1e-6),
            tied=config.flag("tie_word_embeddings", self.tied),
            style=replace(style, rotary=turn.rotary, factors=turn.factors),
        )


def _mistral(config: Config, head_dim: int) -> dict[str, Any]:
    return read_windows(config, lambda layer: True)


def _qwen(config: Config) -> dict[str, Any]:
    if not config.flag("use_sliding_window", False):
        return {}
    first = config.whole("max_window_layers", 28)
    return read_windows(config, lambda layer: layer >= first)


def _gemma(config: Config) -> dict[str, Any]:
    return {"activation": "gelu", "embed_scale": math.sqrt(max(config.whole("hidden_size"), 1))}


def _gemma2(config: Config, head_dim: int) -> dict[str, Any]:
    caps = {name: _cap(config, key, usual) for name, (key, usual) in CAPS.items()}
    windows = read_windows(config, lambda layer: layer % 2 == 0)
    return _gemma(config) | windows | caps | {"post_norms": True, "scalar": config.real("query_pre_attn_scalar", 256.0)}


CAPS = {"score_cap": ("attn_logit_softcapping", 50.0), "logit_cap": ("final_logit_softcapping", 30.0)}


def _cap(config: Config, key: str, usual: float) -> float:
    """A cap; 0 where the file says null, `usual` where it says nothing."""
    return 0.0 if key in config.data and config.data[key] is None else config.real(key, usual)


def _gemma3(config: Config, head_dim: int) -> dict[str, Any]:
    pattern = max(config.whole("sliding_window_pattern", 6), 1)
    windows = read_windows(config, lambda layer: (layer + 1) % pattern != 0)
    local = config.mapping("rope_parameters").mapping("sliding_attention")
    theta = local.real("rope_theta", config.real("rope_local_base_freq", 10000.0))
    if local.data.get("rope_type", "default") != "default":
        raise BadInput(
            local.where, f"rope_type is {shown(local.data['rope_type'])}", "only 'default' is understood there"
        )
    return _gemma(config) | windows | {
        "post_norms": True, "qk_norm": True, "local_theta": theta, "scalar": config.real("query_pre_attn_scalar", 256.0),
    }  # fmt: skip


def _gpt2(config: Config, head_dim: int) -> dict[str, Any]:
    return {
        "positions": True, "layer_norm": True, "qkv_bias": True, "biases": True, "gated": False, "activation": "gelu",
    }  # fmt: skip


FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family(),
    "MistralForCausalLM": Family(read=_mistral, neutral=NEUTRAL),
    "Qwen2ForCausalLM": Family(read=lambda config, head_dim: {"qkv_bias": True, **_qwen(config)}, neutral=NEUTRAL),
    "Qwen3ForCausalLM": Family(
        QWEN3_NAMES, lambda config, head_dim: {"qk_norm": True, **_qwen(config)}, NEUTRAL, head_dim=128
    ),
    "Phi3ForCausalLM": Family(PHI3_NAMES, _mistral, NEUTRAL),
    "GemmaForCausalLM": Family(
        LLAMA_NAMES, lambda config, head_dim: _gemma(config), GEMMA, head_dim=256, tied=True, norms_plus_one=True
    ),
    "Gemma2ForCausalLM": Family(GEMMA2_NAMES, _gemma2, GEMMA, head_dim=256, tied=True, norms_plus_one=True),
    "Gemma3ForCausalLM": Family(
        GEMMA3_NAMES, _gemma3,
        GEMMA | {"attn_logit_softcapping": (None,), "final_logit_softcapping": (None,)},
        head_dim=256, tied=True, norms_plus_one=True, global_part="full_attention",
    ),
    "GPT2LMHeadModel": Family(
        GPT2_NAMES, _gpt2,
        {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights": (True,), "quantization_config": (None,),
            "scale_attn_by_inverse_layer_idx": (False,), "reorder_and_upcast_attn": (False,), "add_cross_attention": (False,),
        },
        GPT2_KEYS, tied=True, prefix="transformer.", ignored=(".attn.bias", ".attn.masked_bias"),
    ),
}  # fmt: skip
"""By the name in `architectures`."""


def family_of(config: Config) -> Family:
    """The row of a configuration. Raises `BadInput` for one that is not in the table, or asks for what is not understood."""
    found = config.data.get("architectures")
    name = found[0] if isinstance(found, list) and len(found) == 1 else None
    if not isinstance(name, str) or name not in FAMILIES:
        raise BadInput(config.where, f"architectures is {shown(found)}, not one of {', '.join(FAMILIES)}")
    for key, allowed in FAMILIES[name].neutral.items():
        if key in config.data and config.data[key] not in allowed:
            raise BadInput(config.where, f"{key} is {shown(config.data[key])}, and only {allowed[0]!r} is understood")
    return FAMILIES[name]
