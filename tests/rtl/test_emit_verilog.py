"""`tapeout rtl`: a folder of Verilog, all of it or nothing, the same bytes every time."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("amaranth")

from tapeout.base.errors import BadInput
from tapeout.flow import emit_verilog as flow
from tapeout.flow.emit_verilog import FILE_LIST, MEMORY_MAP, emit_verilog
from tapeout.flow.prepare import prepare_chip
from tapeout.rtl import verilog
from tapeout.rtl.lint import WAIVER_FILE

SMALL = {
    "grid.columns": "2", "grid.rows": "1", "tile.sram.kib": "64", "tile.sram.banks": "8", "tile.matrix.lanes": "8", "tile.vector.lanes": "2",
    "tile.attention.keys": "1",
}  # fmt: skip


def command(folder: Path, hash_seed: int) -> subprocess.CompletedProcess:
    changes = [word for item in SMALL.items() for word in ("--set", "=".join(item))]
    words = [sys.executable, "-m", "tapeout.cli.main", "rtl", "tiny", *changes, "-o", str(folder), "--json"]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": str(hash_seed)})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_command_prints_one_object_and_writes_the_same_files_every_time(tmp_path):
    runs = [command(tmp_path / f"{seed}", seed) for seed in (1, 2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    answer = json.loads(runs[0].stdout)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / f"{seed}").iterdir()} for seed in (1, 2))
    assert one == two, [name for name in one | two if one.get(name) != two.get(name)]
    assert sorted(one) == sorted(answer["files"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"], "nothing is left beside"
    _is_a_module_per_file(one, answer["top"])


def _is_a_module_per_file(files: dict[str, bytes], top: str) -> None:
    names = files[FILE_LIST].decode().split()
    assert names[0] == f"{top}.v"
    assert {*names, FILE_LIST, MEMORY_MAP, WAIVER_FILE} == set(files)
    for name in names:
        lines = files[name].decode().splitlines()
        assert [line.split("(")[0].split()[1] for line in lines if line.startswith("module ")] == [name[:-2]]
    assert json.loads(files[MEMORY_MAP])["tiles"] == 2


@pytest.fixture
def quick(monkeypatch):
    """The chip as one line of Verilog."""
    monkeypatch.setattr(verilog, "modules", lambda chip, banked: {"tapeout": "module tapeout; endmodule\n"})
    return prepare_chip("tiny", {})


def test_a_folder_that_has_something_in_it_is_left_as_it_is(quick, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BadInput, match="exists and is not an empty folder; name a new one"):
        emit_verilog(quick, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_the_place_of_the_folder_is_refused(quick, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BadInput, match="not an empty folder"):
        emit_verilog(quick, tmp_path / "out")
    with pytest.raises(BadInput, match="does not exist; make it first"):
        emit_verilog(quick, tmp_path / "out" / "deeper")
    assert (tmp_path / "out").read_text() == "mine"


def test_an_empty_folder_is_filled(quick, tmp_path):
    (tmp_path / "out").mkdir()
    emit_verilog(quick, tmp_path / "out")
    assert (tmp_path / "out" / "tapeout.v").exists()


def test_a_parent_that_cannot_be_written_is_one_line(quick, tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(BadInput, match=r"out: cannot be written \(Permission denied\)"):
        emit_verilog(quick, tmp_path / "out")


def test_a_disk_that_fills_up_leaves_nothing(quick, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(flow.os, "replace", full)
    with pytest.raises(BadInput, match=r"out: cannot be written \(No space left on device\)"):
        emit_verilog(quick, tmp_path / "out")
    assert not list(tmp_path.iterdir())
