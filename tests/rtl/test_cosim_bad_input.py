"""What `rtl` and `cosim` cannot do is one line and exit code 2, before any tool starts; a build that is cut off or doubled does no harm."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("amaranth")

from chips import make_chip
from strategies import random_model
from tapeout.base.errors import BadInput
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.rtl.limits import check_program

BUILD = """
import sys, time
from tapeout.rtl.verilate import library
def sources():
    print("building", flush=True)
    time.sleep(float(sys.argv[1]))
    return {"echo.sv": "module echo(input [7:0] a, output [7:0] y); assign y = a + 8'd1; endmodule"}
shim = 'extern "C" int echo(int a) { static Model model; model.a = a, model.eval(); return model.y; }'
print(library(sources, "echo", shim, False, "echo"))
"""


@pytest.fixture
def no_tool_starts(monkeypatch):
    """Starting any program is a failure."""

    def refuse(*arguments, **named):
        pytest.fail(f"a tool was started: {arguments}")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tile.vector.lanes=1", "tile.vector.lanes: 1; the RTL builds 2, 4, 8, 16 or 32"),
        ("tile.vector.lanes=64", "tile.vector.lanes: 64; the RTL builds"),
        ("tile.sram.banks=32", "tile.sram.banks: 32 banks of 12,288 bytes; the RTL builds banks of a power of two bytes"),
        ("tile.micro_ops=1000000", "tile.micro_ops: 1000000; the RTL counts up to"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_tool_starts")
def test_a_chip_that_the_rtl_cannot_build_is_one_line(tapeout, change, message, tmp_path):
    code, out, err = tapeout("rtl", "tiny", "--set", change, "-o", tmp_path / "out", "--json")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["fable", "--chip", "edge"], "external.gb_per_s"),
        (["fable", "--chip", "nvidia_h100_sxm"], "a datasheet"),
        (["fable", "--tokens", "0"], "1 or more"),
        (["fable", "--waves", "none/w.fst"], "does not exist"),
        (["fable", "--set", "tile.attention.lanes=8"], "heads of 32; attention reads a record per cycle: at most 8 (tile.attention.lanes)"),
        (["fable", "--kv", "int4"], "has K or V in 4 bits, which is not built in the RTL"),
        (["llama-9b"], "llama-9b"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_tool_starts")
def test_what_cosim_cannot_do_is_one_line(tapeout, arguments, names):
    code, out, err = tapeout("cosim", *arguments)
    assert (code, out.strip()) == (2, ""), err
    assert names in err.splitlines()[-1]
    assert "Traceback" not in err


def test_without_a_compiler_the_command_says_how_to_install_one(tapeout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    code, out, err = tapeout("cosim", "fable", "--tokens", "1")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("tapeout: g++: is not installed")
    assert "apt install g++" in err


def build(cache: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(seconds)], stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": str(cache)}
    )  # fmt: skip


@pytest.mark.slow
def test_two_builds_at_once_make_one_library_that_both_use(tmp_path):
    both = [build(tmp_path, 1), build(tmp_path, 1)]
    said = [process.communicate(timeout=200)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1], "both built, as both began before the other was done"
    assert [str(path) for path in (tmp_path / "tapeout" / "rtl").glob("*.so")] == [said[0][1]]
    assert ctypes.CDLL(said[0][1]).echo(41) == 42


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_that_is_taken_for_finished(tmp_path):
    killed = build(tmp_path, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "building\n"
    time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not list((tmp_path / "tapeout" / "rtl").glob("*.so"))
    again = build(tmp_path, 0).communicate(timeout=200)[0].split()
    assert again[0] == "building"
    assert ctypes.CDLL(again[1]).echo(1) == 2


def test_a_table_in_a_format_that_the_chip_does_not_know_is_refused_by_name():
    program = compile_model(random_model(3, layers=1, format="nvfp4"), make_chip("1x1"), 16)
    other = replace(program, chip=make_chip("1x1", tile__matrix__formats="[int8, q6_k]"))
    wanted = r"embed .* has a table in nvfp4; the embedding of this chip takes int8, int4, int4m, ternary, q6_k"
    with pytest.raises(BadInput, match=wanted):
        check_program(other)
