"""Results of others are read in three forms; what they leave out is a named assumption, and what they do not need is none."""

import numpy as np
import pytest

from shared import SHARED, needs_shared
from tapeout.base.errors import BadInput
from tapeout.flow.results import load_results
from tapeout.flow.score import score
from tapeout.flow.validate import validate

PUBLISHED = """
- {id: mine, chip: nvidia_h100_sxm, chips: 1, model: Llama-3.1-8B, precision: fp8, concurrency: 1, prompt_tokens: 1000, kind: decode_rate,
   tokens_per_s_per_user: 200.0, complete: true}
"""
SERVING = """
- {id: point, chip: nvidia_h100_sxm, model: Llama-3.1-8B, framework: vllm, weights: fp8, chips: 2, tensor_parallel: 2, concurrency: 16,
   prompt_tokens: 1000, output_tokens: 200, ttft_ms: 100.0, tpot_ms: 7.0, usable: true}
"""
COLUMNS = (
    "id,backend,backend_version,model_path,system,precision,mode,isl,osl,gemm_quant_mode,batch_size,tp_size,pp_size,attention_dp_size,"
    "moe_ep_size,silicon_ttft_ms,silicon_tpot_ms"
)
ROW = "{0},vllm,0.12,meta/Llama-3.1-8B,h100_sxm,fp8,{1},1000,200,fp8,16,2,1,1,1,100.0,7.0"
CSV = "\n".join([COLUMNS, ROW.format("a", "agg"), ROW.format("b", "disagg")])


def write(tmp_path, name: str, text: str):
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.mark.parametrize(("name", "text"), [("a.yaml", PUBLISHED), ("b.yaml", SERVING), ("c.csv", CSV)])
def test_each_form_is_read_and_scored(tmp_path, name, text):
    scores, _ = score(load_results(write(tmp_path, name, text)))
    assert scores
    assert all(abs(np.log(one.predicted / one.published)) < np.log(2) for one in scores), [str(one) for one in scores]


def test_prefill_and_decode_on_chips_of_their_own_are_skipped_with_the_reason(tmp_path):
    _, skipped = score(load_results(write(tmp_path, "c.csv", CSV)))
    assert [(row.id, why) for row, why in skipped] == [("b", "prefill and decode on chips of their own (disagg)")]


def test_a_decode_rate_needs_no_output_length():
    rows = [row for row in load_results() if row.kind == "decode_rate" and row.complete]
    assert not [made for row in rows for made in row.assumptions if made.field == "output_tokens"]


def test_an_offline_row_without_concurrency_runs_as_many_as_fit():
    row = next(row for row in load_results() if row.id == "trtllm_10_h100_sxm_llama_3_1_8b_tp1_128_128")
    assert row.concurrency == float("inf")
    assert score([row])[0][0].predicted > 10_000


def test_what_a_source_leaves_out_is_an_assumption_with_a_range():
    row = next(row for row in load_results() if row.id.startswith("mlperf41_h200_sxm_141gbx8_llama2_70b_offline"))
    (made,) = row.assumptions
    assert (made.field, made.low < made.value < made.high) == ("prompt_tokens", True)


def test_at_most_a_tenth_of_the_complete_rows_is_not_scored():
    answer = validate().json
    complete = {row["id"] for row in answer["rows"] if row["complete"]}
    left = [row for row in answer["skipped"] if row["complete"]]
    assert len(left) <= 0.1 * (len(complete) + len(left)), left


def test_specialised_silicon_is_within_a_factor_of_one_and_a_half_or_the_page_says_what_is_missing():
    rows = [
        row
        for row in validate().json["rows"]
        if row["complete"] and row["family"] in ("groq", "sambanova", "taalas", "dmatrix")
    ]
    assert len(rows) >= 4
    assert not [row for row in rows if not 1 / 1.5 <= 1 + row["error"] <= 1.5]


def test_published_rates_of_nvidia_are_within_a_fifth_in_the_mean():
    answer = validate().json
    assert answer["rates"]["gpu_nvidia"]["mean_abs_error"] <= 0.20
    assert answer["families"]["gpu_nvidia"]["joules_per_token"]["mean_abs_error"] <= 0.25


@needs_shared("gpu_serving_measured.yaml")
def test_measured_serving_points_are_as_near_as_the_page_says():
    answer = validate(SHARED / "gpu_serving_measured.yaml").json["summary"]
    assert answer["tpot_ms"]["median_abs_error"] <= 0.10
    assert answer["tpot_ms"]["mean_abs_error"] <= 0.14
    assert answer["tpot_ms"]["p90_abs_error"] <= 0.30
    assert answer["ttft_ms"]["median_abs_error"] <= 0.33
    assert answer["ttft_ms"]["mean_abs_error"] <= 0.40


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.yaml", "- [1]", "no list of rows"),
        ("a.yaml", "- {id: x}", "row 1"),
        ("a.yaml", "a: [", "not YAML"),
        ("a.csv", "id\nx\n", "row 1"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_row(tmp_path, name, text, names):
    with pytest.raises(BadInput, match=names):
        load_results(write(tmp_path, name, text))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        load_results(tmp_path / "none.yaml")
