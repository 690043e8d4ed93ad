"""A report on a terminal. rich is imported here and nowhere else."""

from typing import IO, Any

from tapeout.report.figure import Figure, Report, Table, number

BAR_CELLS = 24
FULL = ("█", "▏")
"""A full cell, and the least that shows."""


def render(report: Report, file: IO[str] | None = None, width: int | None = None) -> None:
    """Print a report: figures, tables, notes. Plain where `file` (standard output) is no terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, width=width, highlight=False)
    console.print(
        Text(report.title, style="bold").append(f"  {report.fingerprint}" if report.fingerprint else "", style="dim")
    )
    for line, note in figure_lines(report.figures, console.width) if report.figures else ():
        console.print(Text(line).append(note, style="dim"), soft_wrap=True)
    for note in report.notes:
        console.print(f"- {note}", markup=False, soft_wrap=not console.is_terminal)
    for table in report.tables:
        if table.rows:
            console.print()
            console.print(Text(table.title, style="bold"))
            console.print(_table(table, FULL[0] if not console.options.ascii_only else "#"))


def figure_lines(figures: tuple[Figure, ...], width: int) -> list[tuple[str, str]]:
    """(line, note) per figure, aligned; a note that does not fit behind its line in `width` columns stands below it."""
    rows = []
    for figure in figures:
        spread = (
            f"{number(figure.low)} to {number(figure.high)}"
            if figure.low is not None and figure.high is not None
            else ""
        )
        rows.append((figure.name, number(figure.value), figure.unit, spread, figure.origin.value))
    wide = [max(len(row[at]) for row in rows) for at in range(5)]
    lines = []
    for row, figure in zip(rows, figures, strict=True):
        name, value, unit, spread, origin = row
        line = f"{name:<{wide[0]}}  {value:>{wide[1]}} {unit:<{wide[2]}}  {spread:<{wide[3]}}  {origin:<{wide[4]}}"
        gap = "  " if len(line) + 2 + len(figure.note) <= width else "\n" + " " * (wide[0] + 2)
        lines.append((line.rstrip() if not figure.note else line, gap + figure.note if figure.note else ""))
    return lines


def _table(table: Table, full: str) -> Any:
    from rich.table import Table as Grid
    from rich.text import Text

    shared = table.columns[-1] == "share"
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=not shared)
    for at, column in enumerate(table.columns):
        grid.add_column(column, justify="right" if at and not shared else "left", no_wrap=True)
    if shared:
        grid.add_column("", no_wrap=True)
    for row in table.rows:
        cells = [number(cell) for cell in row]
        if shared:
            cells = [*(str(cell) for cell in row[:-1]), f"{row[-1]:6.1%}", bar(row[-1], full)]
        grid.add_row(*(Text(cell) for cell in cells))
    return grid


def bar(share: float, full: str = FULL[0]) -> str:
    """A bar of at most BAR_CELLS cells of the character `full`; anything above nothing shows."""
    least = FULL[1] if full == FULL[0] else "."
    return full * min(round(share * BAR_CELLS), BAR_CELLS) or (least if share > 0 else "")
