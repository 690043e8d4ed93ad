"""The table of rooms in docs/layout.md holds: every room looks down only."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "tapeout"


def table() -> dict[str, set[str]]:
    """Room -> the rooms it may import, read from the page itself."""
    rooms: dict[str, set[str]] = {}
    for line in (ROOT / "docs" / "layout.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`"):
            allowed = set(rooms) if cells[2] == "all above" else {name.strip() for name in cells[2].split(",")} - {"-"}
            rooms[cells[0].strip("`")] = allowed
    return rooms


def imports(path: Path) -> Iterator[str]:
    """Rooms that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "tapeout":
            names = [f"tapeout.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("tapeout."))


def test_rooms_only_look_down():
    rooms = table()
    files = [path for path in SOURCE.rglob("*.py") if path.parent != SOURCE]
    bad = [
        f"{path.relative_to(SOURCE)}: {room} may not import {other}"
        for path in files
        for room in [path.relative_to(SOURCE).parts[0]]
        for other in imports(path)
        if other != room and other not in rooms.get(room, set())
    ]
    assert files
    assert not bad, "\n".join(bad)


def test_every_room_stands_in_the_table():
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders == set(table())


def test_the_reference_shares_no_kernel_with_the_quick_engines():
    names = [
        node.module
        for node in ast.walk(ast.parse((SOURCE / "graph" / "reference.py").read_text()))
        if isinstance(node, ast.ImportFrom)
    ]
    assert not [
        name for name in names if name and ("kernels" in name or name.endswith((".fast", ".loops", ".packing")))
    ]
