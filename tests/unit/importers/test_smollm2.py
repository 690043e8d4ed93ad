"""The real SmolLM2-135M-Instruct: shapes, exact codes, token ids, and what it says in float mode."""

import struct

import numpy as np
import pytest

from smollm2 import smollm2_model, smollm2_path
from tapeout.graph.check import check_quantized
from tapeout.graph.float_mode import FloatEngine
from tapeout.graph.types import Matrix
from tapeout.importers.gguf_file import read_gguf

pytestmark = pytest.mark.smollm2


def test_it_has_the_published_shape():
    model = smollm2_model()
    check_quantized(model)
    graph = model.graph
    assert (graph.vocabulary, graph.context, graph.layers, graph.parameters) == (49_152, 8_192, 30, 134_515_008)
    assert (model.stored, graph.weight("embed").format, model.notes) == ("int4m", "int8", ())
    assert "theta=100000.0" in repr(graph.ops)


def test_a_row_is_exactly_the_file_s():
    tensor = read_gguf(smollm2_path()).tensors["blk.29.ffn_down.weight"]
    row = 575
    with smollm2_path().open("rb") as file:
        file.seek(tensor.offset + row * (1536 // 32) * 20)
        blocks = [file.read(20) for _ in range(1536 // 32)]
    matrix = smollm2_model().weights["layers.29.down"]
    assert isinstance(matrix, Matrix)
    assert matrix.minimum is not None
    for group, block in enumerate(blocks):
        scale, minimum = struct.unpack_from("<ee", block)
        nibbles = [byte & 15 for byte in block[4:]] + [byte >> 4 for byte in block[4:]]
        assert (matrix.codes[row, 32 * group : 32 * group + 32] + 8).tolist() == nibbles
        assert (matrix.scale[row, group], matrix.minimum[row, group]) == (scale, minimum)


def test_its_tokenizer_knows_its_chat():
    tokenizer = smollm2_model().tokenizer
    assert tokenizer is not None
    assert tokenizer.end_ids == frozenset({0, 2})
    prompt = tokenizer.chat("What is the capital of France?")
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert prompt.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer.encode(prompt)
    assert ids[:4] == [1, 9690, 198, 2683]
    assert tokenizer.encode("Hello world 2024!") == [19556, 905, 216, 34, 32, 34, 36, 17]
    assert tokenizer.decode(tokenizer.encode("naïve 東京 🎉 12,345")) == "naïve 東京 🎉 12,345"


def test_the_capital_of_france_in_float_mode():
    model = smollm2_model()
    assert model.tokenizer is not None
    engine = FloatEngine(model, 64)
    ids = model.tokenizer.encode(model.tokenizer.chat("What is the capital of France?"))
    logits, said = engine.step(ids, 0), []
    while (token := int(np.argmax(logits))) not in model.tokenizer.end_ids:
        said.append(token)
        logits = engine.step([token], len(ids) + len(said) - 1)
    assert model.tokenizer.decode(said) == "The capital of France is Paris."
