"""The paths of the quick engine that this machine can take, its C files compiled as they now stand."""

from tapeout.graph.native import build, library


def paths() -> list[str]:
    """numba, and the variants of the C library where there is a compiler."""
    if build.compiler() is None:
        return ["numba"]
    if isinstance(library.load("portable"), str):
        assert build.build() is None
        library.load.cache_clear()
        library.best.cache_clear()
    portable = library.load("portable")
    assert not isinstance(portable, str), portable
    return ["numba", *library.runnable(portable)]


PATHS = paths()
EACH = PATHS[1:]
"""The C variants."""
