"""Energy and area: proportional, ordered, sourced."""

import pytest

from tapeout.base.errors import BadInput
from tapeout.chip.presets import load_chip, preset_names
from tapeout.silicon.area import area_mm2
from tapeout.silicon.energy import energy_pj, sram_energy
from tapeout.silicon.technology import technology

COUNTS = {"macs_int4": 1e6, "group_terms": 1e5, "sram_read_bytes": 1e6, "external_read_bytes": 1e6, "micro_ops": 1e3}


def total(costs) -> float:
    return sum(cost.value for cost in costs)


def test_twice_the_counts_are_twice_the_dynamic_energy():
    edge = load_chip("edge")
    once, twice = (
        energy_pj(COUNTS, edge, 0.0),
        energy_pj({name: 2 * count for name, count in COUNTS.items()}, edge, 0.0),
    )
    assert total(twice) == pytest.approx(2 * total(once))


@pytest.mark.parametrize("name", preset_names())
def test_every_cost_lies_in_its_range(name):
    chip = load_chip(name)
    counts = {key: count for key, count in COUNTS.items() if chip.external or not key.startswith("external")}
    for cost in (*area_mm2(chip), *energy_pj(counts, chip, 1e-3)):
        assert cost.low <= cost.value <= cost.high, cost


@pytest.mark.parametrize(
    ("field", "value"), [("tile.sram.kib", "768"), ("tile.vector.lanes", "64"), ("grid.rows", "4")]
)
def test_more_of_anything_is_never_smaller(field, value):
    edge = load_chip("edge")
    assert total(area_mm2(edge.with_fields({field: value}, "edge"))) > total(area_mm2(edge))


def test_every_constant_names_its_source():
    table = technology()
    rows = [
        *table.energy.values(),
        *table.sram_energy.values(),
        *table.external.values(),
        *table.static.values(),
        *table.area.values(),
    ]
    assert [row for row in rows if len(row.source) < 10] == []


def test_a_larger_bank_costs_more_per_byte():
    costs = [sram_energy(kib).value for kib in (4, 8, 16, 32, 200, 1024, 4096)]
    assert costs == sorted(costs)


def test_a_memory_without_a_price_is_refused_by_name():
    odd = load_chip("edge").with_fields({"external.kind": "drum"}, "edge")
    with pytest.raises(
        BadInput, match=r"chip\.external\.kind: 'drum' is not priced; begin it with one of LPDDR5X, HBM3E"
    ):
        area_mm2(odd)
