"""The technology table: constants with value, range, unit and source. Code holds none."""

from functools import cache
from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import Field, RootModel, model_validator

from tapeout.base.errors import BadInput
from tapeout.base.spec import Spec

Origin = Literal["source", "recall", "derived", "assumption"]


class Constant(Spec):
    """One constant; low <= value <= high."""

    value: float
    low: float
    high: float
    unit: str
    origin: Origin
    source: str
    component: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> "Constant":
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} is not between {self.low} and {self.high}")
        return self


class MemoryKind(Constant):
    """A kind of external memory: energy per byte, and PHY and controller per GB/s."""

    mm2_per_gb_per_s: float
    mm2_low: float
    mm2_high: float


class Node(Spec):
    """Factors against 7 nm."""

    energy: float
    energy_low: float
    energy_high: float
    logic: float
    sram: float
    origin: Origin
    source: str


class DieNode(Spec):
    """What a process node allows and costs; logic is the library's maximum density, never what a tested die reached."""

    logic: Constant
    sram: Constant
    hbm_stack: Constant
    defects: Constant
    wafer: Constant
    masks: Constant
    design: Constant
    fabrication: Constant


class DieNodes(Spec):
    """Process nodes by name, and other names for them."""

    aliases: dict[str, str]
    nodes: dict[str, DieNode]


class Constants(RootModel[dict[str, Constant]]):
    """A flat table of constants by name."""


class Technology(Spec):
    """All tables."""

    energy: dict[str, Constant]
    sram_energy: dict[int, Constant]
    external: dict[str, MemoryKind]
    static: dict[str, Constant]
    area: dict[str, Constant]
    nodes: Annotated[dict[str, Node], Field(min_length=1)]


@cache
def technology() -> Technology:
    """The table that ships with the package."""
    return Technology.from_text(table_text("constants"), "technology")


def table_text(name: str) -> str:
    """The text of one of the package's technology tables."""
    return (resources.files("tapeout") / "data" / "technology" / f"{name}.yaml").read_text()


@cache
def constants(name: str) -> dict[str, Constant]:
    """A flat table by name: `parts`, `dollars` or `project`."""
    return Constants.model_validate(yaml.safe_load(table_text(name))).root


@cache
def die_nodes() -> DieNodes:
    """Process nodes: densities, defects, wafer and mask prices."""
    return DieNodes.from_text(table_text("nodes"), "nodes")


def die_node(name: str) -> DieNode:
    """The row of a process node, also by the chip's own name for it (`7nm`). Raises `BadInput` with the nodes there are."""
    table = die_nodes()
    row = table.nodes.get(table.aliases.get(name, name))
    if row is None:
        raise BadInput(
            "node", f"{name!r} has no price or density", f"use one of {', '.join([*table.nodes, *table.aliases])}"
        )
    return row


def memory_kind(kind: str) -> MemoryKind:
    """The row of an external memory, by how its kind begins. Raises `BadInput` with the kinds there are."""
    table = technology().external
    for name in sorted(table, key=len, reverse=True):
        if kind.upper().startswith(name):
            return table[name]
    raise BadInput("chip.external.kind", f"{kind!r} is not priced", f"begin it with one of {', '.join(table)}")
