"""A window of cycles as waveforms: asked for, they are written, and only those cycles."""

import subprocess

import numpy as np
import pytest

pytest.importorskip("amaranth")

from random_programs import random_program, random_rtl_chip, random_steps

from tapeout.base.errors import BadInput
from tapeout.isa.program import Program
from tapeout.rtl import verilate
from tapeout.rtl.engine import RtlEngine

HEADER, HEADER_BYTES = 0, 329
"""An FST file begins with its header block: kind, length, then the first and the last time."""


def headers() -> bool:
    """Whether the system has what Verilator's waveform writer includes."""
    try:
        verilate._need_headers(verilate.find_tools())
    except BadInput:
        return False
    return True


needs_headers = pytest.mark.skipif(
    not headers(), reason="lz4.h and zlib.h are not installed (apt install liblz4-dev zlib1g-dev)"
)


def run(program: Program, path, first: int, end: int) -> tuple[int, int]:
    """The first and the last time in the file."""
    engine = RtlEngine(program, waves=True)
    engine.simulation.trace_to(str(path), first, end)
    ids, position, every = random_steps(1, program)[0]
    engine.step(ids, position, every)
    engine.simulation.end_trace()
    head = path.read_bytes()[:25]
    assert (head[0], int.from_bytes(head[1:9], "big")) == (HEADER, HEADER_BYTES)
    start, last = (int(value) for value in np.frombuffer(head[9:25], ">u8"))
    return start, last


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_headers
def test_the_window_that_was_asked_for_is_written(tmp_path):
    chip = random_rtl_chip(3, grid={"columns": 1, "rows": 1, "topology": "mesh"}, streamed=False)
    short, longer = (run(random_program(1, chip), tmp_path / f"{end}.fst", 20, end) for end in (40, 60))
    assert longer[1] - longer[0] == pytest.approx(2 * (short[1] - short[0]), rel=0.1)


def test_missing_headers_are_named_with_the_command_that_installs_them(monkeypatch):
    tools = verilate.find_tools()
    failed = subprocess.CompletedProcess([], 1, "", "lz4.h: No such file or directory")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **named: failed)
    with pytest.raises(BadInput, match="apt install liblz4-dev zlib1g-dev"):
        verilate._need_headers(tools)
