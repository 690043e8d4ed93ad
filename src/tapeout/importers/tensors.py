"""From a file's tensors to the graph's weights: which tensor holds which, and what is done with its rows. Used by every importer with names.

A table of names is read by one rule: tensor STEM.weight holds the weights of its row, one behind the other by rows, and STEM.bias
those with `_bias` behind. A table's `layer` is about stems behind the prefix of a layer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from tapeout.graph.types import Matrix, Weight
from tapeout.importers.llama import Llama

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Names:
    """A family's table of tensors. prefix: of a layer's stems, "{}" its number."""

    prefix: str
    layer: Mapping[str, tuple[str, ...]]
    model: Mapping[str, tuple[str, ...]]
    transposed: frozenset[str] = frozenset()
    """Stems whose matrices stand as [columns, rows]."""

    def tensors(self, layers: int, shapes: Shapes) -> dict[str, tuple[str, ...]]:
        """Every tensor that a file may hold -> the weights in it, those that the graph has; () where it has none of them."""
        found = {}
        for stem, parts in self.model.items():
            found |= _both(stem, parts, shapes)
        for at in range(layers):
            for stem, parts in self.layer.items():
                ours = tuple(f"layers.{at}.{part}" for part in parts)
                found |= _both(self.prefix.format(at) + stem, ours, shapes)
        return found

    def is_transposed(self, tensor: str) -> bool:
        """Whether a tensor is a matrix that stands as [columns, rows]."""
        stem, _, kind = tensor.rpartition(".")
        return kind == "weight" and any(stem.endswith(f".{one}") for one in self.transposed)


def _both(stem: str, parts: tuple[str, ...], shapes: Shapes) -> Iterator[tuple[str, tuple[str, ...]]]:
    for kind, ours in (("weight", parts), ("bias", tuple(f"{part}_bias" for part in parts))):
        held = tuple(name for name in ours if name in shapes)
        if held or kind == "weight":
            yield f"{stem}.{kind}", held


def shape_in_file(ours: tuple[str, ...], shapes: Shapes, transposed: bool) -> tuple[int, ...]:
    """The shape of a tensor that holds the weights `ours`."""
    first = shapes[ours[0]]
    shape = (sum(shapes[name][0] for name in ours), *first[1:])
    return shape[::-1] if transposed else shape


def cut(weight: Weight, ours: tuple[str, ...], shapes: Shapes, transposed: bool) -> dict[str, Weight]:
    """The weights that one tensor holds."""
    if transposed:
        assert isinstance(weight, np.ndarray), "only float matrices stand transposed"
        weight = np.ascontiguousarray(weight.T)
    if len(ours) == 1:
        return {ours[0]: weight}
    ends = list(accumulate(shapes[name][0] for name in ours))
    return {name: rows_of(weight, np.arange(end - shapes[name][0], end)) for name, end in zip(ours, ends, strict=True)}


def rows_of(weight: Weight, rows: NDArray[np.int64]) -> Weight:
    """Some rows of a matrix, or numbers of a vector, in this order; codes and scales stay what they are."""
    if not isinstance(weight, Matrix):
        return np.ascontiguousarray(weight[rows])
    minimum = None if weight.minimum is None else np.ascontiguousarray(weight.minimum[rows])
    codes, scale = (np.ascontiguousarray(part[rows]) for part in (weight.codes, weight.scale))
    return replace(weight, codes=codes, scale=scale, minimum=minimum)


def neighbours(rows: NDArray, heads: int) -> NDArray:
    """Permute the rows of each head so that rows i and i + d/2 become rows 2i and 2i + 1."""
    return np.ascontiguousarray(rows[neighbours_of(len(rows), heads)])


def neighbours_of(total: int, heads: int, rotary: int = 0) -> NDArray[np.int64]:
    """Where `neighbours` takes each row from. rotary: rows of a head that are rotated, the first ones; 0 for all."""
    dim = total // heads
    turned = rotary or dim
    head = np.arange(dim)
    head[:turned] = np.arange(turned).reshape(2, -1).T.ravel()
    return (np.arange(heads)[:, None] * dim + head).ravel()


def pair_neighbours(weights: dict[str, Weight], llama: Llama) -> None:
    """Turn halves of a head that are rotated together into neighbours: in Q, K, their biases, and the norms of their heads."""
    if llama.style.positions:
        return
    for name in weights:
        heads = {"q": llama.heads, "k": llama.kv_heads, "q_norm": 1, "k_norm": 1}.get(
            name.rpartition(".")[2].removesuffix("_bias")
        )
        if heads and name.startswith("layers."):
            order = neighbours_of(weights[name].shape[0], heads, llama.style.rotary)
            weights[name] = rows_of(weights[name], order)
