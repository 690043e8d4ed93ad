"""Seconds and memory to compile a model for a chip. Usage: compile.py [MODEL] [--chip NAME] [--context N]."""

import argparse
import resource
import sys
import time

from line import print_line
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.prepare import prepare_chip, prepare_model

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes per unit of ru_maxrss."""


def peak_mib() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT // 2**20


def main() -> None:
    """Print one line of JSON: the first of three compilations in a fresh process, and the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--chip", default="edge")
    parser.add_argument(
        "--context", type=int, default=None, help="positions planned for; the default is the compiler's"
    )
    options = parser.parse_args()
    chip, model = prepare_chip(options.chip), prepare_model(options.model)
    loaded, seconds, peak = peak_mib(), [], 0
    for _ in range(3):
        start = time.perf_counter()
        program = compile_model(model, chip, options.context)
        seconds.append(time.perf_counter() - start)
        peak = peak or peak_mib()
    print_line(
        "compile",
        model=options.model,
        chip=options.chip,
        context=program.context,
        micro_ops=int(program.ops.size),
        first_s=seconds[0],
        best_s=min(seconds),
        limit_s=5.0,
        peak_mib=peak,
        peak_before_mib=loaded,
    )


if __name__ == "__main__":
    main()
