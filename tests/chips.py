"""Small chips for everyone's tests: of any grid, weights in SRAM or streamed. Same arguments, same chip."""

from typing import Any

import numpy as np

from tapeout.chip.spec import ChipSpec
from tapeout.numerics.formats import FORMATS

GRIDS: dict[str, dict[str, Any]] = {
    "1x1": {"columns": 1, "rows": 1},
    "1x3": {"columns": 3, "rows": 1, "topology": "ring"},
    "2x2": {"columns": 2, "rows": 2},
    "2x4": {"columns": 4, "rows": 2},
    "4x4": {"columns": 4, "rows": 4},
}
"""Rows x columns; the three tiles stand in a ring."""

MEMORY: dict[str, Any] = {
    "kind": "test", "gb_per_s": 12.0, "latency_ns": 40.0, "refresh_interval_ns": 900.0, "refresh_ns": 60.0, "capacity_gib": 1.0,
    "beat_bytes": 32, "write_buffer_kib": 8,
}  # fmt: skip
"""An external memory whose refresh comes often enough to be met by a small step."""


def make_chip(grid: str = "2x2", streamed: bool = False, **changes: str) -> ChipSpec:
    """A chip of `grid`; `changes` are fields with "__" for ".", as text: tile__sram__kib="64"."""
    data: dict[str, Any] = {
        "name": "bench", "clock_mhz": 1000.0, "grid": GRIDS[grid],
        "tile": {
            "matrix": {"rows": 8, "lanes": 16, "formats": list(FORMATS), "operand_kib": 16, "tokens": 8},
            "vector": {"lanes": 8},
            "attention": {"keys": 2, "lanes": 32, "block_keys": 8, "queries": 256},
            "sram": {"kib": 1024, "banks": 32},
            "micro_ops": 100_000,
        },
        "link": {"bytes_per_cycle": 16},
    }  # fmt: skip
    if streamed:
        data |= {"external": MEMORY, "weight_store": "external"}
        data["tile"]["stream_kib"] = 64
    chip = ChipSpec.from_data(data, "bench")
    return chip.with_fields({name.replace("__", "."): text for name, text in changes.items()}, "bench")


def random_chip(seed: int | np.random.Generator, grid: str | None = None, streamed: bool | None = None) -> ChipSpec:
    """A chip with every size drawn that bits must not depend on; memory large enough for the models of `strategies`."""
    rng = np.random.default_rng(seed)

    def draw(*choices: int | str) -> str:
        return str(rng.choice(choices))

    grid = draw(*GRIDS) if grid is None else grid
    stream = bool(rng.random() < 0.5)
    stream = stream if streamed is None else streamed
    changes = {
        "tile__matrix__rows": draw(4, 8, 16, 32),
        "tile__matrix__lanes": draw(8, 16, 32),
        "tile__matrix__tokens": draw(1, 3, 4, 8, 16),
        "tile__vector__lanes": draw(1, 2, 4, 8, 16, 32),
        "tile__attention__keys": draw(1, 2, 3, 4, 6, 8),
        "tile__attention__lanes": draw(8, 16, 32, 64),
        "tile__attention__block_keys": draw(8, 16, 32),
        "tile__sram__kib": "2048",
        "tile__sram__banks": draw(8, 32, 64),
        "link__bytes_per_cycle": draw(4, 16, 64),
        "link__hop_cycles": draw(1, 3),
    }
    if stream:
        changes |= {
            "external__gb_per_s": draw(3, 20, 200),
            "external__beat_bytes": draw(16, 32, 64),
            "external__latency_ns": draw(1, 50, 300),
            "tile__stream_kib": draw(128, 256),
        }
    return make_chip(grid, stream, **changes)
