"""`tapeout rtl` and `cosim`: what is written, and mistakes in one line before any tool starts."""

import json
import subprocess

import pytest

pytest.importorskip("amaranth")


@pytest.fixture
def no_tool_starts(monkeypatch):
    """Starting any program is a failure."""

    def refuse(*arguments, **named):
        pytest.fail(f"a tool was started: {arguments}")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_file_per_module_with_list_and_memory_map(tapeout, tmp_path):
    told = json.loads(tapeout("rtl", "tiny", "-o", tmp_path / "rtl", "--json")[1])
    names = sorted(path.name for path in (tmp_path / "rtl").iterdir())
    assert names == sorted(told["files"])
    listed = (tmp_path / "rtl" / "files.f").read_text().split()
    assert listed == [name for name in told["files"] if name.endswith(".v")]
    assert all(f"module {name.removesuffix('.v')}" in (tmp_path / "rtl" / name).read_text() for name in listed)
    assert json.loads((tmp_path / "rtl" / told["memory_map"]).read_text())


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("tile.vector.lanes=1", "tile.vector.lanes"),
        ("tile.vector.lanes=64", "tile.vector.lanes"),
        ("tile.sram.banks=32", "tile.sram.banks"),
    ],
)
@pytest.mark.usefixtures("no_tool_starts")
def test_a_chip_that_cannot_be_built_is_one_line(tapeout, tmp_path, field, names):
    code, out, err = tapeout("rtl", "tiny", "-o", tmp_path / "rtl", "--set", field)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert names in err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_tool_starts")
def test_a_folder_that_is_full_or_has_no_parent_is_one_line(tapeout, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.v").write_text("module mine; endmodule")
    for folder in (tmp_path / "full", tmp_path / "none" / "rtl"):
        code, _, err = tapeout("rtl", "tiny", "-o", folder)
        assert (code, err.splitlines()[-1].count("tapeout: ")) == (2, 1), err
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.v"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["fable", "--chip", "edge"], "external.gb_per_s"),
        (["fable", "--chip", "nvidia_h100_sxm"], "a datasheet"),
        (["fable", "--tokens", "0"], "1 or more"),
        (["fable", "--waves", "none/w.fst"], "does not exist"),
        (["llama-9b"], "llama-9b"),
    ],
)
@pytest.mark.usefixtures("no_tool_starts")
def test_what_cosim_cannot_do_is_one_line(tapeout, arguments, names):
    code, out, err = tapeout("cosim", *arguments)
    assert (code, out.strip(), err.count("\n")) == (2, "", 1), err
    assert names in err
