"""Differences between two sets of figures: the only way they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from tapeout.report.figure import Figure


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before and after; `change` is after/before - 1, None where one of them is missing or before is 0."""

    name: str
    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """The signed fraction."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return self.after / self.before - 1


def compare(before: Sequence[Figure], after: Sequence[Figure]) -> tuple[Change, ...]:
    """Every figure of either side, in the order of `before`, then what only `after` has."""
    old = {figure.name: figure.value for figure in before}
    new = {figure.name: figure.value for figure in after}
    names = [*old, *(name for name in new if name not in old)]
    return tuple(Change(name, old.get(name), new.get(name)) for name in names)
