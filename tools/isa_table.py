"""Print the table of micro-ops for docs/isa.md, or write it there: python tools/isa_table.py --write."""

import sys
from pathlib import Path

from tapeout.isa.opcodes import OPCODES, Flag

PAGE = Path(__file__).parent.parent / "docs" / "isa.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"


def table() -> str:
    """The micro-ops as a Markdown table, in the order of their opcodes."""
    lines = ["| micro-op | unit | fields | flags | meaning |", "|---|---|---|---|---|"]
    for op, row in OPCODES.items():
        fields = ", ".join(f"{name} ({slot})" if name != slot else name for name, slot in row.slots.items())
        flags = ", ".join(flag.name.lower() for flag in Flag if flag & row.flags and flag.name) or "-"
        lines.append(
            f"| `{op.name.lower()}` {int(op)} | {row.unit.name.lower()} | {fields} | {flags} | {row.meaning} |"
        )
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with its table made new."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(PAGE.read_text()))
    else:
        print(table(), end="")
