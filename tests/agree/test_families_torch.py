"""Float mode and Hugging Face transformers, family by family: small random models, the same logits within 1e-3.

torch and transformers are an extra, `pip install -e ".[torch]"`: without it these tests are skipped visibly, and fail
where the environment variable CI is set.
"""

import os
from typing import Any

import numpy as np
import pytest

from tapeout.graph.float_mode import FloatEngine
from tapeout.importers.load import load_model

LIMIT = 1e-3
COMMON = {
    "vocab_size": 96, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "initializer_range": 0.3, "rms_norm_eps": 1e-5,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NO_HEAD_DIM = {key: value for key, value in COMMON.items() if key != "head_dim"} | {"hidden_size": 96}
WIDER = COMMON | {"hidden_size": 60}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
GPT2 = {
    "vocab_size": 96, "n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 3, "initializer_range": 0.3,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama with linear rope": ("Llama", COMMON | {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}),
    "llama 3.1": ("Llama", COMMON | {"rope_parameters": LLAMA3}),
    "qwen2": ("Qwen2", NO_HEAD_DIM | {"tie_word_embeddings": True}),
    "qwen2 with a window in its last layers": (
        "Qwen2", NO_HEAD_DIM | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3", COMMON | {"tie_word_embeddings": True}),
    "mistral": ("Mistral", COMMON | {"sliding_window": 11}),
    "mistral without a window": ("Mistral", COMMON | {"sliding_window": None}),
    "phi3": ("Phi3", NO_HEAD_DIM | {"sliding_window": 13}),
    "phi3 with partial rotation": (
        "Phi3", NO_HEAD_DIM | {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
    ),
    "gemma": ("Gemma", COMMON),
    "gpt2": ("GPT2", GPT2),
    "gemma2": ("Gemma2", WIDER | {"sliding_window": 7, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0}),
    "gemma3": ("Gemma3", WIDER | {"sliding_window": 7, "query_pre_attn_scalar": 24, "num_hidden_layers": 7}),
}  # fmt: skip


@pytest.fixture(scope="module")
def torch():
    """torch; one thread, so that the machine is shared fairly."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        reason = f'{error.name} is not installed: pip install -e ".[torch]"'
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    torch.set_num_threads(1)
    return torch


def their_model(torch, kind: str, settings: dict[str, Any]):
    """A random model of a family; norms and biases are not what they begin with."""
    import transformers

    torch.manual_seed(5)
    config_name = {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config")
    model_name = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    config = getattr(transformers, config_name)(attn_implementation="eager", **settings)
    net = getattr(transformers, model_name)(config)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "norm" in name or ".ln_" in name or name.endswith("bias"):
                weight.uniform_(-0.4, 0.5) if kind.startswith("Gemma") else weight.uniform_(0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize("name", MODELS)
def test_a_family_agrees_with_transformers(torch, tmp_path, name):
    kind, settings = MODELS[name]
    net = their_model(torch, kind, settings)
    net.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    ids = np.random.default_rng(5).integers(3, 96, 40).tolist()
    with torch.no_grad():
        want = net(torch.tensor([ids])).logits[0].numpy()
    whole, parts = FloatEngine(model, len(ids)), FloatEngine(model, len(ids))
    cached = np.concatenate([parts.step(ids[:17], 0, every=True), parts.step(ids[17:], 17, every=True)])
    assert want.std() > 0.5, "logits this flat agree whatever is computed"
    assert np.abs(whole.step(ids, 0, every=True) - want).max() <= LIMIT
    assert np.abs(cached - want).max() <= LIMIT
