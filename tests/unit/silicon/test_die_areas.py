"""Die area through two doors: on published dies, never fitted on the die tested."""

import sys
from pathlib import Path

import pytest

from tapeout.base.errors import BadInput
from tapeout.silicon.cost import total
from tapeout.silicon.dies import (
    Parts,
    area,
    area_from_transistors,
    arithmetic_mm2,
    die_errors,
    known_dies,
    median_error,
)

ROOT = Path(__file__).parents[3]
ROWS = {door: die_errors(door) for door in ("transistors", "parts")}


def test_the_tables_of_the_page_are_made_from_the_code():
    sys.path.insert(0, str(ROOT / "tools"))
    from silicon_tables import page

    text = (ROOT / "docs" / "silicon.md").read_text()
    assert page(text) == text


@pytest.mark.parametrize(
    ("door", "kind", "most"),
    [("transistors", "gpu", 0.10), ("transistors", "array", 0.20), ("parts", "gpu", 0.15), ("parts", "array", 0.35)],
)
def test_median_errors_are_what_the_page_says(door, kind, most):
    assert median_error(tuple(row for row in ROWS[door] if row.die.kind == kind)) <= most


def test_a_dies_own_area_does_not_reach_its_answer():
    """The answer for a die is that for its parts, whatever its area: its family is left out of the fit."""
    for row in ROWS["parts"]:
        bare = Parts(**{name: getattr(row.die, name) for name in Parts.model_fields})
        assert total(area(bare, row.die.family)).value == row.ours


@pytest.mark.parametrize("door", ROWS)
def test_ranges_are_ordered_and_hold_most_dies(door):
    rows = ROWS[door]
    assert all(row.low <= row.ours <= row.high for row in rows)
    assert sum(row.inside for row in rows) >= 0.7 * len(rows)


def test_every_die_names_its_source_and_says_why_it_errs():
    assert len(known_dies()) >= 12
    assert [die.name for die in known_dies() if len(die.source) < 20 or len(die.why) < 20] == []


@pytest.mark.parametrize("part", ["sram", "lanes", "hbm_stacks", "gddr_bits", "lpddr_bits", "rom"])
def test_more_of_a_part_is_never_smaller(part):
    plain = Parts(node="N6", sram=100, lanes=16)
    more = plain.model_copy(update={part: getattr(plain, part) + 32})
    assert total(area(more)).value > total(area(plain)).value


def test_the_same_parts_are_smaller_on_a_finer_node():
    sizes = [
        total(area(Parts(node=node, kind="gpu", sram=50, fp32_lanes=8192, fp16_macs=65536))).value
        for node in ("16nm", "7nm", "5nm")
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_arithmetic_by_itself_is_a_small_share_of_every_die():
    assert all(arithmetic_mm2(die) < 0.1 * die.mm2 for die in known_dies())


def test_what_cannot_be_told_is_refused_by_name():
    with pytest.raises(
        BadInput, match=r"parts\.kind: the logic of a rom die cannot be told from parts; use gpu or array"
    ):
        area(Parts(node="N6", kind="rom", rom=28))
    with pytest.raises(BadInput, match=r"parts\.transistors: is not given"):
        area_from_transistors(Parts(node="N6"))
    with pytest.raises(BadInput, match=r"node: '45nm' has no price or density; use one of 28nm, 16FF"):
        area(Parts(node="45nm"))
