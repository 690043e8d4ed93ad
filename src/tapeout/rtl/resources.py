"""What a chip takes of an FPGA: its Verilog through Yosys' synthesis for AMD UltraScale+, module by module, counted by instances.

Modules that are alike but for their names are synthesized once. Nothing is optimised across the borders of modules: a vendor's tool, which does that,
should need somewhat less. Nothing is placed or routed: that the parts suffice does not say that the clock holds.

The SRAM is as `tapeout rtl` writes it, in banks. The stream buffer and the write buffer are models that every port sees at once; here each is a copy
per reading port. Yosys chooses block or LUT memory by the depth of a macro.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from amaranth.back import rtlil
from amaranth.lib import wiring

from tapeout.base.errors import BadInput
from tapeout.base.files import atomic_write, cache_folder
from tapeout.chip.spec import ChipSpec
from tapeout.rtl.banked import BankedMemory, BankShape, line_of
from tapeout.rtl.chip import Chip
from tapeout.rtl.memory import FlatMemory, Read
from tapeout.rtl.ports import WORD_BITS
from tapeout.rtl.simulate import sources_digest
from tapeout.rtl.verilog import TOP, stores

PASSES = ("synth_xilinx -family xcup -noiopad -noclkbuf",)
"""What a module goes through: AMD UltraScale+."""
LUT_CELLS = {
    **{f"LUT{k}": 1 for k in range(1, 7)}, "INV": 0,
    "SRL16E": 1, "SRLC32E": 1, "RAM64X1S": 1, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8,
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM32X16DR8": 8, "RAM64X8SW": 8, "RAM512X1S": 8,
}  # fmt: skip
"""6-input LUTs per cell (AMD UG574, UltraScale Architecture CLB: chapter 2, distributed RAM and shift registers)."""
COLUMN = 64
"""Bits of a block RAM's row, without parity."""
FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE", "FDRE_1", "FDSE_1")
"""_1: on the falling edge (clock gates)."""
OTHERS = ("DSP48E2", "RAMB36E2", "RAMB18E2", "CARRY4", "CARRY8", "MUXF7", "MUXF8", "MUXF9", "BUFG", "$scopeinfo")
"""Counted below, or in a slice beside its LUTs, or (scopeinfo) no cell but a remark."""
LATCHES = ("LDCE", "LDPE")


@dataclass(frozen=True, slots=True)
class Resources:
    """Counts of 6-input LUTs (`lut_memory` of them as memory), DSP slices, flip-flops, and block RAMs of 36 Kbit (halves count)."""

    lut: int
    lut_memory: int
    dsp: int
    flip_flops: int
    bram_36k: float


@dataclass(frozen=True, slots=True)
class Device:
    """A part and what it has."""

    name: str
    source: str
    has: Resources


DEVICE = Device(
    "AMD Virtex UltraScale+ VU9P (VCU118 board, AWS F1)",
    "AMD DS890, UltraScale Architecture and Product Data Sheet: Overview, table Virtex UltraScale+ FPGA Feature Summary",
    Resources(lut=1_182_240, lut_memory=591_840, dsp=6_840, flip_flops=2_364_480, bram_36k=2_160),
)


class Design(NamedTuple):
    """Modules as Yosys reads them: those of Amaranth as RTLIL by name, memories as Verilog, and the names of modules to be put together with what
    is in them."""

    top: str
    rtlil: dict[str, str]
    verilog: dict[str, str]
    together: tuple[str, ...] = ()


def estimate(chip: ChipSpec, note: Callable[[str], None] = lambda text: None) -> Resources:
    """What `chip` takes; kept, as it takes minutes. `chip` has passed `limits`. Raises `BadInput` where Yosys is missing."""
    needs_yosys()
    key = "\0".join([version("pyosys"), *PASSES, sources_digest(), chip.model_dump_json()])
    path = cache_folder() / "rtl" / f"resources-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if not path.exists():
        cells = synthesize(design(chip), note)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "w") as file:
            json.dump(cells, file)
    return count(json.loads(path.read_text()))


def needs_yosys() -> None:
    """Raises `BadInput` where the synthesis is not installed."""
    if find_spec("pyosys") is None:
        raise BadInput(
            "--resources",
            "needs the package pyosys, which is not installed",
            'install it: pip install "tapeout[rtl]"',
        )


def design(chip: ChipSpec) -> Design:
    """The chip with its SRAM in banks and its flat memories as copies."""
    top = Chip(chip, banked=True)
    parts, texts, together = {**modules_of(top, TOP), **modules_of(top.tile, "tile")}, {}, []
    for store in stores(top.tile):
        if isinstance(store, BankedMemory):
            texts |= in_columns(store)
        else:
            texts |= _copies(store)
            together += [store.name] if _of_beats(store) else []
    return Design(TOP, parts, texts, tuple(together))


def modules_of(component: wiring.Component, name: str) -> dict[str, str]:
    """A component's modules as RTLIL."""
    return _split(rtlil.convert(component, name=name, emit_src=False))


# --- memories ---


def in_columns(memory: BankedMemory) -> dict[str, str]:
    """The memory's modules, its macro cut into columns as wide as a block RAM: Yosys is slow with wide memories, and they are cut in the end."""
    width, top, name = 32 * memory.part_words, memory.row_bits - 1, f"{memory.name}_macro"
    step = min(COLUMN, width)
    ports = (
        f"input clk, input read_en, input [{top}:0] read_row, output {{reg}}[{{bits}}-1:0] read_data, "
        f"input [{{bits}}/8-1:0] write_en, input [{top}:0] write_row, input [{{bits}}-1:0] write_data"
    )
    cells = [
        f"  {name}_column c{at}(clk, read_en, read_row, read_data[{at} +: {step}], write_en[{at // 8} +: {step // 8}], write_row, "
        f"write_data[{at} +: {step}]);"
        for at in range(0, width, step)
    ]  # fmt: skip
    writes = [
        f"    if (write_en[{k}]) cells[write_row][{8 * k} +: 8] <= write_data[{8 * k} +: 8];" for k in range(step // 8)
    ]
    column = [
        f"(* keep_hierarchy *) module {name}_column({ports.format(reg='reg ', bits=step)});", f"  reg [{step - 1}:0] cells [0:{memory.rows - 1}];",
        "  always @(posedge clk) if (read_en) read_data <= cells[read_row];", "  always @(posedge clk) begin", *writes, "  end", "endmodule", "",
    ]  # fmt: skip
    macro = [f"module {name}({ports.format(reg='', bits=width)});", *cells, "endmodule", ""]
    return memory.modules() | {name: "\n".join(macro), f"{name}_column": "\n".join(column)}


def _copies(store: FlatMemory) -> dict[str, str]:
    """A memory of one bank for each port that reads. All on one clock: the cells are the same."""
    texts, ports, body = {}, [], []
    for name, port in (store.reads | store.writes).items():
        way, enable = ("output", "") if isinstance(port, Read) else ("input", f"[{4 * port.words - 1}:0] ")
        ports += [f"input {name}_clk", f"input {enable}{name}_en", f"input [{WORD_BITS - 1}:0] {name}_addr"]
        ports.append(f"{way} [{32 * port.words - 1}:0] {name}_data")
    for name, port in store.reads.items():
        copy = _one_bank(f"{store.name}_{name}", store, {name: port})
        texts |= in_columns(copy)
        pins = [
            f".{one}_{what}({_wire(store, one, what)})"
            for one in (name, *store.writes)
            for what in ("en", "addr", "data")
        ]
        body.append(f"  {copy.name} {name}(.clk({name}_clk), {', '.join(pins)});")
    head = f"module {store.name}(\n  " + ",\n  ".join(ports) + "\n);\n"
    return {store.name: head + "\n".join(body) + "\nendmodule\n", **texts}


def _wire(store: FlatMemory, name: str, what: str) -> str:
    """Beats stand at multiples of a beat."""
    low = (store.writes[name].words - 1).bit_length() if _of_beats(store) and name in store.writes else 0
    return f"{{{name}_addr[{WORD_BITS - 1}:{low}], {low}'d0}}" if low and what == "addr" else f"{name}_{what}"


def _of_beats(store: FlatMemory) -> bool:
    return not any(port.bytewise for port in store.writes.values())


def _one_bank(name: str, store: FlatMemory, reads: dict[str, Read]) -> BankedMemory:
    widest = max(port.words for port in (reads | store.writes).values())
    line, part = line_of(widest)
    if _of_beats(store):
        line = 1 << (widest - 1).bit_length()
        part = line_of(max(port.words for port in reads.values()))[1]
    shape = BankShape(1, max(2, (1 << store.bits) // line), line, part, widest)
    copy = BankedMemory(name, shape, reads, store.writes)
    copy._MustUse__silence = True  # Only its text is wanted.
    return copy


# --- alike modules ---


def merged(parts: dict[str, str]) -> dict[str, str]:
    """The modules without those that are alike but for their names and their children's: instances of these become instances of the first."""
    while True:
        first: dict[str, str] = {}
        again = {}
        for name, text in parts.items():
            own = re.sub(rf"\\{re.escape(name)}(?=[\s.])", "SELF", text)
            if first.setdefault(own, name) != name:
                again[name] = first[own]
        if not again:
            return parts
        parts = {name: _renamed(text, again) for name, text in parts.items() if name not in again}


def _renamed(text: str, names: dict[str, str]) -> str:
    """A module whose children are others."""
    return re.sub(r"^( *cell \\)(\S+)", lambda found: found[1] + names.get(found[2], found[2]), text, flags=re.M)


# --- synthesis ---

RUN = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for line in sys.argv[1:]:
    libyosys.run_pass(line, design)
"""


def synthesize(design: Design, note: Callable[[str], None] = lambda text: None) -> dict[str, int]:
    """Cells by type, of the top and of all that is in it. Module by module: the whole at once takes some 7 GB. What a module came to is kept, so
    that a run which was stopped goes on where it was.
    """
    parts = merged(_together(design))
    total: Counter[str] = Counter()
    for at, (name, times) in enumerate(instances(design.top, parts).items(), 1):
        note(f"Yosys for UltraScale+: module {at} of {len(parts)}, {name} (kept for the next time)")
        for cell, number in _cells(name, parts).items():
            total[cell] += times * number
    return dict(total)


def _together(design: Design) -> dict[str, str]:
    """All modules as RTLIL, those that belong together as one."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "chip.il").write_text("".join(design.rtlil.values()))
        (Path(folder) / "memories.v").write_text("".join(design.verilog.values()))
        flatten = [f"flatten {' '.join(design.together)}"] if design.together else []
        read = ["read_rtlil chip.il", "read_verilog memories.v", f"hierarchy -top {design.top}", "proc"]
        _yosys(folder, [*read, *flatten, f"hierarchy -top {design.top}", "write_rtlil whole.il"])
        return _split((Path(folder) / "whole.il").read_text())


BRACKETS = str.maketrans("[]", "__")


def _split(text: str) -> dict[str, str]:
    """Modules of RTLIL by name. Yosys takes a wire x[0] and the bit x [0] for one where it puts a mapped module together: no name keeps brackets."""
    text = re.sub(r"^ *attribute .*\n", "", text, flags=re.M)
    text = re.sub(r"\\\S+", lambda name: name[0].translate(BRACKETS), text)
    return {found[1]: found[0] for found in re.finditer(r"^module \\(\S+)\n.*?^end\n", text, re.M | re.S)}


def children(text: str) -> Counter[str]:
    """The modules that a module has in it, and how many of each."""
    return Counter(re.findall(r"^ *cell \\(\S+)", text, re.M))


def instances(top: str, parts: Mapping[str, str]) -> dict[str, int]:
    """How often each module is there, the top first."""
    found: Counter[str] = Counter()

    def add(name: str, number: int) -> None:
        found[name] += number
        for child, times in children(parts[name]).items():
            add(child, number * times)

    add(top, 1)
    return dict(found)


def _cells(name: str, parts: Mapping[str, str]) -> dict[str, int]:
    """Cells by type of a module without its children."""
    inside = sorted(children(parts[name]))
    text = "".join((parts[name], *(_ports(parts[child]) for child in inside)))
    key = hashlib.sha256("\0".join((version("pyosys"), *PASSES, text)).encode()).hexdigest()[:32]
    path = cache_folder() / "rtl" / f"cells-{key}.json"
    if not path.exists():
        made = _synthesized(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "w") as file:
            json.dump({cell: number for cell, number in made.items() if cell not in inside}, file)
    return json.loads(path.read_text())


def _ports(text: str) -> str:
    """A module as those see it that have it in them."""
    head, *lines = text.splitlines(keepends=True)
    return "".join(
        ("attribute \\blackbox 1\n", head, *(line for line in lines if re.match(r"  wire .*(in|out|inout)put \d+ ", line)), "end\n")
    )  # fmt: skip


def _synthesized(text: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "module.il").write_text(text)
        _yosys(folder, ["read_rtlil module.il", *PASSES, "tee -q -o cells.json stat -json"])
        said = json.loads((Path(folder) / "cells.json").read_text())
    return {cell.removeprefix("\\"): number for cell, number in said["design"]["num_cells_by_type"].items()}


def _yosys(folder: str, passes: list[str]) -> None:
    """Run passes in a process of its own: memory goes back, and an interrupt ends it."""
    ran = subprocess.run([sys.executable, "-c", RUN, *passes], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, f"Yosys failed ({ran.returncode}):\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"


def count(cells: dict[str, int]) -> Resources:
    """From cells of UltraScale+ to what the data sheets count."""
    latches = [name for name in LATCHES if cells.get(name)]
    assert not latches, f"the chip has latches: {latches}"
    unknown = sorted(set(cells) - {*LUT_CELLS, *FLIP_FLOPS, *OTHERS})
    assert not unknown, f"cells of which it is not known what they take: {unknown}"
    memory = sum(
        cells.get(name, 0) * luts for name, luts in LUT_CELLS.items() if name.startswith(("RAM", "SRL"))
    )  # fmt: skip
    return Resources(
        lut=sum(cells.get(name, 0) * luts for name, luts in LUT_CELLS.items()),
        lut_memory=memory,
        dsp=cells.get("DSP48E2", 0),
        flip_flops=sum(cells.get(name, 0) for name in FLIP_FLOPS),
        bram_36k=cells.get("RAMB36E2", 0) + cells.get("RAMB18E2", 0) / 2,
    )
