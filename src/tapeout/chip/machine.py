"""`Machine`: what every chip is to the estimator. Flat rates and capacities, each a number or an array of designs.

A `Datasheet` and a `ChipSpec` both lower to it; the estimator knows nothing else.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from tapeout.chip.tiles import Tiles

Value = float | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Machine:
    """One chip. Rates are dense peaks; a rate of 0 means that the chip has no such units.

    `family` chooses the calibration. `memory` is where weights and KV cache live: external memory, or the SRAM of a chip without one.
    `fixed_layer_us` is the time of a layer whatever its width, where the chip's own latencies are known or assumed; 0 leaves it to the calibration.
    """

    name: str
    family: str
    tflops_16: Value
    tflops_8: Value
    tflops_4: Value
    memory_gb: Value
    memory_tb_per_s: Value
    link_gb_per_s: Value = 0.0
    """One direction, all links of the chip together."""
    rows: Value = 1.0
    """Outputs that the matrix unit makes at once: a matrix is padded to whole multiples."""
    fixed_layer_us: Value = 0.0
    hop_us: Value = 0.0
    watts: Value = 0.0
    usd: Value = 0.0
    rom_weights: Value = float("inf")
    """Weights that a chip holds in ROM, metal or flash, where it has them there."""
    hardwired: str = ""
    """The one model that a chip with its weights in ROM runs."""
    tiles: Tiles | None = None
    """Of a chip of ours, timed by its units and not by a calibration; rates and `rows` above are then for comparison only."""

    def chunk(self, rows: slice) -> "Machine":
        """A run of designs: every array cut, every number kept."""
        cut = {
            f.name: getattr(self, f.name)[rows] for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **cut, tiles=self.tiles and self.tiles.chunk(rows))
