"""Hugging Face folders: the permutation of Q and K, shards, number types, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from files import (
    HEAD_DIM,
    HEADS,
    VOCABULARY,
    WIDTH,
    floats,
    folder_config,
    folder_name,
    safetensors_bytes,
    write_folder,
)
from tapeout.base.errors import BadInput
from tapeout.graph.check import check_imported
from tapeout.importers.huggingface import import_folder
from tapeout.importers.safetensors_file import read_safetensors
from tapeout.importers.tensors import neighbours


def rotate_half(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """RoPE as transformers does it: x [d], angles [d/2]."""
    a, b = np.split(x, 2)
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)])


def rotate_neighbours(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """RoPE as this package does it."""
    a, b = x[0::2], x[1::2]
    return np.stack([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], 1).ravel()


def test_rows_i_and_i_plus_half_become_neighbours():
    assert neighbours(np.arange(8)[:, None], 1).ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert neighbours(np.arange(8)[:, None], 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_scores_are_the_same_in_both_conventions():
    rng = np.random.default_rng(0)
    wq, wk, x, y = rng.normal(size=(16, 8)), rng.normal(size=(16, 8)), rng.normal(size=8), rng.normal(size=8)
    one, two = rng.normal(size=8), rng.normal(size=8)
    theirs = rotate_half(wq @ x, one) @ rotate_half(wk @ y, two)
    ours = rotate_neighbours(neighbours(wq, 1) @ x, one) @ rotate_neighbours(neighbours(wk, 1) @ y, two)
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_a_folder_arrives_whole(tmp_path: Path):
    model = import_folder(write_folder(tmp_path / "small"))
    check_imported(model)
    wanted = floats()
    assert np.array_equal(model.weights["layers.0.v"], wanted["layers.0.v"])
    assert np.array_equal(model.weights["layers.0.q"], neighbours(wanted["layers.0.q"], HEADS))
    assert model.graph.name == "small"
    assert model.notes == ("the rows of q and k are permuted so that rotary pairs are neighbours",)


def test_half_precision_becomes_float32(tmp_path: Path):
    halves = {name: values.astype(np.float16) for name, values in floats().items()}
    model = import_folder(write_folder(tmp_path / "small", halves))
    assert np.array_equal(model.weights["embed"], halves["embed"].astype(np.float32))
    assert model.weights["embed"].dtype == np.float32


def test_shards_are_joined(tmp_path: Path):
    folder = write_folder(tmp_path / "small")
    (folder / "model.safetensors").unlink()
    named = {folder_name(name): values for name, values in floats().items()}
    halves = [dict(list(named.items())[::2]), dict(list(named.items())[1::2])]
    weight_map = {}
    for index, half in enumerate(halves):
        (folder / f"part{index}.safetensors").write_bytes(safetensors_bytes(half))
        weight_map |= dict.fromkeys(half, f"part{index}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert np.array_equal(import_folder(folder).weights["embed"], floats()["embed"])


def test_an_untied_head_and_its_own_head_dim(tmp_path: Path):
    weights = floats(tied=False)
    config = folder_config(tie_word_embeddings=False, num_attention_heads=HEADS // 2, num_key_value_heads=1)
    config["head_dim"] = 2 * HEAD_DIM
    model = import_folder(write_folder(tmp_path / "small", weights, config))
    assert np.array_equal(model.weights["head"], weights["head"])
    assert model.graph.weight("layers.0.q").shape == (HEADS * HEAD_DIM, WIDTH)


def test_newer_rope_parameters_are_read(tmp_path: Path):
    config = folder_config(rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    del config["rope_theta"]
    model = import_folder(write_folder(tmp_path / "small", config=config))
    assert "theta=500000.0" in repr(model.graph)


def test_a_repeated_head_of_a_tied_model_must_be_the_same(tmp_path: Path):
    weights = floats(tied=False)
    with pytest.raises(BadInput, match=r"lm_head\.weight differs from the embedding"):
        import_folder(write_folder(tmp_path / "small", weights))
    assert "head" not in import_folder(write_folder(tmp_path / "small", weights | {"head": weights["embed"]})).weights


def test_end_ids_come_from_both_configurations(tmp_path: Path):
    tokenizer = minimal_tokenizer()
    folder = write_folder(tmp_path / "small", tokenizer__json=tokenizer)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    found = import_folder(folder).tokenizer
    assert found is not None
    assert found.end_ids == frozenset({2, 3, 4})


def minimal_tokenizer() -> bytes:
    from tokenizers import Tokenizer, models

    vocabulary = {f"t{i}": i for i in range(VOCABULARY)}
    return Tokenizer(models.WordLevel(vocabulary, unk_token="t0")).to_str().encode()


def test_files_of_the_safetensors_library_are_read(tmp_path: Path):
    numpy_file = pytest.importorskip("safetensors.numpy", reason="the safetensors library is not installed")
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((3, 1), np.float16)}
    numpy_file.save_file(values, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = read_safetensors(tmp_path / "x.safetensors")
    assert {name: stored.read().tolist() for name, stored in found.items()} == {
        name: array.tolist() for name, array in values.items()
    }


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_damage_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]):
    raw = bytearray(GOOD)
    for at, byte in changes:
        raw[at % len(raw)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(raw)
    try:
        for stored in read_safetensors(path).values():
            stored.read()
    except BadInput:
        pass


GOOD = safetensors_bytes({f"t{i}": np.ones((i + 1, 3), np.float32) for i in range(8)})
