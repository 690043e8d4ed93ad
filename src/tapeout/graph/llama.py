"""The graph of a decoder of Llama's shape, in one of its families' styles: what every importer calls once it has read the hyperparameters.

Weight names: `embed`, `positions`; per layer `layers.{i}.` + attn_norm, q, k, v, q_norm, k_norm, o, attn_post_norm, ffn_norm, gate, up,
down, ffn_post_norm, and those with `_bias` behind; `norm`, `norm_bias`; `head`, or `embed` again where head and embedding are tied.
Value names: `x0` (embedding); per layer `l{i}.` + attn_in, q, k, v, qr, kr, attn, o, x_mid, ffn_in, gate, up, h, down, x; then `final`
and `logits`. A value that is only on its way to one of these has a longer name. It builds and never checks.
"""

from collections.abc import Callable, Mapping

from tapeout.graph.style import LLAMA, Style
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
    WeightType,
)


def llama_graph(
    name: str,
    vocabulary: int,
    context: int,
    width: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    hidden: int,
    theta: float,
    eps: float,
    formats: Mapping[str, str],
    tied: bool,
    style: Style = LLAMA,
) -> Graph:
    """The graph; `formats` maps a weight's name to its format, and a name it lacks is "f32" (the norms)."""
    made = _Building(formats, style, width, eps)
    q_width, kv_width = heads * head_dim, kv_heads * head_dim
    x = made.embedding(vocabulary, context)
    for i in range(layers):
        v, w = f"l{i}.", f"layers.{i}."  # prefixes of this layer's values and weights
        norm = made.norm(x, v + "attn_in", w + "attn_norm", i)
        sizes = (("q", q_width), ("k", kv_width), ("v", kv_width))
        query, key, value = made.linears(norm, sizes, i, style.qkv_bias)
        if style.qk_norm:
            query = made.head_norm(query, v + "q_normed", w + "q_norm", heads, head_dim, i)
            key = made.head_norm(key, v + "k_normed", w + "k_norm", kv_heads, head_dim, i)
        local = style.local(i)
        if not style.positions:
            base = style.local_theta if local and style.local_theta else theta
            slower = () if local and style.local_theta else style.factors
            turn = (head_dim, base, i, style.rotary, slower)
            query = made.emit(Rope(query, v + "qr", heads, *turn), q_width)
            key = made.emit(Rope(key, v + "kr", kv_heads, *turn), kv_width)
        attention = Attention(
            query, key, value, v + "attn", heads, kv_heads, head_dim, i, style.window if local else 0, style.scalar,
            style.score_cap,
        )  # fmt: skip
        (out,) = made.linears(made.emit(attention, q_width), (("o", width),), i, style.biases)
        x = made.residual(x, out, v + "x_mid", w + "attn_post_norm", i)
        norm = made.norm(x, v + "ffn_in", w + "ffn_norm", i)
        product = made.feed_forward(norm, hidden, i)
        (down,) = made.linears(product, (("down", width),), i, style.biases)
        x = made.residual(x, down, v + "x", w + "ffn_post_norm", i)
    final = made.norm(x, "final", "norm", -1)
    head = "embed" if tied else made.weight("head", vocabulary, width)
    capped = bool(style.logit_cap)
    logits = made.emit(Linear(final, "logits.raw" if capped else "logits", head), vocabulary)
    if capped:
        made.emit(SoftCap(logits, "logits", style.logit_cap), vocabulary)
    return Graph(name, vocabulary, context, tuple(made.values), tuple(made.weights), tuple(made.ops), "logits")


class _Building:
    """A graph as it grows."""

    def __init__(self, formats: Mapping[str, str], style: Style, width: int, eps: float):
        self.formats, self.style, self.width, self.eps = formats, style, width, eps
        self.weights: list[WeightType] = []
        self.values: list[tuple[str, int]] = []
        self.ops: list[Op] = []
        self.widths: dict[str, int] = {}

    def weight(self, name: str, *shape: int) -> str:
        """Declare a weight."""
        self.weights.append(WeightType(name, shape, self.formats.get(name, "f32")))
        return name

    def emit(self, op: Op, width: int) -> str:
        """Append an op; the name of its value."""
        self.values.append((op.out, width))
        self.widths[op.out] = width
        self.ops.append(op)
        return op.out

    def embedding(self, vocabulary: int, context: int) -> str:
        """The residual as the layers get it."""
        steps: list[Callable[[str, str], Op]] = []
        if self.style.embed_scale != 1:
            steps.append(lambda x, out: Scale(x, out, self.style.embed_scale))
        if self.style.positions:
            steps.append(lambda x, out: AddPosition(x, out, self.weight("positions", context, self.width)))
        x = self.emit(Embed("x0.raw" if steps else "x0", self.weight("embed", vocabulary, self.width)), self.width)
        for at, step in enumerate(steps):
            x = self.emit(step(x, "x0" if at == len(steps) - 1 else f"x0.{at}"), self.width)
        return x

    def norm(self, x: str, out: str, name: str, layer: int) -> str:
        """The family's norm of the residual."""
        weight = self.weight(name, self.width)
        if self.style.layer_norm:
            op = LayerNorm(x, out, weight, self.weight(f"{name}_bias", self.width), self.eps, layer)
        else:
            op = RMSNorm(x, out, weight, self.eps, layer)
        return self.emit(op, self.width)

    def head_norm(self, x: str, out: str, name: str, heads: int, head_dim: int, layer: int) -> str:
        """The norm of every head of Q or K."""
        weight = self.weight(name, head_dim)
        return self.emit(HeadNorm(x, out, weight, heads, head_dim, self.eps, layer), heads * head_dim)

    def linears(self, x: str, roles: tuple[tuple[str, int], ...], layer: int, bias: bool) -> list[str]:
        """Matrices that read one vector, (role, rows) each, and behind them their biases."""
        names = [
            self.emit(
                Linear(
                    x,
                    f"l{layer}.{role}" + (".raw" if bias else ""),
                    self.weight(f"layers.{layer}.{role}", rows, self.widths[x]),
                    layer,
                ),
                rows,
            )
            for role, rows in roles
        ]
        if not bias:
            return names
        return [
            self.emit(AddBias(name, f"l{layer}.{role}", self.weight(f"layers.{layer}.{role}_bias", rows), layer), rows)
            for name, (role, rows) in zip(names, roles, strict=True)
        ]

    def feed_forward(self, x: str, hidden: int, layer: int) -> str:
        """What the last matrix of a layer reads."""
        style, out = self.style, f"l{layer}.h"
        if not style.gated:
            (up,) = self.linears(x, (("up", hidden),), layer, style.biases)
            return self.emit(Gelu(up, out, layer), hidden)
        gate, up = self.linears(x, (("gate", hidden), ("up", hidden)), layer, style.biases)
        kind = GeGLU if style.activation == "gelu" else SwiGLU
        return self.emit(kind(gate, up, out, layer), hidden)

    def residual(self, x: str, added: str, out: str, post_norm: str, layer: int) -> str:
        """x + added, or + its norm where the style has norms there."""
        if self.style.post_norms:
            added = self.emit(
                RMSNorm(added, f"{added}.normed", self.weight(post_norm, self.width), self.eps, layer), self.width
            )
        return self.emit(Add(x, added, out, layer), self.width)
