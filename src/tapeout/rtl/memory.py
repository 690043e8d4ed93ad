"""A tile's memories: words of four bytes behind named ports that read or write a run of words at any word address.

`FlatMemory` says what the memory does, as a memory macro's simulation model does: every port sees the whole memory at once. It is Verilog text of its
own, with one clock per port, because Amaranth would write out the initial content of every word. The chip's SRAM is `banked.py`: banks of one read
and one write port behind a crossbar. A program that never uses a bank's port twice in a cycle (isa.check, limits.check_one_port) cannot tell the two
apart.
"""

from dataclasses import dataclass

from amaranth.hdl import ClockSignal, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from tapeout.rtl.ports import WORD_BITS, ReadPort, WritePort


@dataclass(frozen=True, slots=True)
class Read:
    """A read port: words per access, and the clock domain that it works in."""

    words: int
    domain: str


@dataclass(frozen=True, slots=True)
class Write:
    """A write port: words per access, its clock domain, and whether bytes are enabled one by one (else whole words, by their lowest byte's bit)."""

    words: int
    domain: str
    bytewise: bool = True


WAIVED = """\
  // Each unit writes on its own clock, and never where another one writes in the same cycle.
  /* verilator lint_off MULTIDRIVEN */
  // Blocking on purpose: a write is over before the next edge on which anything is read, and is never kept aside.
  /* verilator lint_off BLKSEQ */
"""
"""What Verilator would warn of in a memory that several clocks write, with the reasons; inside of the module, so only there."""


class FlatMemory(wiring.Component):
    """`words` words, rounded up to a power of two; addresses wrap. Members are named like the ports; `verilog()` is the module itself."""

    def __init__(self, name: str, words: int, reads: dict[str, Read], writes: dict[str, Write]):
        self.name, self.bits, self.reads, self.writes = name, (words - 1).bit_length(), reads, writes
        super().__init__(
            {port: In(ReadPort(kind.words)) for port, kind in reads.items()}
            | {port: In(WritePort(kind.words)) for port, kind in writes.items()}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        wires = self._clocks()
        for name, port in (self.reads | self.writes).items():
            face = getattr(self, name)
            wires |= {f"i_{name}_en": face.en, f"i_{name}_addr": face.addr}
            wires[f"o_{name}_data" if isinstance(port, Read) else f"i_{name}_data"] = face.data
        m.submodules.cells = Instance(self.name, **wires)
        return m

    def _clocks(self) -> dict[str, object]:
        return {f"i_{name}_clk": ClockSignal(port.domain) for name, port in (self.reads | self.writes).items()}

    def modules(self) -> dict[str, str]:
        """Module name -> Verilog text, the memory's own first."""
        return {self.name: self.verilog()}

    def verilog(self) -> str:
        """The module as Verilog text."""
        ports, bodies = [], []
        for name, port in self.reads.items():
            ports += [f"input {name}_clk", f"input {name}_en", f"input [{WORD_BITS - 1}:0] {name}_addr"]
            ports.append(f"output reg [{32 * port.words - 1}:0] {name}_data")
            bodies += self._read(name, port)
        for name, port in self.writes.items():
            ports += [
                f"input {name}_clk",
                f"input [{4 * port.words - 1}:0] {name}_en",
                f"input [{WORD_BITS - 1}:0] {name}_addr",
            ]
            ports.append(f"input [{32 * port.words - 1}:0] {name}_data")
            bodies += self._write(name, port)
        head = f"module {self.name}(\n  " + ",\n  ".join(ports) + "\n);\n"
        return head + WAIVED + f"  reg [31:0] words [0:{(1 << self.bits) - 1}];\n" + "\n".join(bodies) + "\nendmodule\n"

    def _at(self, name: str, k: int) -> str:
        """Word `k` of a port's run."""
        return f"words[{name}_addr[{self.bits - 1}:0] + {self.bits}'d{k}]"

    def _read(self, name: str, port: Read) -> list[str]:
        words = [f"    {name}_data[{32 * k + 31}:{32 * k}] <= {self._at(name, k)};" for k in range(port.words)]
        return [f"  always @(posedge {name}_clk) if ({name}_en) begin", *words, "  end"]

    def _write(self, name: str, port: Write) -> list[str]:
        """Blocking, in the middle of the cycle in which the port asks: no other port touches these bytes until it is over (isa.check), and the
        simulator need not keep what is written aside. The host's writes come while nothing else does.
        """
        lines = []
        for k in range(port.words):
            data, enable = f"{name}_data[{32 * k + 31}:{32 * k}]", f"{name}_en[{4 * k + 3}:{4 * k}]"
            mask = "{" + ", ".join(f"{{8{{{name}_en[{4 * k + b}]}}}}" for b in reversed(range(4))) + "}"
            if port.bytewise:
                at = self._at(name, k)
                lines.append(
                    f"    if (&{enable}) {at} = {data}; else if (|{enable}) {at} = ({at} & ~{mask}) | ({data} & {mask});"
                )
            else:
                lines.append(f"    if ({name}_en[{4 * k}]) {self._at(name, k)} = {data};")
        edge = "posedge" if port.domain == "load" else "negedge"
        return [f"  always @({edge} {name}_clk) if (|{name}_en) begin", *lines, "  end"]
