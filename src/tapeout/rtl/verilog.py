"""ChipSpec to Verilog: one file per module, with the design's names."""

import re

from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil
from amaranth.lib import wiring

from tapeout.chip.spec import ChipSpec
from tapeout.rtl.chip import Chip
from tapeout.rtl.memory import FlatMemory
from tapeout.rtl.tile import Tile

TOP = "tapeout"


def modules(chip: ChipSpec, banked: bool) -> dict[str, str]:
    """Module name -> Verilog text, the top first. `banked`: the SRAM as banks, else its flat model. `chip` has passed `limits.check_chip`."""
    top = Chip(chip, banked)
    found = {**_convert(top, TOP), **_convert(top.tile, "tile")}
    for store in stores(top.tile):
        found |= store.modules()
    return found


def stores(tile: Tile) -> list[FlatMemory]:
    return [
        store for store in (tile.sram, tile.stream, tile.write_buffer and tile.write_buffer.store) if store is not None
    ]


ATTRIBUTES = ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")
REMOVED = " ".join(f"-remove {name}" for name in ATTRIBUTES)
PASSES = (
    # A signal of no bits would be written as [-1:0]: two.
    "delete w:* s:0 %i",
    # Registers begin with their reset, not with values at power on.
    "proc -norom -noopt", "attrmap -remove init", "opt_dff -nosdff", "memory_collect", f"attrmap {REMOVED}",
    f"attrmap -modattr {REMOVED}",
)  # fmt: skip
"""Unlike Amaranth's own script: flops with enables, and next states as expressions, which the simulator works out only where the flop's clock
ticks."""


def _verilog(text: str) -> str:
    """RTLIL to Verilog."""
    yosys = find_yosys(lambda version: version >= (0, 40))
    script = [f"read_rtlil <<rtlil\n{text}\nrtlil", *PASSES, "write_verilog -norename"]
    return yosys.run(["-q", "-"], "\n".join(script), ignore_warnings=True)


def _convert(component: wiring.Component, name: str) -> dict[str, str]:
    """A component's Verilog, cut into its modules; `a.b` inside of it becomes `a_b`."""
    text = _verilog(rtlil.convert(component, name=name, emit_src=False))
    names = re.findall(r"^module (\\\S+|\w+)", text, re.M)
    for old in sorted(names, key=len, reverse=True):
        if old.startswith("\\"):
            text = text.replace(f"{old} ", f"{old[1:].replace('.', '_').replace('$', '_')} ")
    text = re.sub(r"^(module \w+) ?\(([^)]*)\);", _clocks_last, text, flags=re.M)
    return {
        re.match(r"module (\w+)", part).group(1): part
        for part in re.findall(r"^module .*?^endmodule\n", text, re.M | re.S)
    }  # type: ignore[union-attr]


def _clocks_last(head: re.Match[str]) -> str:
    """A module's ports in their order, clocks and resets behind them by name: Amaranth lists those in an order that changes from run to run."""
    ports = re.findall(r"\\\S+|\w+", head[2])
    clocks = {port for port in ports if re.search(r"(^|_)(clk|rst)$", port)}
    ordered = [port for port in ports if port not in clocks] + sorted(clocks)
    return f"{head[1]}({', '.join(f'{port} ' if port[0] == chr(92) else port for port in ordered)});"
