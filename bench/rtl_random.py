"""Random programs on random chips, in the simulator and in the RTL. Usage: rtl_random.py [--chips N] [--programs M] [--jobs J] [--keep FILE].

Chips of seeds 0 .. N-1 of `tests/rtl/random_programs.py`, M programs that agree on each; where one does not, its seeds are put into tests/crashers.
A line of progress per chip goes to standard error. With --keep each chip's line is added to a file as well, and chips that are in it already, for
the same sources, are not run again: stop it whenever you like. Processor time is told beside time, for a machine that does other work.
"""

import argparse
import json
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "rtl"))

from random_runs import random_rtl_chip, run_programs

from line import print_line
from tapeout.rtl.simulate import build, sources_digest


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chips", type=int, default=50)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    done = kept(options.keep, options.programs)
    wanted = [seed for seed in range(options.chips) if seed not in done]
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        runs = [pool.submit(run_chip, seed, options.programs) for seed in wanted]
        for run in as_completed(runs):
            told = run.result()
            done[told["chip"]] = told
            text = json.dumps(told)
            print(text, file=sys.stderr, flush=True)
            if options.keep:
                with options.keep.open("a") as file:
                    file.write(text + "\n")
    rows = [done[seed] for seed in range(options.chips)]
    sums = {
        name: sum(row[name] for row in rows)
        for name in ("programs", "overflows", "micro_ops", "cycles", "held", "build_s", "build_processor_s", "run_s")
    }
    differ = sum(row["difference"] != "" for row in rows)
    print_line("rtl_random", chips=len(rows), chips_that_differ=differ, **sums, wall_s=time.perf_counter() - start)


def kept(file: Path | None, programs: int) -> dict[int, dict]:
    """By seed: what an earlier run wrote of the same sources and as many programs."""
    if file is None or not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row["chip"]: row for row in rows if (row["sources"], row["asked"]) == (sources_digest(), programs)}


def run_chip(seed: int, programs: int) -> dict[str, object]:
    """Build and run one chip, up to its first difference."""
    chip, start = random_rtl_chip(seed), time.perf_counter()
    worked = processor_seconds()
    build(chip)
    built, worked = time.perf_counter(), processor_seconds() - worked
    tally = run_programs(chip, programs)
    ended, unit = time.perf_counter(), chip.tile.matrix
    return {
        "chip": seed, "grid": f"{chip.grid.rows}x{chip.grid.columns}", "topology": chip.grid.topology.value,
        "matrix": f"{unit.rows}x{unit.lanes}", "streamed": chip.external is not None, "asked": programs, "programs": tally.programs,
        "overflows": tally.overflows, "micro_ops": tally.micro_ops, "cycles": tally.cycles, "held": tally.held,
        "build_s": round(built - start, 1), "build_processor_s": round(worked, 1), "run_s": round(ended - built, 1), "difference": tally.difference,
        "sources": sources_digest(),
    }  # fmt: skip


def processor_seconds() -> float:
    """Of this process and of the tools that it has run."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


if __name__ == "__main__":
    main()
