"""The emitted Verilog under `verilator -Wall`: what is waived, with the reason, and the run that allows nothing else.

`tapeout rtl` writes the waivers beside the Verilog. No latch and no combinational loop is ever waived. Two more stand in the text of a memory that
several clocks write (`memory.WAIVED`).
"""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tapeout.rtl.verilate import find_verilator

WAIVER_FILE = "waivers.vlt"


class Waiver(NamedTuple):
    """Verilator's rule, which of its messages (* and ? as in a shell), and why they are not faults."""

    rule: str
    message: str
    reason: str


WAIVERS = (
    Waiver(
        "UNUSEDSIGNAL",
        "*",
        "every field of a record is a wire of its own, and no unit reads all fields of all records; a synthesizer drops the rest",
    ),
    Waiver(
        "WIDTHEXPAND",
        "Operator * expects * bits on the ?HS*",
        "operands are written in their own widths, and Verilog widens both by their sign as was meant; never a port",
    ),
    Waiver(
        "WIDTHTRUNC",
        "Operator ASSIGNW expects * SHIFTR generates *",
        "a part of a record chosen by a number: shifted down, then the low bits",
    ),
    Waiver("CASEOVERLAP", "*", "casez is read from the top, the first row that fits: If, Elif, Else"),
    Waiver(
        "VARHIDDEN",
        "*upper scope: '?'",
        "a, b and s are arguments of the function that stands for a choice among many, and it reads nothing else",
    ),
)


def waiver_text() -> str:
    """The waivers as Verilator reads them."""
    rows = [f'// {w.reason}\nlint_off -rule {w.rule} -file "*" -match "{w.message}"' for w in WAIVERS]
    return "\n".join(["`verilator_config", *rows, ""])


def lint(folder: Path, files: Sequence[str], top: str) -> list[str]:
    """Verilator's warnings on files of `folder`, one text each, the waivers there in force. Raises `BadInput` where Verilator is missing."""
    verilator, root = find_verilator()
    ran = subprocess.run(
        [verilator, "--lint-only", "-Wall", "--no-timing", "--top-module", top, WAIVER_FILE, *files], cwd=folder,
        capture_output=True, text=True, env={**os.environ, "VERILATOR_ROOT": str(root)},
    )  # fmt: skip
    found = [text.strip() for text in re.split(r"^(?=%)", ran.stderr, flags=re.M) if text.startswith("%")]
    assert bool(found) == bool(ran.returncode), ran.stderr[-2000:]
    return [text for text in found if not text.startswith("%Error: Exiting due to")]
