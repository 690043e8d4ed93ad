"""Tokens per second of the quick engine. Usage: fast_decode.py [MODEL] [--threads N] [--context N] [--tokens N]."""

import argparse
import time
from collections.abc import Callable

from line import print_line
from tapeout.graph.fast import FastEngine
from tapeout.importers.load import load_model


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print one line of JSON: prefill of `context` tokens, then decode of `tokens` more, the medians of five."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--context", type=int, default=64, help="tokens held before decode starts")
    parser.add_argument("--tokens", type=int, default=16, help="tokens decoded per repetition")
    options = parser.parse_args()
    model = load_model(options.model)
    engine: list[FastEngine] = []
    build = seconds(lambda: engine.append(FastEngine(model, threads=options.threads)))
    step = engine[0].step
    prompt = [i % model.graph.vocabulary for i in range(1, options.context + 1)]
    first = seconds(lambda: step(prompt, 0)) + seconds(lambda: step([1], options.context))

    def decode() -> None:
        for i in range(options.tokens):
            step([i + 1], options.context + i)

    prefills = sorted(seconds(lambda: step(prompt, 0)) for _ in range(5))
    decodes = sorted(seconds(decode) for _ in range(5))
    print_line(
        "fast_decode",
        model=options.model,
        threads=options.threads,
        context=options.context,
        decode_tokens_per_s=options.tokens / decodes[2],
        decode_best_tokens_per_s=options.tokens / decodes[0],
        prefill_tokens_per_s=len(prompt) / prefills[2],
        build_s=build,
        first_call_s=first,
    )


if __name__ == "__main__":
    main()
