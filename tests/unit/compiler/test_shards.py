"""Rows over tiles, however they divide: every row of every matrix is computed once."""

from itertools import pairwise

import numpy as np
import pytest

from chips import GRIDS, make_chip, random_chip
from strategies import random_graph, random_model
from tapeout.compiler.decoder import MATRICES, read_decoder
from tapeout.compiler.pipeline import plan
from tapeout.compiler.shards import Span, rows_of, shard, split


def test_a_split_is_even_but_for_one_the_larger_first():
    assert split(7, 3) == (Span(0, 3), Span(3, 2), Span(5, 2))
    assert split(2, 4) == (Span(0, 1), Span(1, 1), Span(2, 0), Span(2, 0))


@pytest.mark.parametrize("seed", range(30))
def test_shards_cover_every_row_exactly_once(seed):
    decoder = read_decoder(random_graph(np.random.default_rng(seed)))
    for tiles in (1, 2, 3, 4, 8, 16, 32):
        shards = shard(decoder, tiles)
        for role in (*MATRICES, "head"):
            rows = decoder.vocabulary if role == "head" else decoder.rows(role)
            covered = [row for tile in range(tiles) for row in rows_in(rows_of(decoder, shards, role, tile))]
            assert covered[:rows] == list(range(rows)), f"{role} on {tiles} tiles"
            padding = covered[rows:]
            assert padding == list(range(rows, rows + len(padding)))
            assert len(padding) < 32


def rows_in(span: Span) -> range:
    return range(span.first, span.end)


@pytest.mark.parametrize("seed", range(20))
def test_query_heads_stay_with_their_key_value_head(seed):
    decoder = read_decoder(random_graph(np.random.default_rng(seed)))
    each = decoder.queries_per_kv * decoder.head_dim
    for tiles in (1, 2, 3, 4, 8):
        shards = shard(decoder, tiles)
        for tile in range(tiles):
            keys, queries = (rows_of(decoder, shards, role, tile) for role in ("k", "q"))
            assert queries.count * decoder.head_dim == keys.count * each
            if queries.end < decoder.heads * decoder.head_dim:
                assert queries.end % 32 == 0, "a tile's attention output is whole groups, but for the last"


@pytest.mark.parametrize("seed", range(20))
def test_pieces_cover_every_row_of_a_tile_and_overlap_nowhere(seed):
    model, chip = random_model(seed), random_chip(seed)
    schedule = plan(model, chip)
    unit = chip.tile.matrix.rows
    for block in (*schedule.blocks, schedule.head):
        taken: dict[int, list[tuple[int, int]]] = {}
        for (role, tile), pieces in block.pieces.items():
            at = 0
            for piece in pieces:
                assert (piece.first, piece.rows % unit) == (at, 0)
                at += piece.rows
                home = -1 if chip.weight_store == "external" else tile
                taken.setdefault(home, []).append((piece.address, piece.address + piece.size))
            rows = rows_of(schedule.decoder, schedule.shards, role, tile).count
            assert rows <= at < rows + unit
        for spans in taken.values():
            for one, two in pairwise(sorted(spans)):
                assert one[1] <= two[0]
            assert max(end for _, end in spans) <= block.size


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("streamed", [False, True])
def test_regions_lie_apart_and_inside_their_memory(grid, streamed):
    chip = make_chip(grid, streamed)
    places = plan(random_model(9), chip).map
    for regions, size in (
        (places.sram.values(), chip.tile.sram.kib * 1024),
        (places.external.values(), places.external_bytes),
    ):
        ordered = sorted((region for region in regions if region.size), key=lambda region: region.start)
        for one, two in pairwise(ordered):
            assert one.end <= two.start
        assert all(region.end <= size for region in ordered)


def test_a_schedule_prints_its_decisions():
    text = str(plan(random_model(3, layers=2, format="int8"), make_chip(streamed=True)))
    lines = text.splitlines()
    assert lines[0] == "schedule of random for bench: context 64, KV in sram"
    assert lines[1] == "body of 8"
    assert any(line.startswith("  layers 0..1 x 2") for line in lines)
    assert any("score blocks" in line and line.endswith("once per context block") for line in lines)
