"""The technology table: constants with value, range, unit and source. Code holds none."""

from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import Field, model_validator

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
    text = (resources.files("tapeout") / "data" / "technology" / "constants.yaml").read_text()
    return Technology.from_text(text, "technology")


def memory_kind(kind: str) -> MemoryKind:
    """The row of an external memory, by how its kind begins. Raises `BadInput` with the kinds there are."""
    table = technology().external
    for name in sorted(table, key=len, reverse=True):
        if kind.upper().startswith(name):
            return table[name]
    raise BadInput("chip.external.kind", f"{kind!r} is not priced", f"begin it with one of {', '.join(table)}")
