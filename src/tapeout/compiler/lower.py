"""From layers to micro-ops: what runs in which order on which tile, at which addresses. Issue cycles come later, in `schedule.py`.

A `Step` is one micro-op, or one per tile that must issue in the same cycle because they share what the streamer brings them.
"""

import struct
from dataclasses import dataclass, replace

from tapeout.base.errors import BadInput
from tapeout.chip.spec import ChipSpec, WeightStore
from tapeout.compiler.decoder import Decoder, Run
from tapeout.compiler.memory_map import HEAD_PIECES, KvStore, MemoryMap, position_rows
from tapeout.compiler.shards import Shards, Span
from tapeout.compiler.weights import Block, Piece, align, embedding_row_bytes, position_row_bytes
from tapeout.graph.types import GeGLU, Gelu, SwiGLU
from tapeout.isa.opcodes import FORMAT_IDS, SCORES, Flag, MicroOp, Op
from tapeout.isa.program import BLOCKS, READ, ROW, WRITE
from tapeout.numerics.tables import cap_constants, capped_score_constants, reciprocal_of_width, score_constant


@dataclass(frozen=True, slots=True)
class Feed:
    """One descriptor to be: what the streamer moves for a step."""

    kind: int
    base: int
    address: int
    size: int
    mask: int
    token: int = 0
    row_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """Micro-ops that issue together, and what they take from the stream, in order."""

    ops: tuple[MicroOp, ...]
    feeds: tuple[Feed, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """A segment before scheduling."""

    name: str
    steps: tuple[Step, ...]
    writes: tuple[Feed, ...] = ()
    """Descriptors that come behind all others of the segment."""
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class StageLoop:
    """A loop before scheduling."""

    name: str
    count: int
    stages: tuple[Stage, ...]


def bits32(value: float) -> int:
    """The bits of a number as binary32."""
    return struct.unpack("<I", struct.pack("<f", value))[0]


@dataclass(frozen=True, slots=True)
class Lowering:
    """Everything the stages are made from, for a body of `tokens` tokens."""

    decoder: Decoder
    shards: Shards
    runs: tuple[Run, ...]
    blocks: tuple[Block, ...]
    head: Block
    map: MemoryMap
    chip: ChipSpec
    tokens: int

    # --- what an entry is made of ---

    def body(self) -> tuple[StageLoop, ...]:
        """Embedding, then the layers; leaves the normalised last residual as packets in `x_packets`."""
        loops = [StageLoop("embedding", 1, (Stage("embed", tuple(self._embedding())),))]
        for index, run in enumerate(self.runs):
            stages = (
                Stage("attention in", tuple(self._attention_in(index))),
                *self._further_blocks(index),
                Stage("attention out, ffn", tuple(self._rest(index)), tuple(self._cache_writes(index))),
            )
            loops.append(StageLoop(f"layers {run.first}..{run.first + run.count - 1}", run.count, stages))
        return tuple(loops)

    def logits(self) -> tuple[StageLoop, ...]:
        """Logits of row LAST in every tile, and the greatest of all in tile 0."""
        load = Step(tuple(self._operand(t, "x", 1, self._base("last row")) for t in self._all))
        pieces = [self.head.of("head", tile) for tile in self._all]
        rounds = self._head_rounds(pieces)
        left = [part[rounds * HEAD_PIECES :] for part in pieces]
        rest = [s for tile in self._all for s in self._head_pieces(tile, left[tile], 0)]
        finds = self._argmax(left)
        if not rounds:
            return (StageLoop("head", 1, (Stage("head, argmax", (load, *rest, *finds)),)),)
        stages = (
            Stage("head operand", (load,)),
            Stage("head", tuple(self._head_round(pieces)), repeat=rounds),
            Stage("head rest, argmax", (*rest, *finds)),
        )
        return (StageLoop("head", 1, stages),)

    # --- helpers ---

    @property
    def _all(self) -> range:
        return range(self.shards.tiles)

    @property
    def _streamed(self) -> bool:
        return self.chip.weight_store is WeightStore.EXTERNAL

    @property
    def _everybody(self) -> int:
        return (1 << self.shards.tiles) - 1

    def _base(self, name: str) -> int:
        return self.map.base(name)

    def _at(self, name: str) -> int:
        return self.map.at(name)

    def _stored(self, name: str) -> int:
        """Start of a weight region in the memory where weights live."""
        return (self.map.external if self._streamed else self.map.sram)[name].start

    def _send(
        self, tile: int, region: str, offset: int, size: int, stride: int, targets: int | None = None
    ) -> list[Step]:
        """Give a tile's slice of a gathered buffer to the others, at the same address."""
        others = (self._everybody if targets is None else targets) & ~(1 << tile)
        if not others or not size:
            return []
        at = self._at(region) + offset
        return [
            Step((MicroOp(Op.SEND, tile, a=at, dst=at, rows=self.tokens, columns=size, s0=stride, s1=stride, s2=others),))
        ]  # fmt: skip

    def _operand(self, tile: int, vector: str, tokens: int, base: int = 0) -> MicroOp:
        columns, stride = {
            "x": (self.decoder.width, self.map.sizes.x_packets),
            "o": (self.decoder.heads * self.decoder.head_dim, self.map.sizes.o_packets),
            "hidden": (self.decoder.hidden, self.map.sizes.hidden_packets),
        }[vector]
        return MicroOp(
            Op.OPERAND,
            tile,
            a=self._at(f"{vector}_packets"),
            a_base=base,
            s0=stride,
            tokens=tokens,
            columns=align(columns, 32),
        )

    def _matmul(
        self, piece: Piece, columns: int, out: int, out_stride: int, tokens: int, weights: int, base: int, out_base: int = 0
    ) -> Step:  # fmt: skip
        """One piece: weights at `weights` + its address (base register `base`), in SRAM or by a descriptor."""
        op = MicroOp(
            Op.MATMUL, piece.tile, dst=out + 4 * piece.first, dst_base=out_base, s0=out_stride, rows=piece.rows,
            columns=align(columns, 32), tokens=tokens, format=FORMAT_IDS.index(piece.format),
        )  # fmt: skip
        if self._streamed:
            feed = Feed(READ, base, weights + piece.address, piece.size, 1 << piece.tile)
            return Step((_with(op, flags=Flag.STREAM, s4=piece.size),), (feed,))
        return Step((_with(op, b=weights + piece.address, b_base=base),))

    def _matmuls(self, run: int, role: str, tile: int, region: str, offset: int = 0) -> list[Step]:
        """All pieces of a tile's share of a layer matrix, into `region` (token stride: the region's)."""
        stride = self._stride(region)
        out = self._at(region) + offset
        return [
            self._matmul(piece, self.decoder.columns(role), out, stride, self.tokens, self._stored(f"weights{run}"), self._base(f"weights{run}"))
            for piece in self.blocks[run].of(role, tile)
        ]  # fmt: skip

    def _stride(self, region: str) -> int:
        """Bytes from one token to the next in an f32 region."""
        if region == "y":
            return self.map.sizes.x_stride
        return self.map.sram[region].size // self.map.sizes.tokens

    # --- embedding and norms ---

    def _embedding(self) -> list[Step]:
        form = FORMAT_IDS.index(self.decoder.graph.weight(self.decoder.embed).format)
        groups = (
            [Span(0, sum(s.count for s in self.shards.width))] * self.shards.tiles
            if self._streamed
            else self.shards.width
        )
        steps, ops = [], []
        for tile in self._all:
            row = embedding_row_bytes(self.decoder, groups[tile].count)
            if groups[tile].count:
                op = MicroOp(
                    Op.EMBED, tile, dst=self._at("x") + 128 * groups[tile].first, s1=self.map.sizes.x_stride, s0=row,
                    s3=self.decoder.vocabulary, tokens=self.tokens, columns=32 * groups[tile].count, format=form,
                )  # fmt: skip
                ops.append(op)
        if self._streamed:
            row = ops[0].s0
            feeds = tuple(
                Feed(ROW, 0, self._stored("embedding"), row, self._everybody, token, row)
                for token in range(self.tokens)
            )
            steps.append(Step(tuple(_with(op, flags=Flag.STREAM, s4=row * self.tokens) for op in ops), feeds))
            steps += self._embedding_changed(ops)
        else:
            steps += [Step((_with(op, b=self._at("embedding")),)) for op in ops]
            steps += self._embedding_changed(ops)
            for tile in self._all:
                span = self.shards.width[tile]
                steps += self._send(tile, "x", 128 * span.first, 128 * span.count, self.map.sizes.x_stride)
        return [*steps, self._norm(self._stored("first_norm"), 0, add=False)]

    def _embedding_changed(self, embeds: list[MicroOp]) -> list[Step]:
        """The embedding times its factor, and the learned positions added to it."""
        steps, decoder = [], self.decoder
        if decoder.embed_scale != 1:
            for op in embeds:
                scaled = MicroOp(
                    Op.SCALE, op.tile, a=op.dst, s0=op.s1, columns=op.columns, tokens=op.tokens, s2=bits32(decoder.embed_scale)
                )  # fmt: skip
                steps.append(Step((scaled,)))
        if not decoder.positions:
            return steps
        row, base = self.map.sizes.position_row, self._base("position")
        form, at = FORMAT_IDS.index(decoder.graph.weight(decoder.positions).format), self._stored("positions")
        rows = position_rows(self.map.sizes)
        ops = [replace(op, op=Op.POSITION, format=form, s0=row, s3=rows) for op in embeds]
        if not self._streamed:
            return [*steps, *(Step((_with(op, b=at, b_base=base),)) for op in ops)]
        size = self.tokens * position_row_bytes(decoder, ops[0].columns // 32)
        feed = Feed(READ, base, at, size, self._everybody)
        return [*steps, Step(tuple(_with(op, flags=Flag.STREAM, s4=size) for op in ops), (feed,))]

    def _bias(
        self, run: int, role: str, tile: int, region: str, offset: int = 0, part: Span | None = None
    ) -> list[Step]:
        """Add a tile's share of a bias, or `part` of it (rows from the tile's first on), to what stands in `region`."""
        found = self.blocks[run].biases.get((role, tile))
        if found is None:
            return []
        address, span = found
        part = part or Span(0, span.count)
        op = MicroOp(
            Op.BIAS, tile, a=self._at(region) + offset + 4 * part.first, s0=self._stride(region), columns=part.count, tokens=self.tokens
        )  # fmt: skip
        at = self._stored(f"weights{run}") + address + 4 * part.first
        return [self._with_vector((op,), at, self._base(f"weights{run}"), 4 * part.count)]

    def _with_vector(self, ops: tuple[MicroOp, ...], at: int, base: int, size: int) -> Step:
        """Micro-ops that all take the same float vector, from their SRAM or from one descriptor."""
        if not self._streamed:
            return Step(tuple(_with(op, c=at, c_base=base) for op in ops))
        feed = Feed(READ, base, at, size, sum(1 << op.tile for op in ops))
        return Step(tuple(_with(op, flags=op.flags | Flag.STREAM, s4=size) for op in ops), (feed,))

    def _norm_in_place(self, run: int, name: str, region: str, heads: dict[int, int], columns: int) -> list[Step]:
        """Norm what stands in `region`: per tile so many heads of `columns`. Nothing where the layer has no such norm."""
        at = self.blocks[run].norms.get(name)
        if at is None:
            return []
        ops = tuple(
            MicroOp(
                Op.HEADNORM, tile, a=self._at(region), s0=self._stride(region), heads=count, columns=columns, tokens=self.tokens,
                s2=bits32(self.decoder.eps), s3=bits32(float(reciprocal_of_width(columns))),
            )
            for tile, count in heads.items()
        )  # fmt: skip
        at += self._stored(f"weights{run}")
        return [self._with_vector(ops, at, self._base(f"weights{run}"), 4 * columns)]

    def _norm(self, weight: int, base: int, add: bool) -> Step:
        """The same norm in every tile: the residual is replicated."""
        size = self.map.sizes
        flags = (Flag.ADD if add else Flag.NONE) | (Flag.STREAM if self._streamed else Flag.NONE)
        count = self.decoder.norm_bytes
        kind = Op.LAYERNORM if len(self.decoder.norm) > 1 else Op.NORM
        ops = []
        for tile in self._all:
            op = MicroOp(
                kind, tile, flags=flags, a=self._at("x"), s0=size.x_stride, b=self._at("y") if add else 0,
                dst=self._at("x_packets"), s1=size.x_packets, columns=self.decoder.width, tokens=self.tokens,
                s2=bits32(self.decoder.eps), s3=bits32(float(reciprocal_of_width(self.decoder.width))),
            )  # fmt: skip
            ops.append(_with(op, s4=count) if self._streamed else _with(op, c=weight, c_base=base))
        feeds = (Feed(READ, base, weight, count, self._everybody),) if self._streamed else ()
        return Step(tuple(ops), feeds)

    # --- attention ---

    def _key_address(self, run: int, head: int, recent: bool) -> tuple[int, int, int, int]:
        """(key base, key offset, value base, value offset) of local KV head `head`: where this step's records go, or block 0."""
        size = self.map.sizes
        if recent and self.map.kv is KvStore.EXTERNAL:
            return (
                0, self._at("keys") + head * size.tokens * size.key_bytes,
                0, self._at("values") + head * size.tokens * size.value_bytes,
            )  # fmt: skip
        beat = self.chip.external.beat_bytes if self.chip.external else 4
        keys, values = align(size.capacity * size.key_bytes, beat), align(size.capacity * size.value_bytes, beat)
        region = self.map.sram["kv"] if self.map.kv is KvStore.SRAM else self.map.external["kv"]
        start = region.start + self.runs[run].first * size.kv_layer + head * (keys + values)
        kind = "slot" if recent else "block"
        return self._base(f"key {kind}"), start, self._base(f"value {kind}"), start + keys

    def _attention_in(self, run: int) -> list[Step]:
        """Q first: while K and V are multiplied, it is rotated and meets the cache's first block."""
        working = [tile for tile in self._all if self.shards.kv_heads[tile].count]
        steps = [Step((self._operand(tile, "x", self.tokens),)) for tile in working]
        for role in ("q", "v", "k"):
            for tile in working:
                steps += self._matmuls(run, role, tile, role)
                steps += self._bias(run, role, tile, role)
        kv = {tile: self.shards.kv_heads[tile].count for tile in working}
        queries = {tile: count * self.decoder.queries_per_kv for tile, count in kv.items()}
        steps += self._norm_in_place(run, "q_norm", "q", queries, self.decoder.head_dim)
        steps += self._norm_in_place(run, "k_norm", "k", kv, self.decoder.head_dim)
        steps += [Step((self._rotate_queries(run, tile),)) for tile in working]
        steps += self._blocks("score", run, first=True)
        for tile in working:
            for head in range(self.shards.kv_heads[tile].count):
                steps += self._cache_head(run, tile, head)
                key_base, key, _, _ = self._key_address(run, head, recent=True)
                op = self._context_op("score", run, tile, head, Flag.RECENT, self.tokens)
                steps.append(Step((_with(op, b=key, b_base=key_base, dst=op.dst + self._recent_scores),)))
        return steps

    @property
    def _recent_scores(self) -> int:
        """Where the scores of this step's own keys stand, behind those of the blocks."""
        return self.map.sizes.score_stride - 4 * self.map.sizes.tokens

    def _cache_head(self, run: int, tile: int, head: int) -> list[Step]:
        """Quantize one KV head's V, rotate and quantize its K."""
        dim, size = self.decoder.head_dim, self.map.sizes
        key_base, key, value_base, value = self._key_address(run, head, recent=True)
        keys, values = (_nibbles(bits) for bits in (self.decoder.kv.key_bits, self.decoder.kv.value_bits))
        rope = MicroOp(
            Op.ROPE, tile, flags=keys, a=self._at("k") + 4 * head * dim, s0=self._stride("k"), c=self._increments(run), dst=key,
            dst_base=key_base, s1=size.key_bytes, s2=0, heads=1, columns=dim, tokens=self.tokens,
        )  # fmt: skip
        quant = MicroOp(
            Op.QUANT, tile, flags=Flag.AUX | values, a=self._at("v") + 4 * head * dim, s0=self._stride("v"), dst=value,
            dst_base=value_base, s1=size.value_bytes, b=key + size.key_bytes - 2, b_base=key_base, s2=size.key_bytes, columns=dim,
            group=dim, tokens=self.tokens,
        )  # fmt: skip
        return [Step((quant,)), Step((rope,))]

    def _cache_sends(self, run: int) -> list[Step]:
        """This step's records on their way to external memory."""
        if self.map.kv is KvStore.SRAM:
            return []
        steps, size = [], self.map.sizes
        for tile in self._all:
            for head in range(self.shards.kv_heads[tile].count):
                _, key, _, value = self._key_address(run, head, recent=True)
                for at, record in ((key, size.key_bytes), (value, size.value_bytes)):
                    op = MicroOp(Op.SEND, tile, flags=Flag.EXTERNAL, a=at, rows=1, columns=self.tokens * record)
                    steps.append(Step((op,)))
        return steps

    def _cache_writes(self, run: int) -> list[Feed]:
        """The descriptors that carry this step's records to external memory."""
        if self.map.kv is KvStore.SRAM:
            return []
        feeds, size = [], self.map.sizes
        for tile in self._all:
            for head in range(self.shards.kv_heads[tile].count):
                _, key, _, value = self._key_address(run, self.shards.kv_heads[tile].first + head, recent=False)
                slot = self._base("key slot"), self._base("value slot")
                feeds.append(Feed(WRITE, slot[0], key, self.tokens * size.key_bytes, 1 << tile))
                feeds.append(Feed(WRITE, slot[1], value, self.tokens * size.value_bytes, 1 << tile))
        return feeds

    def _increments(self, run: int) -> int:
        """Where the turns per position of a run's layers stand."""
        return self._at("increments") + 2 * self.decoder.head_dim * self.decoder.turns.index(self.runs[run].turn)

    def _rotate_queries(self, run: int, tile: int) -> MicroOp:
        dim, heads = self.decoder.head_dim, self.shards.kv_heads[tile].count * self.decoder.queries_per_kv
        return MicroOp(
            Op.ROPE, tile, a=self._at("q"), s0=self._stride("q"), c=self._increments(run), dst=self._at("q_packets"),
            s1=dim + 2, s2=self.tokens * (dim + 2), heads=heads, columns=dim, tokens=self.tokens,
        )  # fmt: skip

    def _window(self, run: int) -> int:
        """The window of a run's layers; 0 where no context that is planned for reaches beyond it."""
        window = self.runs[run].window
        if window >= self.map.sizes.context:
            return 0
        if window > MOST_WINDOW:
            raise BadInput(
                f"graph {self.decoder.graph.name}", f"a window of {window} tokens in a context of {self.map.sizes.context}",
                f"the chip takes windows of up to {MOST_WINDOW}; try a --context of that or less",
            )  # fmt: skip
        return window

    def _context_op(self, what: str, run: int, tile: int, head: int, flags: Flag, keys: int) -> MicroOp:
        """score or value of one local KV head, of block 0's scores; without its keys' address."""
        dim, per_kv, size = self.decoder.head_dim, self.decoder.queries_per_kv, self.map.sizes
        window, cap = self._window(run), self.decoder.score_cap
        near = window or cap
        flags |= _nibbles(self.decoder.kv.value_bits if what == "value" else self.decoder.kv.key_bits)
        kinds = (Op.NEARSCORE, Op.NEARVALUE) if near else (Op.SCORE, Op.VALUE)
        made = MicroOp(
            kinds[what == "value"], tile, flags=flags, s2=size.score_stride, heads=per_kv, tokens=self.tokens, rows=keys,
            columns=dim, slot=head * per_kv * self.tokens, group=window,
        )  # fmt: skip
        scores = self._at("scores")
        if what == "value":
            return _with(made, a=scores)
        constant = float(score_constant(self.decoder.scalar))
        if cap:
            constant, back = map(float, capped_score_constants(self.decoder.scalar, cap))
            made = _with(made, c=bits32(back))
        queries = self._at("q_packets") + head * per_kv * self.tokens * (dim + 2)
        return _with(
            made,
            a=queries,
            s0=self.tokens * (dim + 2),
            s1=dim + 2,
            s3=bits32(constant),
            dst=scores,
        )

    def _blocks(self, what: str, run: int, first: bool) -> list[Step]:
        """One context block of the cache, for every KV head of every tile: the first, or one of those behind it."""
        block, steps = self.chip.tile.attention.block_keys, []
        for tile in self._all:
            for head in range(self.shards.kv_heads[tile].count):
                outside = self.map.kv is KvStore.EXTERNAL
                number = head + (self.shards.kv_heads[tile].first if outside else 0)
                key_base, key, value_base, value = self._key_address(run, number, recent=False)
                base, at = (key_base, key) if what == "score" else (value_base, value)
                record = self.map.sizes.key_bytes if what == "score" else self.map.sizes.value_bytes
                at += 0 if first else block * record
                op = self._block_op(what, run, tile, head, first)
                if outside:
                    feed = Feed(READ, base, at, block * record, 1 << tile)
                    steps.append(Step((_with(op, flags=op.flags | Flag.STREAM, s4=block * record),), (feed,)))
                else:
                    steps.append(Step((_with(op, b=at, b_base=base),)))
        return steps

    def _further_blocks(self, run: int) -> tuple[Stage, ...]:
        """The segments of the blocks behind the first, where the context has any."""
        if self.map.sizes.context <= self.chip.tile.attention.block_keys:
            return ()
        return tuple(
            Stage(f"{what} blocks", tuple(self._blocks(what, run, first=False)), repeat=BLOCKS)
            for what in ("score", "value")
        )

    def _block_op(self, what: str, run: int, tile: int, head: int, first: bool) -> MicroOp:
        """score or value of the first block, or of the one that base register "score block" stands at."""
        block, base = self.chip.tile.attention.block_keys, self._base("score block")
        flags = Flag.FIRST if first and what == "score" else Flag.NONE
        op = self._context_op(what, run, tile, head, flags, block)
        if first:
            return op
        if op.op in SCORES:
            return _with(op, dst=op.dst + 4 * block, dst_base=base)
        return _with(op, a=op.a + 4 * block, a_base=base)

    def _values(self, run: int) -> list[Step]:
        """The first block's values, and this step's own; head by head where the cache can be read again for each, so that the first ends soon."""
        blocks, per_kv = self._blocks("value", run, first=True), self.decoder.queries_per_kv
        steps = []
        for tile in self._all:
            for head in range(self.shards.kv_heads[tile].count):
                _, _, value_base, value = self._key_address(run, head, recent=True)
                op = self._context_op("value", run, tile, head, Flag.RECENT, self.tokens)
                pair = [blocks.pop(0), Step((_with(op, b=value, b_base=value_base, a=op.a + self._recent_scores),))]
                if self.map.kv is KvStore.EXTERNAL:
                    steps += pair
                else:
                    steps += [self._one_head(step, query) for query in range(per_kv) for step in pair]
        return steps

    def _one_head(self, step: Step, query: int) -> Step:
        """The part of a score's or value's step that is about one of its query heads."""
        (op,) = step.ops
        return Step((_with(op, heads=1, slot=op.slot + query * self.tokens),), step.feeds)

    # --- the rest of a layer ---

    def _rest(self, run: int) -> list[Step]:
        size, block, weights = self.map.sizes, self.blocks[run], self._base(f"weights{run}")
        norms = {name: self._stored(f"weights{run}") + at for name, at in block.norms.items()}
        steps = self._values(run)
        steps += [step for tile in self._all for step in self._attention_out(tile)]
        steps += self._cache_sends(run)
        steps += self._multiply(run, "o", "o", "y")
        steps += self._gather("y", self.shards.width, 128, size.x_stride)
        steps += self._norm_in_place(run, "attn_post_norm", "y", dict.fromkeys(self._all, 1), self.decoder.width)
        steps.append(self._norm(norms["ffn_norm"], weights, add=True))
        steps += self._feed_forward(run)
        steps += self._multiply(run, "down", "hidden", "y")
        steps += self._gather("y", self.shards.width, 128, size.x_stride)
        steps += self._norm_in_place(run, "ffn_post_norm", "y", dict.fromkeys(self._all, 1), self.decoder.width)
        steps.append(self._norm(norms["next_norm"], weights, add=True))
        return steps

    def _gather(self, region: str, spans: tuple[Span, ...], unit: int, stride: int) -> list[Step]:
        """Every tile gives its slice to all others; `unit` bytes per group of 32."""
        return [
            step
            for tile in self._all
            for step in self._send(tile, region, unit * spans[tile].first, unit * spans[tile].count, stride)
        ]

    def _attention_out(self, tile: int) -> list[Step]:
        """Whole groups of heads, one after the other: while one is divided, the one before is quantized and sent."""
        heads = self.shards.kv_heads[tile].count * self.decoder.queries_per_kv
        each = next((n for n in range(1, heads) if n * self.decoder.head_dim % 32 == 0), max(heads, 1))
        return [
            step
            for first in range(0, heads, each)
            for step in self._heads_out(tile, first, min(each, heads - first))
        ]  # fmt: skip

    def _heads_out(self, tile: int, first: int, heads: int) -> list[Step]:
        dim, stride, packets = self.decoder.head_dim, self._stride("o"), self.map.sizes.o_packets
        at = (self.shards.kv_heads[tile].first * self.decoder.queries_per_kv + first) * dim // 32 * 34
        values = self._at("o") + 4 * first * dim
        out = MicroOp(
            Op.ATTNOUT, tile, dst=values, s1=stride, heads=heads, tokens=self.tokens, columns=dim, slot=first * self.tokens
        )  # fmt: skip
        quant = MicroOp(
            Op.QUANT, tile, a=values, s0=stride, dst=self._at("o_packets") + at, s1=packets, columns=heads * dim, group=32,
            tokens=self.tokens,
        )  # fmt: skip
        size = align(heads * dim, 32) // 32 * 34
        return [Step((out,)), Step((quant,)), *self._send(tile, "o_packets", at, size, packets)]

    def _multiply(self, run: int, role: str, vector: str, region: str) -> list[Step]:
        """A sharded matrix times a gathered vector, each tile's rows into its slice of `region`."""
        steps = []
        for tile in self._all:
            if self.blocks[run].of(role, tile):
                steps.append(Step((self._operand(tile, vector, self.tokens),)))
        for tile in self._all:
            steps += self._matmuls(run, role, tile, region, 128 * self.shards.width[tile].first)
            steps += self._bias(run, role, tile, region, 128 * self.shards.width[tile].first)
        return steps

    def _feed_forward(self, run: int) -> list[Step]:
        """gate and up piece by piece, the gated product of each piece behind it, and its packets to all others."""
        working = [tile for tile in self._all if self.shards.hidden[tile].count]
        steps = [Step((self._operand(tile, "x", self.tokens),)) for tile in working]
        roles = [role for role in ("gate", "up") if role in self.decoder.roles]
        pieces = {role: [self._matmuls(run, role, tile, role) for tile in working] for role in roles}
        made = {tile: 0 for tile in working}
        for turn in range(max((len(p) for role in pieces.values() for p in role), default=0)):
            for at, tile in enumerate(working):
                mine = [pieces[role][at][turn : turn + 1] for role in roles]
                steps += [step for part in mine for step in part]
                done = min(self._rows_done(pieces[role][at][: turn + 1]) for role in roles)
                if done - done % 32 > made[tile]:
                    part = Span(made[tile], done - done % 32 - made[tile])
                    for role in roles:
                        steps += self._bias(run, role, tile, role, part=part)
                    steps += self._activation(tile, made[tile], done - done % 32)
                    made[tile] = done - done % 32
        return steps

    @staticmethod
    def _rows_done(steps: list[Step]) -> int:
        return sum(op.rows for step in steps for op in step.ops)

    def _activation(self, tile: int, first: int, end: int) -> list[Step]:
        at, stride = 34 * (self.shards.hidden[tile].first + first // 32), self.map.sizes.hidden_packets
        gate = "gate" if "gate" in self.decoder.roles else "up"
        op = MicroOp(
            ACTIVATIONS[self.decoder.activation], tile, a=self._at(gate) + 4 * first, s0=self._stride(gate),
            dst=self._at("hidden_packets") + at, s1=stride, columns=end - first, tokens=self.tokens,
        )  # fmt: skip
        if gate == "gate":
            op = _with(op, b=self._at("up") + 4 * first)
        return [Step((op,)), *self._send(tile, "hidden_packets", at, (end - first) // 32 * 34, stride)]

    # --- the head ---

    def _head_rounds(self, pieces: list[tuple[Piece, ...]]) -> int:
        """How often a loop lets all tiles run HEAD_PIECES equal pieces; 0 where it does not pay.

        Two rounds are left behind it, under which the greatest of what it has made is found.
        """
        equal = [sum(piece.rows == part[0].rows for piece in part) if part else 0 for part in pieces]
        same = len({part[0].rows for part in pieces if part}) == 1
        rounds = min(equal) // HEAD_PIECES - 2 if same and self._streamed else 0
        return rounds if rounds > 1 else 0

    def _head_round(self, pieces: list[tuple[Piece, ...]]) -> list[Step]:
        """HEAD_PIECES pieces of every tile, in turn."""
        per_tile = [self._head_pieces(tile, pieces[tile][:HEAD_PIECES], self._base("head out")) for tile in self._all]
        return [step for turn in zip(*per_tile, strict=True) for step in turn]

    def _head_pieces(self, tile: int, pieces: tuple[Piece, ...], out_base: int) -> list[Step]:
        base = self._base("head round") if out_base else 0
        return [
            self._matmul(piece, self.decoder.width, self._at("logits"), 0, 1, self._stored("head"), base, out_base)
            for piece in pieces
        ]

    def _capped(self, argmax: MicroOp) -> list[Step]:
        """The soft cap of the logits that `argmax` is about, where the model has one."""
        if not self.decoder.logit_cap:
            return []
        into, back = map(float, cap_constants(self.decoder.logit_cap))
        op = MicroOp(Op.SOFTCAP, argmax.tile, a=argmax.a, columns=argmax.columns, s2=bits32(into), s3=bits32(back))
        return [Step((op,))]

    def _argmax(self, last: list[tuple[Piece, ...]]) -> list[Step]:
        """The greatest of every tile's logits in two parts, so that only those of its last piece are left at the end; then the greatest of all.

        `last`: the pieces of the stage in which this stands. What a loop has made before it is found first.
        """
        early, late, sends, used = [], [], [], 0
        for tile in self._all:
            span = self.shards.vocabulary[tile]
            rows = min(32 * span.end, self.decoder.vocabulary) - 32 * span.first
            if rows <= 0:
                continue
            cut = last[tile][0].first or last[tile][-1].first
            at = self._at("pairs") + 8 * used
            parts = [part for part in ((0, min(cut, rows)), (cut, rows)) if part[0] < part[1]]
            for number, (first, end) in enumerate(parts):
                op = MicroOp(
                    Op.ARGMAX, tile, a=self._at("logits") + 4 * first, dst=at + 8 * number, columns=end - first,
                    s0=32 * span.first + first,
                )  # fmt: skip
                (late if number == len(parts) - 1 else early).extend([*self._capped(op), Step((op,))])
            if tile:
                sends.append(
                    Step((MicroOp(Op.SEND, tile, a=at, dst=at, rows=1, columns=8 * len(parts), s0=8, s1=8, s2=1),))
                )
            used += len(parts)
        final = MicroOp(Op.ARGMAX, 0, flags=Flag.PAIRS, a=self._at("pairs"), dst=self._at("result"), columns=used)
        return [*early, *late, *sends, Step((final,))]


MOST_WINDOW = 2**16 - 1
ACTIVATIONS = {SwiGLU: Op.SWIGLU, GeGLU: Op.GEGLU, Gelu: Op.GELU}


def _nibbles(bits: int) -> Flag:
    """How micro-ops on K or V are told of codes of so many bits."""
    return Flag.NIBBLES if bits == 4 else Flag.NONE


def _with(op: MicroOp, **changes: int) -> MicroOp:
    """A copy with fields changed."""
    return replace(op, **changes)  # type: ignore[arg-type]
