"""Who computes what: every matrix is split by output rows, in whole groups of 32; attention by KV heads. Shards may be uneven."""

from dataclasses import dataclass

from tapeout.compiler.decoder import Decoder, padded
from tapeout.isa.timing import ceil_div


@dataclass(frozen=True, slots=True)
class Span:
    """`count` things from `first` on."""

    first: int
    count: int

    @property
    def end(self) -> int:
        """First thing behind it."""
        return self.first + self.count


def split(units: int, tiles: int) -> tuple[Span, ...]:
    """Contiguous spans of `units` over `tiles`, sizes differing by at most one, the larger ones first."""
    small, more = divmod(units, tiles)
    spans, at = [], 0
    for tile in range(tiles):
        count = small + (tile < more)
        spans.append(Span(at, count))
        at += count
    return tuple(spans)


@dataclass(frozen=True, slots=True)
class Shards:
    """Per tile: KV heads, and groups of 32 of the residual (outputs of o and down), of the hidden vector and of the vocabulary."""

    kv_heads: tuple[Span, ...]
    width: tuple[Span, ...]
    hidden: tuple[Span, ...]
    vocabulary: tuple[Span, ...]

    @property
    def tiles(self) -> int:
        """How many tiles."""
        return len(self.kv_heads)


def shard(decoder: Decoder, tiles: int) -> Shards:
    """Split `decoder` over `tiles`. KV heads go in bundles whose query heads fill whole groups of 32, where that is possible."""
    per_kv = decoder.queries_per_kv * decoder.head_dim
    bundle = next((b for b in range(1, decoder.kv_heads) if b * per_kv % 32 == 0), decoder.kv_heads)
    bundles = split(ceil_div(decoder.kv_heads, bundle), tiles)
    kv = tuple(
        Span(min(s.first * bundle, decoder.kv_heads), min(s.end * bundle, decoder.kv_heads) - min(s.first * bundle, decoder.kv_heads))
        for s in bundles
    )  # fmt: skip
    return Shards(
        kv,
        split(padded(decoder.width) // 32, tiles),
        split(padded(decoder.hidden) // 32, tiles),
        split(padded(decoder.vocabulary) // 32, tiles),
    )


def rows_of(decoder: Decoder, shards: Shards, role: str, tile: int) -> Span:
    """The rows of a matrix role that `tile` computes; o, gate, up, down and head padded to whole groups (beyond the matrix: zeros)."""
    kv, dim = shards.kv_heads[tile], decoder.head_dim
    if role == "q":
        each = decoder.queries_per_kv * dim
        return Span(kv.first * each, kv.count * each)
    if role in ("k", "v"):
        return Span(kv.first * dim, kv.count * dim)
    groups = {"o": shards.width, "down": shards.width, "head": shards.vocabulary}.get(role, shards.hidden)[tile]
    return Span(32 * groups.first, 32 * groups.count)
