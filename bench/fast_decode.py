"""Tokens per second of the quick engine, against the speed of memory and, where asked, llama.cpp on the same file.

Usage: fast_decode.py [MODEL] [--threads N] [--path best|v3|portable|numba] [--llama PYTHON FILE] [--rounds N].
PYTHON is an interpreter that has `xllamacpp`. All take turns, round by round, so that other work on the machine meets
all of them; of every figure the best and the median round are told, with the median CPU time per token beside.
"""

import argparse
import json
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from line import print_line
from tapeout.graph.fast import PATHS, FastEngine
from tapeout.importers.load import load_model

CONTEXT, TOKENS, PROMPT, STREAMS = 64, 32, 512, 8
"""Tokens held before decode, decoded per round, of the long prompt; streams of a batch."""
Sample = tuple[float, float]
"""(wall, CPU) seconds."""


def cpu_seconds() -> float:
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(work: Callable[[], object]) -> Sample:
    """How long one call takes."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - wall, cpu_seconds() - cpu


class Engine:
    """What is measured of ours."""

    def __init__(self, model: str, threads: int, path: str):
        loaded = load_model(model)
        self.build, _ = timed(lambda: setattr(self, "made", FastEngine(loaded, 1024, threads, STREAMS, path)))
        self.engine: FastEngine = self.made  # type: ignore[attr-defined]
        self.prompt = [1 + i for i in range(PROMPT)]
        for stream in range(STREAMS):
            self.engine.step(self.prompt[:CONTEXT], 0, stream=stream)

    def decode(self) -> None:
        """One stream."""
        for i in range(TOKENS):
            self.engine.step([i], CONTEXT + i)

    def batch(self) -> None:
        """All streams, a token each at a time."""
        for i in range(TOKENS):
            self.engine.step_batch([i] * STREAMS, [CONTEXT + i] * STREAMS, range(STREAMS))

    def prefill(self) -> None:
        """The long prompt."""
        self.engine.step(self.prompt, 0)

    def read(self) -> None:
        """All weights, as often as decode does."""
        for _ in range(TOKENS):
            self.engine._native.read_weights()  # type: ignore[union-attr]


class Llama:
    """llama.cpp in its own process; it works only when asked."""

    def __init__(self, python: str, file: str, threads: int):
        command = [python, str(Path(__file__).with_name("llama_cpp.py")), file, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask(CONTEXT, 2)

    def ask(self, prompt: int, tokens: int) -> dict[str, float]:
        """Seconds of a prompt and the tokens after it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(prompt, tokens, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def decode(self) -> Sample:
        """As `Engine.decode`; the CPU time is that of the whole answer less that of its prompt alone."""
        whole, start = self.ask(CONTEXT, TOKENS + 1), self.ask(CONTEXT, 1)
        return whole["tokens_s"], whole["cpu_s"] - start["cpu_s"]

    def prefill(self) -> Sample:
        """As `Engine.prefill`."""
        said = self.ask(PROMPT, 1)
        return said["prompt_s"], said["cpu_s"]


def figures(name: str, tokens: int, samples: list[Sample]) -> dict[str, float]:
    """Rates of the best and the median round; the median CPU time."""
    walls = [wall for wall, _ in samples]
    return {
        f"{name}_best_tokens_per_s": tokens / min(walls),
        f"{name}_median_tokens_per_s": tokens / statistics.median(walls),
        f"{name}_cpu_ms_per_token": 1e3 * statistics.median(cpu for _, cpu in samples) / tokens,
    }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--path", choices=PATHS, default="best")
    parser.add_argument("--llama", nargs=2, metavar=("PYTHON", "FILE"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ours = Engine(options.model, options.threads, options.path)
    turns: dict[str, tuple[int, Callable[[], Sample]]] = {
        "decode": (TOKENS, lambda: timed(ours.decode)),
        "prefill": (PROMPT, lambda: timed(ours.prefill)),
        "batch": (TOKENS * STREAMS, lambda: timed(ours.batch)),
    }
    if ours.engine._native is not None:
        turns["read"] = (TOKENS, lambda: timed(ours.read))
    if options.llama:
        llama = Llama(*options.llama, options.threads)
        turns["llama_decode"] = (TOKENS, llama.decode)
        turns["llama_prefill"] = (PROMPT, llama.prefill)
    samples = {name: [] for name in turns}
    for _ in range(options.rounds):
        for name, (_, turn) in turns.items():
            samples[name].append(turn())
    told = {}
    for name, (tokens, _) in turns.items():
        told |= figures(name, tokens, samples[name])
    if ours.engine._native is not None:
        told["weight_mb"] = ours.engine._native.weight_bytes / 1e6
    common = {"model": options.model, "path": ours.engine.path, "threads": options.threads, "rounds": options.rounds}
    print_line("fast_decode", **common, context=CONTEXT, build_s=ours.build, **told)


if __name__ == "__main__":
    main()
