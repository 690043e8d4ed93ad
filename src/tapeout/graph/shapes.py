"""Models as shapes: the widths of a decoder, and what follows from them - parameters, FLOPs, bytes of weights and KV cache.

A `ModelShape` comes from data/models/shapes.yaml, one row per published model, or from a graph of ours (`shape_of`). `estimate`
reads nothing else of a model. It holds no numbers of the weights and never runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tapeout.base.errors import BadInput
from tapeout.base.spec import Spec
from tapeout.graph.types import AddPosition, Attention, Embed, GeGLU, Gelu, Graph, HeadNorm, LayerNorm, Linear, SwiGLU

FILE = Path(__file__).parent.parent / "data" / "models" / "shapes.yaml"

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Kind = Literal["attention", "feed_forward", "head", "embedding"]
Split = Literal["column", "row", "whole"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights [outputs, inputs] that stand in `copies` layers, in each once per expert.

    split says how tensor parallelism cuts it (Megatron): "column" shares out the outputs; "row" shares out the inputs, and its
    partial sums are what a collective adds; "whole" stands on every chip. An "embedding" is looked up, not multiplied with; a
    table that is also the head is listed once, as the head.
    """

    name: str
    outputs: int
    inputs: int
    copies: int
    experts: int
    """How many there are in a layer; 1 where it is no expert."""
    used: int
    """How many of them a token uses."""
    kind: Kind
    split: Split

    @property
    def parameters(self) -> int:
        """Weights over all layers and experts."""
        return self.outputs * self.inputs * self.copies * self.experts

    @property
    def macs(self) -> int:
        """Multiply-accumulates per token over all layers."""
        return 0 if self.kind == "embedding" else self.outputs * self.inputs * self.copies * self.used


class LatentAttention(Spec):
    """Multi-head latent attention: a token keeps kv_rank + rope_width numbers per layer, shared by all heads."""

    q_rank: Count
    kv_rank: Count
    rope_width: Count
    nope_width: Count
    value_width: Count


class Active(Spec):
    """A published count of the parameters that a token uses."""

    parameters: Count
    with_embedding: bool = False
    """Whether it counts the whole embedding table."""


class ModelShape(Spec):
    """The widths of a decoder-only transformer."""

    name: str
    aliases: tuple[str, ...] = ()
    source: str = ""
    note: str = ""
    published_parameters: Natural = 0
    """0: nobody published a count."""
    published_active: Active | None = None
    hardwired: tuple[str, ...] = ()
    """Chips of the catalogue that hold this model, and no other, in their masks."""

    layers: Count
    width: Count
    heads: Count
    kv_heads: Count
    head_width: Count
    hidden: Natural = 0
    """Of the dense feed-forward; 0 where every layer has experts."""
    vocabulary: Count
    context: Count
    gated: bool = True
    """Two matrices in, gate and up; else one."""
    activation: Literal["silu", "gelu"] = "silu"
    tied: bool = False
    """The embedding table is the head."""

    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    sinks: bool = False
    """One learned attention sink per head and layer."""
    layer_norm: bool = False
    """Norms have a weight and a bias; else they are RMSNorms."""
    hidden_bias: bool = False
    """The dense feed-forward's matrices have biases."""
    post_norms: bool = False
    """What attention and feed-forward add to the residual is normed, too."""
    learned_positions: bool = False
    """A table of one vector per position."""
    parallel_block: bool = False
    """Attention and feed-forward read the same norm: one norm and one collective per layer."""

    experts: Natural = 0
    experts_used: Natural = 0
    expert_hidden: Natural = 0
    shared_hidden: Natural = 0
    """Of the experts that every token uses, together."""
    dense_layers: Natural = 0
    """First layers that have a dense feed-forward instead of experts."""
    expert_format: str = ""
    """The format that the experts were released in, where all else was released in 16 bits."""
    router_bias: bool = False
    expert_bias: bool = False

    mla: LatentAttention | None = None
    window: Natural = 0
    """Tokens that a windowed layer attends to; 0: no layer is windowed."""
    windowed_layers: Natural = 0

    @model_validator(mode="after")
    def _consistent(self) -> "ModelShape":
        if bool(self.experts) != bool(self.expert_hidden) or bool(self.experts) != bool(self.experts_used):
            raise ValueError("experts, experts_used and expert_hidden go together")
        if self.experts_used > self.experts:
            raise ValueError(f"experts_used is {self.experts_used}, but there are {self.experts} experts")
        if bool(self.hidden) != bool(self._dense):
            raise ValueError(f"hidden is {self.hidden}, but {self._dense} layers have a dense feed-forward")
        if bool(self.window) != bool(self.windowed_layers) or self.windowed_layers > self.layers:
            raise ValueError(f"window {self.window} and windowed_layers {self.windowed_layers} do not go together")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads do not share {self.kv_heads} KV heads evenly")
        return self

    @property
    def _dense(self) -> int:
        """Layers with a dense feed-forward."""
        return self.dense_layers if self.experts else self.layers

    @property
    def expert_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self._dense

    @property
    def collectives_per_layer(self) -> int:
        """Sums over the chips of a tensor-parallel group, per layer."""
        return 1 if self.parallel_block else 2

    def matrices(self) -> tuple[Matrix, ...]:
        """Every weight matrix, in the order of the data: embedding, attention, feed-forward, head."""
        rows = [] if self.tied else [Matrix("embed", self.vocabulary, self.width, 1, 1, 1, "embedding", "column")]
        rows += self._attention()
        rows += self._feed_forward("", self.hidden, self._dense, 1, 1)
        if self.experts:
            layers = self.expert_layers
            rows.append(Matrix("router", self.experts, self.width, layers, 1, 1, "feed_forward", "whole"))
            rows += self._feed_forward("expert_", self.expert_hidden, layers, self.experts, self.experts_used)
            rows += self._feed_forward("shared_", self.shared_hidden, layers, 1, 1)
        rows.append(Matrix("head", self.vocabulary, self.width, 1, 1, 1, "head", "column"))
        return tuple(rows)

    def _attention(self) -> list[Matrix]:
        def row(name: str, outputs: int, inputs: int, split: Split) -> Matrix:
            return Matrix(name, outputs, inputs, self.layers, 1, 1, "attention", split)

        if self.mla is None:
            q, kv = self.heads * self.head_width, self.kv_heads * self.head_width
            return [
                row("q", q, self.width, "column"),
                row("k", kv, self.width, "column"),
                row("v", kv, self.width, "column"),
                row("o", self.width, q, "row"),
            ]
        mla, heads = self.mla, self.heads
        return [
            row("q_down", mla.q_rank, self.width, "whole"),
            row("q_up", heads * (mla.nope_width + mla.rope_width), mla.q_rank, "column"),
            row("kv_down", mla.kv_rank + mla.rope_width, self.width, "whole"),
            row("kv_up", heads * (mla.nope_width + mla.value_width), mla.kv_rank, "column"),
            row("o", self.width, heads * mla.value_width, "row"),
        ]

    def _feed_forward(self, prefix: str, hidden: int, layers: int, experts: int, used: int) -> list[Matrix]:
        def row(name: str, outputs: int, inputs: int, split: Split) -> Matrix:
            return Matrix(prefix + name, outputs, inputs, layers, experts, used, "feed_forward", split)

        if not hidden:
            return []
        gate = [row("gate", hidden, self.width, "column")] if self.gated else []
        return [*gate, row("up", hidden, self.width, "column"), row("down", self.width, hidden, "row")]

    def _vectors(self, experts: int) -> int:
        """Parameters outside the matrices - norms, biases, sinks - with this many experts per layer."""
        per_norm = self.width * (2 if self.layer_norm else 1)
        layer = per_norm * self.collectives_per_layer
        layer += 2 * self.head_width if self.qk_norm else 0
        layer += self.mla.q_rank + self.mla.kv_rank if self.mla else 0
        layer += (self.heads + 2 * self.kv_heads) * self.head_width if self.qkv_bias else 0
        layer += self.width if self.out_bias else 0
        layer += self.heads if self.sinks else 0
        layer += 2 * self.width if self.post_norms else 0
        layer += self.hidden * (2 if self.gated else 1) + self.width if self.hidden_bias else 0
        table = self.context * self.width if self.learned_positions else 0
        expert = self.expert_hidden * (2 if self.gated else 1) + self.width if self.expert_bias else 0
        routed = experts * expert + (self.experts if self.router_bias else 0)
        return per_norm + table + self.layers * layer + self.expert_layers * routed

    @property
    def parameters(self) -> int:
        """Every number of the model."""
        return sum(matrix.parameters for matrix in self.matrices()) + self._vectors(self.experts)

    @property
    def active_parameters(self) -> int:
        """The numbers that one token is computed with: unused experts and a separate embedding table are not."""
        return sum(matrix.macs for matrix in self.matrices()) + self._vectors(self.experts_used)

    @property
    def embedding_parameters(self) -> int:
        """Of the table that is only looked up; 0 where it is the head too."""
        return sum(matrix.parameters for matrix in self.matrices() if matrix.kind == "embedding")

    def tokens_kept(self, context: int) -> int:
        """Tokens in the KV cache at this context, summed over the layers: a windowed layer keeps at most its window."""
        windowed = self.windowed_layers * min(context, self.window)
        return (self.layers - self.windowed_layers) * context + windowed

    def attention_flops(self, context: int, prefill: bool = False) -> int:
        """Of scores and weighted values for one token that attends to `context` tokens; 2 per multiply-accumulate.

        Latent attention decodes in the compressed space (scores over kv_rank + rope_width, values over kv_rank) and prefills in
        the heads' own (nope_width + rope_width and value_width). Either way `kv_up` is multiplied with once per token.
        """
        if self.mla is None:
            per_pair = 2 * self.head_width
        elif prefill:
            per_pair = self.mla.nope_width + self.mla.rope_width + self.mla.value_width
        else:
            per_pair = 2 * self.mla.kv_rank + self.mla.rope_width
        return 2 * self.heads * per_pair * self.tokens_kept(context)

    def flops_per_token(self, context: int) -> int:
        """Of one decoded token at this context: matrices and attention; 2 per multiply-accumulate. Norms are not counted."""
        return 2 * sum(matrix.macs for matrix in self.matrices()) + self.attention_flops(context)

    def weight_bytes(self, bytes_per_weight: float) -> float:
        """Bytes of all parameters."""
        return self.parameters * bytes_per_weight

    @property
    def kept_per_layer(self) -> int:
        """Numbers that one token keeps in one layer."""
        return self.mla.kv_rank + self.mla.rope_width if self.mla else 2 * self.kv_heads * self.head_width

    def kv_values_per_token(self) -> int:
        """Numbers that one token adds to the KV cache, over all layers."""
        return self.layers * self.kept_per_layer

    def kv_values(self, context: int) -> int:
        """Numbers in the KV cache of one sequence at this context: windowed layers keep at most their window."""
        return self.kept_per_layer * self.tokens_kept(context)


class Shapes(Spec):
    """The file: every published model, by name."""

    shapes: tuple[ModelShape, ...]


@cache
def _by_name() -> dict[str, ModelShape]:
    """Name or alias -> shape, in the order of the file."""
    table: dict[str, ModelShape] = {}
    for shape in Shapes.from_file(FILE).shapes:
        for name in (shape.name, *shape.aliases):
            assert name not in table, f"two shapes are called {name}"
            table[name] = shape
    return table


def shape_names() -> tuple[str, ...]:
    """The published models, in the order of the file; aliases left out."""
    return tuple(name for name, shape in _by_name().items() if shape.name == name)


def has_shape(name: str) -> bool:
    """Whether `load_shape` knows this name."""
    return _plain(name) in _by_name()


def load_shape(name: str) -> ModelShape:
    """A published model by name or alias; case, owner ("meta-llama/") and a remark in brackets are ignored. Raises `BadInput`."""
    if (shape := _by_name().get(_plain(name))) is not None:
        return shape
    raise BadInput("model", f"{name!r} is no known shape", nearest(name, _by_name()))


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say to somebody whose name is unknown: up to five that look like it."""
    near = get_close_matches(_plain(name), list(known), n=5, cutoff=0.5)
    return f"nearest: {', '.join(near)}" if near else "`tapeout models` lists the names"


def _plain(name: str) -> str:
    """A name as the table spells it."""
    return name.split("(")[0].strip().lower().rsplit("/", 1)[-1].replace(" ", "-").replace("_", "-")


def shape_of(graph: Graph) -> ModelShape:
    """The shape of a graph of ours. Raises `BadInput` where it is no uniform decoder, or has weights that no shape tells of."""
    tables = [op for op in graph.ops if isinstance(op, Embed)]
    mixers = {(op.heads, op.kv_heads, op.head_dim) for op in graph.ops if isinstance(op, Attention)}
    hiddens = {graph.width(op.out) for op in graph.ops if isinstance(op, SwiGLU | GeGLU | Gelu)}
    kinds, names = {type(op) for op in graph.ops}, [weight.name for weight in graph.weights]
    windows = [op.window for op in graph.ops if isinstance(op, Attention) and op.window]
    if len(tables) != 1 or len(mixers) != 1 or len(hiddens) != 1:
        raise BadInput(graph.name, "is no uniform decoder: its layers differ, or it has none")
    heads, kv_heads, head_width = next(iter(mixers))
    head = next(op.weight for op in graph.ops if isinstance(op, Linear) and op.out == graph.head)
    shape = ModelShape(
        name=graph.name,
        layers=graph.layers,
        width=graph.width(tables[0].out),
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        hidden=next(iter(hiddens)),
        vocabulary=graph.vocabulary,
        context=graph.context,
        tied=head == tables[0].table,
        gated=Gelu not in kinds,
        activation="silu" if SwiGLU in kinds else "gelu",
        qkv_bias=any(name.endswith(".q_bias") for name in names),
        out_bias=any(name.endswith(".o_bias") for name in names),
        hidden_bias=any(name.endswith(".down_bias") for name in names),
        post_norms=any(name.endswith("_post_norm") for name in names),
        learned_positions=AddPosition in kinds,
        qk_norm=HeadNorm in kinds,
        layer_norm=LayerNorm in kinds,
        window=max(windows, default=0),
        windowed_layers=len(windows),
    )
    if shape.parameters != graph.parameters:
        raise BadInput(
            graph.name, f"has {graph.parameters:,} parameters where a decoder of its widths has {shape.parameters:,}"
        )
    return shape
