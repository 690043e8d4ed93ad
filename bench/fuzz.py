"""Hostile files by the hundred thousand. Usage: fuzz.py [--inputs N] [--kind K] [--seed S] [--from I] [--keep FOLDER].

N inputs, shared out over all kinds of tests/hostile.py (or all of kind K), from index I on. Each kind is a process of its own with a limit on its
address space; one that dies or hangs counts as a failure and goes on behind the input that it died of. The first input of every different
failure is kept in FOLDER/kind/. A line of progress per kind goes to standard error.
"""

import argparse
import multiprocessing
import os
import re
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import hostile
from line import print_line

ADDRESS_SPACE = 1 << 30
"""Bytes that loading may map beyond what the process has at its start."""
HANG_S = 120
TRACED = 100
"""One input in so many is watched by tracemalloc."""
REPORT = 200
"""Inputs between reports to the parent."""


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--kind", choices=list(hostile.KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--keep", type=Path, default=hostile.CRASHERS)
    options = parser.parse_args()
    kinds = [options.kind] if options.kind else list(hostile.KINDS)
    each, start, processor = options.inputs // len(kinds), time.perf_counter(), _processor_seconds()
    total: Counter[str] = Counter()
    told = {}
    for kind in kinds:
        counts, failures = fuzz(kind, options.seed, options.first, options.first + each)
        for signature, index in failures.items():
            _keep(options.keep, kind, options.seed, index, signature)
        told[kind] = dict(counts) | ({"failures": list(failures)} if failures else {})
        print(kind, told[kind], file=sys.stderr, flush=True)
        total.update(counts)
    print_line(
        "fuzz", inputs=total.total(), loaded=total["loaded"], refused=total["refused"], failed=total["failed"], seed=options.seed,
        first=options.first, wall_s=time.perf_counter() - start, processor_s=_processor_seconds() - processor, kinds=told,
    )  # fmt: skip


def fuzz(kind: str, seed: int, first: int, last: int) -> tuple[Counter[str], dict[str, int]]:
    """(how many of each outcome, the first index of every failure by what it looks like)."""
    spawn = multiprocessing.get_context("spawn")
    counts: Counter[str] = Counter()
    failures: dict[str, int] = {}
    while first < last:
        at = spawn.Value("q", first)
        ours, theirs = spawn.Pipe(duplex=False)
        worker = spawn.Process(target=_work, args=(kind, seed, first, last, at, theirs), daemon=True)
        worker.start()
        theirs.close()
        told = _listen(worker, ours, at)
        for _, outcome, why in told:
            counts[outcome] += 1 if outcome == "failed" else int(why)
        for index, outcome, why in told:
            if outcome == "failed":
                failures.setdefault(re.sub(r"\d+", "N", why)[:100], index)
        first = last if at.value >= last else at.value + 1
        if first < last or worker.exitcode:
            counts["failed"] += 1
            failures.setdefault(f"the process ended with {worker.exitcode}", at.value)
    return counts, failures


def _listen(worker: Any, pipe: Any, at: Any) -> list[tuple[int, str, str]]:
    """All that the worker says until it ends, or until it hangs and is stopped."""
    told: list[tuple[int, str, str]] = []
    before, since = at.value, time.monotonic()
    while True:
        if pipe.poll(1.0):
            try:
                told += pipe.recv()
                continue
            except EOFError:
                break
        if at.value != before:
            before, since = at.value, time.monotonic()
        if time.monotonic() - since > HANG_S:
            worker.kill()
    worker.join()
    return told


def _work(kind: str, seed: int, first: int, last: int, at: Any, pipe: Any) -> None:
    """In a process of its own: what the tokenizers library prints when it panics goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with TemporaryDirectory() as name:
        folder = Path(name)
        hostile.KINDS[kind].around(folder)
        hostile.attempt(kind, hostile.make(kind, seed, first), folder)  # what is imported late is here now
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, resource.RLIM_INFINITY))
        counts: Counter[str] = Counter()
        failed = []
        for index in range(first, last):
            at.value = index
            outcome, why = hostile.attempt(kind, hostile.make(kind, seed, index), folder, index % TRACED == 0)
            if outcome == "failed":
                failed.append((index, outcome, why))
            else:
                counts[outcome] += 1
            if index % REPORT == REPORT - 1 or index == last - 1:
                pipe.send([*failed, *((index, outcome, str(count)) for outcome, count in counts.items())])
                counts.clear()
                failed.clear()
        at.value = last


def _keep(folder: Path, kind: str, seed: int, index: int, signature: str) -> None:
    place = folder / kind
    place.mkdir(parents=True, exist_ok=True)
    raw = hostile.make(kind, seed, index)
    (place / f"{seed}-{index}.bin").write_bytes(raw)
    print(f"{place / f'{seed}-{index}.bin'}: {signature}", file=sys.stderr, flush=True)


def _processor_seconds() -> float:
    """Of this process and of its workers."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


if __name__ == "__main__":
    main()
