"""Where every weight lies and how it is cut: the pieces that single micro-ops multiply with, and their bytes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.chip.spec import ChipSpec, MatrixUnit, WeightStore
from tapeout.compiler.decoder import Decoder, Run
from tapeout.compiler.shards import Shards, Span, rows_of
from tapeout.graph.types import Matrix, Weight
from tapeout.isa.layout import block_bytes, pack_blocks, pack_rows, per_block, row_bytes
from tapeout.isa.timing import ceil_div

SPREAD = ("gate", "up", "head")
"""Matrices cut finer than memory asks for, so that the vector unit works on one piece while the next is multiplied."""
SPREAD_PIECES = 4
STREAM_SHARE = 4
"""A piece takes at most this share of the stream buffer, so that the next ones arrive while it is used."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows first .. first+rows-1 of a tile's span of a matrix (rows padded to the matrix unit's), `size` bytes at `address`."""

    role: str
    tile: int
    first: int
    rows: int
    format: str
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Block:
    """The weights of one layer (or of the head), and the bytes from one layer to the next."""

    pieces: dict[tuple[str, int], tuple[Piece, ...]]
    """By role and tile."""
    norms: dict[str, int]
    """Addresses of the vectors that every tile needs whole (`Decoder.vectors`)."""
    biases: dict[tuple[str, int], tuple[int, Span]]
    """By role and tile: the address of its share of the bias, and the rows of it (beyond the matrix: zeros)."""
    size: int

    def of(self, role: str, tile: int) -> tuple[Piece, ...]:
        """The pieces of a role in a tile; empty where the tile has no rows of it."""
        return self.pieces.get((role, tile), ())


def align(value: int, to: int) -> int:
    """Rounded up to a multiple."""
    return ceil_div(value, to) * to


def piece_rows(chip: ChipSpec, role: str, rows: int, columns: int, format_name: str) -> int:
    """Rows of one piece, a multiple of the matrix unit's rows. Raises `BadInput` where one row block overfills the stream buffer."""
    unit = chip.tile.matrix.rows
    most = align(rows, unit)
    if role in SPREAD:
        most = min(most, max(align(ceil_div(rows, SPREAD_PIECES), 32), 32))
    if chip.weight_store is WeightStore.SRAM:
        return most
    room = chip.tile.stream_kib * 1024 // STREAM_SHARE
    one = align(block_bytes(unit, columns, format_name), _beat(chip))
    if one > room:
        raise BadInput(
            f"chip {chip.name}, tile.stream_kib",
            f"{chip.tile.stream_kib} KiB hold no {STREAM_SHARE} row blocks of {one:,} bytes ({role}, {columns} columns, {format_name})",
            f"use {ceil_div(one * STREAM_SHARE, 1024)} or more, or fewer tile.matrix.rows",
        )
    return min(most, room // block_bytes(unit, columns, format_name) * unit)


def _beat(chip: ChipSpec) -> int:
    return chip.external.beat_bytes if chip.external else 64


def plan_layer(decoder: Decoder, shards: Shards, run: Run, chip: ChipSpec) -> Block:
    """Cut and place the matrices and norms of one layer of `run`."""
    roles = [(role, run.formats[role], decoder.columns(role)) for role in decoder.roles]
    return _plan(
        roles,
        decoder.vectors(),
        decoder.biased,
        lambda role, tile: rows_of(decoder, shards, role, tile),
        shards.tiles,
        chip,
    )


def plan_head(decoder: Decoder, shards: Shards, chip: ChipSpec) -> Block:
    """Cut and place the head."""
    form = decoder.graph.weight(decoder.head).format
    spans = {tile: rows_of(decoder, shards, "head", tile) for tile in range(shards.tiles)}
    return _plan([("head", form, decoder.width)], (), (), lambda _, tile: spans[tile], shards.tiles, chip)


def _plan(
    roles: list[tuple[str, str, int]],
    norms: tuple[tuple[str, int], ...],
    biased: tuple[str, ...],
    span_of: Callable[[str, int], Span],
    tiles: int,
    chip: ChipSpec,
) -> Block:
    streamed = chip.weight_store is WeightStore.EXTERNAL
    beat = _beat(chip)
    at = [0] * tiles  # SRAM: one place per tile; external memory: one for all, kept equal
    pieces: dict[tuple[str, int], tuple[Piece, ...]] = {}
    places: dict[str, int] = {}
    for role, form, columns in roles:
        for tile in range(tiles):
            rows = span_of(role, tile).count
            if not rows:
                continue
            cut, step = [], piece_rows(chip, role, rows, columns, form)
            for first in range(0, align(rows, chip.tile.matrix.rows), step):
                count = min(step, align(rows, chip.tile.matrix.rows) - first)
                size = block_bytes(count, columns, form)
                cut.append(Piece(role, tile, first, count, form, at[tile], size))
                at[tile] += align(size, beat) if streamed else align(size, 4)
                if streamed:
                    at = [at[tile]] * tiles
            pieces[role, tile] = tuple(cut)
    for name, size in norms:
        top = align(max(at), beat)
        places[name] = top
        at = [top + size] * tiles
    biases: dict[tuple[str, int], tuple[int, Span]] = {}
    for role in biased:
        for tile in range(tiles):
            span = span_of(role, tile)
            if span.count:
                biases[role, tile] = align(at[tile], beat), span
                at[tile] = align(at[tile], beat) + 4 * span.count
                at = [at[tile]] * tiles if streamed else at
    return Block(pieces, places, biases, align(max(at), beat))


# --- bytes ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Store:
    """Memories being filled: SRAM of every tile, or external memory. `put` writes at an address."""

    sram: list[NDArray[np.uint8]]
    external: NDArray[np.uint8]
    streamed: bool

    def put(self, tile: int, address: int, data: NDArray[np.uint8]) -> None:
        """Write into external memory, or into the tile's SRAM."""
        target = self.external if self.streamed else self.sram[tile]
        flat = data.reshape(-1)
        target[address : address + flat.size] = flat


def matrix(weights: dict[str, Weight], name: str) -> Matrix:
    """A quantized matrix by name."""
    value = weights[name]
    assert isinstance(value, Matrix), f"{name} is not quantized"
    return value


def fill_pieces(
    store: Store, weight: Matrix, span: Span, pieces: tuple[Piece, ...], base: int, unit: MatrixUnit
) -> None:
    """Pack the rows of `span` (zeros beyond the matrix) and put each piece at base + its address."""
    have = max(0, min(span.end, weight.shape[0]) - span.first)
    missing = align(span.count, unit.rows) - have
    rows = slice(span.first, span.first + have)

    def take(array: NDArray) -> NDArray:
        part = array[rows]
        return np.pad(part, ((0, missing), (0, 0))) if missing else part

    codes, form = take(weight.codes), weight.format
    scale, minimum = (
        None if x is None else per_block(form, take(x), codes.shape[1]) for x in (weight.scale, weight.minimum)
    )
    blocks = pack_blocks(form, codes, scale, minimum, unit.rows, unit.lanes, weight.factor)
    for piece in pieces:
        part = blocks[piece.first // unit.rows : (piece.first + piece.rows) // unit.rows]
        store.put(piece.tile, base + piece.address, part)


def embedding_rows(weight: Matrix, groups: Span) -> NDArray[np.uint8]:
    """Rows of the embedding table, cut to groups of 32 columns: uint8 [vocabulary, bytes]."""
    columns = slice(32 * groups.first, min(32 * groups.end, weight.shape[1]))
    form, width = weight.format, weight.shape[1]
    parts = slice(32 // form.block * groups.first, 32 // form.block * groups.end)
    scale, minimum = (
        None if x is None else per_block(form, x, width)[:, parts] for x in (weight.scale, weight.minimum)
    )
    return pack_rows(form, weight.codes[:, columns], scale, minimum, weight.factor)


def embedding_row_bytes(decoder: Decoder, groups: int) -> int:
    """Bytes of `groups` groups of one embedding row."""
    return row_bytes(32 * groups, decoder.graph.weight(decoder.embed).format)


def position_row_bytes(decoder: Decoder, groups: int) -> int:
    """The same of a table of learned positions; 0 where there is none."""
    return row_bytes(32 * groups, decoder.graph.weight(decoder.positions).format) if decoder.positions else 0
