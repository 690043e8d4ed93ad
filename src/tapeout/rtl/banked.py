"""The SRAM as silicon has it: banks of one read and one write port, behind a crossbar.

A bank is two macros, for even and odd lines of `line_words` words, so that a run that begins anywhere in a line is read in one cycle from a line and the
next one. A port's run is rotated into place behind the macros (reads) or before them (writes). The compiler sees to it that no two ports meet in a bank;
the crossbar only joins what comes with OR gates. Under that rule it is `FlatMemory` (tests/rtl/test_memory.py).
"""

from amaranth.hdl import ClockSignal

from tapeout.rtl.memory import FlatMemory, Read, Write
from tapeout.rtl.ports import WORD_BITS


class BankedMemory(FlatMemory):
    """As `FlatMemory`, of `banks` banks; all macros work on the clock `clk` (a read that is repeated while its unit stands still reads the same)."""

    def __init__(self, name: str, words: int, banks: int, reads: dict[str, Read], writes: dict[str, Write]):
        super().__init__(name, words, reads, writes)
        widest = max(port.words for port in (reads | writes).values())
        self.banks, self.line_bits = banks, max(1, (widest - 1).bit_length())
        self.rows = max(1, -(-words // banks) >> self.line_bits + 1)
        self.row_bits = max(1, (self.rows * banks - 1).bit_length())

    @property
    def line_words(self) -> int:
        """Words of a macro's row."""
        return 1 << self.line_bits

    def _own_wires(self) -> dict[str, object]:
        return {"i_clk": ClockSignal("free")}

    def macro(self) -> str:
        """The half bank: what a memory compiler delivers."""
        width, bits = 32 * self.line_words, max(1, (self.rows - 1).bit_length())
        return f"""module {self.name}_half_bank(
  input clk, input read_en, input [{bits - 1}:0] read_row, output reg [{width - 1}:0] read_data,
  input [{width // 8 - 1}:0] write_en, input [{bits - 1}:0] write_row, input [{width - 1}:0] write_data
);
  reg [{width - 1}:0] cells [0:{self.rows - 1}];
  integer k;
  always @(posedge clk) if (read_en) read_data <= cells[read_row];
  always @(posedge clk)
    for (k = 0; k < {width // 8}; k = k + 1)
      if (write_en[k]) cells[write_row][8 * k +: 8] <= write_data[8 * k +: 8];
endmodule
"""

    def verilog(self) -> str:
        """The module as Verilog text: ports as `FlatMemory` has them (their clocks are not used but by the host's), and `clk`."""
        ports, body = ["input clk"], []
        for name, port in (self.reads | self.writes).items():
            way = "output" if isinstance(port, Read) else "input"
            enable = "" if isinstance(port, Read) else f"[{4 * port.words - 1}:0] "
            ports += [f"input {name}_clk", f"input {enable}{name}_en", f"input [{WORD_BITS - 1}:0] {name}_addr", f"{way} [{32 * port.words - 1}:0] {name}_data"]
            body += self._places(name, port)
            body += self._rotated_write(name, port) if isinstance(port, Write) else []
        for bank in range(self.banks):
            body += [line for half in (0, 1) for line in self._half(bank, half)]
        for name, port in self.reads.items():
            body += self._gathered_read(name, port)
        return f"module {self.name}(\n  " + ",\n  ".join(ports) + "\n);\n" + "\n".join(body) + "\nendmodule\n"

    def _places(self, name: str, port: Read | Write) -> list[str]:
        """Which row of the even and of the odd halves a port needs, if any. Rows are numbered through all banks."""
        line, top = self.line_bits, WORD_BITS - 1
        used = f"{name}_en" if isinstance(port, Read) else f"(|{name}_en)"
        return [
            f"  wire [{line - 1}:0] {name}_offset = {name}_addr[{line - 1}:0];",
            f"  wire {name}_odd = {name}_addr[{line}];",
            f"  wire {name}_next = {{1'b0, {name}_offset}} > {line + 1}'d{self.line_words - port.words};",
            f"  wire [{top - line}:0] {name}_line = {name}_addr[{top}:{line}];",
            f"  wire [{self.row_bits - 1}:0] {name}_row0 = {self.row_bits}'(({name}_line + 1) >> 1), {name}_row1 = {self.row_bits}'({name}_line >> 1);",
            f"  wire {name}_use0 = {used} & (~{name}_odd | {name}_next), {name}_use1 = {used} & ({name}_odd | {name}_next);",
        ]

    def _rotated_write(self, name: str, port: Write) -> list[str]:
        width = 64 * self.line_words
        enable = f"{name}_en" if port.bytewise else "{" + ", ".join(f"{{4{{{name}_en[{4 * k}]}}}}" for k in reversed(range(port.words))) + "}"
        return [
            f"  wire [{width - 1}:0] {name}_moved = {width}'({name}_data) << {{{name}_offset, 5'd0}};",
            f"  wire [{width // 8 - 1}:0] {name}_moved_en = {width // 8}'({enable}) << {{{name}_offset, 2'd0}};",
        ]

    def _half(self, bank: int, half: int) -> list[str]:
        """One macro and the OR of what is for it."""
        bits, first, tag = max(1, (self.rows - 1).bit_length()), bank * self.rows, f"bank{bank}_{half}"
        width = 32 * self.line_words
        hits = [
            f"  wire {tag}_{name} = {name}_use{half} & ({name}_row{half} >= {self.row_bits}'d{first}) & ({name}_row{half} <= {self.row_bits}'d{first + self.rows - 1});"
            for name in self.reads | self.writes
        ]  # fmt: skip

        def joined(names: dict, size: int, value: str) -> str:
            return " | ".join(f"({{{size}{{{tag}_{name}}}}} & {value.format(name=name)})" for name in names) or "0"

        row = f"{bits}'({{name}}_row{half} - {self.row_bits}'d{first})".replace("{name}", "{name}")
        low, high = f"{{name}}_moved[{width - 1}:0]", f"{{name}}_moved[{2 * width - 1}:{width}]"
        part = f"({{name}}_odd {'==' if half else '!='} 1'b1 ? {low} : {high})"
        enables = part.replace("_moved[", "_moved_en[").replace(f"{2 * width - 1}:{width}", f"{width // 4 - 1}:{width // 8}").replace(f"{width - 1}:0", f"{width // 8 - 1}:0")
        return [
            *hits,
            f"  wire [{width - 1}:0] {tag}_data;",
            f"  {self.name}_half_bank {tag}(.clk(clk), .read_en({' | '.join(f'{tag}_{name}' for name in self.reads)}),",
            f"    .read_row({joined(self.reads, bits, row)}), .read_data({tag}_data), .write_en({joined(self.writes, width // 8, enables)}),",
            f"    .write_row({joined(self.writes, bits, row)}), .write_data({joined(self.writes, width, part)}));",
        ]

    def _gathered_read(self, name: str, port: Read) -> list[str]:
        """The run, from the two halves that were read in the cycle before."""
        width = 32 * self.line_words
        picks = [f"{name}_from{half}_{bank}" for half in (0, 1) for bank in range(self.banks)]
        lines = [f"  reg [{self.line_bits - 1}:0] {name}_offset_was;", f"  reg {name}_odd_was;", *(f"  reg {pick};" for pick in picks)]
        lines += [f"  always @(posedge clk) if ({name}_en) begin", f"    {name}_offset_was <= {name}_offset;", f"    {name}_odd_was <= {name}_odd;"]
        lines += [f"    {name}_from{half}_{bank} <= bank{bank}_{half}_{name};" for half in (0, 1) for bank in range(self.banks)]
        lines.append("  end")
        for half in (0, 1):
            terms = " | ".join(f"({{{width}{{{name}_from{half}_{bank}}}}} & bank{bank}_{half}_data)" for bank in range(self.banks))
            lines.append(f"  wire [{width - 1}:0] {name}_half{half} = {terms};")
        lines += [
            f"  wire [{2 * width - 1}:0] {name}_both = {name}_odd_was ? {{{name}_half0, {name}_half1}} : {{{name}_half1, {name}_half0}};",
            f"  assign {name}_data = {name}_both[{{{name}_offset_was, 5'd0}} +: {32 * port.words}];",
        ]
        return lines
