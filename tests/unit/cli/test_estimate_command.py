"""`tapeout estimate` and `validate`: one JSON object, the keys of the contract, and mistakes in one line."""

import json

import pytest

FIGURES = {
    "ttft_ms", "tpot_ms", "tokens_per_s_per_user", "tokens_per_s_total", "joules_per_token", "watts", "usd_per_million_tokens",
}  # fmt: skip


def test_an_estimate_has_the_keys_of_the_contract(tapeout):
    told = json.loads(
        tapeout(
            "estimate", "llama-3.1-70b", "--chip", "nvidia_dgx_h100", "--weights", "fp8", "--batch", "32", "--json"
        )[1]
    )
    assert set(told["figures"]) == FIGURES
    assert set(told["bound"]) == {"prefill", "decode"}
    assert told["plan"]["tensor"] * told["plan"]["pipeline"] * told["plan"]["data"] == told["chips"] == 8
    assert told["figures"]["tpot_ms"]["origin"] == "modelled"


def test_an_estimate_prints_for_people_too(tapeout):
    code, out, _ = tapeout("estimate", "llama-3.1-8b", "--chip", "h100", "--weights", "fp8")
    assert code == 0
    assert "time of decode, by cause" in out


def test_what_nobody_published_gives_a_range(tapeout):
    told = json.loads(tapeout("estimate", "llama-3.1-70b", "--chip", "etched_sohu", "--weights", "fp8", "--json")[1])
    figure = told["figures"]["tpot_ms"]
    assert figure["low"] < figure["value"] < figure["high"]


def test_a_changed_field_shows_every_change(tapeout):
    told = json.loads(
        tapeout("estimate", "llama-3.1-8b", "--chip", "h100", "--set", "offchip_tb_per_s=6.7", "--json")[1]
    )
    assert -0.5 < told["changes"]["tpot_ms"] < -0.2


def test_prompts_on_another_chip_are_one_system(tapeout):
    told = json.loads(
        tapeout(
            "estimate",
            "llama-3.1-70b",
            "--chip",
            "groqrack_576",
            "--prefill-chip",
            "nvidia_dgx_h100",
            "--weights",
            "fp8",
            "--batch",
            "8",
            "--json",
        )[1]
    )
    assert set(told["plan"]) == {"prefill", "decode"}
    assert told["figures"]["tokens_per_s_total"]["value"] > 100


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["llama-3.1-70b", "--chip", "nvidia_h100_sxm"], "61.4 GB more than 1 of it have; 2 or more would hold it"),
        (["llama-3.1-70b", "--chip", "nvidia_h10"], "nearest: nvidia_h100_sxm"),
        (["llama-3.1-80b", "--chip", "nvidia_h100_sxm"], "nearest: llama-3.1-"),
        (["llama-3.1-70b", "--chip", "nvidia_dgx_h100", "--tensor", "3"], "not 8"),
        (["llama-3.1-8b", "--chip", "h100", "--weights", "int7"], "nvfp4"),
        (["llama-3.1-8b", "--chip", "h100", "--batch", "0"], "1 or more"),
        (["llama-3.1-8b", "--chip", "h100", "--recipe", "magic"], "one_wave"),
        (["mixtral-8x7b", "--chip", "taalas_hc1"], "one model in silicon"),
        (["llama-3.1-8b", "--chip", "rain_ai"], "never published"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_that_says_what_to_do(tapeout, arguments, names):
    code, out, err = tapeout("estimate", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert names in err


def test_validation_has_the_keys_of_the_contract(tapeout):
    told = json.loads(tapeout("validate", "--json")[1])
    assert {"id", "family", "kind", "figure", "published", "predicted", "error"} <= set(told["rows"][0])
    assert {"rows", "median_abs_error", "mean_abs_error", "p90_abs_error"} == set(told["summary"]["tpot_ms"])
    assert {"id", "why"} <= set(told["skipped"][0])
    assert set(told["families"]) > {"gpu_nvidia", "groq"}


def test_a_results_file_that_is_none_is_one_line(tapeout, tmp_path):
    code, _, err = tapeout("validate", "--results", str(tmp_path / "none.yaml"))
    assert (code, err.count("\n")) == (2, 1), err
