"""The GGUF container: bytes -> metadata and a table of tensors. It gives no meaning to either; `gguf.py` does.

Every count, length, offset and size is checked against the file before anything of that size is made, so a hostile
file costs no more than its own length. A vocabulary is a walk over lengths; its strings are made when asked for.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.base.reading import shown
from tapeout.importers.mapped import Mapped, map_file

MAGIC = b"GGUF"
VERSIONS = (2, 3)

SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
"""Value types of fixed size, by their number in the file."""
STRING, ARRAY = 8, 9

TENSOR_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64",
    28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""Names of ggml's tensor types, so that one that is not read can be refused by name."""

_LEAST_KEY_BYTES = 8 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Strings:
    """An array of strings as the file has it, each made when it is asked for."""

    where: str
    """The file's name, for messages."""
    raw: bytes = field(repr=False)
    starts: array = field(repr=False)
    """Where in `raw` each string's length stands."""

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> str:
        start = self.starts[index]
        (length,) = _U64.unpack_from(self.raw, start)
        return _utf8(self.where, self.raw[start + 8 : start + 8 + length])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, slots=True)
class Tensor:
    """One row of the table of tensors. shape: slowest dimension first, [rows, columns]; offset: from byte 0."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class GGUF:
    """A parsed container."""

    file: Mapped
    metadata: dict[str, Any]
    """Scalars as Python values, arrays of numbers as NumPy's, arrays of strings as `Strings`."""
    tensors: dict[str, Tensor]


class _Reader:
    """A position in the file; every step is checked against its end."""

    def __init__(self, file: Mapped):
        self.file, self.at = file, 0

    def move(self, count: int, what: str) -> int:
        """Step over `count` bytes and return where they begin."""
        begin = self.at
        if count > self.file.size - begin:
            raise BadInput(
                self.file.name,
                f"{what} needs {count:,} bytes at byte {begin:,}, the file ends at {self.file.size:,}",
                "it is truncated or damaged",
            )
        self.at += count
        return begin

    def number(self, dtype: str, what: str) -> Any:
        """One scalar."""
        kind = np.dtype(dtype)
        begin = self.move(kind.itemsize, what)
        return self.file.view(kind, 1, begin)[0].item()

    def text(self, what: str) -> str:
        """One string."""
        length = self.number("<u8", what)
        begin = self.move(length, what)
        return _utf8(self.file.name, self.file.data[begin : begin + length])

    def strings(self, count: int, what: str) -> Strings:
        """Walk over `count` strings without making them."""
        data, size, begin, at = self.file.data, self.file.size, self.at, self.at
        starts, unpack = array("q"), _U64.unpack_from
        for _ in range(count):
            if at + 8 > size:
                break
            starts.append(at - begin)
            at += 8 + unpack(data, at)[0]
        if len(starts) < count or at > size:
            raise BadInput(self.file.name, f"ends within the {count:,} strings of {what}", "it is truncated or damaged")
        self.at = at
        return Strings(self.file.name, bytes(data[begin:at]), starts)

    def value(self, kind: int, what: str) -> Any:
        """One metadata value of value type `kind`."""
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind == STRING:
            return self.text(what)
        if kind == ARRAY:
            return self.items(what)
        raise BadInput(self.file.name, f"{what} has value type {kind}, not one of 0 to 12", "the file is damaged")

    def items(self, what: str) -> Any:
        """One array, of numbers or strings."""
        kind, count = self.number("<u4", what), self.number("<u8", what)
        if kind == STRING:
            return self.strings(count, what)
        if kind not in SCALARS:
            raise BadInput(self.file.name, f"{what} is an array of value type {kind}, not of numbers or strings")
        dtype = np.dtype(SCALARS[kind])
        return self.file.view(dtype, count, self.move(count * dtype.itemsize, what)).copy()


def read_gguf(path: Path) -> GGUF:
    """Parse a GGUF file, version 2 or 3, little-endian. Raises `BadInput` that says what is wrong and where."""
    reader = _Reader(map_file(path))
    tensor_count, key_count = _header(reader)
    metadata = _metadata(reader, key_count)
    rows = [_tensor(reader, index) for index in range(tensor_count)]
    base = _data_start(reader, metadata)
    tensors: dict[str, Tensor] = {}
    for name, kind, shape, offset in rows:
        if name in tensors:
            raise BadInput(reader.file.name, f"tensor {name} stands twice in the table")
        tensors[name] = Tensor(name, kind, shape, base + offset)
    return GGUF(reader.file, metadata, tensors)


def _header(reader: _Reader) -> tuple[int, int]:
    name, size = reader.file.name, reader.file.size
    begin = reader.move(4, "the header")
    if reader.file.data[begin : begin + 4] != MAGIC:
        raise BadInput(name, "does not begin with GGUF")
    version = reader.number("<u4", "the header")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        what = "is big-endian GGUF" if swapped else f"is GGUF version {version}"
        raise BadInput(name, f"{what}, not little-endian version {' or '.join(map(str, VERSIONS))}")
    tensors, keys = reader.number("<u8", "the header"), reader.number("<u8", "the header")
    for count, least, what in ((tensors, _LEAST_TENSOR_BYTES, "tensors"), (keys, _LEAST_KEY_BYTES, "metadata keys")):
        if count * least > size:
            raise BadInput(name, f"claims {count:,} {what}, more than its {size:,} bytes can hold")
    return tensors, keys


def _metadata(reader: _Reader, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(count):
        key = reader.text(f"metadata key {index}")
        if key in metadata:
            raise BadInput(reader.file.name, f"metadata key {key} stands twice")
        kind = reader.number("<u4", f"metadata key {key}")
        metadata[key] = reader.value(kind, f"metadata key {key}")
    return metadata


def _tensor(reader: _Reader, index: int) -> tuple[str, str, tuple[int, ...], int]:
    name = reader.text(f"tensor {index}")
    what = f"tensor {name}"
    dimensions = reader.number("<u4", what)
    if not 1 <= dimensions <= 2:
        raise BadInput(reader.file.name, f"{what} has {dimensions} dimensions, not 1 or 2")
    shape = tuple(reader.number("<u8", what) for _ in range(dimensions))[::-1]
    if min(shape) < 1:
        raise BadInput(reader.file.name, f"{what} has the empty shape {list(shape)}")
    kind = reader.number("<u4", what)
    return name, TENSOR_TYPES.get(kind, f"number {kind}"), shape, reader.number("<u8", what)


def _data_start(reader: _Reader, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise BadInput(reader.file.name, f"general.alignment is {shown(alignment)}, not a power of two of at least 8")
    return -(-reader.at // alignment) * alignment


def _utf8(where: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadInput(where, f"the string {raw[:40]!r} is not UTF-8", "the file is damaged") from error
