"""Yield models: ordered among themselves, falling with area and defects, and harvesting between them and one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.silicon.yields import dies_per_wafer, murphy, negative_binomial, poisson, with_harvest

AREAS, DEFECTS = st.floats(1, 2000), st.floats(0.001, 0.5)


@given(AREAS, DEFECTS, st.floats(1.05, 3))
def test_yield_falls_with_area_and_with_defects(area, defects, more):
    for model in (poisson, murphy, lambda a, d: negative_binomial(a, d, 2.5)):
        assert model(area * more, defects) < model(area, defects)
        assert model(area, defects * more) < model(area, defects)


@given(AREAS, DEFECTS)
def test_murphy_lies_between_poisson_and_one(area, defects):
    assert poisson(area, defects) <= murphy(area, defects) <= 1


@given(AREAS, DEFECTS)
def test_clustered_defects_spare_dies_and_loose_ones_are_poisson(area, defects):
    assert poisson(area, defects) <= negative_binomial(area, defects, 2.5)
    assert negative_binomial(area, defects, 1e7) == pytest.approx(poisson(area, defects), rel=1e-4)


@given(st.floats(1, 800), DEFECTS, st.integers(1, 144))
def test_a_die_that_needs_every_core_is_a_die_without_harvest(area, defects, cores):
    assert with_harvest(area / cores, cores, cores, defects, 0.0, 2.5) == pytest.approx(
        negative_binomial(area, defects, 2.5), rel=1e-3
    )


@given(DEFECTS, st.integers(1, 20))
def test_every_spare_core_helps(defects, needed):
    some, fewer = (with_harvest(5.0, 20 + spare, needed, defects, 50.0, 2.5) for spare in (1, 0))
    assert fewer <= some + 1e-12
    assert some <= 1


def test_a_wafer_of_a_million_cores_with_seven_percent_spares_is_always_good():
    assert with_harvest(0.0441, 970_000, 900_000, 0.1, 0.0, 2.5) == pytest.approx(1)
    assert with_harvest(0.0441, 970_000, 969_990, 0.1, 0.0, 2.5) < 0.2


def test_published_wafers_hold_what_is_published():
    assert dies_per_wafer(814, 300, 3, 0.1) == pytest.approx(60, abs=4)  # H100: 55 sellable at 0.85 to 0.91
    assert dies_per_wafer(46_225, 300, 3, 0.1) == 1
    assert dies_per_wafer(80_000, 300, 3, 0.1) == 0


def test_arrays_are_the_scalars():
    areas = np.array([10.0, 300.0, 814.0])
    for model in (
        lambda a: murphy(a, 0.1),
        lambda a: with_harvest(a / 10, 10, 9, 0.1, a / 9, 2.5),
        lambda a: dies_per_wafer(a, 300, 3, 0.1),
    ):
        assert model(areas) == pytest.approx([model(area) for area in areas])
