"""GGUF files of the Llama architecture -> `Model`.

Tensors of the types in `blocks.LAYOUTS` are carried as they stand. The rows of Q and K in a GGUF of this
architecture are already in the order of neighbouring RoPE pairs, so nothing is permuted. Metadata in the namespaces
that can change what is computed (`llama.`, `split.`) is read, or has one of the values of `NEUTRAL`, or is refused.
"""

from pathlib import Path
from typing import Any

from tapeout.base.errors import BadInput
from tapeout.base.reading import shown
from tapeout.graph.types import Model
from tapeout.importers.blocks import LAYOUTS, Layout
from tapeout.importers.extents import check_extents
from tapeout.importers.gguf_file import GGUF, Tensor, read_gguf
from tapeout.importers.gguf_tokenizer import gguf_tokenizer
from tapeout.importers.llama import Llama, assemble, check_shape

ARCHITECTURE = "llama"

LAYER_TENSORS = {
    "attn_norm": "attn_norm", "attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_output": "o", "ffn_norm": "ffn_norm",
    "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down",
}  # fmt: skip
"""blk.N.KEY.weight in the file is layers.N.VALUE in the graph."""

MODEL_TENSORS = {"token_embd.weight": "embed", "output_norm.weight": "norm", "output.weight": "head"}

READ = frozenset(
    f"llama.{key}"
    for key in (
        "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length",
        "rope.freq_base", "rope.dimension_count", "vocab_size",
    )
)  # fmt: skip
"""Keys that `_hyperparameters` reads."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "general.quantization_version": (2,),
    "llama.rope.scaling.type": ("none",),
    "llama.rope.scaling.factor": (0.0, 1.0),
    "llama.rope.scale_linear": (1.0,),
    "llama.expert_count": (0,),
    "llama.expert_used_count": (0,),
    "llama.attention.causal": (True,),
    "llama.use_parallel_residual": (False,),
    "split.count": (0, 1),
    "split.no": (0,),
}
"""Keys that change what is computed unless they have one of these values."""

WITHOUT_MEANING = frozenset(
    {
        "llama.tensor_data_layout",
        "llama.rope.scaling.original_context_length",
        "llama.rope.scaling.finetuned",
        "split.tensors.count",
    }
)
"""Keys that say where the numbers came from; with no RoPE scaling at work none of them changes a result."""

SINGLE = str | int | float | bool | None
"""What is no array."""

GUARDED = ("llama.", "split.")
"""Namespaces in which every key must be known."""


def import_gguf(path: Path) -> Model:
    """Read a GGUF file, version 2 or 3. Raises `BadInput` that names the first thing that is not understood."""
    gguf = read_gguf(path)
    _refuse_unknown_keys(gguf)
    llama = _hyperparameters(gguf)
    tensors = _named(gguf, llama)
    layouts = {name: _layout(gguf, tensor) for name, tensor in tensors.items()}
    check_extents(gguf.file, [_extent(tensor, layouts[name]) for name, tensor in tensors.items()])
    weights = {
        name: layouts[name].read(gguf.file, tensor.offset, tensor.shape, f"{gguf.file.name}: {tensor.name}")
        for name, tensor in tensors.items()
    }
    return assemble(llama, weights, gguf_tokenizer(gguf, llama.vocabulary), str(path))


def _refuse_unknown_keys(gguf: GGUF) -> None:
    name, metadata = gguf.file.name, gguf.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture != ARCHITECTURE:
        raise BadInput(name, f"general.architecture is {_shown(architecture)}, not {ARCHITECTURE!r}")
    for key, value in metadata.items():
        if key in NEUTRAL:
            if not isinstance(value, SINGLE) or value not in NEUTRAL[key]:
                allowed = " or ".join(map(str, NEUTRAL[key]))
                raise BadInput(name, f"{key} is {_shown(value)}, and only {allowed} is understood")
        elif key.startswith(GUARDED) and key not in READ | WITHOUT_MEANING:
            raise BadInput(name, f"{key} is not understood", "it may change what the model computes")


def _hyperparameters(gguf: GGUF) -> Llama:
    """The hyperparameters, checked for sense. Raises `BadInput`."""

    def whole(key: str, default: int | None = None) -> int:
        return _number(gguf, f"llama.{key}", int, default)

    def real(key: str, default: float | None = None) -> float:
        return _number(gguf, f"llama.{key}", float, default)

    embed = gguf.tensors.get("token_embd.weight")
    if embed is None:
        raise BadInput(gguf.file.name, "tensor token_embd.weight is missing")
    heads, width = whole("attention.head_count"), whole("embedding_length")
    head_dim = whole("attention.key_length", width // max(heads, 1))
    llama = Llama(
        name=_name(gguf),
        vocabulary=whole("vocab_size", embed.shape[0]),
        context=whole("context_length"),
        width=width,
        layers=whole("block_count"),
        heads=heads,
        kv_heads=whole("attention.head_count_kv", heads),
        head_dim=head_dim,
        hidden=whole("feed_forward_length"),
        theta=real("rope.freq_base", 10000.0),
        eps=real("attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in gguf.tensors,
    )
    llama.check(gguf.file.name, len(gguf.tensors))
    for key in ("attention.value_length", "rope.dimension_count"):
        if whole(key, head_dim) != head_dim:
            raise BadInput(
                gguf.file.name, f"llama.{key} is {whole(key)}, and only the head's width {head_dim} is understood"
            )
    return llama


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


def _named(gguf: GGUF, llama: Llama) -> dict[str, Tensor]:
    """The file's tensors by their names in the graph, all there and of the right shape. Raises `BadInput`."""
    names = dict(MODEL_TENSORS)
    for layer in range(llama.layers):
        names |= {f"blk.{layer}.{key}.weight": f"layers.{layer}.{value}" for key, value in LAYER_TENSORS.items()}
    for name in gguf.tensors:
        if name not in names:
            raise BadInput(gguf.file.name, f"tensor {name} is not understood", "it may change what the model computes")
    shapes = llama.shapes()
    named = {ours: gguf.tensors[theirs] for theirs, ours in names.items() if theirs in gguf.tensors}
    theirs = {ours: name for name, ours in names.items()}
    for ours, shape in shapes.items():
        if ours not in named:
            raise BadInput(gguf.file.name, f"tensor {theirs[ours]} is missing")
        check_shape(f"{gguf.file.name}: {theirs[ours]}", named[ours].shape, shape)
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
