"""Read a graph as what the chip runs: an embedding, layers of attention and feed-forward, a norm and a head.

Says by name what it does not understand; it never guesses.
"""

from dataclasses import dataclass
from typing import Any

from tapeout.base.errors import BadInput
from tapeout.graph.types import (
    Add,
    AddBias,
    AddPosition,
    Attention,
    Embed,
    GeGLU,
    Gelu,
    Graph,
    HeadNorm,
    LayerNorm,
    Linear,
    Op,
    RMSNorm,
    Rope,
    Scale,
    SoftCap,
    SwiGLU,
    Turn,
    op_inputs,
)
from tapeout.isa.timing import ceil_div
from tapeout.numerics.formats import KV_FORMATS, KvFormat

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
"""The roles of a layer's matrices; "gate" is missing where the feed-forward has none."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The weight names of one layer by role."""

    attn_norm: tuple[str, ...]
    """Weight, and the bias where it has one."""
    ffn_norm: tuple[str, ...]
    matrices: dict[str, str]
    formats: tuple[str, ...]
    """Format of each of `matrices`, in order."""
    biases: dict[str, str]
    """By the role of their matrix."""
    norms: dict[str, str]
    """Of heads (q_norm, k_norm), and of what is added to the residual (attn_post_norm, ffn_post_norm)."""
    window: int
    turn: Turn | None
    """None: Q and K are not rotated."""


@dataclass(frozen=True, slots=True)
class Run:
    """Layers first .. first+count-1 have the same shapes, formats, window and rotation: one loop of the program."""

    first: int
    count: int
    formats: dict[str, str]
    window: int = 0
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder-only transformer by its numbers. Widths are true widths; `padded` rounds up to groups of 32."""

    graph: Graph
    embed: str
    layers: tuple[Layer, ...]
    norm: tuple[str, ...]
    head: str
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    eps: float
    activation: type
    """SwiGLU, GeGLU or Gelu."""
    scalar: float
    """Scores are divided by its square root."""
    score_cap: float
    kv: KvFormat
    positions: str
    """The table of learned positions, or ""."""
    embed_scale: float
    logit_cap: float
    """0: no cap."""

    @property
    def vocabulary(self) -> int:
        """Token ids."""
        return self.graph.vocabulary

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share a KV head."""
        return self.heads // self.kv_heads

    @property
    def key_bytes(self) -> int:
        """Of a key record: codes, n, e, and n, e of its value."""
        return self.head_dim * self.kv.key_bits // 8 + 4

    @property
    def value_bytes(self) -> int:
        """Of a value record: codes, n, e."""
        return self.head_dim * self.kv.value_bits // 8 + 2

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of `MATRICES` that its layers have."""
        return tuple(self.layers[0].matrices)

    @property
    def biased(self) -> tuple[str, ...]:
        """The roles that have a bias."""
        return tuple(self.layers[0].biases)

    @property
    def norm_bytes(self) -> int:
        """Of a norm of the residual: its weight, and behind it its bias where it has one."""
        return 4 * self.width * len(self.norm)

    @property
    def turns(self) -> tuple[Turn | None, ...]:
        """The rotations of its layers, each once."""
        return tuple(dict.fromkeys(layer.turn for layer in self.layers))

    def rows(self, role: str) -> int:
        """Output rows of a matrix role."""
        kv = self.kv_heads * self.head_dim
        return {
            "q": self.heads * self.head_dim, "k": kv, "v": kv, "o": self.width, "gate": self.hidden, "up": self.hidden,
            "down": self.width,
        }[role]  # fmt: skip

    def columns(self, role: str) -> int:
        """Input columns of a matrix role."""
        return {"o": self.heads * self.head_dim, "down": self.hidden}.get(role, self.width)

    def vectors(self) -> tuple[tuple[str, int], ...]:
        """(name, bytes) of what every tile holds whole in a layer: norms. `next_norm` is the one behind the layer."""
        sizes = {"q_norm": 4 * self.head_dim, "k_norm": 4 * self.head_dim}
        own = tuple((name, sizes.get(name, 4 * self.width)) for name in self.layers[0].norms)
        return (("ffn_norm", self.norm_bytes), ("next_norm", self.norm_bytes), *own)

    def runs(self) -> tuple[Run, ...]:
        """Maximal runs of layers with equal formats, windows and rotations."""
        runs: list[Run] = []
        for index, layer in enumerate(self.layers):
            formats = dict(zip(self.roles, layer.formats, strict=True))
            last = runs[-1] if runs else None
            if last and (last.formats, last.window, last.turn) == (formats, layer.window, layer.turn):
                runs[-1] = Run(last.first, last.count + 1, formats, layer.window, layer.turn)
            else:
                runs.append(Run(index, 1, formats, layer.window, layer.turn))
        return tuple(runs)


def padded(width: int) -> int:
    """Rounded up to whole groups of 32."""
    return ceil_div(width, 32) * 32


def read_decoder(graph: Graph) -> Decoder:
    """Recognise the graph. Raises `BadInput` naming the op that does not fit."""
    outside = _Reader(graph, [op for op in graph.ops if op.layer < 0], f"graph {graph.name}, outside its layers")
    embed = outside.take((Embed,), ())
    scale = outside.maybe((Scale,), (embed.out,))
    positions = outside.maybe((AddPosition,), ((scale or embed).out,))
    norm = outside.take((RMSNorm, LayerNorm), None)
    head = outside.take((Linear,), (norm.out,))
    cap = outside.maybe((SoftCap,), (head.out,))
    outside.end()
    parts = [_read_layer(graph, index) for index in range(graph.layers)]
    if not parts:
        raise BadInput(f"graph {graph.name}", "has no layers", "the compiler takes one or more")
    layers = tuple(layer for layer, _ in parts)
    kinds = {
        (*numbers, *layer.matrices, *layer.biases, *layer.norms, *map(type, (layer.turn,))) for layer, numbers in parts
    }
    numbers = parts[0][1]
    if len(kinds) > 1 or numbers[-1] != norm.eps or len(layers[0].attn_norm) != len(_norm_names(norm)):
        raise BadInput(
            f"graph {graph.name}", "its layers differ in shape, norms, biases or eps", "the compiler takes equal ones"
        )
    heads, kv_heads, head_dim, hidden, activation, scalar, score_cap, kv, eps = numbers
    if KV_FORMATS[kv].value_bits < 8 and head_dim % 4:
        raise BadInput(
            f"graph {graph.name}",
            f"K and V in {kv} and heads of {head_dim}",
            "codes of 4 bits need a multiple of 4; or take --kv int8",
        )
    return Decoder(
        graph, embed.table, layers, _norm_names(norm), head.weight, graph.width(embed.out), heads, kv_heads, head_dim,
        hidden, eps, activation, scalar, score_cap, KV_FORMATS[kv], positions.table if positions else "", scale.factor if scale else 1.0,
        cap.cap if cap else 0.0,
    )  # fmt: skip


def _norm_names(norm: Any) -> tuple[str, ...]:
    return (norm.weight, norm.bias) if isinstance(norm, LayerNorm) else (norm.weight,)


class _Reader:
    """Ops in order, taken one by one."""

    def __init__(self, graph: Graph, ops: list[Op], where: str):
        self.graph, self.ops, self.where, self.at = graph, ops, where, 0

    def take(self, kinds: tuple[type, ...], inputs: tuple[str, ...] | None) -> Any:
        """The next op, which must be of one of `kinds` and read `inputs` (None: whatever)."""
        op = self.maybe(kinds, inputs)
        if op is None:
            found = self._next()
            shown = "nothing" if found is None else f"{type(found).__name__} {found.out}"
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise BadInput(self.where, f"op {self.at} is {shown}", f"the compiler takes {wanted} there")
        return op

    def maybe(self, kinds: tuple[type, ...], inputs: tuple[str, ...] | None) -> Any:
        """The next op if it is of one of `kinds`, else None."""
        op = self._next()
        if not isinstance(op, kinds):
            return None
        if inputs is not None and op_inputs(op) != inputs:
            raise BadInput(
                self.where,
                f"{type(op).__name__} {op.out} reads {', '.join(op_inputs(op))}",
                f"the compiler takes {', '.join(inputs)} there",
            )
        self.at += 1
        return op

    def end(self) -> None:
        """No op is left."""
        left = self._next()
        if left is not None:
            raise BadInput(
                self.where, f"op {self.at} is {type(left).__name__} {left.out}", "the compiler takes nothing there"
            )

    def _next(self) -> Op | None:
        return self.ops[self.at] if self.at < len(self.ops) else None


class _LayerReader(_Reader):
    """A layer as it is read: matrices, biases and norms by role."""

    def __init__(self, graph: Graph, index: int):
        ops = [op for op in graph.ops if op.layer == index]
        super().__init__(graph, ops, f"graph {graph.name}, layer {index}")
        self.matrices: dict[str, str] = {}
        self.biases: dict[str, str] = {}
        self.norms: dict[str, str] = {}

    def linears(self, x: str, *roles: str) -> list[str]:
        """Matrices that read x, and the biases behind them; the names of their values."""
        outs = {}
        for role in roles:
            op = self.take((Linear,), (x,))
            self.matrices[role], outs[role] = op.weight, op.out
        for role in roles:
            if op := self.maybe((AddBias,), (outs[role],)):
                self.biases[role], outs[role] = op.bias, op.out
        return list(outs.values())

    def post_norm(self, name: str, x: str, eps: float) -> str:
        """The norm of what is added to the residual, where there is one."""
        if op := self.maybe((RMSNorm,), (x,)):
            self.same_eps(op, eps)
            self.norms[name] = op.weight
        return op.out if op else x

    def head_norm(self, name: str, x: str, eps: float) -> str:
        """The norm of the heads of Q or K, where there is one."""
        if op := self.maybe((HeadNorm,), (x,)):
            self.same_eps(op, eps)
            self.norms[name] = op.weight
        return op.out if op else x

    def same_eps(self, op: Any, eps: float) -> None:
        """Norms of one layer have one eps."""
        if op.eps != eps:
            raise BadInput(self.where, f"{op.out} has eps {op.eps}", f"the compiler takes one for all norms: {eps}")


def _read_layer(graph: Graph, index: int) -> tuple[Layer, tuple]:
    """A layer's weights, and the numbers in which all layers must be equal."""
    read = _LayerReader(graph, index)
    norm = read.take((RMSNorm, LayerNorm), None)
    q, k, v = read.linears(norm.out, "q", "k", "v")
    q = read.head_norm("q_norm", q, norm.eps)
    k = read.head_norm("k_norm", k, norm.eps)
    q, k, turn = _read_turn(read, q, k)
    attention = read.take((Attention,), (q, k, v))
    (o,) = read.linears(attention.out, "o")
    o = read.post_norm("attn_post_norm", o, norm.eps)
    add = read.take((Add,), (norm.x, o))
    ffn_norm = read.take((RMSNorm, LayerNorm), (add.out,))
    read.same_eps(ffn_norm, norm.eps)
    gated = any(isinstance(op, SwiGLU | GeGLU) for op in read.ops)
    inner = read.linears(ffn_norm.out, *(("gate", "up") if gated else ("up",)))
    product = read.take((SwiGLU, GeGLU) if gated else (Gelu,), tuple(inner))
    (down,) = read.linears(product.out, "down")
    down = read.post_norm("ffn_post_norm", down, norm.eps)
    read.take((Add,), (add.out, down))
    read.end()
    layer = Layer(
        _norm_names(norm), _norm_names(ffn_norm), read.matrices,
        tuple(graph.weight(name).format for name in read.matrices.values()), read.biases, read.norms, attention.window, turn,
    )  # fmt: skip
    numbers = (
        attention.heads, attention.kv_heads, attention.head_dim, graph.width(product.out), type(product),
        attention.scale_of, attention.softcap, attention.kv, norm.eps,
    )  # fmt: skip
    return layer, numbers


def _read_turn(read: _LayerReader, q: str, k: str) -> tuple[str, str, Turn | None]:
    """What attention reads as Q and K, and how they are rotated on the way."""
    q_rope = read.maybe((Rope,), (q,))
    if q_rope is None:
        return q, k, None
    k_rope = read.take((Rope,), (k,))
    if q_rope.turn != k_rope.turn:
        raise BadInput(read.where, "Q and K differ in theta or how they are rotated", "the compiler takes equal ones")
    return q_rope.out, k_rope.out, q_rope.turn
