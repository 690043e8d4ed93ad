"""Float mode and Hugging Face transformers: the same logits from the same weights, within 1e-3.

torch and transformers are an extra, `pip install -e ".[torch]"`: without it these tests are skipped visibly, and fail
where the environment variable CI is set.
"""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from smollm2 import smollm2_model
from tapeout.graph.float_mode import FloatEngine
from tapeout.graph.types import Attention, Matrix, Model, RMSNorm, Rope
from tapeout.importers.catalogue import FOLDER
from tapeout.importers.families import LLAMA_NAMES
from tapeout.importers.load import load_model

LIMIT = 1e-3


@pytest.fixture(scope="module")
def hf() -> SimpleNamespace:
    """torch, LlamaConfig and LlamaForCausalLM; one thread, so that the machine is shared fairly."""
    try:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        reason = f'{error.name} is not installed: pip install -e ".[torch]"'
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    torch.set_num_threads(1)
    return SimpleNamespace(torch=torch, config=LlamaConfig, llama=LlamaForCausalLM)


def their_logits(hf: SimpleNamespace, net: object, ids: list[int]) -> NDArray[np.float32]:
    """Logits of every token [tokens, vocabulary], in float32."""
    with hf.torch.no_grad():
        return net.eval()(hf.torch.tensor([ids])).logits[0].numpy()


def assert_agree(hf: SimpleNamespace, net: object, model: Model, ids: list[int]) -> None:
    """Within LIMIT in one step and in two, the second reading the first one's cache."""
    want, half = their_logits(hf, net, ids), len(ids) // 2
    whole, parts = FloatEngine(model, len(ids)), FloatEngine(model, len(ids))
    got = whole.step(ids, 0, every=True)
    cached = np.concatenate([parts.step(ids[:half], 0, every=True), parts.step(ids[half:], half, every=True)])
    assert want.dtype == np.float32
    assert want.shape == got.shape == cached.shape
    assert want.std() > 0.5, "logits this flat agree whatever is computed"
    assert np.abs(got - want).max() <= LIMIT
    assert np.abs(cached - want).max() <= LIMIT


def test_embedded_model(hf):
    net = hf.llama.from_pretrained(FOLDER / "fable", dtype=hf.torch.float32, local_files_only=True)
    model = load_model("fable")
    ids = model.tokenizer.encode("Once there was a small dog who lived by the river. One day he met a fox, and they")
    assert len(ids) >= 16
    assert_agree(hf, net, model, ids)


def test_random_model_from_its_folder(hf, tmp_path):
    """Grouped queries, heads wider than width/heads, a head of its own, an unusual theta, norms that are not 1."""
    hf.torch.manual_seed(5)
    config = hf.config(
        vocab_size=96, hidden_size=48, intermediate_size=72, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.3,
        tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )  # fmt: skip
    net = hf.llama(config)
    with hf.torch.no_grad():
        for name, weight in net.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    net.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert "head" in model.weights
    assert_agree(hf, net, model, np.random.default_rng(5).integers(0, 96, 48).tolist())


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2_dequantized(hf):
    model = smollm2_model()
    net = rebuilt(hf, model)
    ids = model.tokenizer.encode("The capital of France is Paris, and the river that runs through it is the Seine.")
    assert_agree(hf, net, model, ids)


def rebuilt(hf: SimpleNamespace, model: Model) -> object:
    """LlamaForCausalLM from a model's dequantized weights, Q and K turned back to Hugging Face's order of rotary pairs."""
    graph, weights = model.graph, model.weights
    attention = next(op for op in graph.ops if isinstance(op, Attention))
    config = hf.config(
        vocab_size=graph.vocabulary, hidden_size=graph.width("x0"), intermediate_size=graph.width("l0.gate"),
        num_hidden_layers=graph.layers, num_attention_heads=attention.heads, num_key_value_heads=attention.kv_heads,
        head_dim=attention.head_dim, max_position_embeddings=graph.context, tie_word_embeddings="head" not in weights,
        rms_norm_eps=next(op.eps for op in graph.ops if isinstance(op, RMSNorm)),
        rope_parameters={
            "rope_type": "default", "rope_theta": next(op.theta for op in graph.ops if isinstance(op, Rope)),
        },
    )  # fmt: skip
    state = {f"{stem}.weight": dense(model, ours) for stem, (ours,) in LLAMA_NAMES.model.items() if ours in weights}
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    for layer in range(graph.layers):
        for theirs, (ours,) in LLAMA_NAMES.layer.items():
            rows = dense(model, f"layers.{layer}.{ours}")
            heads = {"q": attention.heads, "k": attention.kv_heads}.get(ours)
            state[f"model.layers.{layer}.{theirs}.weight"] = halves(rows, heads) if heads else rows
    net = hf.llama(config)
    net.load_state_dict({name: hf.torch.from_numpy(array) for name, array in state.items()}, strict=True)
    return net


def dense(model: Model, name: str) -> NDArray[np.float32]:
    """A weight in float32, an array of its own."""
    weight = model.weights[name]
    return weight.to_float() if isinstance(weight, Matrix) else np.array(weight, np.float32)


def halves(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo `importers.tensors.neighbours`: rows 2i and 2i + 1 of a head become rows i and i + d/2."""
    return np.ascontiguousarray(rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2)).reshape(rows.shape)
