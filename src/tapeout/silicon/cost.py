"""`Cost`: what one component takes, with its range and what it was worked out from."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """low <= value <= high, in `unit`; `basis` names the constants and the rule."""

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
