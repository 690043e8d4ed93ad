"""`tapeout cosim --waves`: a window of cycles as an FST file. Waveforms need two libraries' headers, which no Python package brings."""

import shutil
import struct
import subprocess

import pytest

pytest.importorskip("amaranth")

from tapeout.base.errors import BadInput
from tapeout.flow.cosim import CosimRequest, cosim
from tapeout.flow.run import Listener
from tapeout.rtl import verilate

LEAST = {
    "grid.columns": "1", "grid.rows": "1", "tile.sram.kib": "2048", "tile.sram.banks": "64", "tile.matrix.lanes": "8", "tile.vector.lanes": "2",
    "tile.attention.keys": "1",
}  # fmt: skip
"""What makes of `tiny` a chip of one tile that is built quickly and still holds the embedded model."""


def _has_headers() -> bool:
    asked = ["g++", "-E", "-x", "c++", "-include", "lz4.h", "-include", "zlib.h", "/dev/null"]
    return shutil.which("g++") is not None and subprocess.run(asked, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    not _has_headers(),
    reason="lz4.h and zlib.h are not installed (apt install liblz4-dev zlib1g-dev); optional, in CI too: nothing else needs them",
)
def test_a_window_of_cycles_is_dumped_as_fst(tmp_path):
    path, notes = tmp_path / "window.fst", []
    request = CosimRequest("fable", "tiny", LEAST, "Once", 1, raw=True, waves=path, waves_from=1000, waves_cycles=200)
    answer = cosim(request, Listener(notes.append)).json
    assert answer["equal"], answer.get("difference")
    first, last = fst_times(path)
    assert last - first + 1 == 2 * 200, "a cycle is two steps of the clock"
    assert first % 2 == 0, "the window begins with a cycle"
    assert list(tmp_path.iterdir()) == [path], "nothing else is left"
    assert not any("does not have" in note for note in notes)


def fst_times(path) -> tuple[int, int]:
    """First and last time in the header of an FST file."""
    head = path.read_bytes()[:33]
    kind, size, first, last = struct.unpack(">BQQQ", head[:25])
    assert (kind, size) == (0, 329), "an FST file begins with a header block"
    assert struct.unpack("<d", head[25:]) == (2.718281828459045,), "and this is how it tells the byte order"
    return first, last


def test_missing_headers_are_named_with_their_packages_before_anything_is_built(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(verilate.subprocess, "run", _without_lz4(subprocess.run))

    def sources():
        raise AssertionError("no Verilog is made")

    with pytest.raises(BadInput, match=r"lz4\.h and zlib\.h.*apt install liblz4-dev zlib1g-dev"):
        verilate.library(sources, "top", "", True, "a key of its own")


def _without_lz4(run):
    """subprocess.run on a system without lz4.h."""

    def fake(command, **options):
        answer = run(command, **options)
        if "-E" in command:
            answer.returncode = 1
        return answer

    return fake


def test_waves_into_a_folder_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"--waves.*is a folder; name a file"):
        cosim(CosimRequest("fable", "tiny", waves=tmp_path))
