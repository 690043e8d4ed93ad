"""What may stand in a `Model` at two stages: as imported (float or quantized matrices), as quantized (no float ones).

Every fault is a `BadInput` that names the op or weight, what came and what is allowed, with the ops around it.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.graph.types import (
    INPUTS,
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
    Matrix,
    Model,
    Op,
    RMSNorm,
    Rope,
    Scale,
    SoftCap,
    SwiGLU,
    Weight,
    WeightType,
    op_inputs,
    op_weights,
)
from tapeout.numerics.formats import FORMATS, KV_FORMATS
from tapeout.numerics.scales import is_scale

MOST_NORM_WIDTH = 65_536
"""The 23-bit squares of an RMSNorm of this width add up within int64."""
MOST_COLUMNS = 2**33
"""2^28 blocks of 32 fit 62 bits with any codes and binary16 scales, as (15 * 127 * 2047 * 32 * 128 + 2) * 2^28 < 2^62. Rows with scales of
more bits are refused one by one where theirs do not."""
LEAST_NORMAL = np.float32(2.0**-126)
MOST_FLOAT = float(np.finfo(np.float32).max)


def check_imported(model: Model) -> None:
    """The graph is sound and every weight stands in it with the right shape, type and finite numbers. Raises BadInput.

    A model without any weights is a shape-only one: its graph alone is checked.
    """
    check_graph(model.graph)
    if not model.weights:
        return
    known = {kind.name for kind in model.graph.weights}
    for name in model.weights:
        if name not in known:
            raise BadInput(f"weight {name}", "is not in the graph")
    for kind in model.graph.weights:
        _check_weight(kind, model.weights.get(kind.name))


def check_quantized(model: Model) -> None:
    """What `check_imported` asks; and every matrix is quantized, so that the contract can run it. Raises BadInput."""
    for kind in model.graph.weights:
        if len(kind.shape) == 2 and kind.format == "f32":
            allowed = ", ".join(FORMATS)
            raise BadInput(f"weight {kind.name}", "is a float matrix", f"quantize it to one of {allowed}")
        if len(kind.shape) == 2 and kind.shape[1] > MOST_COLUMNS:
            raise BadInput(f"weight {kind.name}", f"has {kind.shape[1]} columns", f"at most {MOST_COLUMNS} fit 62 bits")
    if not model.weights:
        raise BadInput(f"model {model.graph.name}", "has no weights", "a shape-only model cannot be run")
    check_imported(model)


# --- the graph --------------------------------------------------------------------------------------


def check_graph(graph: Graph) -> None:
    """Topological order, every value written once, widths and head counts that fit. Raises BadInput."""
    for what, count in (("vocabulary", graph.vocabulary), ("context", graph.context)):
        if count < 1:
            raise BadInput(f"graph {graph.name}", f"{what} is {count}", "at least 1 is needed")
    _unique([name for name, _ in graph.values], "value")
    _unique([kind.name for kind in graph.weights], "weight")
    for name, width in graph.values:
        if width < 1:
            raise BadInput(f"value {name}", f"has width {width}", "at least 1 is needed")
    _check_order(graph)
    for at, op in enumerate(graph.ops):
        _check_op(graph, at, op)
    last = graph.ops[-1].out if graph.ops else "nothing"
    if graph.output != last:
        raise BadInput(
            f"graph {graph.name}", f"its output {graph.output} is not what the last op writes", f"that is {last}"
        )
    if graph.width(graph.output) != graph.vocabulary:
        raise BadInput(
            f"graph {graph.name}",
            f"its output {graph.output} has width {graph.width(graph.output)}",
            f"logits need one per token id, {graph.vocabulary}",
        )


def _unique(names: list[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadInput(f"{what} {name}", "is declared twice")
        seen.add(name)


def _check_order(graph: Graph) -> None:
    declared = {name for name, _ in graph.values}
    weights = {kind.name for kind in graph.weights}
    written: set[str] = set()
    for at, op in enumerate(graph.ops):
        for name in op_inputs(op):
            if name not in written:
                raise _fault(graph, at, f"reads {name}, which no earlier op writes")
        for name in op_weights(op):
            if name not in weights:
                raise _fault(graph, at, f"reads weight {name}, which the graph does not declare")
        if op.out not in declared:
            raise _fault(graph, at, "writes a value that the graph does not declare")
        if op.out in written:
            raise _fault(graph, at, "writes a value that an earlier op has written")
        written.add(op.out)
    unwritten = [name for name, _ in graph.values if name not in written]
    if unwritten:
        raise BadInput(f"value {unwritten[0]}", "is declared, but no op writes it")


def _check_op(graph: Graph, at: int, op: Op) -> None:
    width = dict(graph.values)

    def must(name: str, wanted: int, why: str) -> None:
        if width[name] != wanted:
            raise _fault(graph, at, f"{name} has width {width[name]}", f"{why} is {wanted}")

    def shape(name: str, *wanted: int) -> None:
        found = graph.weight(name).shape
        if found != wanted:
            raise _fault(graph, at, f"weight {name} has shape {_dims(found)}", f"needed is {_dims(wanted)}")

    match op:
        case Embed():
            shape(op.table, graph.vocabulary, width[op.out])
        case RMSNorm() | LayerNorm():
            must(op.out, width[op.x], f"the width of {op.x}")
            for name in op_weights(op):
                shape(name, width[op.x])
            _check_norm(graph, at, width[op.x], op.eps)
        case HeadNorm():
            _check_heads(graph, at, op.heads, op.head_dim)
            must(op.x, op.heads * op.head_dim, "heads * head_dim")
            must(op.out, op.heads * op.head_dim, "heads * head_dim")
            shape(op.weight, op.head_dim)
            _check_norm(graph, at, op.head_dim, op.eps)
        case AddBias():
            must(op.x, width[op.out], f"the width of {op.out}")
            shape(op.bias, width[op.out])
        case AddPosition():
            must(op.x, width[op.out], f"the width of {op.out}")
            shape(op.table, graph.context, width[op.out])
        case Scale():
            must(op.x, width[op.out], f"the width of {op.out}")
            _check_constant(graph, at, "factor", op.factor)
        case SoftCap():
            must(op.x, width[op.out], f"the width of {op.out}")
            _check_constant(graph, at, "cap", op.cap)
        case Linear():
            shape(op.weight, width[op.out], width[op.x])
        case Rope():
            _check_heads(graph, at, op.heads, op.head_dim)
            if op.head_dim % 2:
                raise _fault(graph, at, f"head_dim {op.head_dim} is odd", "pairs need an even one")
            if not (math.isfinite(op.theta) and op.theta > 0):
                raise _fault(graph, at, f"theta is {op.theta}", "it must be finite and greater than 0")
            _check_rotary(graph, at, op)
            must(op.x, op.heads * op.head_dim, "heads * head_dim")
            must(op.out, op.heads * op.head_dim, "heads * head_dim")
        case Attention():
            _check_heads(graph, at, op.heads, op.head_dim)
            if op.kv_heads < 1 or op.heads % op.kv_heads:
                raise _fault(graph, at, f"{op.heads} heads over {op.kv_heads} KV heads", "they must divide")
            for name in (op.q, op.out):
                must(name, op.heads * op.head_dim, "heads * head_dim")
            for name in (op.k, op.v):
                must(name, op.kv_heads * op.head_dim, "kv_heads * head_dim")
            if op.kv not in KV_FORMATS:
                raise _fault(graph, at, f"K and V are held as {op.kv!r}", f"choose from {', '.join(KV_FORMATS)}")
            if op.window < 0:
                raise _fault(graph, at, f"window is {op.window}", "it must be at least 1, or 0 for none")
            for what, number in (("scalar", op.scalar), ("softcap", op.softcap)):
                if number:
                    _check_constant(graph, at, what, number)
        case Gelu():
            must(op.x, width[op.out], f"the width of {op.out}")
        case SwiGLU() | GeGLU() | Add():
            for name in op_inputs(op):
                must(name, width[op.out], f"the width of {op.out}")


def _check_heads(graph: Graph, at: int, heads: int, head_dim: int) -> None:
    if heads < 1 or head_dim < 1:
        raise _fault(graph, at, f"{heads} heads of {head_dim}", "both must be at least 1")


def _check_norm(graph: Graph, at: int, width: int, eps: float) -> None:
    if width > MOST_NORM_WIDTH:
        raise _fault(graph, at, f"width {width} is too wide to be normed", f"at most {MOST_NORM_WIDTH}")
    if not (math.isfinite(eps) and eps <= MOST_FLOAT and LEAST_NORMAL <= eps):
        raise _fault(graph, at, f"eps is {eps}", "it must be greater than 0, a normal binary32")


def _check_constant(graph: Graph, at: int, what: str, value: float) -> None:
    """Constants and their reciprocals, times a few powers of two, are normal binary32."""
    if not (math.isfinite(value) and 2.0**-60 <= value <= 2.0**60):
        raise _fault(graph, at, f"{what} is {value}", "it must lie between 2^-60 and 2^60")


def _check_rotary(graph: Graph, at: int, op: Rope) -> None:
    if not 0 <= op.rotary <= op.head_dim or op.rotary % 2:
        raise _fault(graph, at, f"rotary is {op.rotary}", f"it must be even, and at most head_dim {op.head_dim}")
    pairs = (op.rotary or op.head_dim) // 2
    if op.factors and len(op.factors) != pairs:
        raise _fault(graph, at, f"{len(op.factors)} factors for {pairs} pairs", "one each, or none")
    for factor in op.factors:
        _check_constant(graph, at, "a factor", factor)


def _fault(graph: Graph, at: int, problem: str, allowed: str = "") -> BadInput:
    """The fault of op `at`, with the ops around it."""
    around = graph.ops[max(at - 2, 0) : at + 2]
    shown = " | ".join(
        f"{'> ' if op is graph.ops[at] else ''}{op.out} = {type(op).__name__.lower()}({', '.join(_reads(op))})"
        for op in around
    )
    return BadInput(f"op {graph.ops[at].out}", problem, (f"{allowed}; " if allowed else "") + f"around it: {shown}")


def _reads(op: Op) -> tuple[str, ...]:
    assert type(op) in INPUTS, f"{op} is no op of ours"
    return (*op_inputs(op), *op_weights(op))


def _dims(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


# --- the weights ------------------------------------------------------------------------------------


def _check_weight(kind: WeightType, weight: Weight | None) -> None:
    where = f"weight {kind.name}"
    if weight is None:
        raise BadInput(where, "is missing", f"{kind.format} {_dims(kind.shape)} is needed")
    if tuple(weight.shape) != kind.shape:
        raise BadInput(where, f"has shape {_dims(tuple(weight.shape))}", f"the graph says {_dims(kind.shape)}")
    found = weight.format.name if isinstance(weight, Matrix) else "f32"
    if found != kind.format:
        raise BadInput(where, f"is {found}", f"the graph says {kind.format}")
    if isinstance(weight, Matrix):
        _check_matrix(where, weight)
    else:
        _check_floats(where, weight)


def _check_floats(where: str, weight: NDArray[np.float32]) -> None:
    if weight.dtype != np.float32:
        raise BadInput(where, f"has numbers of type {weight.dtype}", "float32 is needed")
    _check_finite(where, weight)
    if weight.ndim == 1:
        tiny = (np.abs(weight) < LEAST_NORMAL) & (weight != 0)
        if tiny.any():
            at = int(np.argmax(tiny))
            raise BadInput(
                f"{where}[{at}]", f"{weight[at]:.3g} is subnormal", "a norm's weight is 0 or at least 2^-126"
            )


def _check_matrix(where: str, weight: Matrix) -> None:
    form = weight.format
    if form.group != 16 and (form.group < 32 or form.group % 32):
        raise BadInput(where, f"has groups of {form.group}", "16 or a multiple of 32 is needed")
    if weight.codes.dtype != np.int8:
        raise BadInput(where, f"has codes of type {weight.codes.dtype}", "int8 is needed")
    low, high = int(weight.codes.min()), int(weight.codes.max())
    if low < form.low or high > form.high:
        bad = low if low < form.low else high
        raise BadInput(where, f"has a code {bad}", f"{form.name} allows {form.low}..{form.high}")
    if form.values and not np.isin(weight.codes, form.values).all():
        bad = weight.codes[~np.isin(weight.codes, form.values)][0]
        allowed = ", ".join(str(code) for code in sorted(set(form.values)))
        raise BadInput(where, f"has a code {bad}", f"{form.name} allows {allowed}")
    if form.has_minimum and weight.minimum is None:
        raise BadInput(where, "has no minimum", f"{form.name} needs one")
    if not form.has_minimum and weight.minimum is not None:
        raise BadInput(where, "has a minimum", f"{form.name} has none")
    rows, columns = weight.shape
    for what, numbers in (("scale", weight.scale), ("minimum", weight.minimum)):
        if numbers is None:
            continue
        if numbers.dtype != form.scale.dtype:
            raise BadInput(f"{where}.{what}", f"has numbers of type {numbers.dtype}", f"{form.scale.dtype} is needed")
        wanted = (rows, -(-columns // form.group))
        if numbers.shape != wanted:
            raise BadInput(f"{where}.{what}", f"has shape {_dims(numbers.shape)}", f"needed is {_dims(wanted)}")
        _check_all(f"{where}.{what}", numbers, is_scale(form.scale, numbers))
    if not form.has_factor and weight.factor != 1.0:
        raise BadInput(f"{where}.factor", f"is {weight.factor}", f"{form.name} has none")
    if not (LEAST_NORMAL <= abs(weight.factor) <= MOST_FLOAT and float(np.float32(weight.factor)) == weight.factor):
        raise BadInput(f"{where}.factor", f"is {weight.factor}", "a normal binary32 number is needed")


def _check_finite(where: str, numbers: NDArray[np.float32]) -> None:
    _check_all(where, numbers, np.isfinite(numbers))


def _check_all(where: str, numbers: NDArray, fine: NDArray[np.bool_]) -> None:
    if not fine.all():
        at = np.unravel_index(int(np.argmin(fine)), numbers.shape)
        index = ", ".join(str(int(i)) for i in at)
        raise BadInput(f"{where}[{index}]", f"is {numbers[at]}", "only finite numbers are allowed")


# --- the arguments of Engine.step -------------------------------------------------------------------


def check_step(graph: Graph, ids: NDArray[np.int64], position: int, held: int, context: int) -> None:
    """Token ids are known and fit `context` positions. Raises BadInput; a gap behind `held` positions is our fault."""
    assert ids.ndim == 1, "token ids are one list"
    assert len(ids) > 0, "step needs at least one token"
    assert 0 <= position <= held, f"position {position} leaves a gap: {held} positions are held"
    outside = (ids < 0) | (ids >= graph.vocabulary)
    if outside.any():
        raise BadInput("token id", f"{ids[outside][0]} is outside the vocabulary", f"ids are 0..{graph.vocabulary - 1}")
    if position + len(ids) > context:
        raise BadInput("context", f"{position + len(ids)} tokens do not fit {context} positions")
