"""The compiled library, or why there is none."""

import ctypes
from ctypes import c_char_p, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

from tapeout.graph.native import build

_FUNCTIONS = {
    "run": (c_int, (c_void_p, c_void_p, c_void_p)),
    "team_new": (c_void_p, (c_int,)),
    "team_free": (None, (c_void_p,)),
    "pack_tiles": (None, (c_void_p, c_void_p, c_void_p, c_int64, c_int, c_int, c_int, c_int, c_void_p, c_void_p)),
    "read_all": (c_int64, (c_void_p, c_void_p, c_int64)),
    "size_of": (c_int64, (c_int,)),
    "has_v3": (c_int, ()),
    "has_v4": (c_int, ()),
    "built_from": (c_char_p, ()),
}
"""Name -> (result, arguments) of what is called."""


@cache
def load(variant: str) -> ctypes.CDLL | str:
    """A variant of `build.VARIANTS`, or why it cannot be used."""
    path = build.library_path(variant)
    if variant not in build.variants() or not path.exists():
        return "it was installed without a C compiler"
    return _open(path)


def _open(path: Path) -> ctypes.CDLL | str:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"{path.name} does not load: {error}"
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name, None)
        if function is None:
            return f"{path.name} lacks {name}: install again"
        function.restype, function.argtypes = result, arguments
    if library.built_from().decode() != build.digest():
        return f"{path.name} was compiled from other sources: install again"
    return library


@cache
def best() -> tuple[str, ctypes.CDLL | str]:
    """(variant, library) for this machine, or ("", why there is none)."""
    portable = load("portable")
    if isinstance(portable, str):
        return "", portable
    for variant in runnable(portable)[::-1]:
        if not isinstance(library := load(variant), str):
            return variant, library
    raise AssertionError("the portable variant was loaded above")


def runnable(portable: ctypes.CDLL) -> list[str]:
    """The variants that this machine's processor runs, the quickest last."""
    return ["portable", *(["v3"] if portable.has_v3() else []), *(["v4"] if portable.has_v4() else [])]
