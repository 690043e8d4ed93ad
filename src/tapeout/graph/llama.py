"""The graph of a Llama-shaped decoder: what every importer of that family calls once it has read the hyperparameters.

Weight names: `embed`; per layer `layers.{i}.` + attn_norm, q, k, v, o, ffn_norm, gate, up, down; `norm`; `head`, or
`embed` again where head and embedding are tied. Value names: `x0` (embedding); per layer `l{i}.` + attn_in, q, k, v,
qr, kr, attn, o, x_mid, ffn_in, gate, up, h, down, x; then `final` and `logits`. It builds and never checks.
"""

from collections.abc import Mapping

from tapeout.graph.types import Add, Attention, Embed, Graph, Linear, Op, RMSNorm, Rope, SwiGLU, WeightType


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
) -> Graph:
    """The graph; `formats` maps a weight's name to its format, and a name it lacks is "f32" (the norms)."""
    q_width, kv_width = heads * head_dim, kv_heads * head_dim
    weights: list[WeightType] = []
    values: list[tuple[str, int]] = []
    ops: list[Op] = []

    def weight(weight_name: str, *shape: int) -> str:
        weights.append(WeightType(weight_name, shape, formats.get(weight_name, "f32")))
        return weight_name

    def emit(op: Op, op_width: int) -> str:
        values.append((op.out, op_width))
        ops.append(op)
        return op.out

    x = emit(Embed("x0", weight("embed", vocabulary, width)), width)
    for i in range(layers):
        v, w = f"l{i}.", f"layers.{i}."  # prefixes of this layer's values and weights
        norm = emit(RMSNorm(x, v + "attn_in", weight(w + "attn_norm", width), eps, i), width)
        query = emit(Linear(norm, v + "q", weight(w + "q", q_width, width), i), q_width)
        key = emit(Linear(norm, v + "k", weight(w + "k", kv_width, width), i), kv_width)
        value = emit(Linear(norm, v + "v", weight(w + "v", kv_width, width), i), kv_width)
        query = emit(Rope(query, v + "qr", heads, head_dim, theta, i), q_width)
        key = emit(Rope(key, v + "kr", kv_heads, head_dim, theta, i), kv_width)
        mixed = emit(Attention(query, key, value, v + "attn", heads, kv_heads, head_dim, i), q_width)
        out = emit(Linear(mixed, v + "o", weight(w + "o", width, q_width), i), width)
        x = emit(Add(x, out, v + "x_mid", i), width)
        norm = emit(RMSNorm(x, v + "ffn_in", weight(w + "ffn_norm", width), eps, i), width)
        gate = emit(Linear(norm, v + "gate", weight(w + "gate", hidden, width), i), hidden)
        up = emit(Linear(norm, v + "up", weight(w + "up", hidden, width), i), hidden)
        product = emit(SwiGLU(gate, up, v + "h", i), hidden)
        down = emit(Linear(product, v + "down", weight(w + "down", width, hidden), i), width)
        x = emit(Add(x, down, v + "x", i), width)
    final = emit(RMSNorm(x, "final", weight("norm", width), eps), width)
    head = "embed" if tied else weight("head", vocabulary, width)
    emit(Linear(final, "logits", head), vocabulary)
    return Graph(name, vocabulary, context, tuple(values), tuple(weights), tuple(ops), "logits")
