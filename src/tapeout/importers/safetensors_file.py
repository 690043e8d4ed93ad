"""The safetensors container: a JSON table in front of one span of bytes. Every extent is checked before it is read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapeout.base.errors import BadInput
from tapeout.graph.types import Weight
from tapeout.importers.blocks import LAYOUTS, Layout
from tapeout.importers.extents import check_extents
from tapeout.importers.mapped import Mapped, map_file

DTYPES = {name: LAYOUTS[name] for name in ("F32", "F16", "BF16")}
"""Types that are read."""

MOST_HEADER_BYTES = 100_000_000
"""The format's own limit."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file, its extent checked. offset: from the file's start."""

    file: Mapped
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def where(self) -> str:
        """The tensor's place, for messages."""
        return f"{self.file.name}: {self.name}"

    def read(self) -> Weight:
        """Its numbers as float32. Raises `BadInput` for a type that is not read, a NaN or an infinity."""
        if self.dtype not in DTYPES:
            raise BadInput(self.where, f"has type {self.dtype}, not one of {', '.join(DTYPES)}")
        return DTYPES[self.dtype].read(self.file, self.offset, self.shape, self.where)


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The table of one file. Raises `BadInput` that says what is wrong and where."""
    file = map_file(path)
    table, base = _header(file)
    tensors: dict[str, Stored] = {}
    extents = []
    for name, row in table.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _row(file, name, row)
        layout = DTYPES.get(dtype)
        if layout is not None:
            _check_size(f"{file.name}: {name}", shape, end - begin, layout)
        extents.append((base + begin, base + end, name))
        tensors[name] = Stored(file, name, dtype, shape, base + begin)
    check_extents(file, extents)
    return tensors


def _header(file: Mapped) -> tuple[dict[str, Any], int]:
    """The table, and the byte at which the numbers begin."""
    length = int.from_bytes(file.data[:8], "little")
    if file.size < 8 or length > min(file.size - 8, MOST_HEADER_BYTES):
        raise BadInput(file.name, f"claims a header of {length:,} bytes, the file has {file.size:,}", "it is truncated")
    try:
        table = json.loads(file.data[8 : 8 + length], object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadInput(file.name, f"has a header that is not JSON ({error})") from error
    if not isinstance(table, dict):
        raise BadInput(file.name, f"has a header that is a {type(table).__name__}, not a mapping")
    return table, 8 + length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice")
    return table


def _row(file: Mapped, name: str, row: Any) -> tuple[str, tuple[int, ...], int, int]:
    where = f"{file.name}: {name}"
    if not (isinstance(row, dict) and row.keys() == {"dtype", "shape", "data_offsets"}):
        raise BadInput(where, "is not described by dtype, shape and data_offsets")
    shape, offsets = row["shape"], row["data_offsets"]
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1]):
        raise BadInput(
            where, f"has shape {shape!r} and data_offsets {offsets!r}, which are not counts of numbers and bytes"
        )
    return str(row["dtype"]), tuple(shape), offsets[0], offsets[1]


def _counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)


def _check_size(where: str, shape: tuple[int, ...], size: int, layout: Layout) -> None:
    wanted = layout.bytes
    for count in shape:
        wanted *= count
    if wanted != size:
        raise BadInput(where, f"has {size:,} bytes, its shape {list(shape)} of {layout.name} needs {wanted:,}")
