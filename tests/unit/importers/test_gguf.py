"""Whole small GGUF files: carried exactly, and never more than a BadInput when damaged."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from files import VOCABULARY, boolean, floats, gguf_bytes, gguf_metadata, gguf_tensors, numbers, texts, u32
from tapeout.base.errors import BadInput
from tapeout.graph.check import check_imported, check_quantized
from tapeout.graph.types import Matrix
from tapeout.importers.gguf import import_gguf
from tapeout.importers.gguf_file import read_gguf


def write(folder: Path, raw: bytes) -> Path:
    path = folder / "m.gguf"
    path.write_bytes(raw)
    return path


def test_float_weights_arrive_as_they_are(tmp_path: Path):
    model = import_gguf(write(tmp_path, gguf_bytes(tensors=gguf_tensors(tied=False))))
    wanted = floats(tied=False)
    assert model.weights.keys() == wanted.keys()
    assert all(np.array_equal(model.weights[name], values) for name, values in wanted.items())
    assert (model.stored, model.graph.name, model.tokenizer) == ("f32", "small", None)
    check_imported(model)


@pytest.mark.parametrize(("kind", "form"), [("Q8_0", "int8"), ("Q4_0", "int4"), ("Q4_1", "int4m")])
def test_quantized_weights_keep_every_byte(tmp_path: Path, kind: str, form: str):
    tensors = gguf_tensors(kind)
    model = import_gguf(write(tmp_path, gguf_bytes(tensors=tensors)))
    check_quantized(model)
    assert model.stored == form
    assert model.graph.weight("layers.1.down").format == form
    down = model.weights["layers.1.down"]
    assert isinstance(down, Matrix)
    assert repacked(down) == tensors["blk.1.ffn_down.weight"][2]


def repacked(matrix: Matrix) -> bytes:
    """The blocks of a matrix, written anew."""
    out = b""
    rows, groups = matrix.scale.shape
    for row in range(rows):
        for group in range(groups):
            codes = matrix.codes[row, 32 * group : 32 * group + 32]
            out += matrix.scale[row, group].tobytes()
            if matrix.minimum is not None:
                out += matrix.minimum[row, group].tobytes()
            unsigned = codes.astype(int) + 8
            packed = codes if matrix.format.code_bits == 8 else (unsigned[:16] | unsigned[16:] << 4).astype(np.uint8)
            out += packed.tobytes()
    return out


def test_version_2_and_other_alignment(tmp_path: Path):
    metadata = gguf_metadata(general__alignment=u32(128))
    model = import_gguf(write(tmp_path, gguf_bytes(metadata, version=2, alignment=128)))
    assert np.array_equal(model.weights["norm"], floats()["norm"])


def test_the_kv_heads_default_to_the_query_heads_in_older_files(tmp_path: Path):
    with pytest.raises(BadInput, match=r"blk\.0\.attn_k\.weight: has shape \[32, 64\], the hyperparameters ask for"):
        import_gguf(write(tmp_path, gguf_bytes(gguf_metadata(llama__attention__head_count_kv=None))))


def test_a_model_outlives_its_file(tmp_path: Path):
    path = write(tmp_path, gguf_bytes())
    model = import_gguf(path)
    path.write_bytes(b"")
    assert np.array_equal(model.weights["embed"], floats()["embed"])


def test_strings_are_made_when_asked_for(tmp_path: Path):
    tokens = [f"t{i}" for i in range(VOCABULARY)]
    path = write(tmp_path, gguf_bytes(gguf_metadata(tokenizer__ggml__tokens=texts(tokens))))
    found = read_gguf(path).metadata["tokenizer.ggml.tokens"]
    assert (len(found), found[7], list(found)) == (VOCABULARY, "t7", tokens)


def test_arrays_and_truth_values(tmp_path: Path):
    metadata = gguf_metadata(general__numbers=numbers(5, [3, -4]), general__flag=boolean(True))
    found = read_gguf(write(tmp_path, gguf_bytes(metadata))).metadata
    assert (found["general.numbers"].tolist(), found["general.flag"]) == ([3, -4], True)


def test_every_cut_is_refused(tmp_path: Path):
    raw = gguf_bytes(tensors=gguf_tensors("Q4_0"))
    path = tmp_path / "m.gguf"
    for size in [*range(1, 2500, 7), *range(2500, len(raw) - 1, 997)]:
        path.write_bytes(raw[:size])
        with pytest.raises(BadInput):
            import_gguf(path)


@given(st.lists(st.tuples(st.integers(0, 2600), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_damage_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]):
    raw = bytearray(GOOD)
    for at, byte in changes:
        raw[at] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(raw)
    try:
        import_gguf(path)
    except BadInput:
        pass


GOOD = gguf_bytes(tensors=gguf_tensors("Q4_1"))
