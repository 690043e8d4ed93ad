"""What `tapeout estimate` does differently for a chip of ours: it refuses what the compiler would, and prices a token from counts."""

from dataclasses import replace
from typing import Protocol

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.chip.lowering import Side
from tapeout.chip.spec import ChipSpec
from tapeout.chip.tiles import tiles_of
from tapeout.estimate.estimate import Estimate
from tapeout.estimate.tiled_counts import decode_counts
from tapeout.estimate.tiled_serving import TABLES, tiled_format
from tapeout.estimate.workload import Workload
from tapeout.flow.fits import unsupported
from tapeout.graph.shapes import ModelShape
from tapeout.silicon.energy import energy_pj

CORNER: dict[Side, str] = {"value": "value", "low": "high", "high": "low"}
"""The worst for the chip is the most energy."""


class Asked(Protocol):
    """What of a request matters here."""

    @property
    def chips(self) -> int: ...
    @property
    def tensor(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def weights(self) -> str: ...


def check_template(shape: ModelShape, chip: ChipSpec, request: Asked) -> None:
    """Raises `BadInput` on what no program of the template does."""
    if lacks := unsupported(shape):
        raise BadInput(
            f"{shape.name} on {chip.name}", f"no op for {', '.join(lacks)}", f"tapeout models --chip {chip.name}"
        )
    for name in dict.fromkeys((tiled_format(request.weights).name, TABLES)):
        if name not in chip.tile.matrix.formats:
            taken = ", ".join(chip.tile.matrix.formats)
            raise BadInput("--weights", f"{name} is no format of chip {chip.name}'s matrix unit", f"it takes {taken}")
    if request.tensor > 1:
        raise BadInput("--tensor", f"{request.tensor}", "chips of ours are not wired together: use 1")
    if request.chips > max(request.batch, 1):
        raise BadInput(
            "--chips", f"{request.chips} for {request.batch} requests", "chips of ours are not wired together: one per request at most"
        )  # fmt: skip
    positions = request.prompt_tokens + request.output_tokens
    if positions > shape.context:
        raise BadInput(
            "--prompt-tokens, --output-tokens", f"{positions} positions together", f"{shape.name} takes {shape.context}"
        )


def too_large(shape: ModelShape, chip: ChipSpec, request: Asked) -> BadInput:
    """The refusal of a model that the compiler finds no place for."""
    positions = request.prompt_tokens + request.output_tokens
    return BadInput(
        f"{shape.name} on {chip.name}",
        f"in {request.weights} with {positions:,} positions does not fit its SRAM, its buffers or its external memory",
        "try fewer tokens, fewer bits (--weights), or more tile.sram.kib; tapeout compile says what is too small and by how much",
    )


def priced(made: Estimate, shape: ModelShape, chip: ChipSpec, work: Workload, side: Side) -> Estimate:
    """With watts and joules from counts and the technology table, each constant at the end of its range that the side stands for."""
    counts = {name: float(value) for name, value in decode_counts(shape, tiles_of(chip), work).items()}
    counts = {name: value for name, value in counts.items() if value}
    costs = energy_pj(counts, chip, float(np.asarray(made.tpot_ms)) * 1e-3)
    joules = 1e-12 * sum(getattr(cost, CORNER[side]) for cost in costs)
    return replace(made, joules_per_token=joules, watts=joules * made.tokens_per_s_total)
