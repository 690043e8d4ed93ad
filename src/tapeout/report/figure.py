"""One number with its unit and where it comes from; and a report of many."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Origin(StrEnum):
    """Where a figure comes from."""

    MEASURED = "measured"
    MODELLED = "modelled"
    CITED = "cited"
    RECALL = "recall"
    """From memory of a public source, unchecked."""
    ASSUMED = "assumed"
    """Our guess, with a range and a reason."""
    OWN = "own"
    """The user's own."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number. low and high: its range where it has one; note: what it holds for."""

    name: str
    value: float
    unit: str
    origin: Origin
    low: float | None = None
    high: float | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """value, unit and origin; low, high and note where there are any."""
        answer: dict[str, Any] = {"value": self.value, "unit": self.unit, "origin": self.origin.value}
        if self.low is not None and self.high is not None:
            answer |= {"low": self.low, "high": self.high}
        return answer | ({"note": self.note} if self.note else {})

    def __str__(self) -> str:
        spread = (
            f" ({number(self.low)} to {number(self.high)})" if self.low is not None and self.high is not None else ""
        )
        return f"{self.name} {number(self.value)} {self.unit}{spread} [{self.origin.value}]"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title. A last column named "share" holds fractions of one and is drawn as bars."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one command has to say."""

    title: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    fingerprint: str


def number(value: Any) -> str:
    """A number for people: four significant digits, thousands apart, small ones with a power of ten."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e12 or size < 1e-6:
        return f"{value:.3e}"
    if size >= 1000:
        return f"{value:,.0f}"
    digits = 3 - next(power for power in range(2, -8, -1) if size >= 10.0**power)
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits > 0 else f"{value:.0f}"
