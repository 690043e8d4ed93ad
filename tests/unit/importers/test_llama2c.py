"""llama2.c checkpoints, a small one of our own and stories260K."""

from pathlib import Path

import numpy as np
import pytest

from files import VOCABULARY, floats, llama2c_bytes, llama2c_tokenizer
from tapeout.graph.check import check_imported
from tapeout.graph.float_mode import FloatEngine
from tapeout.importers.llama2c import import_llama2c, looks_like_llama2c
from tapeout.importers.load import load_model

STORIES = Path(__file__).parents[4] / "shared" / "data" / "models" / "stories260K.bin"
QUOTED = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball."
)
needs_stories = pytest.mark.skipif(
    not STORIES.exists(), reason="the shared data folder with stories260K.bin is not here"
)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_arrive_as_they_are(tmp_path: Path, tied: bool):
    path = tmp_path / "small.bin"
    path.write_bytes(llama2c_bytes(tied))
    assert looks_like_llama2c(path)
    model = import_llama2c(path)
    check_imported(model)
    wanted = floats(tied=tied)
    assert model.weights.keys() == wanted.keys()
    assert all(np.array_equal(model.weights[name], values) for name, values in wanted.items())
    assert model.tokenizer is None


def test_the_tokenizer_lies_beside_the_model(tmp_path: Path):
    (tmp_path / "small.bin").write_bytes(llama2c_bytes())
    pieces = [(b"<unk>", 0.0), (b"\n<s>\n", 0.0), (b"\n</s>\n", 0.0)]
    pieces += [(bytes([97 + i]), -float(i)) for i in range(VOCABULARY - 3)]
    (tmp_path / f"tok{VOCABULARY}.bin").write_bytes(llama2c_tokenizer(pieces))
    tokenizer = import_llama2c(tmp_path / "small.bin").tokenizer
    assert tokenizer is not None
    assert tokenizer.encode("cab")[2:] == [5, 3, 4]


@needs_stories
def test_stories260k_says_what_it_always_says():
    model = load_model(STORIES)
    assert model.notes == ("hidden 172 is padded to 192",)
    assert model.tokenizer is not None
    engine, ids = FloatEngine(model), [1]
    text = ""
    while len(text) < len(QUOTED):
        logits = engine.step(ids[-1:], len(ids) - 1)
        ids.append(int(np.argmax(logits)))
        text = model.tokenizer.decode(ids)
    assert text == QUOTED


@needs_stories
def test_stories260k_tokens_go_both_ways():
    tokenizer = load_model(STORIES).tokenizer
    assert tokenizer is not None
    assert tokenizer.encode("Once upon a time") == [1, 403, 407, 261, 378]
    assert tokenizer.decode(tokenizer.encode("Ünï 🎉\n<s> café")) == "Ünï 🎉\n<s> café"
    assert tokenizer.end_ids == frozenset({1, 2})
