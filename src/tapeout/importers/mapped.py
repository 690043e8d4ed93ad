"""A file as a read-only memory map, with the one wording of what can be wrong about opening it."""

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput


@dataclass(frozen=True, slots=True)
class Mapped:
    """The bytes of one file while it is read. What is kept is copied: a file that changes later changes no model."""

    name: str
    """The file's name, for messages."""
    data: mmap.mmap | bytes

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return len(self.data)

    def view(self, dtype: np.dtype | str, count: int, offset: int) -> NDArray:
        """`count` elements of `dtype` at byte `offset`, read-only and not copied. The caller has checked the bounds."""
        return np.frombuffer(self.data, np.dtype(dtype), count, offset)


def map_file(path: Path) -> Mapped:
    """Map a file. Raises `BadInput` where it is missing, unreadable, a folder or empty."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise BadInput(str(path), "is empty") from error
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})") from error
    return Mapped(path.name, data)
