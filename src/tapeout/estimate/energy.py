"""Watts and joules per token from what a board is rated for: idle share, and the rest in proportion to how busy memory and multipliers are."""

import numpy as np

from tapeout.chip.machine import Value
from tapeout.estimate.calibration import Fixed
from tapeout.estimate.forward import total

BUSY = ("compute", "weights", "kv_cache", "attention_compute", "elementwise", "collectives")
"""Causes in which the chip works; in the others it waits."""


def watts(rated: Value, chips: float, parts: dict[str, Value], fixed: Fixed, hardwired: bool = False) -> Value:
    """Of the whole system while it decodes: chips, and hosts, fans and power supplies on top."""
    causes = (*BUSY, "layers") if hardwired else BUSY
    busy = sum((parts[cause] for cause in causes), 0.0) / np.maximum(total(parts), 1e-30)
    return rated * chips * (fixed.idle_watts + (1.0 - fixed.idle_watts) * busy) * fixed.server_watts
