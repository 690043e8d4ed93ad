"""How this room compiles its loops: `numerics.kernels.compiled`, the cache tied to every file the machine code may come from."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tapeout.chip import memory
from tapeout.numerics import kernels


@cache
def _digest() -> str:
    """SHA-256 over this room's files and the memory model, which numba pastes into one another."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(memory.__file__)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def compiled(function: Callable | None = None, *, inline: bool = False) -> Callable:
    """`kernels.compiled` for functions that call across the files of this room."""

    def wrap(function: Callable) -> Callable:
        dispatcher = kernels.compiled(function, inline=inline, file=__file__)
        index = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
        if hasattr(index, "_source_stamp"):
            index._source_stamp = (index._source_stamp, _digest())
        return dispatcher

    return wrap if function is None else wrap(function)
