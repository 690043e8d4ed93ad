"""Pruned weights: a share `density` of the layers' weights is left, in square blocks of `block` that are kept or dropped whole. The head stays dense.

Bytes follow the weights: those left, and a bit for every block that says whether it is. Work follows the matrix unit: a step multiplies `rows`
outputs by a group of 32 inputs and is skipped only where all blocks that it touches are dropped, each independently. Not in it: N:M patterns, which
need units that gather; a better chance of empty steps where pruning was told of the unit; and the accuracy that pruning costs.
"""

from dataclasses import replace

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.chip.machine import Value
from tapeout.estimate.rates import Rates

GROUP = 32
"""Inputs that share a scale and are multiplied in one step."""
UNKNOWN_ROWS = 64
"""Outputs of a step where the datasheet says nothing: those of a warp group's matrix instruction on Hopper (PTX ISA, wgmma: m64)."""


def work_share(density: Value, block: Value, rows: Value) -> Value:
    """Share of the steps that are left; 1 where nothing is pruned, `density` where blocks are as large as a step."""
    touched = np.ceil(rows / np.asarray(block, float)) * np.ceil(GROUP / np.asarray(block, float))
    return 1.0 - (1.0 - np.asarray(density, float)) ** touched


def byte_share(density: float, block: float, bytes_per_weight: float) -> float:
    """Share of the bytes that are left, the index included; never more than dense."""
    index = 1.0 / (8.0 * block * block)
    return min(density + index / bytes_per_weight, 1.0)


def thin(rates: Rates, rows: Value, density: float, block: float) -> Rates:
    """Rates of the pruned model; the same object at density 1. Raises `BadInput`."""
    if not 0 < density <= 1:
        raise BadInput("--density", f"{density:g}", "the share of the weights that is left, above 0 and at most 1")
    if block < 1:
        raise BadInput("--sparse-block", f"{block:g}", "1 (single weights) or more")
    if density == 1:
        return rates
    steps = np.where(np.asarray(rows) > 1, rows, UNKNOWN_ROWS)
    left = work_share(density, block, steps)
    groups = tuple(
        replace(
            group, padded=group.padded * left, bytes_per_weight=group.bytes_per_weight * byte_share(density, block, group.bytes_per_weight)
        )
        for group in rates.layer_weights
    )  # fmt: skip
    return replace(rates, layer_weights=groups)
