"""Cycles per second of the Verilated matrix unit, on its own: only its multipliers, and all of it. Usage: rtl_matrix.py [ROWSxLANES ...].

One line per size, formats and part. `dot` is the array of multipliers, fed with the same bytes over and over; `unit` runs products of 18 groups
with one vector, without a gap, its weights copied from an array of ours as an SRAM would hand them over, into a register. With --flags the model is
compiled with these instead of the harness's own, for example --flags="-O3 -march=native".
"""

import argparse
import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from amaranth.hdl import Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from line import print_line
from tapeout.chip.presets import load_chip
from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import FORMAT_IDS, MicroOp, Op
from tapeout.isa.timing import occupancy
from tapeout.numerics.formats import FORMATS
from tapeout.rtl.clock_gate import SelfClocked
from tapeout.rtl.dot_product import DotProduct
from tapeout.rtl.matrix_unit import CLOCKS, MatrixUnit
from tapeout.rtl.ports import ISSUE
from tapeout.rtl.verilate import COMPILE, FAST, VERILATE, find_tools, verilog_of

SIZES = ("4x16", "8x32")
GROUPS, BLOCKS = 18, 16

CLOCK = """
#include <cstring>
#include <ctime>
static Model* model;
static void edge() { model->clk = 1; model->eval(); }
static void fall() { model->clk = 0; model->eval(); }
static double since(clock_t start, long cycles) { return cycles * double(CLOCKS_PER_SEC) / (clock() - start); }
static void begin() { model = new Model; model->rst = 0; for (int i = 0; i < 8; i++) { edge(); fall(); } }
"""
"""Processor time, so that neighbours on the machine count little."""
DOT = (
    CLOCK
    + """
extern "C" double run(long cycles) {
  begin();
  memset(&model->weights, 0x5b, sizeof(model->weights)); memset(&model->x, 0x35, sizeof(model->x));
  model->format = FORMAT; model->load = model->add = model->first = 1;
  clock_t start = clock();
  for (long i = 0; i < cycles; i++) { edge(); fall(); }
  return since(start, cycles);
}
"""
)
UNIT = (
    CLOCK
    + """
static const unsigned operand[] = {OPERAND}, product[] = {PRODUCT};
static unsigned memory[1 << 16];
static void cycle(const unsigned* op) {
  bool weights = model->w_en, packet = model->x_en;
  unsigned at = model->w_addr & 0x7fff, from = model->x_addr & 0x7fff;
  if (weights) memcpy(&model->w_data, memory + at, sizeof(model->w_data));
  if (packet) memcpy(&model->x_data, memory + from, sizeof(model->x_data));
  edge();
  model->go = op != nullptr;
  if (op) memcpy(&model->op, op, sizeof(model->op));
  fall();
}
extern "C" double run(long cycles) {
  begin();
  unsigned state = 1;
  for (unsigned& word : memory) { state = state * 1664525 + 1013904223; word = state >> 1 & 0x77ff77ff; }
  cycle(operand);
  for (int i = 0; i < 1000; i++) cycle(nullptr);
  clock_t start = clock();
  for (long i = 0; i < cycles; i++) cycle(i % BUSY ? nullptr : product);
  return since(start, cycles);
}
"""
)


class Fed(wiring.Component):
    """A box whose inputs `late` come through registers, as they do from a memory: nothing but registers hangs on the model's own inputs."""

    def __init__(self, box: wiring.Component, late: tuple[str, ...]):
        self.box, self.late = box, late
        self.faces = {"_".join(map(str, path)): (member, value) for path, member, value in box.signature.flatten(box)}
        super().__init__({name: type(member)(member.flow, member.shape) for name, (member, _) in self.faces.items()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.box = self.box
        for name, (member, value) in self.faces.items():
            ours = getattr(self, name)
            m.d["sync" if name in self.late else "comb"] += value.eq(ours) if member.flow is In else ours.eq(value)
        return m


def main() -> None:
    """Print one line of JSON per size, formats and part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", metavar="ROWSxLANES", default=SIZES)
    parser.add_argument("--cycles", type=int, default=2_000_000)
    parser.add_argument("--flags", default=FAST)
    options = parser.parse_args()
    for size in options.sizes:
        rows, lanes = map(int, size.split("x"))
        for formats, name in ((["int8"], "int8"), (list(FORMATS), "int8"), (list(FORMATS), "int4m")):
            chip = chip_of(rows, lanes, formats)
            for part, box, shim in (
                ("dot", Fed(DotProduct(chip), ("weights", "x")), DOT.replace("FORMAT", str(FORMAT_IDS.index(name)))),
                ("unit", Fed(SelfClocked(MatrixUnit(chip), CLOCKS), ("w_data", "x_data")), unit_shim(chip, name)),
            ):
                speed = measure(verilog_of(box, part), part, shim, options.flags.split(), options.cycles)
                figures = {"size": size, "formats": len(formats), "format": name, "flags": options.flags}
                print_line("rtl_matrix", part=part, **figures, million_cycles_per_s=speed / 1e6)


def chip_of(rows: int, lanes: int, formats: list[str]) -> ChipSpec:
    """The `tiny` chip with this matrix unit."""
    changes = {"rows": str(rows), "lanes": str(lanes), "formats": str(formats).replace("'", '"')}
    return load_chip("tiny").with_fields({f"tile.matrix.{field}": text for field, text in changes.items()}, "bench")


def unit_shim(chip: ChipSpec, name: str) -> str:
    """The loop, with its two micro-ops as words."""
    operand = MicroOp(Op.OPERAND, columns=32 * GROUPS, tokens=1)
    sizes = {"rows": chip.tile.matrix.rows * BLOCKS, "columns": 32 * GROUPS, "tokens": 1}
    product = MicroOp(Op.MATMUL, b=4096, format=FORMAT_IDS.index(name), **sizes)
    text = UNIT.replace("BUSY", str(occupancy(product, chip)))
    return text.replace("{OPERAND}", words_of(operand)).replace("{PRODUCT}", words_of(product))


def words_of(op: MicroOp) -> str:
    """A micro-op as a unit receives it, in 32-bit words."""
    fields = {name: int(getattr(op, name)) for name in ISSUE.members if hasattr(op, name)}
    value = Const.cast(ISSUE.const(fields)).value
    return "{" + ", ".join(f"{value >> at & 0xFFFFFFFF}u" for at in range(0, ISSUE.size, 32)) + "}"


def measure(text: str, top: str, shim: str, flags: list[str], cycles: int) -> float:
    """Verilate, compile with our flags, and run: the best of three."""
    tools = find_tools()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "top.v").write_text(text)
        call(
            tools.verilator,
            *VERILATE,
            "--top-module",
            top,
            "--Mdir",
            str(folder),
            str(folder / "top.v"),
            root=str(tools.root),
        )
        parts = ["Model.h", "verilated.h", *sorted(path.name for path in folder.glob("*.cpp"))]
        (folder / "whole.cc").write_text("\n".join([*(f'#include "{name}"' for name in parts), shim]))
        runtime = [str(tools.include / name) for name in ("verilated.cpp", "verilated_threads.cpp")]
        made = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.so"
        includes = [f"-I{folder}", f"-I{tools.include}", f"-I{tools.include / 'vltstd'}"]
        call(
            tools.compiler,
            *COMPILE,
            *flags,
            *includes,
            str(folder / "whole.cc"),
            *runtime,
            "-shared",
            "-pthread",
            "-o",
            str(made),
        )
        run = ctypes.CDLL(str(made)).run
    run.argtypes, run.restype = [ctypes.c_long], ctypes.c_double
    return max(run(cycles) for _ in range(3))


def call(*command: str, root: str | None = None) -> None:
    """Run a tool; it must not fail."""
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, **({"VERILATOR_ROOT": root} if root else {})}
    )


if __name__ == "__main__":
    main()
