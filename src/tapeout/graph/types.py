"""What a model is: a list of ops over named per-token vectors, its weights, and a tokenizer.

A *value* is one vector per token, named, with a width. Ops stand in topological order and each writes one value. There is one
convention for RoPE everywhere behind the importers: the two halves of a rotated pair are neighbours (2k, 2k+1); importers
permute the rows of Q and K where a file says otherwise (exact: a permuted row keeps its codes and scales).

Quantization of activations is not an op: `Linear` quantizes its input and `Attention` its q, k and v, as docs/numerics.md says.
A graph whose matrices are float is run in float mode only; `check.py` says what may appear when.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tapeout.base.spec import fingerprint
from tapeout.numerics.formats import FORMATS, Format
from tapeout.numerics.scales import scale_values


@dataclass(frozen=True, slots=True)
class Embed:
    """out[token] = row `token_id` of `table` [vocabulary, width]."""

    out: str
    table: str
    layer: int = -1


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """out = x / sqrt(mean(x^2) + eps) * weight."""

    x: str
    out: str
    weight: str
    eps: float
    layer: int = -1


@dataclass(frozen=True, slots=True)
class Linear:
    """out = weight [rows, columns] @ x [columns]."""

    x: str
    out: str
    weight: str
    layer: int = -1


Turn = tuple[float, int, int, tuple[float, ...]]
"""The arguments of `rope_increments`: theta, head_dim, rotary, factors."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotate neighbours (2k, 2k+1) of every head by position * theta^(-2k/rotary) / factors[k]."""

    x: str
    out: str
    heads: int
    head_dim: int
    theta: float
    layer: int = -1
    rotary: int = 0
    """Numbers of a head that are rotated, the first ones; 0 for all."""
    factors: tuple[float, ...] = ()
    """How much slower each rotated pair turns; () where none does."""

    @property
    def turn(self) -> Turn:
        """What its angles depend on besides the position."""
        return self.theta, self.head_dim, self.rotary, self.factors


@dataclass(frozen=True, slots=True)
class Attention:
    """Causal grouped-query attention; query head h reads KV head h // (heads // kv_heads). Scores are q.k / sqrt(scalar)."""

    q: str
    k: str
    v: str
    out: str
    heads: int
    kv_heads: int
    head_dim: int
    layer: int = -1
    window: int = 0
    """A query at p attends to p-window+1..p; 0: to all up to its own."""
    scalar: float = 0.0
    """0: head_dim."""
    softcap: float = 0.0
    """Scores become softcap * tanh(score / softcap); 0: they stay."""
    kv: str = "int8"
    """How K and V are held: a name of `numerics.formats.KV_FORMATS`."""

    @property
    def scale_of(self) -> float:
        """The number whose square root divides the scores."""
        return self.scalar or float(self.head_dim)


@dataclass(frozen=True, slots=True)
class SwiGLU:
    """out = silu(gate) * up."""

    gate: str
    up: str
    out: str
    layer: int = -1


@dataclass(frozen=True, slots=True)
class GeGLU:
    """out = gelu(gate) * up, GELU by its tanh formula."""

    gate: str
    up: str
    out: str
    layer: int = -1


@dataclass(frozen=True, slots=True)
class Gelu:
    """out = gelu(x), by its tanh formula."""

    x: str
    out: str
    layer: int = -1


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias."""

    x: str
    out: str
    weight: str
    bias: str
    eps: float
    layer: int = -1


@dataclass(frozen=True, slots=True)
class HeadNorm:
    """RMSNorm of every head on its own, all with the one weight [head_dim]."""

    x: str
    out: str
    weight: str
    heads: int
    head_dim: int
    eps: float
    layer: int = -1


@dataclass(frozen=True, slots=True)
class AddBias:
    """out = x + bias."""

    x: str
    out: str
    bias: str
    layer: int = -1


@dataclass(frozen=True, slots=True)
class AddPosition:
    """out[token] = x[token] + row `position` of `table` [context, width]."""

    x: str
    out: str
    table: str
    layer: int = -1


@dataclass(frozen=True, slots=True)
class Scale:
    """out = x * factor."""

    x: str
    out: str
    factor: float
    layer: int = -1


@dataclass(frozen=True, slots=True)
class SoftCap:
    """out = cap * tanh(x / cap)."""

    x: str
    out: str
    cap: float
    layer: int = -1


@dataclass(frozen=True, slots=True)
class Add:
    """out = a + b."""

    a: str
    b: str
    out: str
    layer: int = -1


Op = (
    Embed | RMSNorm | Linear | Rope | Attention | SwiGLU | Add
    | GeGLU | Gelu | LayerNorm | HeadNorm | AddBias | AddPosition | Scale | SoftCap
)  # fmt: skip

INPUTS: dict[type, tuple[str, ...]] = {
    Embed: (), RMSNorm: ("x",), Linear: ("x",), Rope: ("x",),
    Attention: ("q", "k", "v"), SwiGLU: ("gate", "up"), Add: ("a", "b"),
    GeGLU: ("gate", "up"), Gelu: ("x",), LayerNorm: ("x",), HeadNorm: ("x",), AddBias: ("x",), AddPosition: ("x",),
    Scale: ("x",), SoftCap: ("x",),
}  # fmt: skip
"""The fields of each op that name values it reads, in order."""

WEIGHTS: dict[type, tuple[str, ...]] = {
    Embed: ("table",), RMSNorm: ("weight",), Linear: ("weight",), LayerNorm: ("weight", "bias"), HeadNorm: ("weight",),
    AddBias: ("bias",), AddPosition: ("table",),
}  # fmt: skip
"""The fields of each op that name weights."""


def op_inputs(op: Op) -> tuple[str, ...]:
    """The values an op reads."""
    return tuple(getattr(op, name) for name in INPUTS[type(op)])


def op_weights(op: Op) -> tuple[str, ...]:
    """The weights an op reads."""
    return tuple(getattr(op, name) for name in WEIGHTS.get(type(op), ()))


@dataclass(frozen=True, slots=True)
class Matrix:
    """A quantized matrix. value[r, c] = factor * (scale[r, c//group] * (code[r, c] + offset) + minimum[r, c//group]).

    codes: int8 [rows, columns], within the format's range (Q4_1's 0..15 is carried as -8..7 with the format's offset 8).
    scale, minimum: [rows, ceil(columns/group)], finite, of the type that the format's kind of scale has: float16, or bits (see
    numerics/scales.py); minimum is None where the format has none. factor: a binary32 number, 1 where the format has none.
    """

    format: Format
    codes: NDArray[np.int8]
    scale: NDArray
    minimum: NDArray | None = None
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.codes.shape[0], self.codes.shape[1]

    def to_float(self, dtype: type = np.float32) -> NDArray:
        """The dequantized matrix [rows, columns]: the self that every loss is told against."""
        columns = self.shape[1]
        codes = self.codes.astype(dtype) + dtype(self.format.offset)
        kind, group = self.format.scale, self.format.group
        scale = np.repeat(scale_values(kind, self.scale, dtype), group, axis=1)[:, :columns]
        out = codes * scale
        if self.minimum is not None:
            out += np.repeat(scale_values(kind, self.minimum, dtype), group, axis=1)[:, :columns]
        return out if self.factor == 1.0 else out * dtype(self.factor)


Weight = Matrix | NDArray[np.float32]
"""A quantized matrix, a float matrix [rows, columns] (float mode only) or a float vector (norms)."""


def as_float(weight: Weight) -> NDArray[np.float32]:
    """Any weight's numbers in binary32."""
    return weight.to_float() if isinstance(weight, Matrix) else weight


@dataclass(frozen=True, slots=True)
class WeightType:
    """Shape and format of one weight: "f32" for floats, else a name of `FORMATS`."""

    name: str
    shape: tuple[int, ...]
    format: str

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape))

    @property
    def stored_bytes(self) -> int:
        """Bytes of codes, scales and minima (float weights as 4-byte numbers); tables and padding not counted."""
        if self.format == "f32":
            return 4 * self.parameters
        form = FORMATS[self.format]
        rows, columns = self.shape
        groups = -(-columns // form.group)
        scale_bits = form.scale_bits * (2 if form.has_minimum else 1)
        return rows * ((columns * form.code_bits + 7) // 8 + (groups * scale_bits + 7) // 8) + 4 * form.has_factor


@dataclass(frozen=True, slots=True)
class Graph:
    """A model without its numbers."""

    name: str
    vocabulary: int
    context: int
    values: tuple[tuple[str, int], ...]
    """(name, width) of every value."""
    weights: tuple[WeightType, ...]
    ops: tuple[Op, ...]
    output: str
    """The value that holds the logits."""

    def width(self, value: str) -> int:
        """Width of a value. Raises KeyError."""
        return dict(self.values)[value]

    def weight(self, name: str) -> WeightType:
        """The type of a weight. Raises KeyError."""
        return {weight.name: weight for weight in self.weights}[name]

    @property
    def head(self) -> str:
        """The value that the last matrix writes: the logits, before any cap. From it on only wanted tokens are computed."""
        capped = {op.out: op.x for op in self.ops if isinstance(op, SoftCap)}
        return capped.get(self.output, self.output)

    @property
    def layers(self) -> int:
        """How many layers the ops are tagged with."""
        return max((op.layer for op in self.ops), default=-1) + 1

    @property
    def parameters(self) -> int:
        """How many numbers all weights hold."""
        return sum(weight.parameters for weight in self.weights)

    def __str__(self) -> str:
        lines = [
            f"graph {self.name}: vocabulary {self.vocabulary}, context {self.context}, {self.parameters:,} parameters"
        ]
        width = dict(self.values)
        for op in self.ops:
            where = "      " if op.layer < 0 else f"L{op.layer:<4d} "
            args = ", ".join((*op_inputs(op), *op_weights(op)))
            lines.append(f"{where}{op.out}[{width[op.out]}] = {type(op).__name__.lower()}({args})")
        return "\n".join(lines)


class Tokenizer(Protocol):
    """Text to token ids and back."""

    end_ids: frozenset[int]
    """Ids that end a text."""
    has_chat: bool
    """Whether the model carries a chat template."""

    def encode(self, text: str, begin: bool = True) -> list[int]:
        """Token ids of `text`; with the begin-of-text token in front where the model has one and `begin` is set."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out."""
        ...

    def chat(self, prompt: str) -> str:
        """`prompt` as one user message in the model's own chat template, ready to be answered."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """A graph, its weights, and the tokenizer where there is one. Weights are absent in a shape-only model."""

    graph: Graph
    weights: Mapping[str, Weight] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    source: str = ""
    """Where it came from, for the report."""
    stored: str = "f32"
    """Format of the file's matrices: what `--weights stored` means."""
    notes: tuple[str, ...] = ()
    """What the importer wants the report to say (padding, permuted rows)."""

    def fingerprint(self) -> str:
        """16 hex digits over the graph (its name and numbers aside, weights are told by their types)."""
        return fingerprint(str(self.graph) + repr(self.graph))
