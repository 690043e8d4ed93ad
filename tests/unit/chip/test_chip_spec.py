"""Chips as YAML, and back; routes that reach every tile."""

import pytest
import yaml

from chips import GRIDS, make_chip, random_chip
from tapeout.chip.presets import load_chip, preset_names, preset_text
from tapeout.chip.routes import links, route, tree
from tapeout.chip.spec import ChipSpec, Grid, Topology


@pytest.mark.parametrize("seed", range(20))
def test_a_chip_read_back_from_its_yaml_is_the_same(seed):
    chip = random_chip(seed)
    again = ChipSpec.from_text(chip.to_yaml(), "chip")
    assert again == chip
    assert again.fingerprint() == chip.fingerprint()
    assert again.to_yaml() == chip.to_yaml()


@pytest.mark.parametrize("name", ["edge", "fpga", "tiny"])
def test_a_preset_is_its_file(name, tmp_path):
    assert name in preset_names()
    path = tmp_path / "mine.yaml"
    path.write_text(preset_text(name))
    assert load_chip(path) == load_chip(str(path)) == load_chip(name)
    assert load_chip(name).name == name


def test_a_changed_field_changes_nothing_else():
    edge = load_chip("edge")
    data = edge.with_fields({"external.gb_per_s": "136", "tile.matrix.formats": "[int4]"}, "edge").model_dump()
    assert data["external"].pop("gb_per_s") == 136
    assert data["tile"]["matrix"].pop("formats") == ("int4",)
    rest = edge.model_dump()
    del rest["external"]["gb_per_s"], rest["tile"]["matrix"]["formats"]
    assert data == rest


def test_chips_that_differ_have_different_fingerprints():
    assert len({random_chip(seed).fingerprint() for seed in range(30)}) == 30


def test_derived_numbers_are_not_stored():
    assert load_chip("edge").macs_per_cycle == 8 * 32 * 32
    assert load_chip("edge").tile.sram.bank_bytes == 16 * 1024
    text = yaml.safe_load(load_chip("edge").to_yaml())
    assert "macs_per_cycle" not in text
    assert "bank_bytes" not in text["tile"]["sram"]


# --- routes -----------------------------------------------------------------------------------------

ALL_GRIDS = [
    *(Grid.from_data(grid, "grid") for grid in GRIDS.values()),
    *(Grid(columns=n, rows=1, topology=Topology.RING) for n in (2, 4, 5, 8)),
    *(Grid(columns=c, rows=r) for c, r in ((8, 1), (1, 8), (8, 4), (3, 5))),
]


def named(grid: Grid) -> str:
    return f"{grid.rows}x{grid.columns} {grid.topology.value}"


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=named)
def test_a_tree_reaches_every_other_tile_exactly_once(grid):
    for source in range(grid.tiles):
        hops = tree(grid, source)
        assert sorted(hop.target for hop in hops) == [tile for tile in range(grid.tiles) if tile != source]
        arrived = {source: -1}
        for hop in hops:
            assert hop.depth == arrived[hop.source] + 1, "a hop begins where an earlier one ended"
            arrived[hop.target] = hop.depth
            assert hop.target in neighbours(grid, hop.source)


def neighbours(grid: Grid, tile: int) -> set[int]:
    if grid.topology is Topology.RING:
        return {(tile + 1) % grid.tiles, (tile - 1) % grid.tiles}
    row, column = divmod(tile, grid.columns)
    around = {(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)}
    return {r * grid.columns + c for r, c in around if 0 <= r < grid.rows and 0 <= c < grid.columns}


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=named)
def test_no_way_is_longer_than_it_must_be(grid):
    for source in range(grid.tiles):
        for hop in tree(grid, source):
            assert hop.depth + 1 == distance(grid, source, hop.target)


def distance(grid: Grid, one: int, two: int) -> int:
    if grid.topology is Topology.RING:
        around = (one - two) % grid.tiles
        return min(around, grid.tiles - around)
    rows, columns = (abs(a - b) for a, b in zip(divmod(one, grid.columns), divmod(two, grid.columns), strict=True))
    return rows + columns


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=named)
def test_a_route_is_the_part_of_the_tree_that_its_targets_need(grid):
    for source in range(grid.tiles):
        whole = set(tree(grid, source))
        for target in set(range(grid.tiles)) - {source}:
            way = route(grid, source, 1 << target)
            assert set(way) <= whole
            assert [hop.depth for hop in way] == list(range(distance(grid, source, target)))
            assert way[-1].target == target
        everybody = (1 << grid.tiles) - 1
        assert set(route(grid, source, everybody)) == whole


def test_links_are_numbered_once_each():
    grid = Grid(columns=2, rows=2)
    assert links(grid.columns, grid.rows, grid.topology) == (
        (0, 1), (0, 2), (1, 0), (1, 3), (2, 0), (2, 3), (3, 1), (3, 2)
    )  # fmt: skip


def test_a_packet_goes_along_its_row_first():
    assert [(hop.source, hop.target) for hop in route(Grid(columns=4, rows=2), 0, 1 << 7)] == [
        (0, 1), (1, 2), (2, 3), (3, 7)
    ]  # fmt: skip


def test_ties_on_a_ring_go_right():
    grid = Grid(columns=4, rows=1, topology=Topology.RING)
    assert [(hop.source, hop.target) for hop in route(grid, 0, 1 << 2)] == [(0, 1), (1, 2)]


def test_a_chip_of_one_tile_has_no_links():
    grid = make_chip("1x1").grid
    assert tree(grid, 0) == ()
    assert links(grid.columns, grid.rows, grid.topology) == ()
