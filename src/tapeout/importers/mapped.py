"""A file as a read-only memory map, with the one wording of what can be wrong about opening it."""

import mmap
import os
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
    """Map a file. Raises `BadInput` where it is missing, unreadable, no regular file, or empty."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise BadInput(str(path), "is not a regular file")
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise BadInput(str(path), "is empty")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise BadInput(str(path), f"is no name of a file ({error})") from error
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})") from error
    return Mapped(path.name, data)
