"""Figures, differences and pictures."""

import io
from xml.etree import ElementTree

import pytest

from tapeout.report.diff import compare
from tapeout.report.figure import Figure, Origin, Report, Table, number
from tapeout.report.floorplan import floorplan_svg
from tapeout.report.render import render
from tapeout.report.timeline import timeline_svg
from tapeout.silicon.cost import Cost

NUMBERS = {
    0: "0",
    1489654: "1,489,654",
    0.961: "0.961",
    13.9105: "13.91",
    0.00496: "0.00496",
    4.4e-9: "4.400e-09",
    999.94: "999.9",
    7: "7",
}


@pytest.mark.parametrize(("value", "text"), NUMBERS.items())
def test_numbers_have_four_significant_digits(value, text):
    assert number(value) == text


def test_a_change_is_the_signed_fraction_and_missing_ones_are_none():
    one = [Figure("a", 2.0, "s", Origin.MODELLED), Figure("b", 1.0, "s", Origin.MODELLED)]
    two = [Figure("a", 3.0, "s", Origin.MODELLED), Figure("c", 1.0, "s", Origin.MODELLED)]
    assert {row.name: row.change for row in compare(one, two)} == {"a": 0.5, "b": None, "c": None}


def test_a_report_fits_80_columns():
    figure = Figure(
        "tokens_per_s",
        1353.2,
        "tokens/s",
        Origin.MODELLED,
        1.0,
        2.0,
        "decode, mean over the generated tokens, and more words",
    )
    out = io.StringIO()
    render(
        Report("a chip", (figure,), (Table("time", ("cause", "share"), (("matrix matmul", 0.4),)),), (), ""), out, 80
    )
    assert max(len(line) for line in out.getvalue().splitlines()) <= 80
    assert "modelled" in out.getvalue()


def test_a_floorplan_is_a_picture_with_every_component():
    costs = [Cost(name, 1.0, 1.0, 1.0, "mm2", "") for name in ("SRAM", "matrix unit", "host interface", "whitespace")]
    root = ElementTree.fromstring(floorplan_svg("x", 2, 1, costs))
    words = " ".join(root.itertext())
    assert all(cost.component in words for cost in costs)
    assert "tile 1" in words


def test_a_timeline_shows_every_event():
    svg = timeline_svg("t", [("matrix", 0, 0, 90, "matmul"), ("vector", 1, 90, 100, "norm")])
    assert {"matmul: cycles 0 to 90", "norm: cycles 90 to 100"} <= set(ElementTree.fromstring(svg).itertext())
