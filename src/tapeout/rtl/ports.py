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
from tapeout.isa.opcodes import FORMAT_IDS, OPCODES, Op, Unit

ADDRESS_BITS = 24
"""SRAM and stream buffers: byte addresses. Words are four bytes."""
WORD_BITS = ADDRESS_BITS - 2

BUILT_FORMATS = ("int8", "int4", "int4m", "ternary")
"""The weight formats that matrix unit and embedding are built for: their numbers fit the two bits of `format`."""

ISSUE = data.StructLayout(
    {
        "op": unsigned(4), "format": unsigned(2), "flags": unsigned(7), "rows": unsigned(20), "columns": unsigned(20), "tokens": unsigned(7),
        "heads": unsigned(10), "group": unsigned(8), "slot": unsigned(10), "dst": unsigned(ADDRESS_BITS), "a": unsigned(ADDRESS_BITS),
        "b": unsigned(ADDRESS_BITS), "c": unsigned(ADDRESS_BITS), "s0": unsigned(32), "s1": unsigned(32), "s2": unsigned(32),
        "s3": unsigned(32), "s4": unsigned(32), "position": unsigned(24), "inner": unsigned(16),
    }
)  # fmt: skip
"""A micro-op at a unit: the fields of `isa.opcodes.RECORD`, bases added, and POS and the context block j (`inner`). An operand that comes from the
stream
has its byte address in the stream buffer in `b` (norm: `c`)."""


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


class WritePort(wiring.Signature):
    """Writes bytes of `words` words at any word address: bit k of `en` is for byte k."""

    def __init__(self, words: int):
        self.words = words
        super().__init__({"en": Out(4 * words), "addr": Out(WORD_BITS), "data": Out(32 * words)})


def unit_signature(unit: Unit, reads: dict[str, int], writes: dict[str, int]) -> dict[str, wiring.Member]:
    """What every unit has: the micro-op, its end, and named memory ports (words each)."""
    done = {op.name.lower(): Out(1) for op in ops_of(unit)}
    return {
        "go": In(1), "op": In(ISSUE), "active": Out(1), "overflow": Out(1), "done": Out(wiring.Signature(done)),
        **{name: Out(ReadPort(words)) for name, words in reads.items()},
        **{name: Out(WritePort(words)) for name, words in writes.items()},
    }  # fmt: skip


def ops_of(unit: Unit) -> tuple[Op, ...]:
    """The opcodes that a unit runs."""
    return tuple(op for op in BUILT if OPCODES[op].unit is unit)


def weight_words(chip: ChipSpec) -> int:
    """Words of the matrix unit's widest weight read: a row block's bias, a group's scales and minima, a slice of K codes of R rows."""
    from tapeout.numerics.formats import FORMATS

    unit = chip.tile.matrix
    forms = [FORMATS[name] for name in unit.formats]
    return max(unit.rows * (1 + form.group_bytes) + unit.rows * unit.lanes * form.code_bits // 8 for form in forms) // 4


def attention_out_lanes(chip: ChipSpec) -> int:
    """Elements of attention's output per cycle: pipelined dividers."""
    return max(1, chip.tile.attention.lanes // 16)


assert Shape.cast(ISSUE).width < 512, "an issued micro-op is smaller than its record"
assert FORMAT_IDS[: len(BUILT_FORMATS)] == BUILT_FORMATS, "a micro-op's number of a built format fits two bits"
