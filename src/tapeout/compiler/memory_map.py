"""The address of everything: the regions of a tile's SRAM (the same in every tile) and of external memory, and what fits."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from tapeout.base.errors import BadInput
from tapeout.chip.spec import PACKET_BYTES, ChipSpec, WeightStore
from tapeout.compiler.decoder import Decoder, Run, padded
from tapeout.compiler.shards import Shards, rows_of
from tapeout.compiler.weights import Block, align, embedding_row_bytes, position_row_bytes
from tapeout.isa.program import Base, Region
from tapeout.isa.timing import ceil_div

CHUNKS = (16, 8, 4, 2, 1)
"""Tokens per prefill chunk that are tried, largest first."""


class KvStore(StrEnum):
    """Where the KV cache lives."""

    SRAM = "sram"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The strides and sizes that regions are made of, in bytes; largest tile counts. See `sizes`."""

    tokens: int
    context: int
    capacity: int
    """Slots per KV head: context in whole blocks, and a chunk behind it."""
    kv_heads: int
    q_heads: int
    x_stride: int
    x_packets: int
    o_packets: int
    hidden_packets: int
    key_bytes: int
    value_bytes: int
    kv_layer: int
    """One layer's KV cache of one tile (SRAM) or of all KV heads (external)."""
    score_stride: int
    position_row: int
    """From one row of the table of learned positions to the next; 0 where there is none."""


def sizes(decoder: Decoder, shards: Shards, chip: ChipSpec, context: int, tokens: int, kv: KvStore) -> Sizes:
    """Work out strides and sizes for a context and a chunk of `tokens`."""
    block = chip.tile.attention.block_keys
    capacity = align(context, block) + tokens
    heads = max(span.count for span in shards.kv_heads)
    key, value = decoder.key_bytes, decoder.value_bytes
    cached = heads if kv is KvStore.SRAM else decoder.kv_heads
    beat = chip.external.beat_bytes if chip.external else 4
    streamed = chip.weight_store is WeightStore.EXTERNAL
    groups = padded(decoder.width) // 32 if streamed else max(span.count for span in shards.width)
    return Sizes(
        tokens=tokens,
        context=context,
        capacity=capacity,
        kv_heads=heads,
        q_heads=heads * decoder.queries_per_kv,
        x_stride=4 * padded(decoder.width),
        x_packets=packets(decoder.width),
        o_packets=packets(decoder.heads * decoder.head_dim),
        hidden_packets=packets(decoder.hidden),
        key_bytes=key,
        value_bytes=value,
        kv_layer=cached * (align(capacity * key, beat) + align(capacity * value, beat)),
        score_stride=4 * (align(context, block) + tokens),
        position_row=position_row_bytes(decoder, groups),
    )


OUTPUTS = ("q", "k", "v", "gate", "up")
"""Matrices whose outputs stand in regions of their own."""


def position_rows(size: Sizes) -> int:
    """Rows of the table of learned positions: the context's, and for the tokens that fill up the last chunk."""
    return size.context + size.tokens


def packets(width: int) -> int:
    """Bytes of a vector as packets."""
    return ceil_div(width, 32) * PACKET_BYTES


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """Regions by name, bases by name, and the sizes behind them."""

    sizes: Sizes
    kv: KvStore
    sram: dict[str, Region]
    external: dict[str, Region]
    external_bytes: int
    image_bytes: int
    """External memory that is loaded before the first step."""
    bases: tuple[Base, ...]

    def at(self, name: str) -> int:
        """Start of an SRAM region."""
        return self.sram[name].start

    def base(self, name: str) -> int:
        """Number of a base register."""
        return next(number for number, base in enumerate(self.bases) if base.name == name)


def make_map(
    decoder: Decoder, shards: Shards, runs: tuple[Run, ...], blocks: tuple[Block, ...], head: Block, chip: ChipSpec,
    context: int, chunk: int | None,
) -> MemoryMap:  # fmt: skip
    """Place everything. The chunk is the largest that fits; the KV cache goes to external memory where SRAM has no room for it.

    Raises `BadInput` that says by how much it does not fit and what would help.
    """
    tries = [(kv, tokens) for kv, tokens in _tries(chip) if chunk is None or tokens == chunk]
    if not tries:
        raise BadInput(
            "chunk",
            f"{chunk} tokens",
            f"chip {chip.name} takes {', '.join(map(str, sorted(set(t for _, t in _tries(chip)))))}",
        )
    best: tuple[int, list[Group], str] | None = None
    for kv, tokens in tries:
        size = sizes(decoder, shards, chip, context, tokens, kv)
        groups = _regions(decoder, shards, runs, blocks, head, chip, size, kv)
        regions, used = _pack(groups, chip.tile.sram.bank_bytes)
        limit = _unit_limits(chip, size, kv)
        if used <= chip.tile.sram.kib * 1024 and not limit:
            return _finish(decoder, runs, blocks, head, chip, size, kv, regions)
        if best is None or used < best[0]:
            best = used, groups, limit
    assert best is not None, "at least one try"
    _refuse(decoder, chip, context, *best)
    raise AssertionError("unreachable")


def _tries(chip: ChipSpec) -> list[tuple[KvStore, int]]:
    """KV in SRAM with a useful chunk; else in external memory; else in SRAM with whatever chunk is left."""
    chunks = [tokens for tokens in CHUNKS if tokens <= chip.tile.matrix.tokens]
    inside = [(KvStore.SRAM, tokens) for tokens in chunks]
    if chip.external is None:
        return inside
    useful = [pair for pair in inside if pair[1] >= min(4, chunks[0])]
    return useful + [(KvStore.EXTERNAL, tokens) for tokens in chunks] + [pair for pair in inside if pair not in useful]


def _unit_limits(chip: ChipSpec, size: Sizes, kv: KvStore) -> str:
    """What the units cannot hold of this chunk; empty if nothing."""
    operand = size.tokens * max(size.x_packets, size.o_packets, size.hidden_packets)
    if operand > chip.tile.matrix.operand_kib * 1024:
        return f"operand buffer: {operand:,} bytes of {chip.tile.matrix.operand_kib} KiB (tile.matrix.operand_kib)"
    if size.q_heads * size.tokens > chip.tile.attention.queries:
        return f"attention: {size.q_heads * size.tokens} query states of {chip.tile.attention.queries} (tile.attention.queries)"
    # The streamer takes a layer's records behind the layer's weights: until then all of them stand in the write buffer.
    records = size.kv_heads * size.tokens * (size.key_bytes + size.value_bytes)
    if kv is KvStore.EXTERNAL and chip.external and records > chip.external.write_buffer_kib * 1024:
        return f"write buffer: {records:,} bytes of {chip.external.write_buffer_kib} KiB (external.write_buffer_kib)"
    return ""


Group = list[tuple[str, int, bool]]
"""(region name, bytes, constant): regions that share SRAM banks."""


def _regions(
    decoder: Decoder, shards: Shards, runs: tuple[Run, ...], blocks: tuple[Block, ...], head: Block, chip: ChipSpec,
    size: Sizes, kv: KvStore,
) -> list[Group]:  # fmt: skip
    tokens, dim = size.tokens, decoder.head_dim
    rows = {
        role: max(rows_of(decoder, shards, role, t).count for t in range(shards.tiles))
        for role in (*decoder.roles, "head")
    }
    unit = chip.tile.matrix.rows
    # The greatest logits stand apart from the logits: they are written while the last of those are.
    residual: Group = [
        ("x", tokens * size.x_stride, False),
        ("increments", 2 * dim * len(decoder.turns), True),
        ("pairs", 16 * shards.tiles, False),
        ("result", 8, False),
    ]
    gathered: Group = [
        ("y", tokens * size.x_stride, False),
        ("o", tokens * 4 * size.q_heads * dim, False),
        ("logits", 4 * rows["head"], False),
    ]
    packed: Group = [
        ("x_packets", tokens * size.x_packets, False),
        ("o_packets", tokens * size.o_packets, False),
        ("hidden_packets", tokens * size.hidden_packets, False),
        ("q_packets", tokens * size.q_heads * (dim + 2), False),
    ]
    outputs: Group = [(role, tokens * 4 * align(rows[role], unit), False) for role in OUTPUTS if role in rows]
    scores: Group = [("scores", size.q_heads * tokens * size.score_stride, False)]
    if kv is KvStore.SRAM:
        cache: Group = [("kv", len(decoder.layers) * size.kv_layer, False)]
    else:
        cache = [
            ("keys", size.kv_heads * tokens * size.key_bytes, False),
            ("values", size.kv_heads * tokens * size.value_bytes, False),
        ]
    groups = [residual, gathered, packed, outputs, scores, cache]
    if chip.weight_store is WeightStore.SRAM:
        slice_bytes = embedding_row_bytes(decoder, max(span.count for span in shards.width))
        groups[0].append(("first_norm", decoder.norm_bytes, True))
        matrices: Group = [(f"weights{r}", run.count * blocks[r].size, True) for r, run in enumerate(runs)]
        groups.append([*matrices, ("head", head.size, True), ("embedding", decoder.vocabulary * slice_bytes, True)])
        if decoder.positions:
            groups[-1].append(("positions", position_rows(size) * size.position_row, True))
    return groups


def _pack(groups: list[Group], bank_bytes: int) -> tuple[dict[str, Region], int]:
    """Regions one behind the other, each group from a bank of its own on. Returns them and the bytes used."""
    at, regions = 0, {}
    for group in groups:
        at = align(at, bank_bytes)
        for name, size, constant in group:
            regions[name] = Region(name, at, size, constant)
            at = align(at + size, 16)
    return regions, at


def _finish(
    decoder: Decoder, runs: tuple[Run, ...], blocks: tuple[Block, ...], head: Block, chip: ChipSpec, size: Sizes,
    kv: KvStore, regions: dict[str, Region],
) -> MemoryMap:  # fmt: skip
    external: dict[str, Region] = {}
    at = 0

    def place(name: str, count: int, constant: bool) -> None:
        nonlocal at
        beat = chip.external.beat_bytes if chip.external else 1
        external[name] = Region(name, at, count, constant)
        at = align(at + count, beat)

    if chip.weight_store is WeightStore.EXTERNAL:
        place("embedding", decoder.vocabulary * embedding_row_bytes(decoder, padded(decoder.width) // 32), True)
        place("first_norm", decoder.norm_bytes, True)
        if decoder.positions:
            place("positions", position_rows(size) * size.position_row, True)
        for r, run in enumerate(runs):
            place(f"weights{r}", run.count * blocks[r].size, True)
        place("head", head.size, True)
    image = at
    if kv is KvStore.EXTERNAL:
        place("kv", len(decoder.layers) * size.kv_layer, False)
    if chip.external and at > chip.external.capacity_gib * 2**30:
        raise BadInput(
            f"chip {chip.name}, external.capacity_gib",
            f"{decoder.graph.name} with {size.context} positions needs {at / 2**30:.2f} GiB of {chip.external.capacity_gib}",
        )
    return MemoryMap(size, kv, regions, external, at, image, _bases(runs, blocks, head, chip, size))


HEAD_PIECES = 16
"""Pieces of the head per tile and iteration of its loop: enough to hide the drain between iterations."""


def _bases(
    runs: tuple[Run, ...], blocks: tuple[Block, ...], head: Block, chip: ChipSpec, size: Sizes
) -> tuple[Base, ...]:
    block = chip.tile.attention.block_keys
    piece = head.of("head", 0)[0]
    beat = chip.external.beat_bytes if chip.external else 4
    return (
        Base("zero"),
        Base("key slot", outer=size.kv_layer, pos=size.key_bytes),
        Base("value slot", outer=size.kv_layer, pos=size.value_bytes),
        Base("key block", outer=size.kv_layer, inner=block * size.key_bytes),
        Base("value block", outer=size.kv_layer, inner=block * size.value_bytes),
        Base("score block", inner=4 * block),
        Base("last row", last=size.x_packets),
        Base("head round", inner=HEAD_PIECES * align(piece.size, beat)),
        Base("head out", inner=HEAD_PIECES * 4 * piece.rows),
        *(Base(f"weights{r}", outer=blocks[r].size) for r in range(len(runs))),
        *((Base("position", pos=size.position_row),) if size.position_row else ()),
    )


def _refuse(decoder: Decoder, chip: ChipSpec, context: int, used: int, groups: list[Group], limit: str) -> None:
    """Say what does not fit, by how much, and what would help."""
    have = chip.tile.sram.kib * 1024
    parts = {name: size for group in groups for name, size, _ in group}
    largest = sorted(parts.items(), key=lambda item: -item[1])[:3]
    listed = ", ".join(f"{name} {size / 1024:.1f} KiB" for name, size in largest)
    if used <= have:
        raise BadInput(f"chip {chip.name}", f"is too small for {decoder.graph.name}, {limit}")
    helps = ["fewer bits (--weights int4)"] if chip.weight_store is WeightStore.SRAM else []
    helps += [f"a shorter --context than {context}"] if {"kv", "scores"} & {name for name, _ in largest} else []
    helps.append(_enough(groups, chip.tile.sram.banks))
    raise BadInput(
        f"chip {chip.name}, tile.sram",
        f"{decoder.graph.name} with {context} positions needs {used / 1024:.1f} KiB per tile of {chip.tile.sram.kib}: "
        f"{(used - have) / 1024:.1f} KiB too much (largest: {listed})",
        "try " + ", or ".join(helps),
    )


def _enough(groups: list[Group], banks: int) -> str:
    """The smallest SRAM of `banks` banks that holds the groups. Banks grow with it, and each group begins a bank."""
    filled = sum(1 for group in groups if any(size for _, size, _ in group))
    if filled > banks:
        return f"tile.sram.banks of {filled} or more"
    each = next(kib for kib in count(1) if _pack(groups, kib * 1024)[1] <= kib * 1024 * banks)
    return f"tile.sram.kib of {each * banks} or more"
