"""Designs per second in one array call, and the time of one estimate. Usage: estimate.py [--designs N] [--threads T].

Eight fields vary: FLOP rates of 16 and 8 bits, memory size and rate, link rate, watts, concurrency, prompt length. Llama-3.1-8B in fp8 on two
chips, every mechanism: TTFT, TPOT and energy of each design.
"""

import argparse
import time

import numpy as np

from line import print_line
from tapeout.chip.machine import Machine
from tapeout.estimate.designs import estimate_designs
from tapeout.estimate.estimate import estimate
from tapeout.estimate.workload import Plan, Workload
from tapeout.graph.shapes import load_shape

SEED = 1


def designs(count: int) -> tuple[Machine, Workload]:
    """Random ones, none like another."""
    draw = np.random.default_rng(SEED).uniform
    low, high = np.array([100, 200, 20, 0.5, 50, 100]), np.array([2000, 4000, 300, 10, 1000, 1500])
    wide, narrow, size, rate, link, watts = (draw(a, b, count) for a, b in zip(low, high, strict=True))
    machine = Machine("design", "gpu_nvidia", wide, narrow, 0.0, size, rate, link, watts=watts)
    return machine, Workload(np.floor(draw(1, 256, count)), np.floor(draw(16, 8192, count)), 200.0, "fp8")


def main() -> None:
    """One line for many designs, one for a single estimate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=2_000_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    shape, (machine, work) = load_shape("llama-3.1-8b"), designs(options.designs)
    start, cpu = time.perf_counter(), time.process_time()
    made = estimate_designs(shape, machine, work, Plan(tensor=2), threads=options.threads)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print_line(
        "estimate",
        designs=options.designs,
        threads=options.threads,
        fits=int(np.isfinite(made.tpot_ms).sum()),
        million_per_s=options.designs / wall / 1e6,
        cpu_s=cpu,
        wall_s=wall,
    )
    one = machine.chunk(slice(0, 1)), work.chunk(slice(0, 1))
    start = time.perf_counter()
    for _ in range(100):
        estimate(shape, *one, Plan(tensor=2))
    print_line("estimate", what="one design", ms=10 * (time.perf_counter() - start))


if __name__ == "__main__":
    main()
