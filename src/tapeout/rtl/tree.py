"""Folding many values into one: a balanced tree, cut into parts that fit a cycle."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")

CUT = 8
"""Values that one cycle folds: three levels."""


def fold(items: Sequence[Item], join: Callable[[Item, Item], Item]) -> Item:
    """One of all, neighbours first and in order: `join` gets the earlier one first."""
    items = list(items)
    while len(items) > 1:
        pairs = [join(one, two) for one, two in zip(items[::2], items[1::2], strict=False)]
        items = pairs + items[len(pairs) * 2 :]
    return items[0]


def cut(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Parts of CUT neighbours."""
    return [items[at : at + CUT] for at in range(0, len(items), CUT)]
