"""Read a graph as what the chip runs: an embedding, layers of attention and gated feed-forward, a norm and a head.

Says by name what it does not understand; it never guesses.
"""

from dataclasses import dataclass

from tapeout.base.errors import BadInput
from tapeout.graph.types import Add, Attention, Embed, Graph, Linear, Op, RMSNorm, Rope, SwiGLU, op_inputs
from tapeout.isa.timing import ceil_div

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
"""The roles of a layer's matrices."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The weight names of one layer by role."""

    attn_norm: str
    ffn_norm: str
    matrices: dict[str, str]
    formats: tuple[str, ...]
    """Format of each of `MATRICES`, in order."""


@dataclass(frozen=True, slots=True)
class Run:
    """Layers first .. first+count-1 have the same shapes and formats: one loop of the program."""

    first: int
    count: int
    formats: dict[str, str]


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder-only transformer by its numbers. Widths are true widths; `padded` rounds up to groups of 32."""

    graph: Graph
    embed: str
    layers: tuple[Layer, ...]
    norm: str
    head: str
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    theta: float
    eps: float

    @property
    def vocabulary(self) -> int:
        """Token ids."""
        return self.graph.vocabulary

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share a KV head."""
        return self.heads // self.kv_heads

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

    def runs(self) -> tuple[Run, ...]:
        """Maximal runs of layers with equal formats."""
        runs: list[Run] = []
        for index, layer in enumerate(self.layers):
            formats = dict(zip(MATRICES, layer.formats, strict=True))
            if runs and runs[-1].formats == formats:
                runs[-1] = Run(runs[-1].first, runs[-1].count + 1, formats)
            else:
                runs.append(Run(index, 1, formats))
        return tuple(runs)


def padded(width: int) -> int:
    """Rounded up to whole groups of 32."""
    return ceil_div(width, 32) * 32


def read_decoder(graph: Graph) -> Decoder:
    """Recognise the graph. Raises `BadInput` naming the op that does not fit."""
    outside = [op for op in graph.ops if op.layer < 0]
    kinds = [type(op) for op in outside]
    if kinds != [Embed, RMSNorm, Linear]:
        raise BadInput(
            f"graph {graph.name}",
            f"outside its layers stand {', '.join(kind.__name__ for kind in kinds)}",
            "the compiler takes Embed, RMSNorm, Linear",
        )
    embed, norm, head = outside
    assert isinstance(embed, Embed), "checked above"
    assert isinstance(norm, RMSNorm), "checked above"
    assert isinstance(head, Linear), "checked above"
    parts = [_read_layer(graph, index) for index in range(graph.layers)]
    if not parts:
        raise BadInput(f"graph {graph.name}", "has no layers", "the compiler takes one or more")
    layers, numbers = tuple(layer for layer, _ in parts), {numbers for _, numbers in parts}
    if len(numbers) > 1 or next(iter(numbers))[-1] != norm.eps:
        raise BadInput(
            f"graph {graph.name}", "its layers differ in shape, theta or eps", "the compiler takes equal ones"
        )
    heads, kv_heads, head_dim, hidden, theta, eps = numbers.pop()
    return Decoder(
        graph, embed.table, layers, norm.weight, head.weight, graph.width(embed.out), heads, kv_heads, head_dim, hidden,
        theta, eps,
    )  # fmt: skip


SHAPE = (
    RMSNorm,
    Linear,
    Linear,
    Linear,
    Rope,
    Rope,
    Attention,
    Linear,
    Add,
    RMSNorm,
    Linear,
    Linear,
    SwiGLU,
    Linear,
    Add,
)


def _read_layer(graph: Graph, index: int) -> tuple[Layer, tuple[int, int, int, int, float, float]]:
    ops = [op for op in graph.ops if op.layer == index]
    kinds = tuple(type(op) for op in ops)
    if kinds != SHAPE:
        at = next(
            (i for i, (a, b) in enumerate(zip(kinds, SHAPE, strict=False)) if a is not b), min(len(kinds), len(SHAPE))
        )
        found = f"{kinds[at].__name__} {ops[at].out}" if at < len(ops) else "nothing"
        wanted = SHAPE[at].__name__ if at < len(SHAPE) else "nothing"
        raise BadInput(
            f"graph {graph.name}, layer {index}", f"op {at} is {found}", f"the compiler takes {wanted} there"
        )
    norm, q, k, v, q_rope, k_rope, attention, o, _, ffn_norm, gate, up, _, down, _ = ops
    _wired(graph, index, ops)
    for op, kind in ((norm, RMSNorm), (ffn_norm, RMSNorm), (attention, Attention), (q_rope, Rope), (k_rope, Rope)):
        assert isinstance(op, kind), "the shape of the layer was checked above"
    if q_rope.theta != k_rope.theta or norm.eps != ffn_norm.eps:
        raise BadInput(f"graph {graph.name}, layer {index}", "Q and K, or the two norms, differ in theta or eps")
    names = dict(
        zip(MATRICES, (op.weight for op in (q, k, v, o, gate, up, down) if isinstance(op, Linear)), strict=True)
    )
    formats = tuple(graph.weight(names[role]).format for role in MATRICES)
    numbers = (
        attention.heads, attention.kv_heads, attention.head_dim, graph.width(gate.out), q_rope.theta, norm.eps,
    )  # fmt: skip
    return Layer(norm.weight, ffn_norm.weight, names, formats), numbers


def _wired(graph: Graph, index: int, ops: list[Op]) -> None:
    """Every op of the layer reads what the template says it reads."""
    norm, q, k, v, q_rope, k_rope, attention, o, add, ffn_norm, gate, up, swiglu, down, add2 = ops
    x = norm.x  # type: ignore[union-attr]
    wanted = [
        (q, (norm.out,)), (k, (norm.out,)), (v, (norm.out,)), (q_rope, (q.out,)), (k_rope, (k.out,)),
        (attention, (q_rope.out, k_rope.out, v.out)), (o, (attention.out,)), (add, (x, o.out)), (ffn_norm, (add.out,)),
        (gate, (ffn_norm.out,)), (up, (ffn_norm.out,)), (swiglu, (gate.out, up.out)), (down, (swiglu.out,)),
        (add2, (add.out, down.out)),
    ]  # fmt: skip
    for op, inputs in wanted:
        if op_inputs(op) != inputs:
            raise BadInput(
                f"graph {graph.name}, layer {index}",
                f"{type(op).__name__} {op.out} reads {', '.join(op_inputs(op))}",
                f"the compiler takes {', '.join(inputs)} there",
            )
