"""Hugging Face folders -> `Model` with float32 or packed weights: config.json, *.safetensors, tokenizer.json.

Hugging Face turns pairs (i, i + d/2) of a head; here a pair is two neighbours, so the rows of Q and K are permuted
(exact). What is read of config.json is a family's own: `families.py` says by architecture.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.graph.types import Model, Weight, as_float
from tapeout.importers.families import Config, Family, family_of
from tapeout.importers.llama import Llama, assemble, check_shape
from tapeout.importers.packed import Packed, take_packing, unpacked
from tapeout.importers.safetensors_file import Stored, read_safetensors
from tapeout.importers.tensors import Names, cut, pair_neighbours, shape_in_file
from tapeout.importers.tokenizer import folder_tokenizer, read_json


def import_folder(folder: Path) -> Model:
    """Read a folder. Raises `BadInput` that names the first thing that is not understood."""
    config = Config(f"{folder.name}/config.json", read_json(folder / "config.json"))
    data, bits = take_packing(config.where, config.data)
    config = Config(config.where, data)
    family = family_of(config)
    tensors = unpacked(_tensors(folder), bits)
    llama = family.hyperparameters(config, folder.resolve().name)
    llama.check(config.where, len(tensors), len(family.names.layer))
    weights = _weights(folder.name, tensors, llama, family)
    notes = _pair(weights, llama)
    tokenizer = folder_tokenizer(folder, _end_ids(folder, config.data))
    return assemble(llama, weights, tokenizer, str(folder), notes)


def _tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of the folder: of the index's shards, else of model.safetensors or the one file there is."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return _shards(folder, index)
    files = sorted(folder.glob("*.safetensors"))
    single = folder / "model.safetensors"
    if single not in files and len(files) != 1:
        raise BadInput(str(folder), f"has {len(files)} .safetensors files and neither model.safetensors nor its index")
    return read_safetensors(single if single in files else files[0])


def _shards(folder: Path, index: Path) -> dict[str, Stored]:
    table = read_json(index).get("weight_map")
    if not (isinstance(table, dict) and all(isinstance(name, str) for name in table.values())):
        raise BadInput(str(index), "has no weight_map of tensor names to file names")
    shards = {}
    for name in sorted(set(table.values())):
        if Path(name).name != name:
            raise BadInput(str(index), f"names the file {name!r}, which is not in the folder itself")
        shards[name] = read_safetensors(folder / name)
    for tensor, name in table.items():
        if tensor not in shards[name]:
            raise BadInput(str(index), f"says {tensor} is in {name}, which does not hold it")
    return {tensor: shards[name][tensor] for tensor, name in table.items()}


def _weights(folder: str, tensors: Mapping[str, Stored], llama: Llama, family: Family) -> dict[str, Weight]:
    """The weights by their names in the graph, all there and of the right shape. Raises `BadInput`."""
    names, shapes = family.names, llama.shapes()
    known = names.tensors(llama.layers, shapes)
    found = {family.spelled(name, tensors): stored for name, stored in tensors.items()}
    for name in found:
        if name not in known and not name.endswith(family.ignored):
            raise BadInput(folder, f"tensor {name} is not understood", "it may change what the model computes")
    for name, ours in known.items():
        if ours and name not in found:
            raise BadInput(folder, f"tensor {name} is missing")
        if ours:
            check_shape(found[name].where, found[name].shape, shape_in_file(ours, shapes, names.is_transposed(name)))
            if names.is_transposed(name) and isinstance(found[name], Packed):
                raise BadInput(found[name].where, "is packed and stands transposed", "only float matrices may")
    weights: dict[str, Weight] = {}
    for name, ours in known.items():
        if ours:
            weights |= cut(found[name].read(), ours, shapes, names.is_transposed(name))
    _refuse_other_head(folder, found, weights, names)
    for name in weights if family.norms_plus_one else ():
        if name.endswith("norm"):
            weights[name] = np.asarray(weights[name]) + np.float32(1)
    return {name: weights[name] for name in shapes}


def _refuse_other_head(folder: str, tensors: Mapping[str, Stored], weights: Mapping[str, Weight], names: Names) -> None:
    """A tied model's file may repeat the table as its head, as long as it is the same table. Raises `BadInput`."""
    head = next(stem for stem, ours in names.model.items() if ours == ("head",)) + ".weight"
    if "head" in weights or head not in tensors:
        return
    check_shape(tensors[head].where, tensors[head].shape, weights["embed"].shape)
    if not np.array_equal(as_float(tensors[head].read()), as_float(weights["embed"])):
        raise BadInput(folder, f"tie_word_embeddings is true, but {head} differs from the embedding")


def _pair(weights: dict[str, Weight], llama: Llama) -> tuple[str, ...]:
    pair_neighbours(weights, llama)
    return () if llama.style.positions else ("the rows of q and k are permuted so that rotary pairs are neighbours",)


def _end_ids(folder: Path, config: Mapping[str, Any]) -> frozenset[int]:
    """`eos_token_id` of the model's and of the generation's configuration: one id or several."""
    generation = read_json(folder / "generation_config.json", default={})
    ids: set[int] = set()
    for found in (config.get("eos_token_id"), generation.get("eos_token_id")):
        ids |= {token for token in (found if isinstance(found, list) else [found]) if type(token) is int}
    return frozenset(ids)
