"""GGUF files -> `Model`.

Tensors of the types in `blocks.LAYOUTS` are carried as they stand; rows of Q and K are permuted where the architecture's
files pair the halves of a head (`gguf_families.py`). Metadata in the namespaces that can change what is computed (the architecture's
name, `split.`) is read, or has one of the values of `NEUTRAL`, or is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.base.reading import shown
from tapeout.graph.style import Style
from tapeout.graph.types import Model, Weight
from tapeout.importers.blocks import LAYOUTS, Layout
from tapeout.importers.extents import check_extents
from tapeout.importers.gguf_families import ARCHITECTURES, Architecture
from tapeout.importers.gguf_file import GGUF, Tensor, read_gguf
from tapeout.importers.gguf_tokenizer import gguf_tokenizer
from tapeout.importers.llama import Llama, assemble, check_shape
from tapeout.importers.tensors import cut, pair_neighbours, shape_in_file

READ = frozenset(
    {
        "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.key_length",
        "attention.value_length", "rope.freq_base", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "vocab_size",
    }
)  # fmt: skip
"""Keys under the architecture's name that `_hyperparameters` reads."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "rope.scale_linear": (1.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "use_parallel_residual": (False,),
}
"""Keys under the architecture's name that change what is computed unless they have one of these values."""

NEUTRAL_ELSEWHERE: dict[str, tuple[Any, ...]] = {
    "general.quantization_version": (2,),
    "split.count": (0, 1),
    "split.no": (0,),
}

WITHOUT_MEANING = frozenset({"tensor_data_layout", "rope.scaling.original_context_length", "rope.scaling.finetuned"})
"""Keys that say where the numbers came from; none of them changes a result that we compute."""

FREQUENCIES = "rope_freqs.weight"
"""How much slower each pair turns, in files of Llama 3.1 and later."""

SINGLE = str | int | float | bool | None
"""What is no array."""


def import_gguf(path: Path) -> Model:
    """Read a GGUF file, version 2 or 3. Raises `BadInput` that names the first thing that is not understood."""
    gguf = read_gguf(path)
    name, kind = _architecture(gguf)
    _refuse_unknown_keys(gguf, name, kind)
    llama = _hyperparameters(gguf, name, kind)
    tensors = _named(gguf, llama, kind)
    layouts = {name: _layout(gguf, gguf.tensors[name]) for name in tensors}
    check_extents(gguf.file, [_extent(gguf.tensors[name], layouts[name]) for name in tensors])
    shapes = llama.shapes()
    weights: dict[str, Weight] = {}
    for tensor, ours in tensors.items():
        where = f"{gguf.file.name}: {tensor}"
        stored = gguf.tensors[tensor]
        weights |= cut(layouts[tensor].read(gguf.file, stored.offset, stored.shape, where), ours, shapes, False)
    notes = ()
    if not kind.neighbours and not llama.style.positions:
        pair_neighbours(weights, llama)
        notes = ("the rows of q and k are permuted so that rotary pairs are neighbours",)
    weights = {name: weights[name] for name in shapes}
    return assemble(llama, weights, gguf_tokenizer(gguf, llama.vocabulary), str(path), notes)


def _architecture(gguf: GGUF) -> tuple[str, Architecture]:
    name = gguf.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise BadInput(gguf.file.name, f"general.architecture is {_shown(name)}, not one of {', '.join(ARCHITECTURES)}")
    return name, ARCHITECTURES[name]


def _refuse_unknown_keys(gguf: GGUF, architecture: str, kind: Architecture) -> None:
    name, read = gguf.file.name, READ | kind.keys | WITHOUT_MEANING
    neutral = {f"{architecture}.{key}": allowed for key, allowed in NEUTRAL.items()} | NEUTRAL_ELSEWHERE
    known = {f"{architecture}.{key}" for key in read} | {"split.tensors.count"}
    for key, value in gguf.metadata.items():
        if key in neutral:
            if not isinstance(value, SINGLE) or value not in neutral[key]:
                allowed = " or ".join(map(str, neutral[key]))
                raise BadInput(name, f"{key} is {_shown(value)}, and only {allowed} is understood")
        elif key.startswith((f"{architecture}.", "split.")) and key not in known:
            raise BadInput(name, f"{key} is not understood", "it may change what the model computes")


@dataclass(frozen=True, slots=True)
class _Keys:
    """See `gguf_families.Keys`."""

    gguf: GGUF
    architecture: str

    def whole(self, key: str, default: int | None = None) -> int:
        return _number(self.gguf, f"{self.architecture}.{key}", int, default)

    def real(self, key: str, default: float | None = None) -> float:
        return _number(self.gguf, f"{self.architecture}.{key}", float, default)


def _hyperparameters(gguf: GGUF, architecture: str, kind: Architecture) -> Llama:
    """The hyperparameters, checked for sense. Raises `BadInput`."""
    keys = _Keys(gguf, architecture)
    embed = gguf.tensors.get("token_embd.weight")
    if embed is None:
        raise BadInput(gguf.file.name, "tensor token_embd.weight is missing")
    heads, width = keys.whole("attention.head_count"), keys.whole("embedding_length")
    head_dim = keys.whole("attention.key_length", width // max(heads, 1))
    style = Style(**kind.read(keys))
    llama = Llama(
        name=_name(gguf),
        vocabulary=keys.whole("vocab_size", embed.shape[0]),
        context=keys.whole("context_length"),
        width=width,
        layers=keys.whole("block_count"),
        heads=heads,
        kv_heads=keys.whole("attention.head_count_kv", heads),
        head_dim=head_dim,
        hidden=keys.whole("feed_forward_length"),
        theta=keys.real("rope.freq_base", 10000.0),
        eps=keys.real(f"attention.layer_norm_{'' if style.layer_norm else 'rms_'}epsilon"),
        tied="output.weight" not in gguf.tensors,
    )
    llama.check(gguf.file.name, len(gguf.tensors), len(kind.names.layer))
    if keys.whole("attention.value_length", head_dim) != head_dim:
        came = f"{architecture}.attention.value_length is {keys.whole('attention.value_length')}"
        raise BadInput(gguf.file.name, f"{came}, and only the head's width {head_dim} is understood")
    rotary = _rotary(gguf, keys, head_dim, kind)
    style = replace(style, rotary=rotary, factors=_factors(gguf, keys, rotary or head_dim, kind))
    return replace(llama, style=style)


def _rotary(gguf: GGUF, keys: _Keys, head_dim: int, kind: Architecture) -> int:
    """Numbers of a head that are rotated; 0: all. The order of pairs of a part of a head is known for those that we permute."""
    rotary = keys.whole("rope.dimension_count", head_dim)
    if rotary == head_dim:
        return 0
    came = f"{keys.architecture}.rope.dimension_count is {rotary}"
    if kind.neighbours:
        raise BadInput(gguf.file.name, f"{came}, and only the head's width {head_dim} is understood")
    if not 0 < rotary < head_dim or rotary % 2:
        raise BadInput(gguf.file.name, came, f"an even number up to {head_dim} is needed")
    return rotary


def _factors(gguf: GGUF, keys: _Keys, rotary: int, kind: Architecture) -> tuple[float, ...]:
    """How much slower each pair turns. Raises `BadInput` for a scaling that is not understood."""
    name, scaling = keys.architecture, gguf.metadata.get(f"{keys.architecture}.rope.scaling.type", "none")
    allowed = ("none", "linear") if kind.rope_scaling else ("none",)
    if not isinstance(scaling, str) or scaling not in allowed:
        raise BadInput(
            gguf.file.name,
            f"{name}.rope.scaling.type is {_shown(scaling)}, and only {' and '.join(allowed)} are understood",
        )
    factor = keys.real("rope.scaling.factor", 1.0)
    if scaling == "none" and factor not in (0.0, 1.0):
        raise BadInput(
            gguf.file.name, f"{name}.rope.scaling.factor is {factor}", "without a type only 0.0 or 1.0 is understood"
        )
    stored = gguf.tensors.get(FREQUENCIES)
    if stored is not None and kind.rope_scaling:
        where = f"{gguf.file.name}: {FREQUENCIES}"
        check_shape(where, stored.shape, (rotary // 2,))
        layout = _layout(gguf, stored)
        check_extents(gguf.file, [_extent(stored, layout)])
        slower = np.asarray(layout.read(gguf.file, stored.offset, stored.shape, where), np.float64) * (factor or 1.0)
    elif scaling == "linear" and factor not in (0.0, 1.0):
        slower = np.full(rotary // 2, factor)
    else:
        return ()
    if not ((slower > 2.0**-20) & (slower < 2.0**20)).all():
        raise BadInput(
            gguf.file.name, f"RoPE is scaled by {slower.min()} to {slower.max()}", "positive numbers are needed"
        )
    return tuple(slower.tolist())


def _number(gguf: GGUF, key: str, kind: type, default: Any) -> Any:
    value = gguf.metadata.get(key, default)
    if value is None:
        raise BadInput(gguf.file.name, f"{key} is missing")
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = {int: "a whole number", float: "a number"}[kind]
        raise BadInput(gguf.file.name, f"{key} is {_shown(value)}, not {wanted}")
    return value


def _shown(value: Any) -> str:
    """A metadata value for a message; an array by its length only."""
    return shown(value) if isinstance(value, SINGLE) else f"an array of {len(value):,}"


def _name(gguf: GGUF) -> str:
    name = gguf.metadata.get("general.name")
    return name if isinstance(name, str) and name else Path(gguf.file.name).stem


def _named(gguf: GGUF, llama: Llama, kind: Architecture) -> Mapping[str, tuple[str, ...]]:
    """The file's tensors and the weights in each, all there and of the right shape. Raises `BadInput`."""
    shapes = llama.shapes()
    known = kind.names.tensors(llama.layers, shapes)
    for name in gguf.tensors:
        if name not in known and not (name == FREQUENCIES and kind.rope_scaling):
            raise BadInput(gguf.file.name, f"tensor {name} is not understood", "it may change what the model computes")
    named = {name: ours for name, ours in known.items() if ours}
    for name, ours in named.items():
        if name not in gguf.tensors:
            raise BadInput(gguf.file.name, f"tensor {name} is missing")
        check_shape(f"{gguf.file.name}: {name}", gguf.tensors[name].shape, shape_in_file(ours, shapes, False))
    return named


def _layout(gguf: GGUF, tensor: Tensor) -> Layout:
    where = f"{gguf.file.name}: {tensor.name}"
    layout = LAYOUTS.get(tensor.type)
    if layout is None:
        raise BadInput(where, f"has type {tensor.type}, not one of {', '.join(LAYOUTS)}")
    if tensor.shape[-1] % layout.block:
        sizes = sorted({each.block for each in LAYOUTS.values() if not tensor.shape[-1] % each.block})
        raise BadInput(
            where,
            f"has rows of {tensor.shape[-1]}, not a multiple of {tensor.type}'s block of {layout.block}",
            f"types with blocks of {' or '.join(map(str, sizes))} do",
        )
    if len(tensor.shape) == 1 and layout.block > 1:
        raise BadInput(where, f"is a vector of type {tensor.type}, not of F32, F16 or BF16")
    return layout


def _extent(tensor: Tensor, layout: Layout) -> tuple[int, int, str]:
    count = 1
    for size in tensor.shape:
        count *= size
    return tensor.offset, tensor.offset + count // layout.block * layout.bytes, tensor.name
