"""How many tokens of a prompt a chip of the template takes at once, and where its KV cache goes: the regions of a tile's SRAM, added up.

The largest of `CHUNKS` that fits is taken: with the cache in SRAM if at least four tokens (or all that the unit takes) fit beside it, else with the
cache in external memory, else whatever fits. Without a fit the model does not run.
"""

from dataclasses import dataclass

import numpy as np

from tapeout.chip.machine import Value
from tapeout.chip.tiles import Tiles
from tapeout.estimate.tiled import Chain
from tapeout.estimate.tiled_parts import GROUP, PACKET, PAIR_BYTES, Mask, Share, align, up

CHUNKS = (16, 8, 4, 2, 1)
USEFUL = 4
LINE = 16
"""Regions begin at multiples of it."""


@dataclass(frozen=True, slots=True)
class Room:
    """tokens: per chunk, 0 where nothing fits. outside: whether the KV cache is in external memory."""

    tokens: Value
    outside: Mask


def room(part: Share, tiles: Tiles, context: Value) -> Room:
    """Try chunks and places in the order in which they are wanted, until every design has one."""
    most = np.minimum(tiles.chunk_tokens, CHUNKS[0])
    tokens = np.zeros(np.shape(most + context + tiles.sram_bytes))
    outside = np.zeros(tokens.shape, bool)
    useful = np.minimum(USEFUL, 2.0 ** np.floor(np.log2(most)))
    external = np.asarray(tiles.memory_bytes) > 0
    tries = [(count, False, count >= useful) for count in CHUNKS]
    tries += [(count, True, external) for count in CHUNKS]
    tries += [(count, False, count < useful) for count in CHUNKS]
    for count, out, wanted in tries:
        open_still = (tokens == 0) & wanted & (count <= most)
        if np.any(open_still):
            found = open_still & fits(part, tiles, context, count, out)
            tokens, outside = np.where(found, count, tokens), np.where(found, out, outside)
    return Room(tokens, outside)


def fits(part: Share, tiles: Tiles, context: Value, tokens: int, outside: bool) -> Mask:
    """Whether a chunk of `tokens` fits SRAM, operand buffer, query states, stream and write buffers; and the model the external memory."""
    shape, head = part.shape, part.shape.head_width
    records = part.kv_heads * tokens * (2 * head + 6)
    widest = max(_packets(shape.width), _packets(shape.heads * head), _packets(shape.hidden))
    held = (tokens * widest <= tiles.operand_bytes) & (part.queries * tokens <= tiles.queries)
    held = held & (_external(part, tiles, context, tokens, outside) <= np.maximum(tiles.capacity_bytes, 0))
    held = held & Chain(part, tiles, tokens, outside).streams()
    if outside:
        held = held & (records <= tiles.write_bytes)
    return held & (_sram(part, tiles, context, tokens, outside) <= tiles.sram_bytes)


def _packets(width: float) -> float:
    return -(-width // GROUP) * PACKET


def _capacity(tiles: Tiles, context: Value, tokens: int) -> Value:
    """Slots of the cache per KV head."""
    return align(context, tiles.block_keys) + tokens


def _cache(part: Share, tiles: Tiles, context: Value, tokens: int, kv_heads: Value) -> Value:
    """Bytes over all layers."""
    slots, head = _capacity(tiles, context, tokens), part.shape.head_width
    each = align(slots * (head + 4), tiles.beat_bytes) + align(slots * (head + 2), tiles.beat_bytes)
    return part.shape.layers * kv_heads * each


def _sram(part: Share, tiles: Tiles, context: Value, tokens: int, outside: bool) -> Value:
    """Bytes used of a tile: groups of regions, each group from a bank of its own on."""
    shape, head, queries = part.shape, part.shape.head_width, part.queries
    residual = 4 * GROUP * up(shape.width, GROUP) * tokens
    own = 4 * tokens
    unit = tiles.rows
    q, kv, hidden = align(queries * head, unit), align(part.kv_heads * head, unit), align(GROUP * part.hidden, unit)
    packets = [_packets(shape.width), _packets(shape.heads * head), _packets(shape.hidden), queries * (head + 2)]
    groups = [
        [residual, 2 * head, PAIR_BYTES * tiles.count, 8],
        [residual, own * queries * head, 4 * GROUP * part.vocabulary],
        [tokens * size for size in packets],
        [own * q, own * kv, own * kv, own * hidden, own * hidden],
        [queries * tokens * 4 * _capacity(tiles, context, tokens)],
    ]
    if outside:
        groups.append([part.kv_heads * tokens * (head + 4), part.kv_heads * tokens * (head + 2)])
    else:
        groups.append([_cache(part, tiles, context, tokens, part.kv_heads)])
    if not tiles.streamed:
        table = shape.vocabulary * GROUP * part.width * part.head_bytes
        layers = shape.layers * _layer(part, tiles)
        head_rows = align(GROUP * part.vocabulary, unit) * (1 + GROUP * up(shape.width, GROUP) * part.head_bytes)
        groups[0].append(4 * shape.width)
        groups.append([layers, head_rows, table])
    at: Value = 0.0
    for regions in groups:
        at = align(at, tiles.bank_bytes)
        for size in regions:
            at = at + align(size, LINE)
    return at


def _layer(part: Share, tiles: Tiles) -> Value:
    """Bytes of a layer's matrices and norms in the busiest tile."""
    shape, head = part.shape, part.shape.head_width

    def matrix(rows: Value, columns: float) -> Value:
        return align(rows, tiles.rows) * (1 + align(columns, GROUP) * part.layer_bytes)

    total = matrix(part.queries * head, shape.width) + 2 * matrix(part.kv_heads * head, shape.width)
    total = total + matrix(GROUP * part.width, shape.heads * head) + matrix(GROUP * part.width, shape.hidden)
    return total + 2 * matrix(GROUP * part.hidden, shape.width) + 8 * shape.width


def _external(part: Share, tiles: Tiles, context: Value, tokens: int, outside: bool) -> Value:
    """Bytes of external memory used."""
    size: Value = 0.0
    if tiles.streamed:
        chain = Chain(part, tiles, 1.0, outside)
        table = part.shape.vocabulary * align(part.groups * GROUP * part.head_bytes, 1)
        size = table + part.shape.layers * chain.layer_read() + chain.head_read()
    return size + _cache(part, tiles, context, tokens, part.shape.kv_heads) if outside else size
