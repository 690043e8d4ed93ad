"""The article's table and the eras: what was measured, ranges over what is assumed, like beside like."""

import pytest

from tapeout.estimate.calibration import calibration
from tapeout.flow.compare_article import article_report, spread
from tapeout.flow.compare_eras import ERAS, eras_report, what_else
from tapeout.flow.results import load_results


@pytest.fixture(scope="module")
def article() -> dict:
    return article_report().json


@pytest.fixture(scope="module")
def eras() -> dict:
    return eras_report().json


def of(table: dict, name: str) -> list[dict]:
    return [row for row in table["rows"] if row["id"] == name]


def test_every_seed_row_is_there_with_what_it_measured(article):
    assert {row["id"] for row in article["rows"]} == {row.id for row in load_results() if row.seed_row}
    assert {row["seed_row"] for row in article["rows"]} == {1, 2, 3, 4, 5}
    assert all(row["measured"] for row in article["rows"])


def test_the_first_token_of_row_1_is_a_whole_request(article):
    rate, request = of(article, "seed1_dgx_h100_llama2_70b_b1")
    assert (request["called"], request["figure"], request["published"]) == ("ttft_ms", "request_ms", 1700)
    assert request["predicted"] == pytest.approx(128 / rate["predicted"] * 1e3, rel=1e-9)


def test_an_incomplete_row_is_a_range_around_its_prediction(article):
    for row in article["rows"]:
        assert row["low"] <= row["predicted"] <= row["high"]
        assert row["within"] == (row["low"] <= row["published"] <= row["high"])
        assert row["error"] == pytest.approx(row["predicted"] / row["published"] - 1)
    assert all(row["low"] < row["high"] for row in article["rows"] if not row["complete"])
    assert all(row["assumptions"] for row in article["rows"] if not row["complete"])


def test_corners_are_every_end_of_every_assumption_with_the_chip_at_its_worst_and_best():
    row = next(row for row in load_results() if row.id == "seed4_groq_gemma_7b")
    made = spread(row, calibration())
    assert made.corners == 2 ** len(row.assumptions) * 2
    assert 0 <= made.refused < made.corners


def test_multipliers_are_against_row_1_and_against_the_same_kind(article):
    (hc1,) = of(article, "seed5_taalas_hc1")
    assert hc1["multiplier_article"] == [170, 212.5]
    whole, first = of(article, "seed2a_groq_llama2_70b_llmperf")
    assert whole["multiplier_same_kind"] == pytest.approx([185 / 75.3] * 2)
    assert (first["figure"], first["multiplier_same_kind"]) == ("ttft_ms", None)
    assert first["multiplier_article"] == pytest.approx([1700 / 220] * 2)


def test_row_1_is_once_itself(article):
    assert all(row["multiplier_same_model"] == pytest.approx(1) for row in of(article, "seed1_dgx_h100_llama2_70b_b1"))


def test_a_smaller_model_shrinks_the_multiplier(article):
    for name in ("seed4_groq_gemma_7b", "seed5_taalas_hc1"):
        (row,) = of(article, name)
        assert row["multiplier_same_model"] < row["multiplier_article"][0]


def test_every_era_has_its_two_batches(eras):
    assert [row["chip"] for row in eras["rows"]] == [era.chip for era in ERAS for _ in range(2)]
    assert {row["era"] for row in eras["rows"]} == {"GPU", "TPU", "transformer ASIC", "hardwired"}
    assert all(row["figures"]["joules_per_token"]["value"] > 0 for row in eras["rows"])


def test_hardwired_silicon_is_fastest_and_runs_one_model(eras):
    alone = [row for row in eras["rows"] if row["batch"] == 1]
    rate = {row["era"]: row["figures"]["tokens_per_s_per_user"]["value"] for row in alone}
    assert max(rate, key=rate.__getitem__) == "hardwired"
    assert {tuple(row["models_on_any_number"]) for row in alone if row["era"] == "hardwired"} == {("llama-3.1-8b",)}


def test_more_chips_hold_more_models():
    from tapeout.chip.presets import load

    one, two = (what_else(load("h100"), count, "bf16") for count in (1, 2))
    assert set(one[0]) < set(two[0]) <= set(two[1])
    assert one[1] == two[1]
