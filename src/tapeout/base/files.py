"""Files that people keep are written beside their final name and renamed, so that none is ever half there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tapeout.base.errors import BadInput


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """Open a temporary neighbour of `path`; rename it to `path` when the block ends well, else remove it.

    Raises `BadInput` where the folder does not exist or cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise BadInput(str(path), f"the folder {path.parent} does not exist", "make it first")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise BadInput(str(path), f"cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(handle, mode) as file:
            yield file
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cache_folder() -> Path:
    """Where fetched models and built things are kept: $XDG_CACHE_HOME/tapeout, or ~/.cache/tapeout."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tapeout"
