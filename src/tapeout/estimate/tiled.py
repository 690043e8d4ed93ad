"""Cycles of a chip of the template: the chain of micro-ops that a layer waits for, added up from widths and pipelines; no schedule is made.

A tile works on its share of the rows, in whole groups of 32, and of the KV heads; the tile with the largest share is the one that all wait for.
Within a layer hardly anything overlaps: Q, K and V; scores; values; the output matrix; a norm; gate and up; the matrix down; a norm. What does
overlap is written as the larger of two chains. A chip that streams its weights reads on while it computes, as far as its buffers reach.
"""

from dataclasses import dataclass

import numpy as np

from tapeout.chip.machine import Value
from tapeout.chip.tiles import (
    ATTNOUT_PIPE,
    LANE_PIPE,
    MATMUL_PIPE,
    NORM_SCALARS,
    OPERAND_PIPE,
    SCORE_PIPE,
    SEGMENT_MIN,
    VALUE_PIPE,
    VECTOR_PIPE,
    Tiles,
)
from tapeout.estimate.tiled_parts import (
    GROUP,
    HEAD_PIECES,
    PACKET,
    PAIR_BYTES,
    SPREAD_PIECES,
    STREAM_PIECES,
    Cycles,
    Layer,
    Mask,
    Share,
    align,
    up,
)


@dataclass(frozen=True, slots=True)
class Chain:
    """A body of `tokens` tokens on the busiest tile."""

    part: Share
    tiles: Tiles
    tokens: Value
    outside: Mask
    """Whether the KV cache is in external memory."""

    # --- units ---

    def lanes(self, columns: Value) -> Value:
        """Cycles of the vector unit for a vector."""
        return up(columns, self.tiles.vector_lanes)

    @property
    def _packet(self) -> Value:
        """From a group's last value to its packet."""
        return self.lanes(GROUP) + VECTOR_PIPE

    def _operand(self, columns: float) -> Cycles:
        return Cycles(compute=self.tokens * self._steps(columns), pipes=OPERAND_PIPE)

    def _steps(self, columns: float) -> Value:
        """Cycles of a row block for one token."""
        return align(columns, GROUP) / self.tiles.lanes

    def matmul(self, rows: Value, columns: float) -> Value:
        """Cycles, rows filled up to whole blocks."""
        return up(rows, self.tiles.rows) * self._steps(columns) * self.tokens

    def _norm(self) -> Cycles:
        """Three passes over the width, and the scalars between them; the same in every tile."""
        work = self.tokens * 3 * self.lanes(self.part.shape.width)
        return Cycles(elementwise=work, pipes=self.tokens * NORM_SCALARS + self._packet)

    def _send(self, size: Value, pieces: Value = 1.0, apart: Value = 0.0, own: Value = 0.0) -> Cycles:
        """The tiles give one another their parts of a vector, `size` bytes per token in all. What is left of it when the last of `pieces` is made,
        one every `apart` cycles, each written in `own` cycles.

        Wherever they come from, they enter a tile one after the other: the vector lies in banks that have one write port each.
        """
        tiles = self.tiles
        senders = np.where(np.asarray(tiles.count) > 1, tiles.count, 0)
        piece = senders * self.tokens * up(size / tiles.count / pieces, tiles.link_bytes)
        left = np.maximum(piece, pieces * (piece + own) - own - (pieces - 1) * apart)
        return Cycles(links=left, pipes=tiles.gather_cycles)

    def _context(self, keys: Value, heads: Value) -> Value:
        """Cycles of scores or values for `keys` keys."""
        unit = self.tiles
        return heads * self.tokens * up(keys, unit.keys) * up(self.part.shape.head_width, unit.attention_lanes)

    def _quantized(self, columns: Value, heads: Value) -> Value:
        """Cycles in which the vector unit takes in heads, each one group."""
        return self.tokens * heads * self.lanes(columns)

    # --- what a body is made of ---

    def layer(self) -> Layer:
        """A layer of this body, and the embedding before the first."""
        first = self._attention_in() + self._attention_out() + self._feed_forward()
        further, rate, multiplied = self._block(), self._rate, self._multiplied()
        busy = further.attention + further.pipes
        block = np.where(self.outside, self.block_bytes() / rate, 0.0)
        kept = block + np.where(self.outside, self.records(self.tokens) / rate, 0.0)
        attention = self._attention_wait()
        return Layer(
            layers=float(self.part.shape.layers), embedding=self._embedding(), first=first, further=further, multiplied=multiplied,
            read=self.layer_read() / rate if self.tiles.streamed else 0.0, kept=kept, attention=attention,
            still=np.maximum(first.total - attention - multiplied, 0.0), unread=np.maximum(busy - block, 0.0), buffers=self._buffers,
        )  # fmt: skip

    def _multiplied(self) -> Value:
        part, shape = self.part, self.part.shape
        head, heads = shape.head_width, shape.heads * shape.head_width
        qkv = self.matmul(part.queries * head, shape.width) + 2 * self.matmul(part.kv_heads * head, shape.width)
        residual = self.matmul(GROUP * part.width, heads) + self.matmul(GROUP * part.width, shape.hidden)
        return qkv + residual + 2 * self.matmul(GROUP * part.hidden, shape.width)

    def _embedding(self) -> Cycles:
        """Rows of the table; in SRAM each tile has its columns of them."""
        tiles, part = self.tiles, self.part
        if tiles.streamed:
            rows = self.tokens * align(part.groups * GROUP * part.head_bytes, tiles.beat_bytes) / self._rate
            looked_up = self.tokens * self.lanes(GROUP * part.groups)
            return Cycles(elementwise=looked_up, pipes=LANE_PIPE, weights=rows + tiles.memory_latency) + self._norm()
        looked_up = self.tokens * self.lanes(GROUP * part.width)
        return Cycles(elementwise=looked_up, pipes=LANE_PIPE) + self._send(4 * GROUP * part.groups) + self._norm()

    def _attention_wait(self) -> Value:
        """Cycles between the last of K and the output matrix, the matrix unit idle: about what the attention unit needs."""
        values = self._context(self.tiles.block_keys, self.part.queries)
        return values + self.part.queries * self.tokens * up(self.part.shape.head_width, self.tiles.dividers)

    def _attention_in(self) -> Cycles:
        """Q, V and K one after the other; then the last K is rotated and scored. Where the cache's block takes longer than V and K, that counts."""
        part, head = self.part, self.part.shape.head_width
        width = self.part.shape.width
        q, kv = self.matmul(part.queries * head, width), self.matmul(part.kv_heads * head, width)
        rotated = self._quantized(head, 1.0)
        behind = rotated * part.kv_heads + self._quantized(head, part.kv_heads - 1)
        own = self._context(self.tokens, part.queries / part.kv_heads)
        # The attention unit: from Q on, the cache's first block, then all heads' own keys.
        queries = self._quantized(head, part.queries)
        early = queries + self._context(self.tiles.block_keys, part.queries) + own * (part.kv_heads - 1)
        # The vector unit: the queries and the first V, then the rest, which begins with a K.
        slow = np.maximum(queries + rotated - 2 * kv, 0.0)
        more = np.maximum(early - 2 * kv - slow - behind, 0.0)
        return self._operand(width) + Cycles(
            compute=q + 2 * kv,
            attention=own + more,
            elementwise=behind + slow,
            pipes=MATMUL_PIPE + self._packet + SCORE_PIPE,
        )

    def _attention_out(self) -> Cycles:
        """Values, the division, packets to all tiles, the output matrix, its rows to all tiles, the norm."""
        part, shape = self.part, self.part.shape
        values = self._context(self.tiles.block_keys, part.queries) + self._context(self.tokens, part.queries)
        together = np.minimum(float(part.together), part.queries)
        groups = up(part.queries, together)
        divided = together * self.tokens * up(shape.head_width, self.tiles.dividers)
        packed = self.tokens * up(together * shape.head_width, GROUP) * self.lanes(GROUP)
        behind = np.maximum(groups * divided + packed, divided + groups * packed) - groups * divided
        out = Cycles(
            attention=values + groups * divided,
            elementwise=behind,
            pipes=2 * VALUE_PIPE + ATTNOUT_PIPE + self._packet,
        ) + self._send(up(shape.heads * shape.head_width, GROUP) * PACKET, groups, np.maximum(divided, packed), packed)
        return out + self._residual(shape.heads * shape.head_width)

    def _residual(self, columns: float) -> Cycles:
        """A matrix whose rows are the residual's, their exchange, and the norm behind it."""
        rows = GROUP * self.part.width
        multiplied = Cycles(compute=self.matmul(rows, columns), pipes=MATMUL_PIPE)
        return self._operand(columns) + multiplied + self._send(4 * GROUP * self.part.groups) + self._norm()

    def _feed_forward(self) -> Cycles:
        """Gate and up piece by piece, the gated product behind each piece; the matrix down."""
        shape, rows = self.part.shape, GROUP * self.part.hidden
        piece = self.piece_rows(rows, shape.width, self.part.layer_bytes, spread=True)
        pieces = up(rows, piece)
        multiplied = 2 * self.matmul(rows, shape.width)
        last = np.clip(rows - (pieces - 1) * piece, GROUP, rows)
        gated, all_gated = self.tokens * self.lanes(last), self.tokens * self.lanes(rows)
        behind = np.maximum(gated, multiplied / pieces + all_gated - multiplied)
        made = Cycles(compute=multiplied, elementwise=behind, pipes=MATMUL_PIPE + self._packet)
        sent = self._send(up(shape.hidden, GROUP) * PACKET, pieces, multiplied / pieces, gated)
        return self._operand(shape.width) + made + sent + self._residual(shape.hidden)

    def _block(self) -> Cycles:
        """Another context block of one layer: scores in one segment, values in another."""
        busy = self._context(self.tiles.block_keys, self.part.queries)
        scores = np.maximum(busy + SCORE_PIPE, SEGMENT_MIN)
        values = np.maximum(busy + VALUE_PIPE, SEGMENT_MIN)
        pipes = scores + values - 2 * busy
        read = np.where(self.outside, self.block_bytes() / self._rate, 0.0)
        return Cycles(attention=2 * busy, pipes=pipes, kv_cache=np.maximum(read - scores - values, 0.0))

    def logits(self, ahead: Value) -> Cycles:
        """The last token's logits and the greatest of them; this chain has one token. `ahead`: cycles' worth of weights that stand in the buffers."""
        shape, rows = self.part.shape, GROUP * self.part.vocabulary
        columns = shape.width
        piece = self.piece_rows(rows, columns, self.part.head_bytes, spread=True)
        pieces = up(rows, piece)
        left: Value = pieces
        pipes: Value = MATMUL_PIPE
        if self.tiles.streamed:
            turns = np.maximum(np.floor(np.floor(rows / piece) / HEAD_PIECES) - 2, 0)
            turns = np.where(turns > 1, turns, 0)
            left, pipes = pieces - turns * HEAD_PIECES, pipes + turns * MATMUL_PIPE
        multiplied = self.matmul(rows, columns)
        # Of what stands in the last stage all but its first piece is searched behind the last product; what came before it, under the products.
        last = np.where(
            left > 1, np.where(left < pieces, rows - (pieces - left) * piece, rows - (pieces - 1) * piece), rows
        )
        found, before = self.lanes(last), self.lanes(rows - last)
        shown = np.maximum(found, found + before - multiplied * left / pieces)
        out = Cycles(compute=multiplied, elementwise=shown + 1, pipes=pipes + 2 * LANE_PIPE)
        loaded = self._operand(columns)
        read = self.head_read() / self._rate if self.tiles.streamed else 0.0
        wait = np.maximum(read - ahead - loaded.total - multiplied, 0.0)
        return loaded + out + self._send(PAIR_BYTES * self.tiles.count) + Cycles(weights=wait)

    # --- external memory ---

    def piece_rows(self, rows: Value, columns: float, bytes_per_weight: float, spread: bool = False) -> Value:
        """Rows that one micro-op multiplies with: of a streamed matrix, as many as a quarter of the buffer holds."""
        unit = self.tiles.rows
        most = align(rows, unit)
        if spread:
            most = np.minimum(most, np.maximum(align(up(rows, SPREAD_PIECES), GROUP), GROUP))
        if not self.tiles.streamed:
            return most
        blocks = np.maximum(
            np.floor(self.tiles.stream_bytes / STREAM_PIECES / self._row_block(columns, bytes_per_weight)), 1
        )
        return np.minimum(most, blocks * unit)

    def streams(self) -> Mask:
        """Whether a quarter of the stream buffer holds a row block of every matrix."""
        shape = self.part.shape
        widest = max(shape.width, shape.heads * shape.head_width, shape.hidden)
        blocks = self._row_block(widest, self.part.layer_bytes), self._row_block(shape.width, self.part.head_bytes)
        most = align(np.maximum(*blocks), self.tiles.beat_bytes)
        return np.asarray(STREAM_PIECES * most <= self.tiles.stream_bytes) | (not self.tiles.streamed)

    def _row_block(self, columns: float, bytes_per_weight: float) -> Value:
        """Bytes of a row block: a byte per row beside its groups."""
        return self.tiles.rows * (1 + align(columns, GROUP) * bytes_per_weight)

    def _read(self, rows: Value, columns: float, all_rows: Value, bytes_per_weight: float, spread: bool) -> Value:
        """Bytes of a whole matrix of `all_rows` as its pieces are streamed, each in whole beats; `rows` of them are the busiest tile's."""
        piece = self.piece_rows(rows, columns, bytes_per_weight, spread)
        size = piece / self.tiles.rows * self._row_block(columns, bytes_per_weight)
        return align(size, self.tiles.beat_bytes) * all_rows / piece

    def layer_read(self) -> Value:
        """Bytes of a layer's matrices and norms."""
        part, shape = self.part, self.part.shape
        head, kv = shape.head_width, shape.kv_heads * shape.head_width
        form = part.layer_bytes
        q = self._read(part.queries * head, shape.width, align(shape.heads * head, self.tiles.rows), form, False)
        k = self._read(part.kv_heads * head, shape.width, align(kv, self.tiles.rows), form, False)
        o = self._read(GROUP * part.width, shape.heads * head, GROUP * part.groups, form, False)
        gate = self._read(GROUP * part.hidden, shape.width, align(shape.hidden, GROUP), form, True)
        down = self._read(GROUP * part.width, shape.hidden, GROUP * part.groups, form, False)
        return q + 2 * k + o + 2 * gate + down + 2 * align(4 * shape.width, self.tiles.beat_bytes)

    def head_read(self) -> Value:
        """Bytes of the head."""
        shape = self.part.shape
        return self._read(
            GROUP * self.part.vocabulary, shape.width, align(shape.vocabulary, GROUP), self.part.head_bytes, True
        )

    def records(self, tokens: Value) -> Value:
        """Bytes of one layer's keys and values of `tokens` tokens: codes, scales; a key's record has its value's scale too."""
        head, beat = self.part.shape.head_width, self.tiles.beat_bytes
        return self.part.shape.kv_heads * (align(tokens * (head + 4), beat) + align(tokens * (head + 2), beat))

    def block_bytes(self) -> Value:
        """Of one layer's context block."""
        return self.records(self.tiles.block_keys)

    @property
    def _rate(self) -> Value:
        """Bytes per cycle: what the memory gives, or what finds room on its way: a quarter of the buffers holds what is being used."""
        tiles = self.tiles
        flying = tiles.count * tiles.stream_bytes * (1 - 1 / STREAM_PIECES) / np.maximum(tiles.memory_latency, 1)
        return np.maximum(np.minimum(tiles.memory_bytes, flying), 1e-9)

    @property
    def _buffers(self) -> Value:
        """Cycles until the stream buffers are full."""
        return self.tiles.count * self.tiles.stream_bytes / self._rate
