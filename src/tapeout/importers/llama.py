"""The last step of every importer: a Llama's hyperparameters and weights, checked against each other, as a `Model`."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tapeout.base.errors import BadInput
from tapeout.base.reading import shown
from tapeout.graph.llama import llama_graph
from tapeout.graph.style import LLAMA, Style
from tapeout.graph.types import Graph, Matrix, Model, Tokenizer, Weight

GROUP = 32
"""Input widths are padded to multiples of this when a model is compiled."""

LAYER_TENSORS = 9

MOST = 2**32 - 1
"""Of any hyperparameter: no file holds so many, and no address of a chip reaches them."""


@dataclass(frozen=True, slots=True)
class Llama:
    """The hyperparameters of a Llama-shaped model; `tied`: the head is the embedding; `style`: what its family has beside."""

    name: str
    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    theta: float
    eps: float
    tied: bool
    style: Style = LLAMA

    def check(self, where: str, tensors: int, each: int = LAYER_TENSORS) -> None:
        """Raise `BadInput` for numbers that no Llama can have, or more layers than a file of so many tensors holds."""
        for field in ("vocabulary", "context", "width", "layers", "heads", "kv_heads", "head_dim", "hidden"):
            if getattr(self, field) < 1:
                raise BadInput(where, f"{field} is {shown(getattr(self, field))}, not at least 1")
            if getattr(self, field) > MOST:
                raise BadInput(where, f"{field} is {shown(getattr(self, field))}, which is more than {MOST:,}")
        if self.layers * each > tensors:
            raise BadInput(where, f"{self.layers:,} layers need {each} tensors each, the file has {tensors:,}")
        if self.heads % self.kv_heads:
            raise BadInput(where, f"{self.heads} query heads are not a multiple of {self.kv_heads} key/value heads")
        if self.head_dim % 2:
            raise BadInput(where, f"head_dim is {self.head_dim}, which is odd; rotary positions turn pairs")
        for field in ("theta", "eps"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(where, f"{field} is {value}, not a positive number")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight by its name in the graph."""
        return {kind.name: kind.shape for kind in self.graph({}).weights}

    def graph(self, formats: Mapping[str, str]) -> Graph:
        """The graph; `formats` maps a weight's name to its format, "f32" where it lacks it."""
        return llama_graph(
            self.name, self.vocabulary, self.context, self.width, self.layers, self.heads, self.kv_heads, self.head_dim,
            self.hidden, self.theta, self.eps, formats, self.tied, self.style,
        )  # fmt: skip

    def padding_notes(self) -> tuple[str, ...]:
        """One note for each input width that is no multiple of 32."""
        widths = {"width": self.width, "attention width": self.heads * self.head_dim, "hidden": self.hidden}
        padded = {name: (size, -(-size // GROUP) * GROUP) for name, size in widths.items()}
        return tuple(f"{name} {size} is padded to {to}" for name, (size, to) in padded.items() if size != to)


def assemble(
    llama: Llama,
    weights: Mapping[str, Weight],
    tokenizer: Tokenizer | None,
    source: str,
    notes: tuple[str, ...] = (),
) -> Model:
    """The model. The weights have the shapes of `llama.shapes()`: importers check them before they read them."""
    assert weights.keys() == llama.shapes().keys(), "an importer left a weight out"
    matrices = {name: format_name(weight) for name, weight in weights.items() if len(weight.shape) == 2}
    graph = llama.graph(matrices)
    ((stored, _),) = Counter(matrices.values()).most_common(1)
    return Model(graph, weights, tokenizer, source, stored, (*notes, *llama.padding_notes()))


def format_name(weight: Weight) -> str:
    """The name of a weight's format: "f32" for floats."""
    return weight.format.name if isinstance(weight, Matrix) else "f32"


def check_shape(where: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise `BadInput` where a tensor has another shape than the hyperparameters ask for."""
    if found != wanted:
        raise BadInput(where, f"has shape {list(found)}, the hyperparameters ask for {list(wanted)}")
