"""Names, files and folders: told apart by content."""

import re
import shutil
from pathlib import Path

import pytest

from files import floats, gguf_bytes, llama2c_bytes, write_folder
from tapeout.base.errors import BadInput
from tapeout.importers.catalogue import catalogue
from tapeout.importers.load import load_model


def test_content_decides_not_the_ending(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(gguf_bytes())
    (tmp_path / "b.gguf").write_bytes(llama2c_bytes())
    write_folder(tmp_path / "c.bin")
    models = [load_model(tmp_path / name) for name in ("a.bin", "b.gguf", "c.bin")]
    assert [model.graph.name for model in models] == ["small", "b", "c.bin"]
    assert all((model.weights["embed"] == floats()["embed"]).all() for model in models)
    assert models[0].source == str(tmp_path / "a.bin")


def test_a_subnormal_norm_is_refused_with_its_file(tmp_path: Path):
    weights = floats()
    weights["norm"][3] = 1e-40
    folder = write_folder(tmp_path / "f", weights)
    with pytest.raises(BadInput, match=rf"^{re.escape(str(folder))}: weight norm\[3\]: .* is subnormal"):
        load_model(folder)


def test_embedded_models_are_here_and_load():
    for name, entry in catalogue().items():
        if entry.embedded is None:
            continue
        model = load_model(name)
        assert (model.graph.name, model.source) == (name, name)
        assert model.tokenizer is not None
        assert model.tokenizer.end_ids


def test_a_path_that_looks_like_a_name_is_reached_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(write_folder(tmp_path / "x"), tmp_path / "fable")
    monkeypatch.chdir(tmp_path)
    assert load_model("./fable").source == "fable"
