"""Dollars: arrays equal scalars, ranges ordered, every constant sourced, published costs met."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.base.errors import BadInput
from tapeout.silicon.cost import Cost, total
from tapeout.silicon.dollars import Harvest, good_die, unit_cost, usd_per_hour, usd_per_million_tokens
from tapeout.silicon.technology import constants, die_nodes

FIELDS = ("value", "low", "high")


def rows_of(area, watts, gigabytes):
    unit = unit_cost(
        area, "N5", harvest=Harvest(100, 95, 0.7), memory="hbm3e", memory_gb=gigabytes, package="cowos_s", watts=watts
    )
    hour = usd_per_hour(total(unit), watts)
    return (*unit, *hour, usd_per_million_tokens(total(hour), 1000.0))


@given(st.lists(st.tuples(st.floats(1, 850), st.floats(1, 2000), st.floats(0, 300)), min_size=1, max_size=5))
def test_many_designs_at_once_cost_what_each_costs(designs):
    together = rows_of(*np.array(designs).T)
    for index, design in enumerate(designs):
        for many, one in zip(together, rows_of(*design), strict=True):
            for field in FIELDS:
                assert np.broadcast_to(getattr(many, field), len(designs))[index] == pytest.approx(getattr(one, field))


@given(st.floats(1, 850), st.floats(1, 2000), st.floats(0, 300))
def test_every_range_is_ordered(area, watts, gigabytes):
    for row in rows_of(area, watts, gigabytes):
        assert 0 <= row.low <= row.value <= row.high, row


@given(st.floats(200, 800), st.floats(1.01, 1.05))
def test_a_larger_die_costs_more_than_in_proportion(area, more):
    assert good_die(area * more, "N5").value > good_die(area, "N5").value * more


def test_a_die_larger_than_the_wafer_has_no_price():
    assert good_die(90_000.0, "N5").value == np.inf


def test_an_area_with_a_range_widens_the_cost():
    narrow, wide = good_die(400.0, "N6"), good_die(Cost("die", 400.0, 300.0, 500.0, "mm2", ""), "N6")
    assert wide.value == narrow.value
    assert wide.low < narrow.low < narrow.high < wide.high


def test_analysts_dies_lie_in_our_range_or_within_a_tenth_of_it():
    h100 = good_die(814, "4N", Harvest(144, 132, 0.75))
    b200 = good_die(800, "4N", Harvest(80, 74, 0.75))
    assert 0.9 * h100.low <= 300 <= h100.high
    assert 2 * b200.low <= 900 <= 2 * b200.high


def test_an_hour_costs_less_the_more_hours_are_used():
    hours = [total(usd_per_hour(30_000, 700, utilisation=share)).value for share in (0.2, 0.5, 1.0)]
    assert hours == sorted(hours, reverse=True)


def test_an_hour_by_hand():
    capital, operations, electricity = usd_per_hour(
        8766.0, 1000.0, years=1, utilisation=1.0, usd_per_kwh=0.1, pue=1.0, operations=0.1
    )
    assert (capital.value, operations.value) == pytest.approx((1.0, 0.1))
    assert electricity.value == pytest.approx(0.1 * (1 + constants("dollars")["server_power"].value))
    assert usd_per_million_tokens(1.0, 1e6 / 3600).value == pytest.approx(1)


def test_every_constant_is_ordered_and_names_its_source():
    rows = [*constants("dollars").values(), *constants("project").values(), *constants("parts").values()]
    rows += [getattr(node, name) for node in die_nodes().nodes.values() for name in type(node).model_fields]
    assert [row for row in rows if len(row.source) < 10 or not row.low <= row.value <= row.high] == []


def test_an_unpriced_memory_is_refused_by_name():
    with pytest.raises(BadInput, match=r"memory: 'drum' has no price; use one of hbm2e, hbm3"):
        unit_cost(100, "N5", memory="drum")
