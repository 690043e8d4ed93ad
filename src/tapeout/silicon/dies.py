"""Die area through two doors, and both doors tried on dies whose area is published.

From parts: SRAM, interfaces and ROM by table; logic as so much for every mm2 of those, and for a GPU so much for every lane and tensor
MAC. Arithmetic by itself is a few percent of a die, so these sizes, with all that no one publishes, are fitted on the known dies of the kind.
From transistors: the published count less what SRAM and ROM take, over the library's density times the share of it that other dies reach.
A die under test is left out of every fit, and so is its family. Called by reports and by `tools/silicon_tables.py`; never by `area.py`,
which builds up a chip of ours.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.base.spec import Spec
from tapeout.silicon.cost import Cost, merge, total
from tapeout.silicon.technology import Constant, constants, die_node, table_text, technology

Door = Literal["parts", "transistors"]

UNITS = {"gpu": ("fp32_lanes", "fp16_macs"), "array": ()}
"""Beside each mm2 of SRAM and interfaces, what a kind's logic is counted by. MACs and cores of accelerators were tried and made the errors larger."""

MIB = 2**20 * 8
SPREAD = (0.1, 0.9)
REFERENCE_NODE = "N7"


class Parts(Spec):
    """What is on a die, spares included. sram in MiB; MACs and lanes per clock; lanes: SerDes with PCIe; rom in Gbit; transistors in 1e9.

    Cores and FP64 lanes are published facts that no fit uses: with them the errors were larger.
    """

    node: str
    kind: Literal["gpu", "array", "rom"] = "array"
    counting: Literal["NVIDIA", "AMD", "others"] = "others"
    sram: float = 0
    fp32_lanes: float = 0
    fp64_lanes: float = 0
    fp16_macs: float = 0
    int8_macs: float = 0
    cores: float = 0
    hbm_stacks: float = 0
    gddr_bits: float = 0
    lpddr_bits: float = 0
    lanes: float = 0
    rom: float = 0
    transistors: float | None = None


class KnownDie(Parts):
    """A die whose area is published."""

    name: str
    family: str
    mm2: float
    source: str
    why: str

    @property
    def has_parts(self) -> bool:
        """Whether enough is published for the parts' door."""
        return self.kind in UNITS


@dataclass(frozen=True, slots=True)
class DieError:
    """One die through one door: published and ours in mm2, and the error as a share of the published area."""

    die: KnownDie
    published: float
    ours: float
    low: float
    high: float

    @property
    def error(self) -> float:
        return self.ours / self.published - 1

    @property
    def inside(self) -> bool:
        """Whether the published area lies in our range."""
        return self.low <= self.published <= self.high


@cache
def known_dies() -> tuple[KnownDie, ...]:
    """The dies whose parts and area are published."""
    rows = yaml.safe_load(table_text("known_dies"))
    return tuple(KnownDie.from_data({"name": name, **row}, f"known_dies.{name}") for name, row in rows.items())


def area(parts: Parts, without: str = "") -> tuple[Cost, ...]:
    """Area from parts, in mm2 by component; nothing is fitted on the family `without`. Raises `BadInput` on a kind that no fit is known for."""
    if parts.kind not in UNITS:
        raise BadInput(
            "parts.kind",
            f"the logic of a {parts.kind} die cannot be told from parts",
            f"use {' or '.join(UNITS)}, or give its transistors",
        )
    sizes, low, high = _unit_sizes(parts.kind, without)
    logic = float(_units(parts) @ sizes)
    fit = f"units of {parts.kind} fitted on other known dies, scaled by the library's density"
    return merge([*_counted(parts), Cost("logic", logic, logic * low, logic * high, "mm2", fit)])


def area_from_transistors(parts: Parts, without: str = "") -> tuple[Cost, ...]:
    """Area from a transistor count, in mm2 by component. Raises `BadInput` where there is none."""
    if parts.transistors is None:
        raise BadInput("parts.transistors", "is not given", "give the count, or use the area from parts")
    library = die_node(parts.node).logic.value
    low, share, high = np.quantile(_shares(parts.counting, without), (SPREAD[0], 0.5, SPREAD[1]))
    logic = _logic_transistors(parts) * 1e3 / library
    basis = f"library's density times {share:.2f} ({low:.2f} to {high:.2f}), what other dies by the same counting reach"
    return merge([*_counted(parts), Cost("logic", logic / share, logic / high, logic / low, "mm2", basis)])


def arithmetic_mm2(parts: Parts) -> float:
    """The tensor MACs by themselves, multiplier and adder as synthesized: what a die would be if nothing else took room."""
    macs = parts.int8_macs + parts.fp16_macs * constants("parts")["fp16_in_int8"].value
    scale = die_node(REFERENCE_NODE).logic.value / die_node(parts.node).logic.value
    return macs * technology().area["mac_int8"].value * scale / 1e6


def die_errors(door: Door) -> tuple[DieError, ...]:
    """Every known die that the door opens for, its own family left out of the fit, worst first."""
    rows = [_error(die, door) for die in known_dies() if (die.has_parts if door == "parts" else die.transistors)]
    return tuple(sorted(rows, key=lambda row: -abs(row.error)))


def median_error(rows: tuple[DieError, ...]) -> float:
    """The median of the absolute errors."""
    return float(np.median([abs(row.error) for row in rows]))


def _error(die: KnownDie, door: Door) -> DieError:
    ours = total((area if door == "parts" else area_from_transistors)(die, die.family))
    return DieError(die, die.mm2, ours.value, ours.low, ours.high)


def _counted(parts: Parts) -> list[Cost]:
    """SRAM, ROM and interfaces: what tables price without a fit."""
    table, node = constants("parts"), die_node(parts.node)
    share, cell = table["sram_share"], table["rom_cell"]
    mib, rom = parts.sram * 8, parts.rom * 1e9 / MIB * 8
    density = node.sram
    return [
        Cost("SRAM", mib / density.value * (1 + share.value), mib / density.high * (1 + share.low), mib / density.low * (1 + share.high),
             "mm2", f"{density.source}; {share.source}"),
        Cost("ROM", rom / density.value * cell.value, rom / density.high * cell.low, rom / density.low * cell.high, "mm2", cell.source),
        _each("memory interface", node.hbm_stack, parts.hbm_stacks),
        _each("memory interface", table["gddr_channel"], parts.gddr_bits / 32),
        _each("memory interface", table["lpddr_channel"], parts.lpddr_bits / 16),
        _each("links", table["lane"], parts.lanes),
    ]  # fmt: skip


def _each(component: str, row: Constant, count: float) -> Cost:
    return Cost(component, count * row.value, count * row.low, count * row.high, "mm2", row.source)


def _counted_mm2(parts: Parts) -> float:
    return sum(cost.value for cost in _counted(parts))


def _logic_transistors(parts: Parts) -> float:
    """1e9 transistors that are neither SRAM nor ROM."""
    table = constants("parts")
    assert parts.transistors, "no transistor count"
    memory = parts.sram * MIB / 1e9 * table["sram_transistors"].value + parts.rom * table["rom_transistors"].value
    return parts.transistors - memory


def _shares(counting: str, without: str) -> list[float]:
    """Of the library's density, what the logic of the known dies by this counting reaches."""
    dies = [die for die in known_dies() if die.transistors and die.counting == counting and die.family != without]
    return [
        _logic_transistors(die) * 1e3 / die_node(die.node).logic.value / (die.mm2 - _counted_mm2(die)) for die in dies
    ]


def _units(parts: Parts) -> NDArray[np.float64]:
    """The mm2 of SRAM and interfaces, then how many units of each sort, shrunk from the reference node to the die's own."""
    scale = die_node(REFERENCE_NODE).logic.value / die_node(parts.node).logic.value
    return np.array([_counted_mm2(parts), *(getattr(parts, unit) * scale for unit in UNITS[parts.kind])])


@cache
def _unit_sizes(kind: str, without: str) -> tuple[NDArray[np.float64], float, float]:
    """mm2 of logic for each mm2 counted and for each unit at the reference node, and the factors below and above that the known dies spread over."""
    dies = [die for die in known_dies() if die.kind == kind and die.family != without]
    counts = np.array([_units(die) / die.mm2 for die in dies])
    wanted = np.array([1 - _counted_mm2(die) / die.mm2 for die in dies])
    sizes = _least_absolute(counts, wanted)
    low, high = np.quantile(wanted / (counts @ sizes), SPREAD)
    return sizes, min(1.0, float(low)), max(1.0, float(high))


def _least_absolute(counts: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sizes, none negative, with the least sum of absolute errors: reweighted least squares over every subset of the units."""
    columns = range(counts.shape[1])
    best, least = np.zeros(counts.shape[1]), np.inf
    for chosen in (list(c) for count in columns for c in combinations(columns, count + 1)):
        weights = np.ones(len(wanted))
        for _ in range(50):
            found = np.linalg.lstsq(counts[:, chosen] * weights[:, None], wanted * weights, rcond=None)[0]
            weights = 1 / np.sqrt(np.maximum(abs(counts[:, chosen] @ found - wanted), 0.01))
        loss = float(abs(counts[:, chosen] @ found - wanted).sum())
        if loss < least and (found >= 0).all():
            best, least = np.zeros(counts.shape[1]), loss
            best[chosen] = found
    return best
