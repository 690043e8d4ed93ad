"""A report on a terminal. rich is imported here and nowhere else."""

from typing import IO, Any

from tapeout.report.figure import Figure, Report, Table, number

BAR_CELLS = 24


def render(report: Report, file: IO[str] | None = None, width: int | None = None) -> None:
    """Print a report: figures, tables, notes. Plain where `file` (standard output) is no terminal."""
    from rich.console import Console

    console = Console(file=file, width=width, highlight=False)
    console.print(f"[bold]{report.title}[/bold]" + (f"  [dim]{report.fingerprint}[/dim]" if report.fingerprint else ""))
    if report.figures:
        console.print(_figures(report.figures))
    for note in report.notes:
        console.print(f"- {note}", markup=False)
    for table in report.tables:
        if table.rows:
            console.print()
            console.print(_table(table))


def _figures(figures: tuple[Figure, ...]) -> Any:
    from rich.table import Table as Grid

    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for column in ("name", "value", "unit", "range", "origin", "note"):
        grid.add_column(column, justify="right" if column == "value" else "left", no_wrap=column != "note", style="dim" if column in ("range", "origin", "note") else "")
    for figure in figures:
        spread = f"{number(figure.low)} to {number(figure.high)}" if figure.low is not None and figure.high is not None else ""
        grid.add_row(figure.name, number(figure.value), figure.unit, spread, figure.origin.value, figure.note)
    return grid


def _table(table: Table) -> Any:
    from rich.table import Table as Grid

    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=table.title, title_justify="left", title_style="bold")
    shared = table.columns[-1] == "share"
    for at, column in enumerate(table.columns):
        grid.add_column("" if shared else column, justify="right" if at and not shared else "left", no_wrap=True)
    if shared:
        grid.add_column("", no_wrap=True)
    for row in table.rows:
        cells = [number(cell) for cell in row]
        if shared:
            cells = [*(str(cell) for cell in row[:-1]), f"{row[-1]:6.1%}", bar(row[-1])]
        grid.add_row(*cells)
    return grid


def bar(share: float) -> str:
    """A bar of at most BAR_CELLS cells; anything above nothing shows."""
    cells = min(round(share * BAR_CELLS), BAR_CELLS)
    return "█" * cells or ("▏" if share > 0 else "")
