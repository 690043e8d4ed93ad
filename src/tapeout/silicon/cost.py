"""`Cost`: what one component takes, with its range and what it was worked out from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Number: TypeAlias = float | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """low <= value <= high, in `unit`; `basis` names the constants and the rule. The dollars of many designs at once are arrays."""

    component: str
    value: float
    low: float
    high: float
    unit: str
    basis: str


def merge(costs: Iterable[Cost]) -> tuple[Cost, ...]:
    """Costs of the same component added up, in the order of first appearance; zero ones left out."""
    merged: dict[str, Cost] = {}
    for cost in costs:
        if not cost.high:
            continue
        old = merged.get(cost.component)
        merged[cost.component] = cost if old is None else Cost(
            cost.component, old.value + cost.value, old.low + cost.low, old.high + cost.high, cost.unit,
            old.basis if cost.basis in old.basis else f"{old.basis}; {cost.basis}",
        )  # fmt: skip
    return tuple(merged.values())


def total(costs: Iterable[Cost], component: str = "total") -> Cost:
    """The sum of all; low and high add every component's corner, so the range is wide by construction."""
    rows = tuple(costs)
    assert rows, "nothing to add up"
    value, low, high = (sum(getattr(row, name) for row in rows) for name in ("value", "low", "high"))
    return Cost(component, value, low, high, rows[0].unit, "sum")
