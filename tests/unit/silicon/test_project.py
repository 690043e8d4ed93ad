"""The project: NRE and months by node, and the chips after which it pays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.silicon.cost import Cost, total
from tapeout.silicon.project import break_even, break_even_units, lifetime_usd, months, nre
from tapeout.silicon.technology import die_nodes

AMOUNTS = st.floats(1, 1e5)


@pytest.mark.parametrize("node", die_nodes().nodes)
def test_ranges_of_the_project_are_ordered(node):
    for row in (*nre(node), *months(node)):
        assert 0 <= row.low <= row.value <= row.high, row


def test_a_finer_node_costs_more_and_takes_longer():
    for of in (nre, months):
        amounts = [total(of(node)).value for node in ("28nm", "16nm", "7nm", "5nm", "3nm")]
        assert amounts == sorted(amounts)


def test_the_one_published_project_lies_near_the_low_end():
    assert total(nre("N6")).low == pytest.approx(30e6, rel=0.25)  # Taalas HC1, as reported


def test_break_even_by_hand():
    assert break_even_units(1e6, 1000.0, 50.0, 30_000.0, 500.0) == pytest.approx(1e6 / (3000 - 1000))


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_at_break_even_both_cost_the_same_or_never(nre_usd, unit, speed, gpu, gpu_speed):
    chips = break_even_units(nre_usd, unit, speed, gpu, gpu_speed)
    if np.isinf(chips):
        assert unit >= gpu * (speed / gpu_speed)
    else:
        assert nre_usd + chips * unit == pytest.approx(chips * gpu * (speed / gpu_speed), rel=1e-6)


def test_many_chips_at_once_break_even_where_each_does():
    units = np.array([100.0, 1000.0, 10_000.0])
    assert list(break_even_units(1e6, units, 50.0, 30_000.0, 500.0)) == [
        break_even_units(1e6, unit, 50.0, 30_000.0, 500.0) for unit in units
    ]


def test_the_range_of_break_even_is_ordered():
    def around(amount):
        return Cost("", amount, amount * 0.9, amount * 1.1, "", "")

    row = break_even(around(1e6), around(1000.0), around(50.0), around(30_000.0), around(500.0))
    assert row.low < row.value < row.high


def test_a_life_is_its_years_of_hours():
    short, long = (lifetime_usd(1000.0, 100.0, years, operations=0.0).value for years in (2, 4))
    assert long - 1000 == pytest.approx(2 * (short - 1000))
