"""Matrices of codes in Hugging Face folders: the layout "pack-quantized" of compressed-tensors, with symmetric groups.

A tensor NAME.weight is stored as NAME.weight_packed, int32 words whose bits hold a row's codes, lowest first, each plus half
its range; NAME.weight_scale [rows, groups]; and NAME.weight_shape, [rows, columns]. Codes of 8, 4 and 2 bits become int8, int4
and ternary, scales binary16, all exactly: what cannot be carried so is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.base.reading import shown
from tapeout.graph.types import Matrix
from tapeout.importers.safetensors_file import Stored
from tapeout.numerics.formats import FORMATS

LAYOUT = "pack-quantized"
FORMAT_OF_BITS = {8: "int8", 4: "int4", 2: "ternary"}
WANTED: Mapping[str, tuple[Any, ...]] = {
    "type": ("int",), "symmetric": (True,), "strategy": ("group",), "dynamic": (False, None),
    "actorder": (None, "static", "weight"),
}  # fmt: skip
"""What `weights` of a config group must say. An order of columns that only calibration took, `static` or `weight`, leaves no mark in a file."""


@dataclass(frozen=True, slots=True)
class Packed(Stored):
    """A matrix whose words lie at `offset`; `shape` is that of the matrix."""

    bits: int
    scale: Stored

    def read(self) -> Matrix:
        """Codes and scales. Raises `BadInput` where a code or a scale has no place in the format."""
        rows, columns = self.shape
        form = FORMATS[FORMAT_OF_BITS[self.bits]]
        data = self.file.view(np.dtype("u1"), rows * columns * self.bits // 8, self.offset)
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        codes = (data[:, None] >> shifts & (1 << self.bits) - 1).astype(np.int16) - (1 << self.bits - 1)
        if codes.min() < form.low:
            raise BadInput(self.where, f"has codes down to {codes.min()}", f"{form.name} begins at {form.low}")
        exact = np.asarray(self.scale.read())
        with np.errstate(over="ignore"):
            scale = exact.astype(np.float16)
        if not np.array_equal(scale.astype(np.float32), exact):
            raise BadInput(self.scale.where, "has scales that binary16 does not hold exactly")
        repeats = columns // form.group // scale.shape[1]
        return Matrix(form, codes.astype(np.int8).reshape(rows, columns), np.repeat(scale, repeats, axis=1))


def take_packing(where: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[int]]:
    """(a configuration without its packing, the bits of the codes; none without one). Raises `BadInput`."""
    packing = config.get("quantization_config")
    if packing is None:
        return dict(config), frozenset()
    if not (isinstance(packing, dict) and packing.get("format") == LAYOUT):
        raise BadInput(where, f"quantization_config is {shown(packing)}", f"only the format {LAYOUT!r} is understood")
    groups = packing.get("config_groups")
    if not isinstance(groups, dict):
        raise BadInput(where, "quantization_config has no config_groups")
    rest = {key: value for key, value in config.items() if key != "quantization_config"}
    return rest, frozenset(_bits(where, group) for group in groups.values())


def _bits(where: str, group: Any) -> int:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict) or group.get("input_activations") is not None:
        raise BadInput(where, f"config group {shown(group)}", "only weights are quantized in a group")
    for key, allowed in WANTED.items():
        if weights.get(key, allowed[-1]) not in allowed:
            raise BadInput(
                where, f"{key} of a config group is {shown(weights[key])}, and only {allowed[0]!r} is understood"
            )
    if type(weights.get("num_bits")) is not int or weights["num_bits"] not in FORMAT_OF_BITS:
        raise BadInput(where, f"num_bits is {shown(weights.get('num_bits'))}", f"choose from {list(FORMAT_OF_BITS)}")
    return weights["num_bits"]


def unpacked(tensors: Mapping[str, Stored], bits: frozenset[int]) -> dict[str, Stored]:
    """The tensors, each packed matrix under one name. Raises `BadInput`."""
    found = dict(tensors)
    for name in tensors if bits else ():
        stem = name.removesuffix("_packed")
        if stem != name and stem.endswith(".weight"):
            parts = [found.pop(f"{stem}{ending}", None) for ending in ("_packed", "_scale", "_shape")]
            found[stem] = _joined(stem, parts, bits)
    return found


def _joined(name: str, parts: list[Stored | None], bits: frozenset[int]) -> Packed:
    words, scale, shape = parts
    if words is None or scale is None or shape is None:
        raise BadInput(words.where if words else name, "lacks its weight_scale or weight_shape")
    if (
        len(words.shape) != 2
        or len(scale.shape) != 2
        or shape.shape != (2,)
        or shape.dtype != "I64"
        or words.dtype != "I32"
    ):
        raise BadInput(words.where, "is no matrix of int32 words with scales by group and a shape")
    rows, columns = (int(count) for count in shape.integers())
    if columns < 32 or columns % 32 or words.shape[1] * 32 % columns or words.shape[0] != rows:
        raise BadInput(words.where, f"has words {list(words.shape)} for a matrix of {rows} x {columns}")
    found = words.shape[1] * 32 // columns
    if found not in bits:
        raise BadInput(words.where, f"has codes of {found} bits", f"its config groups have {sorted(bits)}")
    groups = scale.shape[1]
    if scale.shape[0] != rows or groups < 1 or columns % groups or columns // groups % 32:
        raise BadInput(scale.where, f"has shape {list(scale.shape)}", "one scale for every 32 columns, or a multiple")
    return Packed(words.file, name, words.dtype, (rows, columns), words.offset, found, scale)
