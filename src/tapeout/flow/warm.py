"""Compile the engines' kernels once, into numba's cache, so that the first run starts at once: python -m tapeout.flow.warm."""

import sys

from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.measure import measure
from tapeout.flow.prepare import EMBEDDED, prepare_chip, prepare_model
from tapeout.flow.run import make_engine


def warm() -> None:
    """Run a few tokens of the embedded model through both quick engines, streamed and from SRAM."""
    model = prepare_model(EMBEDDED)
    for name in ("edge", "tiny"):
        program = compile_model(model, prepare_chip(name), 32)
        measure(program, model.graph, 4, 2)
        make_engine("program", model, program).step([0, 1, 2], 0)
    make_engine("graph", model, program).step([0, 1, 2], 0)


if __name__ == "__main__":
    print("compiling kernels (once, about a minute)", file=sys.stderr, flush=True)
    warm()
