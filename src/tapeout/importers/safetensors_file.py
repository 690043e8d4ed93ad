"""The safetensors container: a JSON table in front of one span of bytes. Every extent is checked before it is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.base.reading import MOST_JSON_BYTES, parse_json, shown
from tapeout.graph.types import Weight
from tapeout.importers.blocks import LAYOUTS
from tapeout.importers.extents import check_extents
from tapeout.importers.mapped import Mapped, map_file

DTYPES = {name: LAYOUTS[name] for name in ("F32", "F16", "BF16")}
"""Types that are read."""

INTEGERS = {"I32": np.dtype("<i4"), "I64": np.dtype("<i8")}
"""Of packed codes and shapes; no weights by themselves."""

MOST_DIMENSIONS = 8
"""Of any tensor that a checkpoint may carry along."""
MOST_NUMBER = 2**63
"""No size or offset reaches it."""


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

    def integers(self) -> NDArray:
        """Its numbers, where it is of integers that are read."""
        count = int(np.prod(self.shape))
        return self.file.view(INTEGERS[self.dtype], count, self.offset).reshape(self.shape)


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
        each = DTYPES[dtype].bytes if dtype in DTYPES else INTEGERS[dtype].itemsize if dtype in INTEGERS else 0
        if each:
            _check_size(f"{file.name}: {name}", shape, end - begin, dtype, each)
        extents.append((base + begin, base + end, name))
        tensors[name] = Stored(file, name, dtype, shape, base + begin)
    check_extents(file, extents)
    return tensors


def _header(file: Mapped) -> tuple[dict[str, Any], int]:
    """The table, and the byte at which the numbers begin."""
    length = int.from_bytes(file.data[:8], "little")
    if file.size < 8 or length > min(file.size - 8, MOST_JSON_BYTES):
        raise BadInput(file.name, f"claims a header of {length:,} bytes, the file has {file.size:,}", "it is truncated")
    try:
        table = parse_json(file.data[8 : 8 + length] if file.data[8:9] == b"{" else file.data[8 : min(8 + length, 64)])
    except (ValueError, RecursionError) as error:
        raise BadInput(file.name, f"has a header that is not JSON ({error})") from error
    if not isinstance(table, dict):
        raise BadInput(file.name, f"has a header that is a {type(table).__name__}, not a mapping")
    return table, 8 + length


def _row(file: Mapped, name: str, row: Any) -> tuple[str, tuple[int, ...], int, int]:
    where = f"{file.name}: {name}"
    if not (isinstance(row, dict) and row.keys() == {"dtype", "shape", "data_offsets"}):
        raise BadInput(where, "is not described by dtype, shape and data_offsets")
    shape, offsets = row["shape"], row["data_offsets"]
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1]):
        raise BadInput(
            where,
            f"has shape {shown(shape)} and data_offsets {shown(offsets)}, which are not counts of numbers and bytes",
        )
    if len(shape) > MOST_DIMENSIONS:
        raise BadInput(where, f"has {len(shape):,} dimensions, more than {MOST_DIMENSIONS}")
    if not isinstance(row["dtype"], str):
        raise BadInput(where, f"has dtype {shown(row['dtype'])}, not a name")
    return row["dtype"], tuple(shape), offsets[0], offsets[1]


def _counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < MOST_NUMBER for number in numbers)


def _check_size(where: str, shape: tuple[int, ...], size: int, dtype: str, each: int) -> None:
    wanted = each
    for count in shape:
        wanted *= count
    if wanted != size:
        raise BadInput(where, f"has {size:,} bytes, its shape {list(shape)} of {dtype} needs {wanted:,}")
