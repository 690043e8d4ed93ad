"""Float mode against Hugging Face transformers on the same weights: the importers and the graph mean what the checkpoints mean."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from smollm2 import smollm2_model
from tapeout.graph.float_mode import FloatEngine
from tapeout.graph.types import Matrix, Model
from tapeout.importers.load import load_model

FABLE = Path(__file__).parents[2] / "src" / "tapeout" / "data" / "models" / "fable"
CLOSE = 1e-3


def transformers():
    """torch and transformers, quiet and on one thread. Skips where the extra is not installed; fails there in CI."""
    try:
        with warnings.catch_warnings():
            # Their own imports warn of things that are not ours to mend.
            warnings.simplefilter("ignore")
            import torch
            import transformers
    except ImportError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI promised the extra torch: {error}")
        pytest.skip(f"the extra tapeout[torch] is not installed: {error}")
    torch.set_num_threads(1)
    return torch, transformers


def their_logits(network, ids: list[int]) -> np.ndarray:
    torch, _ = transformers()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return network(torch.tensor([ids])).logits[0].float().numpy()


def worst(model: Model, network, ids: list[int]) -> float:
    ours = FloatEngine(model, context=len(ids)).step(ids, 0, every=True)
    return float(np.abs(ours - their_logits(network, ids)).max())


def test_the_embedded_model_has_the_logits_of_transformers():
    torch, hub = transformers()
    model = load_model("fable")
    network = hub.LlamaForCausalLM.from_pretrained(FABLE, dtype=torch.float32).eval()
    assert worst(model, network, model.tokenizer.encode("Once upon a time, there was a boy named Tom.")) <= CLOSE


def test_a_random_llama_with_an_untied_head_has_the_logits_of_transformers(tmp_path):
    torch, hub = transformers()
    torch.manual_seed(0)
    config = hub.LlamaConfig(
        vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
        head_dim=16, max_position_embeddings=64, rope_theta=5000.0, tie_word_embeddings=False,
    )  # fmt: skip
    network = hub.LlamaForCausalLM(config).eval()
    network.save_pretrained(tmp_path)
    assert worst(load_model(tmp_path), network, list(range(3, 40))) <= CLOSE


def halves(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of Q or K with neighbouring pairs, put back to the two halves of Hugging Face."""
    heads = rows.reshape(-1, head_dim // 2, 2, rows.shape[1])
    return heads.transpose(0, 2, 1, 3).reshape(rows.shape)


def as_transformers(model: Model, heads: int, kv_heads: int, head_dim: int, theta: float):
    """A LlamaForCausalLM with the dequantized weights of a tied model."""
    torch, hub = transformers()
    width, hidden = model.graph.width("x0"), model.graph.width("l0.gate")
    config = hub.LlamaConfig(
        vocab_size=model.graph.vocabulary, hidden_size=width, intermediate_size=hidden, num_hidden_layers=model.graph.layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, rope_theta=theta, rms_norm_eps=1e-5,
        max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    state = {}
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj", "gate": "mlp.gate_proj",
             "up": "mlp.up_proj", "down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}  # fmt: skip
    for name, weight in model.weights.items():
        value = weight.to_float() if isinstance(weight, Matrix) else weight
        role = name.split(".")[-1]
        if role in ("q", "k"):
            value = halves(value, head_dim)
        their = {"embed": "model.embed_tokens", "norm": "model.norm"}.get(
            name
        ) or f"model.layers.{name.split('.')[1]}.{names[role]}"
        state[f"{their}.weight"] = torch.from_numpy(np.ascontiguousarray(value))
    network = hub.LlamaForCausalLM(config).eval()
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert (set(missing), unexpected) == ({"lm_head.weight"}, [])
    network.tie_weights()
    return network


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2_has_the_logits_of_transformers():
    model = smollm2_model()
    network = as_transformers(model, heads=9, kv_heads=3, head_dim=64, theta=1e5)
    assert (
        worst(model, network, model.tokenizer.encode("The capital of France is Paris, and the capital of Italy is"))
        <= CLOSE
    )
