"""Tokens per second of the cycle-true simulator. Usage: simulator.py [MODEL CHIP] [--tokens N].

Without a model both targets are run: the embedded model on `tiny`, SmolLM2 on `edge`. One line each.
"""

import argparse
import time

from line import print_line
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.prepare import prepare_chip, prepare_model
from tapeout.sim.engine import ProgramEngine

TARGETS = {("fable", "tiny"): 20.0, ("smollm2-135m-instruct", "edge"): 2.0}
"""(model, chip) -> tokens per second."""


def main() -> None:
    """Print one line of JSON per model and chip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", nargs="*", metavar="MODEL CHIP")
    parser.add_argument("--tokens", type=int, default=24, help="tokens decoded per repetition")
    parser.add_argument("--context", type=int, default=8, help="tokens held before decode starts")
    options = parser.parse_args()
    if len(options.pair) not in (0, 2):
        parser.error("give a model and a chip, or neither")
    for model, chip in [tuple(options.pair)] if options.pair else list(TARGETS):
        run(model, chip, options.context, options.tokens)


def run(name: str, chip: str, context: int, tokens: int) -> None:
    """Prefill `context` tokens, then decode `tokens`, three times over; the first call compiles kernels and is told apart."""
    model = prepare_model(name)
    engine = ProgramEngine(compile_model(model, prepare_chip(chip), context + tokens))
    start = time.perf_counter()
    engine.step(list(range(1, context + 1)), 0)
    engine.step([1], context)
    first, cycles = time.perf_counter() - start, engine.totals.wall
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for i in range(tokens):
            engine.step([1 + i], context + i)
        seconds.append(time.perf_counter() - start)
    cycles = engine.totals.wall - cycles
    print_line(
        "simulator",
        model=name,
        chip=chip,
        context=context,
        tokens=tokens,
        tokens_per_s=tokens / sorted(seconds)[1],
        best_tokens_per_s=tokens / min(seconds),
        target=TARGETS.get((name, chip)),
        simulated_cycles_per_s=cycles / sum(seconds),
        first_call_s=first,
    )


if __name__ == "__main__":
    main()
