"""What a chip holds: SRAM of every tile, external memory, operand buffers, query states. Named arrays that compiled code can take."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tapeout.isa.opcodes import SCORES, Op
from tapeout.isa.program import Program


class Chip(NamedTuple):
    """signed, words, numbers are views of one SRAM: int8 [tiles, bytes], f32 and uint32 [tiles, bytes/4]."""

    signed: NDArray[np.int8]
    words: NDArray[np.float32]
    numbers: NDArray[np.uint32]
    external: NDArray[np.int8]
    codes: NDArray[np.int8]
    n: NDArray[np.int64]
    e: NDArray[np.int64]
    sums: NDArray[np.int64]
    e_max: NDArray[np.int64]
    greatest: NDArray[np.float32]
    e_values: NDArray[np.int64]
    length: NDArray[np.int64]
    weighted: NDArray[np.int64]


def new_chip(program: Program) -> Chip:
    """Power on and load the images; everything else is zero."""
    chip = program.chip
    tiles, unit = chip.grid.tiles, chip.tile.matrix
    memory = np.zeros((tiles, chip.tile.sram.kib * 1024), np.uint8)
    for image in program.images:
        memory[image.tile, image.address : image.address + image.data.size] = image.data
    external = np.zeros(max(program.external_bytes, 1), np.uint8)
    external[: program.external_image.size] = program.external_image
    columns = int(program.ops["columns"][program.ops["op"] == Op.OPERAND].max(initial=32))
    dim = int(program.ops["columns"][np.isin(program.ops["op"], SCORES)].max(initial=1))
    tokens, groups, queries = unit.tokens, columns // 32, chip.tile.attention.queries
    return Chip(
        memory.view(np.int8), memory.view(np.float32), memory.view(np.uint32), external.view(np.int8),
        np.zeros((tiles, tokens, columns), np.int8), np.zeros((tiles, tokens, groups), np.int64),
        np.zeros((tiles, tokens, groups), np.int64), np.zeros((tiles, tokens, groups), np.int64),
        np.zeros((tiles, tokens), np.int64), np.zeros((tiles, queries), np.float32), np.zeros((tiles, queries), np.int64),
        np.zeros((tiles, queries), np.int64), np.zeros((tiles, queries, dim), np.int64),
    )  # fmt: skip
