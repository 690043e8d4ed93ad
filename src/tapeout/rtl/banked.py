"""The SRAM as silicon has it: banks of one read and one write port, behind a crossbar.

A bank is a few macros side by side. Its lines are as wide as the widest run needs: line `offset`..., and where the run goes on in the next line, the
macros before the one in which it begins read a row further. So a run that begins at any word is one access. The run is turned into place inside the
bank, once for all ports, and the crossbar carries runs and not lines: it is as wide as its ports.

No two micro-ops meet in a bank (isa.check), and no two operands of one either (limits.check_one_port), so the crossbar only joins what comes with OR
gates. A port always reads its whole run, also where the micro-op needs less of it: what it reads beyond its own bank yields to the port that begins
there. Under that rule this is `FlatMemory` (tests/rtl/test_banked.py).
"""

from dataclasses import dataclass

from amaranth.hdl import ClockSignal

from tapeout.chip.spec import PACKET_BYTES, ChipSpec
from tapeout.rtl.kv_records import kv_words, query_words
from tapeout.rtl.memory import FlatMemory, Read, Write
from tapeout.rtl.ports import WORD_BITS, attention_out_lanes, weight_words


@dataclass(frozen=True, slots=True)
class BankShape:
    """`banks` of `rows` lines of `line_words` words, each in macros of `part_words`; `widest`: words of the longest run."""

    banks: int
    rows: int
    line_words: int
    part_words: int
    widest: int

    @property
    def parts(self) -> int:
        """Macros of a bank."""
        return self.line_words // self.part_words


def bank_shape(chip: ChipSpec) -> BankShape:
    """Of a tile's SRAM. `rows` is 0 or no power of two where the RTL cannot build it (limits.check_banks)."""
    tile = chip.tile
    widest = max(
        -(-PACKET_BYTES // 4), weight_words(chip), tile.matrix.rows, tile.vector.lanes, kv_words(chip), query_words(chip), tile.attention.keys,
        attention_out_lanes(chip), chip.link.bytes_per_cycle // 4 + 1,
    )  # fmt: skip
    line, part = line_of(widest)
    return BankShape(
        tile.sram.banks,
        tile.sram.bank_bytes // (4 * line) if tile.sram.bank_bytes % (4 * line) == 0 else 0,
        line,
        part,
        widest,
    )


class BankedMemory(FlatMemory):
    """As `FlatMemory`, in banks. All works on the clock `sync`, which must stand still whenever a unit that reads does."""

    def __init__(self, name: str, shape: BankShape, reads: dict[str, Read], writes: dict[str, Write]):
        super().__init__(name, shape.banks * shape.rows * shape.line_words, reads, writes)
        self.shape, self.banks, self.rows, self.widest = shape, shape.banks, shape.rows, shape.widest
        self.line_words, self.part_words, self.parts = shape.line_words, shape.part_words, shape.parts
        self.line_bits, self.row_bits = (shape.line_words - 1).bit_length(), (shape.rows - 1).bit_length()
        self.bank_bits = max(1, (shape.banks - 1).bit_length())
        assert max(port.words for port in (reads | writes).values()) <= shape.widest, "bank_shape knows every port"
        assert shape.rows >= 2, "limits.check_banks has passed"
        assert shape.rows & shape.rows - 1 == 0, "limits.check_banks has passed"

    def _clocks(self) -> dict[str, object]:
        return {"i_clk": ClockSignal("sync")}

    def modules(self) -> dict[str, str]:
        """The memory, its bank, and the macro that a memory compiler delivers."""
        return {self.name: self.verilog(), f"{self.name}_bank": self._bank(), f"{self.name}_macro": self._macro()}

    # --- the macro ---

    def _macro(self) -> str:
        width, top = 32 * self.part_words, self.row_bits - 1
        return f"""module {self.name}_macro(
  input clk, input read_en, input [{top}:0] read_row, output reg [{width - 1}:0] read_data,
  input [{width // 8 - 1}:0] write_en, input [{top}:0] write_row, input [{width - 1}:0] write_data
);
  reg [{width - 1}:0] cells [0:{self.rows - 1}];
  integer k;
  always @(posedge clk) if (read_en) read_data <= cells[read_row];
  always @(posedge clk)
    for (k = 0; k < {width // 8}; k = k + 1)
      if (write_en[k]) cells[write_row][8 * k +: 8] <= write_data[8 * k +: 8];
endmodule
"""

    # --- the bank ---

    def _bank(self) -> str:
        """What is for this bank, joined; a turn before the macros (writes) and one behind them (reads)."""
        row, at, out = self.row_bits, self.line_bits, 32 * self.widest
        ports = ["input clk", f"output [{out - 1}:0] out"]
        for name, port in (self.reads | self.writes).items():
            ports += [
                f"input {name}_here",
                f"input {name}_over",
                f"input [{row - 1}:0] {name}_row",
                f"input [{at - 1}:0] {name}_offset",
            ]
            if isinstance(port, Write):
                ports += [f"input [{4 * port.words - 1}:0] {name}_{what}" for what in ("en_here", "en_over")]
                ports.append(f"input [{32 * port.words - 1}:0] {name}_data")
        # Verilator makes one C++ class of all banks, instead of their text once per bank.
        body = [
            "  /* verilator no_inline_module */",
            *self._joined_reads(),
            *self._joined_writes(),
            *self._macros(),
            *self._turned_read(),
        ]
        return _module(f"{self.name}_bank", ports, body)

    def _joined_reads(self) -> list[str]:
        """Row and offset of the run that begins here, or the offset of one that came over from the bank before, which goes on in row 0."""
        return [
            f"  wire read_here = {' | '.join(f'{name}_here' for name in self.reads)};",
            f"  wire read_over = ~read_here & ({' | '.join(f'{name}_over' for name in self.reads)});",
            f"  reg [{self.row_bits - 1}:0] read_row;",
            f"  reg [{self.line_bits - 1}:0] read_at, read_at_was;",
            "  always @* begin",
            f"    read_row = {{{self.row_bits}{{read_over}}}};",
            f"    read_at = {self.line_bits}'d0;",
            *(
                f"    if ({name}_here) begin read_row = read_row | {name}_row; read_at = read_at | {name}_offset; end"
                for name in self.reads
            ),
            *(f"    if (read_over & {name}_over) read_at = read_at | {name}_offset;" for name in self.reads),
            "  end",
            "  always @(posedge clk) if (read_here | read_over) read_at_was <= read_at;",
        ]

    def _joined_writes(self) -> list[str]:
        """The run to be written, as every macro gets it: turned among as many words as a run may have, and enabled where in the line it belongs."""
        widest, line = max(port.words for port in self.writes.values()), self.line_words
        turn = 1 << (widest - 1).bit_length()
        low = f"write_at[{turn.bit_length() - 2}:0]" if turn > 1 else "1'b0"
        lines = [
            f"  reg [{self.row_bits - 1}:0] write_row;", f"  reg [{self.line_bits - 1}:0] write_at;",
            f"  reg [{32 * turn - 1}:0] write_run;", f"  reg [{4 * turn - 1}:0] write_bytes;", "  always @* begin",
            f"    write_row = {self.row_bits}'d0;", f"    write_at = {self.line_bits}'d0;",
            f"    write_run = {32 * turn}'d0;", f"    write_bytes = {4 * turn}'d0;",
        ]  # fmt: skip
        for name, port in self.writes.items():
            run, enables = f"write_run[{32 * port.words - 1}:0]", f"write_bytes[{4 * port.words - 1}:0]"
            for which, row in (("here", f"{name}_row"), ("over", f"{{{self.row_bits}{{1'b1}}}}")):
                lines += [
                    f"    if ({name}_{which}) begin",
                    f"      write_row = write_row | {row};",
                    f"      write_at = write_at | {name}_offset;",
                    f"      {run} = {run} | {name}_data;",
                    f"      {enables} = {enables} | {name}_en_{which};",
                    "    end",
                ]
        span = ", ".join(f"{{4{{span[{k}]}}}}" for k in reversed(range(line)))
        return [
            *lines,
            "  end",
            f"  wire [{64 * turn - 1}:0] run_twice = {{write_run, write_run}} << {{{low}, 5'd0}};",
            f"  wire [{8 * turn - 1}:0] bytes_twice = {{write_bytes, write_bytes}} << {{{low}, 2'd0}};",
            f"  wire [{2 * line - 1}:0] span_twice = {{{2 * line - turn}'d0, {{{turn}{{1'b1}}}}}} << write_at;",
            f"  wire [{line - 1}:0] span = span_twice[{line - 1}:0] | span_twice[{2 * line - 1}:{line}];",
            f"  wire [{32 * line - 1}:0] moved = {{{line // turn}{{run_twice[{64 * turn - 1}:{32 * turn}]}}}};",
            f"  wire [{4 * line - 1}:0] moved_en = {{{line // turn}{{bytes_twice[{8 * turn - 1}:{4 * turn}]}}}} & {{{span}}};",
        ]

    def _macros(self) -> list[str]:
        """Macros before the one in which the run begins are one row further; those beyond the last row belong to the next bank."""
        width, top = 32 * self.part_words, self.row_bits
        lines = []
        for j in range(self.parts):
            low = j * width
            lines.append(f"  wire [{width - 1}:0] data{j};")
            for way in ("read", "write"):
                before = (
                    f"({way}_at >= {self.line_bits}'d{(j + 1) * self.part_words})" if j + 1 < self.parts else "1'b0"
                )
                lines += [
                    f"  wire {way}_next{j} = {before};",
                    f"  wire [{top - 1}:0] {way}_row{j} = {way}_row + {{{top - 1}'d0, {way}_next{j}}};",
                ]
                lines[-1] = lines[-1].replace("{0'd0, ", "{")
            lines += [
                f"  wire read_en{j} = read_here ? ~(read_next{j} & (&read_row)) : read_over & read_next{j};",
                f"  {self.name}_macro part{j}(",
                f"    .clk(clk), .read_en(read_en{j}), .read_row(read_row{j}), .read_data(data{j}), .write_row(write_row{j}),",
                f"    .write_en(moved_en[{(low + width) // 8 - 1}:{low // 8}]), .write_data(moved[{low + width - 1}:{low}])",
                "  );",
            ]
        return lines

    def _turned_read(self) -> list[str]:
        """The run, from wherever in the line it begins."""
        width = 32 * self.line_words
        parts = ", ".join(f"data{j}" for j in reversed(range(self.parts)))
        return [
            f"  wire [{width - 1}:0] line = {{{parts}}};",
            f"  wire [{2 * width - 1}:0] twice = {{line, line}};",
            f"  assign out = twice[{{1'b0, read_at_was, 5'd0}} +: {32 * self.widest}];",
        ]

    # --- the crossbar ---

    def verilog(self) -> str:
        """The crossbar around the banks."""
        ports, body = ["input clk"], []
        for name, port in (self.reads | self.writes).items():
            way, enable = ("output", "") if isinstance(port, Read) else ("input", f"[{4 * port.words - 1}:0] ")
            ports += [
                f"input {enable}{name}_en",
                f"input [{WORD_BITS - 1}:0] {name}_addr",
                f"{way} [{32 * port.words - 1}:0] {name}_data",
            ]
            body += self._place(name) + (self._asked(name, port) if isinstance(port, Read) else self._cut(name, port))
        body += [line for bank in range(self.banks) for line in self._instance(bank)]
        body += [
            f"  wire [{32 * self.banks - 1}:0] word{k} = {{{self._words(k)}}};"
            for k in range(max(port.words for port in self.reads.values()))
        ]
        body += [line for name, port in self.reads.items() for line in self._gathered(name, port)]
        return _module(self.name, ports, body)

    def _place(self, name: str) -> list[str]:
        """Where a run begins."""
        line, row, bank = self.line_bits, self.row_bits, self.bank_bits
        high = f"{name}_addr[{line + row + bank - 1}:{line + row}]"
        return [
            f"  wire [{line - 1}:0] {name}_offset = {name}_addr[{line - 1}:0];",
            f"  wire [{row - 1}:0] {name}_row = {name}_addr[{line + row - 1}:{line}];",
            f"  wire [{bank - 1}:0] {name}_bank = {high};",
            f"  wire {name}_last = &{name}_row;",
        ]

    def _asked(self, name: str, port: Read) -> list[str]:
        """Whether a read begins in this bank, or goes on in it."""
        return [
            f"  wire {name}_here = {name}_en;",
            f"  wire {name}_over = {name}_en & {name}_last & {self._wraps(f'{name}_offset', port.words - 1)};",
        ]

    def _cut(self, name: str, port: Write) -> list[str]:
        """Bytes of a write for the bank in which it begins, and for the next one."""
        enables = [
            f"{name}_en[{4 * k + 3}:{4 * k}]" if port.bytewise else f"{{4{{{name}_en[{4 * k}]}}}}"
            for k in range(port.words)
        ]
        over = [f"{{4{{{name}_last & {self._wraps(f'{name}_offset', k)}}}}}" for k in range(port.words)]
        top = 4 * port.words - 1
        return [
            f"  wire [{top}:0] {name}_bytes = {{{', '.join(reversed(enables))}}};",
            f"  wire [{top}:0] {name}_beyond = {{{', '.join(reversed(over))}}};",
            f"  wire [{top}:0] {name}_en_here = {name}_bytes & ~{name}_beyond, {name}_en_over = {name}_bytes & {name}_beyond;",
            f"  wire {name}_here = |{name}_en_here, {name}_over = |{name}_en_over;",
        ]

    def _wraps(self, offset: str, k: int) -> str:
        """Word `k` of a run stands in the next line."""
        return f"({offset} > {self.line_bits}'d{self.line_words - 1 - k})" if k else "1'b0"

    def _instance(self, bank: int) -> list[str]:
        pins = [".clk(clk)", f".out(out{bank})"]
        for name, port in (self.reads | self.writes).items():
            here = f"{name}_here & ({name}_bank == {self.bank_bits}'d{bank})"
            over = f"{name}_over & ({name}_bank == {self.bank_bits}'d{bank - 1})" if bank else "1'b0"
            pins += [
                f".{name}_here({here})",
                f".{name}_over({over})",
                f".{name}_row({name}_row)",
                f".{name}_offset({name}_offset)",
            ]
            if isinstance(port, Write):
                pins += [f".{name}_{what}({name}_{what})" for what in ("en_here", "en_over", "data")]
        return [
            f"  wire [{32 * self.widest - 1}:0] out{bank};",
            f"  {self.name}_bank bank{bank}(\n    " + ",\n    ".join(pins) + "\n  );",
        ]

    def _words(self, k: int) -> str:
        """Word `k` of every bank's run, the first bank's in the lowest bits."""
        return ", ".join(f"out{bank}[{32 * k + 31}:{32 * k}]" for bank in reversed(range(self.banks)))

    def _gathered(self, name: str, port: Read) -> list[str]:
        """Each word from the bank in which it stood in the cycle before."""
        top = self.bank_bits - 1
        lines = [
            f"  reg [{self.line_bits - 1}:0] {name}_offset_was;", f"  reg [{top}:0] {name}_bank_was;", f"  reg {name}_last_was;",
            f"  always @(posedge clk) if ({name}_en) begin",
            *(f"    {name}_{what}_was <= {name}_{what};" for what in ("offset", "bank", "last")),
            "  end",
        ]  # fmt: skip
        for k in range(port.words):
            step = f"{name}_last_was & {self._wraps(f'{name}_offset_was', k)}"
            one = f"{{{top}'d0, {step}}}" if top else step
            lines += [
                f"  wire [{top}:0] {name}_from{k} = {name}_bank_was{f' + {one}' if k else ''};",
                f"  assign {name}_data[{32 * k + 31}:{32 * k}] = word{k}[{{{name}_from{k}, 5'd0}} +: 32];",
            ]
        return lines


def line_of(widest: int) -> tuple[int, int]:
    """(words of a line, words of a macro's row) for runs of up to `widest` words: at most 8 macros, in none of which a run begins and also ends."""
    line = 1 << (widest - 1).bit_length()
    line *= 2 if widest > line - line // 8 + 1 else 1
    part = line
    while widest + part - 1 > line:
        part //= 2
    return line, part


def _module(name: str, ports: list[str], body: list[str]) -> str:
    return f"module {name}(\n  " + ",\n  ".join(ports) + "\n);\n" + "\n".join(body) + "\nendmodule\n"
