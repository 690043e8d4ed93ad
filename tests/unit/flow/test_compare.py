"""One model on several chips: counts, sweeps in array calls, what is left out and why; rooflines under their roofs."""

from dataclasses import replace

import numpy as np
import pytest

from tapeout.base.errors import BadInput
from tapeout.chip.presets import load
from tapeout.estimate.calibration import calibration
from tapeout.estimate.estimate import estimate
from tapeout.estimate.workload import Workload
from tapeout.flow import sweeps
from tapeout.flow.compare import CompareRequest, compare_report, compared, entry, panels
from tapeout.flow.estimates import EstimateRequest, answer_for
from tapeout.flow.rooflines import roofline
from tapeout.flow.sweeps import BATCHES, deploy, sweep
from tapeout.graph.shapes import load_shape
from tapeout.report.plots import Roofline

SHAPE = load_shape("llama-3.1-8b")
WORK = Workload(1.0, 512.0, 128.0, "fp8", None, "steady")


def on(name: str, count: int = 0) -> sweeps.Deployment:
    return deploy(SHAPE, name, load(name), count, WORK)


def silent(text: str) -> None:
    """Notes are not looked at."""


@pytest.mark.parametrize(
    ("name", "asked", "count", "why"),
    [
        ("nvidia_h100_sxm", 0, 1, "the fewest that hold the model"),
        ("nvidia_dgx_h100", 0, 8, "all of the system"),
        ("groq_lpu_v1", 72, 72, "as asked"),
        ("taalas_hc1", 0, 1, "the model is in its silicon"),
        ("tt_wormhole_n300", 0, 2, "the fewest that hold the model"),
    ],
)
def test_how_many_chips_and_why(name, asked, count, why):
    found = on(name, asked)
    assert (found.count, found.why) == (count, why)


def test_the_fewest_chips_have_a_plan_and_one_less_has_none():
    fewest = on("groq_lpu_v1").count
    assert sweep(SHAPE, on("groq_lpu_v1", fewest), WORK, calibration()).batches[0] == 1
    with pytest.raises(BadInput):
        sweep(SHAPE, on("groq_lpu_v1", fewest - 1), WORK, calibration())


def test_a_sweep_is_one_array_call_per_plan(monkeypatch):
    asked = []

    def watched(shape, machine, work, plan, numbers=None):
        asked.append((plan, np.shape(work.concurrency)))
        return estimate(shape, machine, work, plan, numbers)

    monkeypatch.setattr(sweeps, "estimate", watched)
    made = sweep(SHAPE, on("nvidia_h100_sxm", 4), WORK, calibration())
    assert len(made.batches) > 100
    assert {shape for _, shape in asked} == {BATCHES.shape}
    assert len({plan for plan, _ in asked}) == len(asked)


@pytest.mark.parametrize(("name", "count"), [("nvidia_h100_sxm", 4), ("groq_lpu_v1", 72), ("google_tpu_v6e", 1)])
def test_a_point_of_the_sweep_is_what_estimate_says_of_that_batch(name, count):
    work = replace(WORK, recipe="arrivals")
    made = sweep(SHAPE, on(name, count), work, calibration())
    for at in (0, len(made.batches) // 2, len(made.batches) - 1):
        request = EstimateRequest("", name, count, 0, int(made.batches[at]), weights="fp8", recipe="arrivals")
        one = answer_for(SHAPE, load(name), request).estimate
        assert one.plan == made.plans[at]
        assert one.batch == made.batches[at]
        assert {figure: float(getattr(one, figure)) for figure in made.figures} == pytest.approx(
            {figure: float(values[at]) for figure, values in made.figures.items()}
        )


def test_no_batch_waits_for_memory():
    made = sweep(SHAPE, on("groq_lpu_v1", 72), WORK, calibration())
    request = EstimateRequest("", "groq_lpu_v1", 72, 0, int(made.batches[-1]), weights="fp8", recipe="steady")
    largest = float(answer_for(SHAPE, load("groq_lpu_v1"), request).estimate.largest_batch)
    assert 0.97 * largest < made.batches[-1] <= largest


def test_a_hardwired_chip_keeps_keys_and_values_in_its_sram():
    made = sweep(SHAPE, on("taalas_hc1"), WORK, calibration())
    assert made.batches[-1] < 10
    assert made.limit.startswith("keys and values in 128 MB of SRAM (assumed)")


def test_throughput_per_dollar_watt_and_area_are_of_the_same_sweep():
    request = CompareRequest("llama-3.1-8b", ("h100",), weights="fp8")
    one = compared(SHAPE, on("nvidia_h100_sxm"), request, calibration())
    made, best = one.sweep, one.sweep.best
    assert made.tokens_per_joule[best] == pytest.approx(1 / made.figures["joules_per_token"][best])
    assert made.tokens_per_s_per_mm2[best] == pytest.approx(made.figures["tokens_per_s_total"][best] / 814)
    usd = {figure.name: figure.value for figure in one.answers[-1].figures()}["usd_per_million_tokens"]
    assert made.tokens_per_usd[best] == pytest.approx(1e6 / usd)


def test_chips_without_price_or_die_are_named_under_the_plot():
    request = CompareRequest("llama-3.1-8b", ("h100", "google_tpu_v6e"), weights="fp8")
    found = [compared(SHAPE, on(name), request, calibration()) for name in ("nvidia_h100_sxm", "google_tpu_v6e")]
    seen = {panel.title: ([series.name for series in panel.series], panel.left_out) for panel in panels(found)}
    assert seen["per dollar"] == (["nvidia_h100_sxm"], ("google_tpu_v6e: no price was published",))
    assert seen["per mm² of silicon"] == (["nvidia_h100_sxm"], ("google_tpu_v6e: no die area was published",))
    assert seen["per watt"] == (["nvidia_h100_sxm", "google_tpu_v6e"], ())


def test_what_does_not_fit_is_left_out_with_the_reason():
    told = compare_report(CompareRequest("llama-3.1-70b", ("h100", "hc1"), weights="fp8"), silent).json
    assert {row["chip"] for row in told["rows"]} == {"h100"}
    assert told["left_out"] == [{"chip": "hc1", "why": "llama-3.1-70b on hc1: hardwired for llama-3.1-8b"}]


def test_the_best_batch_has_more_tokens_per_second_than_one_request():
    one, most = compare_report(CompareRequest("llama-3.1-8b", ("h100",), weights="fp8"), silent).json["rows"]
    assert (one["point"], one["batch"], most["point"]) == ("smallest batch", 1, "most tokens/s")
    rates = [row["figures"]["tokens_per_s_total"]["value"] for row in (one, most)]
    assert rates[1] > 10 * rates[0]
    assert one["figures"]["tokens_per_s_per_user"]["value"] > most["figures"]["tokens_per_s_per_user"]["value"]


def test_how_many_is_said_behind_the_name():
    assert entry("h100*8", 3) == ("h100", 8)
    assert entry("h100", 3) == ("h100", 3)
    for wrong in ("h100*", "h100*x", "h100*0"):
        with pytest.raises(BadInput, match=r"^--chips: 'h100\*.?' does not say how many; for example h100\*8"):
            entry(wrong, 0)


@pytest.mark.parametrize(
    ("model", "name", "count", "weights"),
    [
        ("llama-3.1-8b", "nvidia_h100_sxm", 1, "fp8"),
        ("llama-3.1-8b", "groq_lpu_v1", 72, "fp8"),
        ("gpt-oss-120b", "nvidia_b200_sxm", 2, "stored"),
        ("deepseek-v3", "nvidia_h200_sxm", 8, "fp8"),
        ("llama-3.1-70b", "nvidia_h100_sxm", 4, "bf16"),
    ],
)
def test_no_phase_is_above_its_roof(model, name, count, weights):
    shape, work = load_shape(model), replace(WORK, weights=weights)
    made = sweep(shape, deploy(shape, name, load(name), count, work), work, calibration())
    roof = roofline(shape, made, work, calibration())
    assert isinstance(roof, Roofline)
    assert roof.reached_tflops <= roof.peak_tflops
    assert roof.reached_tb_per_s <= roof.tb_per_s
    for phase in roof.phases:
        roofs = np.minimum(np.array(phase.flop_per_byte) * roof.tb_per_s, roof.peak_tflops)
        assert len(phase.tflops) == len(phase.labels) > 1
        assert np.all(np.array(phase.tflops) <= 1.001 * roofs)


def test_decode_of_one_request_reads_two_flop_per_weight_byte_in_8_bits():
    roof = roofline(SHAPE, sweep(SHAPE, on("nvidia_h100_sxm"), WORK, calibration()), WORK, calibration())
    assert isinstance(roof, Roofline)
    assert roof.phases[1].flop_per_byte[0] == pytest.approx(2.0, rel=0.15)
    assert roof.phases[1].labels[0] == "batch 1"


def test_a_chip_with_its_weights_in_silicon_has_no_roof():
    told = roofline(SHAPE, sweep(SHAPE, on("taalas_hc1"), WORK, calibration()), WORK, calibration())
    assert told == "taalas_hc1: no roofline, its weights are in the silicon and are not read"
