"""What a driver needs to know to load and start a chip, as data: derived from the types that the hardware is made of."""

from typing import Any

from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import Unit
from tapeout.rtl.host import ANSWER_WORDS, Command
from tapeout.rtl.load_bus import ROW_WORDS, Register, Space
from tapeout.rtl.records import BASES, ROWS, SEGMENTS
from tapeout.rtl.streamer import TOKENS


def host_map(chip: ChipSpec) -> dict[str, Any]:
    """Commands, memories (words per row, rows, one per what) and registers behind the host's stream. Plain JSON types."""
    micro_ops = chip.tile.micro_ops
    rows = {
        Space.SRAM: (chip.tile.sram.kib * 256, "tile"), Space.MICRO_OPS: (micro_ops // len(Unit), "tile and unit"),
        Space.RANGES: (SEGMENTS, "tile and unit"), Space.SEGMENTS: (ROWS, "chip"), Space.BASES: (BASES, "chip"),
        Space.DESCRIPTORS: (micro_ops if chip.external else 0, "chip"), Space.TOKENS: (TOKENS, "chip"),
        Space.REGISTERS: (len(Register), "chip"),
    }  # fmt: skip
    return {
        "chip": chip.name,
        "tiles": chip.grid.tiles,
        "units": {unit.name.lower(): int(unit) for unit in Unit},
        "command_word": {"command": "31:28", "space": "23:20", "tile": "16:12", "unit": "9:8"},
        "commands": {command.name.lower(): command.value for command in Command},
        "answer_words_of_start": ANSWER_WORDS,
        "spaces": {
            space.name.lower(): {
                "number": space.value,
                "words_per_row": ROW_WORDS[space],
                "rows": count,
                "one_per": owner,
            }
            for space, (count, owner) in rows.items()
        },
        "registers": {register.name.lower(): int(register) for register in Register},
    }
