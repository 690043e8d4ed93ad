"""How many dies a wafer holds and which share of them is good. Areas in mm2, defects per cm2; every argument but a count of cores may be an array.

Murphy and negative binomial spread the defect density over wafers and dies, so they lie above Poisson. Called by `dollars.py`.
"""

import math

import numpy as np

from tapeout.silicon.cost import Number

MM2_PER_CM2 = 100
NODES = 16
NORMAL_FROM = 200
TINY = 1e-300


def poisson(area_mm2: Number, defects: Number) -> Number:
    """Share of dies without a defect, defects spread evenly."""
    return np.exp(-area_mm2 * defects / MM2_PER_CM2)


def murphy(area_mm2: Number, defects: Number) -> Number:
    """Share of dies without a defect, the density itself spread as a triangle (Murphy 1964)."""
    mean = np.asarray(area_mm2 * defects / MM2_PER_CM2, dtype=float)
    safe = np.where(mean > 0, mean, 1.0)
    return np.where(mean > 0, (-np.expm1(-safe) / safe) ** 2, 1.0)[()]


def negative_binomial(area_mm2: Number, defects: Number, alpha: Number) -> Number:
    """Share of dies without a defect, defects in clusters: alpha 2 to 3 is usual, a large alpha is Poisson."""
    return (1 + area_mm2 * defects / MM2_PER_CM2 / alpha) ** -alpha


def with_harvest(core_mm2: Number, cores: int, needed: int, defects: Number, rest_mm2: Number, alpha: float) -> Number:
    """Share of dies whose rest is whole and of whose `cores` at least `needed` are, clustered as the negative binomial clusters them.

    `needed` equal to `cores` gives the negative binomial of the whole area; a wafer-scale chip is one die of very many cores.
    """
    assert 0 < needed <= cores, f"{needed} of {cores} cores"
    points, weights = np.polynomial.laguerre.laggauss(NODES)
    weights = weights * points ** (alpha - 1)
    good = sum(
        weight * np.exp(-local * rest_mm2) * _enough(-np.expm1(-local * core_mm2), cores, needed)
        for weight, local in zip(
            weights / weights.sum(), (defects * point / alpha / MM2_PER_CM2 for point in points), strict=True
        )
    )
    return np.clip(good, 0, 1)


def _enough(bad: Number, cores: int, needed: int) -> Number:
    """Chance that at most `cores - needed` of `cores` are bad: binomial, or its normal limit where the spares are many."""
    spares = cores - needed
    if spares > NORMAL_FROM:
        spread = np.sqrt(np.maximum(cores * bad * (1 - bad), TINY))
        return np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)))((spares + 0.5 - cores * bad) / spread)[()]
    term = enough = (1 - bad) ** cores
    odds = bad / np.maximum(1 - bad, TINY)
    for spare in range(1, spares + 1):
        term = term * odds * ((cores - spare + 1) / spare)
        enough = enough + term
    return enough


def dies_per_wafer(area_mm2: Number, diameter_mm: Number, edge_mm: Number, scribe_mm: Number) -> Number:
    """Whole dies on a wafer, kept as a fraction so that it is smooth: area of the usable disc over the die less what its rim cuts.

    A die too large for the formula counts as one as long as the disc is larger (a wafer-scale chip, its corners cut); else none.
    """
    disc = diameter_mm - 2 * edge_mm
    step = (np.sqrt(area_mm2) + scribe_mm) ** 2
    many = math.pi * (disc / 2) ** 2 / step - math.pi * disc / np.sqrt(2 * step)
    return np.where(area_mm2 <= math.pi * (disc / 2) ** 2, np.maximum(many, 1.0), 0.0)[()]
