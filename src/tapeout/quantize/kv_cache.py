"""K and V in another format: a model whose attention holds them so. Weights stay as they are."""

from dataclasses import replace

from tapeout.base.errors import BadInput
from tapeout.graph.types import Attention, Model
from tapeout.numerics.formats import KV_FORMATS


def kv_cache(model: Model, name: str) -> Model:
    """`model` with the KV cache of every layer in a row of `KV_FORMATS`. Raises `BadInput` for a name that is none."""
    check_kv(name)
    ops = tuple(replace(op, kv=name) if isinstance(op, Attention) else op for op in model.graph.ops)
    return replace(model, graph=replace(model.graph, ops=ops))


def check_kv(name: str) -> None:
    """Refuse a name that is no KV cache format. Raises `BadInput`."""
    if name not in KV_FORMATS:
        raise BadInput("--kv", f"{name!r} is no format of a KV cache", f"choose from {', '.join(KV_FORMATS)}")
