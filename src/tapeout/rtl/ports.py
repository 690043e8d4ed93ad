"""How the boxes of a tile are wired together: memory ports, and the micro-op as a unit receives it.

Timing, the same for every unit, counted in the unit's own clock:

  - `go` is high in cycle g with the whole micro-op in `op` (addresses have their base registers added); the unit copies what it needs.
  - Reads are addressed in cycles g+1 .. g+occupancy; data stands in the cycle after the address. The next `go` may come at g+occupancy.
  - The last write is presented in cycle g+latency, and `done.<op>` is high in cycle g+latency-1. A read addressed after a write sees it.
  - `active` is high whenever the unit must be clocked: something is in flight.

Read windows, write windows, occupancy and latency are those of `isa.footprint` and `isa.timing`.
"""

from amaranth.hdl import Shape, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import FORMAT_IDS, OPCODES, Flag, Op, Unit
from tapeout.numerics.formats import FORMATS, Format

ADDRESS_BITS = 24
"""SRAM and stream buffers: byte addresses. Words are four bytes."""
WORD_BITS = ADDRESS_BITS - 2

TABLE_FORMATS = ("int8", "int4", "int4m", "ternary")
"""What every chip's embedding takes, besides the formats that the chip lists."""


def issue_layout(format_bits: int) -> data.StructLayout:
    """A micro-op at a unit: the fields of `isa.opcodes.RECORD`, bases added, and POS and the context block j (`inner`). An operand that comes from
    the stream has its byte address in the stream buffer in `b` (norm: `c`)."""
    return data.StructLayout(
        {
            "op": unsigned(4), "format": unsigned(format_bits), "flags": unsigned(7), "rows": unsigned(20), "columns": unsigned(20),
            "tokens": unsigned(7), "heads": unsigned(10), "group": unsigned(8), "slot": unsigned(10), "dst": unsigned(ADDRESS_BITS),
            "a": unsigned(ADDRESS_BITS), "b": unsigned(ADDRESS_BITS), "c": unsigned(ADDRESS_BITS), "s0": unsigned(32), "s1": unsigned(32),
            "s2": unsigned(32), "s3": unsigned(32), "s4": unsigned(32), "position": unsigned(24), "inner": unsigned(16),
        }
    )  # fmt: skip


def formats_of(chip: ChipSpec) -> dict[int, Format]:
    """The chip's weight formats by the number that a micro-op has for them."""
    return {FORMAT_IDS.index(name): FORMATS[name] for name in chip.tile.matrix.formats}


def tables_of(chip: ChipSpec) -> dict[int, Format]:
    """The formats that a chip's embedding takes, by their numbers."""
    return {
        number: FORMATS[name]
        for number, name in enumerate(FORMAT_IDS)
        if name in TABLE_FORMATS or name in chip.tile.matrix.formats
    }


def format_bits(chip: ChipSpec) -> int:
    """Bits of the greatest number of a format that the chip knows."""
    return max(tables_of(chip)).bit_length()


def issue_of(chip: ChipSpec) -> data.StructLayout:
    """The layout of the chip's micro-ops."""
    return issue_layout(format_bits(chip))


ISSUE = issue_layout(2)
"""That of a chip which knows no other formats than `TABLE_FORMATS`."""


class ReadPort(wiring.Signature):
    """Reads `words` words at any word address; data in the next cycle, lowest address in the lowest bits. With `stream` from the stream buffer."""

    def __init__(self, words: int):
        self.words = words
        super().__init__(
            {
                "en": Out(1), "stream": Out(1), "addr": Out(WORD_BITS), "data": In(32 * words),
            }
        )  # fmt: skip


BUILT = tuple(op for op in Op if op <= Op.SEND)
"""What the RTL runs; `limits.py` refuses a program with others."""
UNBUILT_FLAGS = Flag.NIBBLES
"""Flags that it does not know, refused likewise."""


class WritePort(wiring.Signature):
    """Writes bytes of `words` words at any word address: bit k of `en` is for byte k."""

    def __init__(self, words: int):
        self.words = words
        super().__init__({"en": Out(4 * words), "addr": Out(WORD_BITS), "data": Out(32 * words)})


def unit_signature(
    unit: Unit, chip: ChipSpec, reads: dict[str, int], writes: dict[str, int]
) -> dict[str, wiring.Member]:
    """What every unit has: the micro-op, its end, and named memory ports (words each)."""
    done = {op.name.lower(): Out(1) for op in ops_of(unit)}
    return {
        "go": In(1), "op": In(issue_of(chip)), "active": Out(1), "overflow": Out(1), "done": Out(wiring.Signature(done)),
        **{name: Out(ReadPort(words)) for name, words in reads.items()},
        **{name: Out(WritePort(words)) for name, words in writes.items()},
    }  # fmt: skip


def ops_of(unit: Unit) -> tuple[Op, ...]:
    """The opcodes that a unit runs."""
    return tuple(op for op in BUILT if OPCODES[op].unit is unit)


def weight_words(chip: ChipSpec) -> int:
    """Words of the matrix unit's widest weight read: a row block's biases and factors, a group's scales and minima, a slice of K codes of R rows."""
    unit = chip.tile.matrix
    return (
        max(
            unit.rows * (form.row_bytes + form.group_bytes) + unit.rows * unit.lanes * form.code_bits // 8
            for form in formats_of(chip).values()
        )
        // 4
    )


def attention_out_lanes(chip: ChipSpec) -> int:
    """Elements of attention's output per cycle: pipelined dividers."""
    return max(1, chip.tile.attention.lanes // 16)


assert Shape.cast(ISSUE).width < 512, "an issued micro-op is smaller than its record"
assert FORMAT_IDS[:4] == TABLE_FORMATS, "their numbers are of two bits"
