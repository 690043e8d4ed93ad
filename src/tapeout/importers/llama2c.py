"""Checkpoints of llama2.c (its first format, without a magic number) -> `Model` with float32 weights.

Seven int32 (dim, hidden, layers, heads, kv heads, vocabulary, context; a negative vocabulary: the head is a table of
its own), then float32 in the order of `_sections`. RoPE pairs are neighbours already; theta and eps are constants.
The tokenizer is a file beside it, tokN.bin for a vocabulary of N.
"""

import struct
from pathlib import Path

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.graph.types import Model, Weight
from tapeout.importers.blocks import finite
from tapeout.importers.llama import LAYER_TENSORS, Llama, assemble
from tapeout.importers.mapped import Mapped, map_file
from tapeout.importers.scored import ScoredTokenizer, Vocabulary

HEADER = struct.Struct("<7i")
TOKEN = struct.Struct("<fi")
THETA, EPS = 10000.0, 1e-5
"""Constants of llama2.c (run.c)."""
UNKNOWN_ID, BEGIN_ID, END_ID = 0, 1, 2

ORDER = ("attn_norm", "q", "k", "v", "o", "ffn_norm", "gate", "down", "up")
"""Order of the weights; each stands for all layers together."""


def looks_like_llama2c(path: Path) -> bool:
    """Whether a file's size is exactly what its first 28 bytes ask for."""
    file = map_file(path)
    header = _header(file)
    return header is not None and file.size == HEADER.size + 4 * sum(size for _, size in _sections(header))


def import_llama2c(path: Path) -> Model:
    """Read a checkpoint. Raises `BadInput`."""
    file = map_file(path)
    llama = _header(file)
    if llama is None:
        raise BadInput(file.name, "does not begin with the seven positive sizes of a llama2.c checkpoint")
    sections = _sections(llama)
    wanted = HEADER.size + 4 * sum(size for _, size in sections)
    if file.size != wanted:
        raise BadInput(
            file.name, f"has {file.size:,} bytes, its header asks for {wanted:,}", "it is truncated or damaged"
        )
    llama.check(file.name, llama.layers * LAYER_TENSORS)
    weights: dict[str, Weight] = {}
    at = HEADER.size
    for name, size in sections:
        weights |= _section(file, llama, name, at, size)
        at += 4 * size
    return assemble(llama, weights, _tokenizer(path.parent / f"tok{llama.vocabulary}.bin", llama), str(path))


def _header(file: Mapped) -> Llama | None:
    """The hyperparameters, or None where they cannot be."""
    if file.size < HEADER.size:
        return None
    width, hidden, layers, heads, kv_heads, vocabulary, context = HEADER.unpack_from(file.data)
    if min(width, hidden, layers, heads, kv_heads, abs(vocabulary), context) < 1:
        return None
    if layers * LAYER_TENSORS * 4 > file.size or width % heads:
        return None
    return Llama(
        Path(file.name).stem, abs(vocabulary), context, width, layers, heads, kv_heads, width // heads, hidden,
        THETA, EPS, tied=vocabulary > 0,
    )  # fmt: skip


def _sections(llama: Llama) -> list[tuple[str, int]]:
    """(name, numbers) of everything after the header. "" is skipped: cosines and sines, which follow from theta."""
    shapes = llama.shapes()

    def count(name: str) -> int:
        return int(np.prod([int(size) for size in shapes[name]], dtype=object))

    layers = [(name, llama.layers * count(f"layers.0.{name}")) for name in ORDER]
    angles = llama.context * (llama.head_dim // 2)
    tail = [("norm", count("norm")), ("", angles), ("", angles)] + ([] if llama.tied else [("head", count("head"))])
    return [("embed", count("embed")), *layers, *tail]


def _section(file: Mapped, llama: Llama, name: str, offset: int, size: int) -> dict[str, Weight]:
    """The weights of one section: one, or one per layer."""
    if not name:
        return {}
    numbers = file.view("<f4", size, offset).astype(np.float32)
    if not finite(numbers):
        raise BadInput(f"{file.name}: {name}", "holds a NaN or an infinity")
    shapes = llama.shapes()
    if name in shapes:
        return {name: numbers.reshape(shapes[name])}
    stacked = numbers.reshape(llama.layers, *shapes[f"layers.0.{name}"])
    return {f"layers.{layer}.{name}": stacked[layer] for layer in range(llama.layers)}


def _tokenizer(path: Path, llama: Llama) -> ScoredTokenizer | None:
    """The tokenizer beside the checkpoint, or None where there is none. Raises `BadInput` for a damaged one.

    Special tokens are never recognised in a text, and both begin and end of text end it, as in llama2.c.
    """
    if not path.exists():
        return None
    pieces, scores = _pieces(map_file(path), llama.vocabulary)
    return ScoredTokenizer(
        build=lambda: Vocabulary(pieces, scores, dict.fromkeys((UNKNOWN_ID, BEGIN_ID, END_ID), ""), UNKNOWN_ID),
        begin_id=BEGIN_ID,
        end_ids=frozenset((BEGIN_ID, END_ID)),
    )


def _pieces(file: Mapped, count: int) -> tuple[list[bytes], list[float]]:
    pieces, scores, at = [], [], 4
    for token in range(count):
        score, length = TOKEN.unpack_from(file.data, at) if at + TOKEN.size <= file.size else (0.0, -1)
        at += TOKEN.size + length
        if length < 0 or at > file.size:
            raise BadInput(file.name, f"ends within token {token} of {count}", "it is truncated or damaged")
        pieces.append(bytes(file.data[at - length : at]))
        scores.append(score)
    if at != file.size:
        raise BadInput(file.name, f"goes on for {file.size - at:,} bytes after its {count} tokens")
    return pieces, scores
