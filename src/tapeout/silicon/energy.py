"""Energy of a step: counts times picojoules, and what flows while it lasts. First order: no activity factors, no voltage scaling."""

import math
from collections.abc import Mapping
from itertools import pairwise

from tapeout.chip.spec import ChipSpec
from tapeout.silicon.area import area_mm2
from tapeout.silicon.cost import Cost, merge
from tapeout.silicon.technology import Constant, memory_kind, technology

OFF_CHIP = ("external_read_bytes", "external_write_bytes", "host_bytes")
SRAM_BYTES = ("sram_read_bytes", "sram_write_bytes")


def energy_pj(counts: Mapping[str, float], chip: ChipSpec, seconds: float) -> tuple[Cost, ...]:
    """Energy by component of what `counts` counts (see isa.counts), done in `seconds` on `chip`. Raises `BadInput` on an unpriced memory.

    On-chip energies scale with the node; leakage with area and time; the clock tree is a share of on-chip dynamic energy.
    """
    dynamic = [_dynamic(name, count, chip) for name, count in counts.items()]
    on_chip = [cost for name, cost in zip(counts, dynamic, strict=True) if name not in OFF_CHIP]
    return merge([*dynamic, _clock(on_chip), _leakage(chip, seconds)])


def _dynamic(name: str, count: float, chip: ChipSpec) -> Cost:
    if name in SRAM_BYTES:
        row = sram_energy(chip.tile.sram.bank_bytes / 1024)
        return _cost("SRAM", row, count, chip)
    if name in ("external_read_bytes", "external_write_bytes"):
        assert chip.external, f"{name} on a chip without external memory"
        kind = memory_kind(chip.external.kind)
        return Cost(
            "external memory",
            count * kind.value,
            count * kind.low,
            count * kind.high,
            "pJ",
            f"{kind.unit}: {kind.source}",
        )
    row = technology().energy.get(name)
    assert row, f"no energy is known for {name}"
    if name == "host_bytes":
        return Cost(row.component, count * row.value, count * row.low, count * row.high, "pJ", row.source)
    return _cost(row.component, row, count * (_half_side_mm(chip) if name == "stream_bytes" else 1.0), chip)


def _cost(component: str, row: Constant, count: float, chip: ChipSpec) -> Cost:
    node = technology().nodes[chip.node]
    return Cost(
        component,
        count * row.value * node.energy,
        count * row.low * node.energy_low,
        count * row.high * node.energy_high,
        "pJ",
        row.source,
    )


def sram_energy(bank_kib: float) -> Constant:
    """Energy per byte of a bank of this size: linear in the logarithm between the table's rows, flat beyond them."""
    rows = sorted(technology().sram_energy.items())
    if bank_kib <= rows[0][0]:
        return rows[0][1]
    for (small, one), (large, two) in pairwise(rows):
        if bank_kib <= large:
            share = math.log(bank_kib / small) / math.log(large / small)
            mixed = {
                name: (1 - share) * getattr(one, name) + share * getattr(two, name) for name in ("value", "low", "high")
            }
            return one.model_copy(update=mixed)
    return rows[-1][1]


def _half_side_mm(chip: ChipSpec) -> float:
    """How far a streamed byte travels on average: half the side of a square die."""
    return math.sqrt(sum(cost.value for cost in area_mm2(chip))) / 2


def _clock(on_chip: list[Cost]) -> Cost:
    share = technology().static["clock_share"]
    value, low, high = (sum(getattr(cost, name) for cost in on_chip) for name in ("value", "low", "high"))
    return Cost("clock tree", value * share.value, low * share.low, high * share.high, "pJ", share.source)


def _leakage(chip: ChipSpec, seconds: float) -> Cost:
    row = technology().static["leakage"]
    area = area_mm2(chip)
    value, low, high = (sum(getattr(cost, name) for cost in area) for name in ("value", "low", "high"))
    scale = 1e12 * seconds
    return Cost("leakage", row.value * value * scale, row.low * low * scale, row.high * high * scale, "pJ", row.source)
