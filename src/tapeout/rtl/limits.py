"""What the RTL does not build, said before any tool starts."""

from tapeout.base.errors import BadInput
from tapeout.chip.memory import memory_timing
from tapeout.chip.spec import ChipSpec
from tapeout.isa.footprint import banks_of, footprints, region_finder
from tapeout.isa.opcodes import FORMAT_IDS, Flag, MicroOp, Op
from tapeout.isa.program import Program
from tapeout.rtl.banked import bank_shape
from tapeout.rtl.ports import ADDRESS_BITS, BUILT, UNBUILT_FLAGS, tables_of
from tapeout.rtl.records import BASES, ROWS, SEGMENTS
from tapeout.rtl.streamer import EXTERNAL_BITS
from tapeout.rtl.unit_sequencer import POINTER_BITS

GROUP = 128
"""Longest group of the quantizer: a head."""


def check_chip(chip: ChipSpec) -> None:
    """Raises `BadInput` on the first field of `chip` that the RTL cannot build, with what it can."""
    lanes, most = chip.tile.vector.lanes, 4 << POINTER_BITS - 1
    rules = [
        (2 <= lanes <= 32, "tile.vector.lanes", f"{lanes}", "the RTL builds 2, 4, 8, 16 or 32: a group of 32 in whole cycles"),
        (
            chip.tile.micro_ops <= most, "tile.micro_ops", f"{chip.tile.micro_ops}",
            f"the RTL counts up to {most}",
        ),
        (
            max(chip.tile.sram.kib, chip.tile.stream_kib) << 10 < 1 << ADDRESS_BITS, "tile.sram.kib", f"{chip.tile.sram.kib}",
            f"the RTL has addresses of {ADDRESS_BITS} bits: less than {1 << ADDRESS_BITS - 10} KiB",
        ),
        *_memory_rules(chip),
    ]  # fmt: skip
    for fine, field, came, allowed in rules:
        if not fine:
            raise BadInput(f"chip {chip.name}, {field}", came, allowed)


def check_banks(chip: ChipSpec) -> None:
    """Raises `BadInput` where the SRAM's banks cannot be built; its flat model can."""
    shape, each = bank_shape(chip), chip.tile.sram.bank_bytes
    if shape.rows < 2 or shape.rows & shape.rows - 1:
        least = 8 * shape.line_words
        raise BadInput(
            f"chip {chip.name}, tile.sram.banks", f"{shape.banks} banks of {each:,} bytes",
            f"the RTL builds banks of a power of two bytes, {least:,} or more: two lines of its widest port",
        )  # fmt: skip


def check_one_port(program: Program) -> None:
    """Raises `BadInput` where a micro-op needs one port of a bank twice in a cycle: the flat model lets it, banks do not.

    The static checker keeps different micro-ops apart; the operands of one it leaves to whoever places them.
    """
    chip, region_of = program.chip, region_finder(program.sram)
    for index in range(program.ops.size):
        op, uses = program.op(index), {}
        wide = op.op is Op.ARGMAX and op.flags & Flag.PAIRS and op.columns > chip.tile.vector.lanes // 2
        problem = "reads its pairs through two ports" if wide else ""
        for mark in footprints(op, chip):
            for bank in banks_of(mark, chip, region_of):
                others = uses.setdefault((mark.tile, bank, mark.write), [])
                if any(mark.start < other.end and other.start < mark.end for other in others):
                    problem = f"{'writes' if mark.write else 'reads'} bank {bank} of tile {mark.tile} twice in a cycle"
                others.append(mark)
        if problem:
            raise BadInput(
                f"program for {program.model} on chip {chip.name}, SRAM in banks", f"[{' '.join(str(op).split())}] {problem}",
                "place its operands in different banks, or take the flat model of the SRAM",
            )  # fmt: skip


def _memory_rules(chip: ChipSpec) -> list[tuple[bool, str, str, str]]:
    if chip.external is None:
        return []
    timing = memory_timing(chip)
    rate = timing.rate_millibytes / 1000
    return [
        (
            rate < timing.beat_bytes, "external.gb_per_s", f"{chip.external.gb_per_s} is {rate:.1f} bytes per cycle",
            f"the RTL's streamer moves one beat per cycle: less than external.beat_bytes, {timing.beat_bytes}",
        ),
        (
            timing.buffer_beats < 1 << 15, "tile.stream_kib", f"{chip.tile.stream_kib} is {timing.buffer_beats} beats",
            f"the RTL counts fewer than {1 << 15}",
        ),
    ]  # fmt: skip


def check_program(program: Program) -> None:
    """Raises `BadInput` where a program asks for more than the RTL of its chip has. `isa.limits` has passed it."""
    chip, name = program.chip, f"program for {program.model} on chip {program.chip.name}"
    rows = [segment for entry in program.entries for loop in entry.loops for segment in loop.segments]
    counts = [
        (len(program.bases), BASES, "base registers"), (len({(s.first_op, s.ops, s.first_descriptor, s.cycles) for s in rows}), SEGMENTS, "segments"),
        (len(rows), ROWS, "rows of the segment table"), (program.descriptors.size, chip.tile.micro_ops, "descriptors"),
        (program.external_bytes >> EXTERNAL_BITS, 0, "units of 2^40 bytes of external memory"),
    ]  # fmt: skip
    for count, most, what in counts:
        if count > most:
            raise BadInput(name, f"has {count} {what}", f"the RTL has {most}")
    for entry in program.entries:
        if entry.loops and not any(segment.times(0) for loop in entry.loops for segment in loop.segments):
            raise BadInput(
                name,
                f"entry {entry.name!r} runs no segment at position 0",
                "the RTL needs one: its conductor has begun it before it can tell",
            )
    for index in range(program.ops.size):
        for problem in _problems(program.op(index), chip):
            raise BadInput(name, f"[{' '.join(str(program.op(index)).split())}] {problem}", "see docs/rtl.md")


def _problems(op: MicroOp, chip: ChipSpec) -> list[str]:
    if op.op not in BUILT:
        return ["is not built in the RTL"]
    tables = tables_of(chip)
    if op.op is Op.EMBED and op.format not in tables:
        known = ", ".join(form.name for form in tables.values())
        return [f"has a table in {FORMAT_IDS[op.format]}; the embedding of this chip takes {known}"]
    lanes = chip.tile.attention.lanes
    wide = op.op in (Op.SCORE, Op.VALUE, Op.ATTNOUT)
    rules = [
        (not op.flags & UNBUILT_FLAGS, "has K or V in 4 bits, which is not built in the RTL"),
        (
            not wide or op.columns <= lanes,
            f"has heads of {op.columns}; attention reads a record per cycle: at most {lanes} (tile.attention.lanes)",
        ),
        (op.op is not Op.ROPE or op.columns <= GROUP, f"has heads of {op.columns}; the quantizer holds {GROUP}"),
        (op.op is not Op.QUANT or op.group <= GROUP, f"has groups of {op.group}; the quantizer holds {GROUP}"),
        (op.rows < 1 << 20 and op.columns < 1 << 20 and op.tokens < 1 << 7, "has sizes beyond the unit's counters"),
    ]
    return [problem for fine, problem in rules if not fine]
