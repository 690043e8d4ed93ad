"""A chip against a wish list: verdicts, ranges, what does not run, and lists that contradict themselves."""

import pytest

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import datasheet
from tapeout.chip.presets import load
from tapeout.flow.check import CheckRequest, check, judge
from tapeout.flow.findings import Finder, Finding, chip_figure
from tapeout.flow.tensions import cheapest_memory, tensions
from tapeout.flow.wishes import Asked, Line, WishList, load_wishes, shipped
from tapeout.report.figure import Figure, Origin

WISHES = load_wishes("wishlist")


def _met(chip: str, model: str = "") -> dict[str, bool | None]:
    rows = check(CheckRequest(chip, model)).json["rows"]
    return {row["line"]: row["met"] for row in rows}


def _line(**limits: float) -> Line:
    return Line(line="x", figure="estimate.ttft_ms", **limits)


def _found(value: float, low: float | None = None, high: float | None = None) -> Finding:
    return Finding(Figure("ttft_ms", value, "ms", Origin.MODELLED, low, high))


@pytest.mark.parametrize(
    ("limits", "found", "met", "by"),
    [
        ({"at_most": 100}, _found(90), True, ""),
        ({"at_most": 100}, _found(100), True, ""),
        ({"at_most": 100}, _found(120), False, "by 20 ms: 20% too much"),
        ({"at_most": 100}, _found(250), False, "by 150 ms: 2.5 times too much"),
        ({"at_most": 100}, _found(90, 80, 110), None, "between 80 and 110"),
        ({"at_most": 100}, _found(120, 101, 130), False, "by 20 ms: 20% too much"),
        ({"at_least": 100}, _found(80), False, "by 20 ms: 20% too little"),
        ({"at_least": 100}, _found(1, 0.5, 2), False, "by 99 ms: 100 times too little"),
        ({"at_least": 3, "at_most": 5}, _found(4), True, ""),
        ({"at_least": 3, "at_most": 5}, _found(2), False, "by 1 ms: 33% too little"),
        ({"at_least": 3, "at_most": 5}, _found(7), False, "by 2 ms: 40% too much"),
        ({"at_least": 3, "at_most": 5}, _found(5, 4, 6), None, "between 4 and 6"),
    ],
)
def test_a_figure_is_judged_with_its_range(limits, found, met, by):
    row = judge(_line(**limits), found)
    assert (row.met, row.by) == (met, by)


def test_a_row_has_the_keys_of_the_contract():
    row = check(CheckRequest("nvidia_dgx_h100")).json["rows"][0]
    assert {"line", "wanted", "found", "met"} <= set(row)
    assert row == {
        "line": "made at 3 to 5 nm", "wanted": "3 to 5 nm", "found": "4 nm", "met": True, "by": "", "margin": pytest.approx(-0.2),
        "figure": {"value": 4.0, "unit": "nm", "origin": "cited"},
    }  # fmt: skip


def test_a_gpu_node_meets_three_lines_and_says_nothing_of_two():
    met = _met("nvidia_dgx_h100")
    assert met["made at 3 to 5 nm"]
    assert met["first token in 100 ms"]
    assert met["500 tokens/s of a 70B for one user"] is False
    assert met["0.3 J per token for one user"] is False
    assert met["int8, int4 and ternary native"] is None
    assert met["PyTorch or ONNX to microcode"] is None


def test_a_model_that_does_not_fit_or_is_not_the_one_in_silicon_is_a_miss():
    rows = {row["line"]: row for row in check(CheckRequest("edge")).json["rows"]}
    assert rows["first token in 100 ms"]["found"].startswith("llama-3.1-70b does not run: needs 39,864.7 MB")
    rows = {row["line"]: row for row in check(CheckRequest("taalas_hc1")).json["rows"]}
    assert rows["first token in 100 ms"]["found"] == "llama-3.1-70b does not run: hardwired for llama-3.1-8b"
    assert rows["first token in 100 ms"]["met"] is False


def test_a_hardwired_chip_holds_as_many_users_as_its_doubtful_sram():
    finder = Finder("taalas_hc1", load("taalas_hc1"))
    asked = Asked(model="llama-3.1-8b", batch=64)
    line = Line(line="x", figure="estimate.requests_per_chip", at_least=4)
    figure = finder.find(line, asked).figure
    assert figure
    assert figure.low == pytest.approx(32e6 / (32 * 2 * 8 * 128 * 640 * 1.0625))
    assert judge(line, Finding(figure)).met is None


def test_where_fewer_decode_than_are_open_the_wait_counts():
    finder = Finder("groqrack_576", load("groqrack_576"))
    few = finder.find(Line(line="x", figure="estimate.tpot_ms", at_most=200), Asked(batch=64)).figure
    many = finder.find(Line(line="x", figure="estimate.tpot_ms", at_most=200), Asked(batch=1000, per_chip=True)).figure
    assert few
    assert many
    assert few.value < 20
    assert many.value > 1000
    assert many.note.endswith("of 576,000 decode at once, the others wait")


def test_a_chip_of_ours_with_a_checkpoint_is_compiled_and_priced():
    asked = Asked(model="fable", weights="int8", prompt_tokens=16, output_tokens=16)
    finder = Finder("tiny", load("tiny"))
    found = [
        finder.find(Line(line="x", figure=f"estimate.{name}", at_least=0), asked)
        for name in ("tokens_per_s_per_user", "joules_per_token", "requests_per_chip", "tokens_per_joule")
    ]
    rate, joules, users, per_joule = (finding.figure for finding in found)
    assert rate
    assert joules
    assert users
    assert per_joule
    assert rate.value > 1000
    assert joules.low is not None
    assert joules.low < joules.value
    assert users.value == 1
    assert per_joule.low == pytest.approx(1 / (joules.high or 1))


def test_a_field_of_a_chip_is_found_under_its_datasheet_name():
    tiny = load("tiny")
    figure = chip_figure(tiny, "sram_mb").figure
    assert figure
    assert figure.value == pytest.approx(4 * 384 * 1024 / 1e6)
    assert chip_figure(tiny, "tdp_w").figure is None
    system = chip_figure(datasheet("groqrack_576"), "sram_mb").figure
    assert system
    assert system.value == 230


def test_facts_are_yes_no_or_unknown():
    met = {
        chip: [Finder(chip, load(chip)).find(line, Asked()).holds for line in WISHES.lines if line.fact]
        for chip in ("edge", "groqrack_576", "nvidia_h100_sxm", "fpga")
    }
    assert met["edge"] == [True, True, True]
    assert met["groqrack_576"] == [None, True, None]
    assert met["nvidia_h100_sxm"] == [None, False, None]
    assert met["fpga"][1] is False


def test_set_changes_the_verdict():
    changed = check(CheckRequest("edge", changes={"node": "5nm"})).json["rows"]
    assert changed[0]["met"] is True


def test_the_wish_list_contradicts_itself_and_says_so_with_numbers():
    found = tensions(WISHES)
    assert len(found) == 3
    assert "reads 39.1 GB per token, 19.5 TB/s (17.4 without scales); from HBM3E alone 1.4 J (1.1 to 2.8" in found[0]
    assert all("\n" not in text for text in found)
    assert cheapest_memory()[0] == "HBM3E"


def test_a_list_that_can_be_met_has_no_tension():
    lines = [
        {"line": "a", "figure": "estimate.tokens_per_s_per_user", "at_least": 50},
        {"line": "b", "figure": "estimate.joules_per_token", "at_most": 5},
        {"line": "c", "figure": "estimate.requests_per_chip", "at_least": 1},
        {"line": "d", "figure": "chip.sram_mb", "at_least": 200},
    ]
    assert tensions(WishList.from_data({"name": "mild", "lines": lines}, "mild")) == ()


def test_shared_readings_resolve_the_first_tension():
    asked = WISHES.workload.model_copy(update={"batch": 10})
    shared = WISHES.model_copy(update={"workload": asked})
    assert not any("HBM3E" in text for text in tensions(shared))


def test_what_ships_is_read_and_prints_back():
    assert shipped() == ("wishlist",)
    assert WishList.from_text(WISHES.to_yaml(), "again").fingerprint() == WISHES.fingerprint()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"line": "x"}, "a line has a figure or a fact"),
        ({"line": "x", "figure": "chip.sram_mb"}, "a figure has at_least or at_most, and no `of`"),
        ({"line": "x", "figure": "chip.srams", "at_least": 1}, "'chip.srams' is neither estimate.ttft_ms"),
        ({"line": "x", "figure": "estimate.ttft_ms", "at_least": 3, "at_most": 2}, "at_least 3 is more than at_most 2"),
        ({"line": "x", "fact": "network"}, "a fact has `of` and nothing else"),
        ({"line": "x", "figure": "chip.tdp_w", "at_most": 2, "workload": {}}, "a workload belongs to an estimate"),
    ],
)
def test_a_wrong_line_is_refused_with_what_is_allowed(line, message):
    with pytest.raises(BadInput) as error:
        WishList.from_data({"name": "x", "lines": [line]}, "x")
    assert message in str(error.value)


def test_unknown_names_are_the_users_mistake():
    for request in (CheckRequest("nix"), CheckRequest("edge", "nix"), CheckRequest("edge", spec="nix")):
        with pytest.raises(BadInput):
            check(request)
