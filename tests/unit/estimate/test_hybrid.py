"""Two kinds of machine in one system: nothing is quicker than its slower half, and a slow link shows."""

from dataclasses import replace

import numpy as np
import pytest

from tapeout.chip.machine import Machine
from tapeout.estimate.calibration import calibration
from tapeout.estimate.estimate import estimate
from tapeout.estimate.hybrid import Link, Part, attention_apart, prefill_apart
from tapeout.estimate.workload import Plan, Workload
from tapeout.graph.shapes import load_shape

GPU = Part(Machine("gpu", "gpu_nvidia", 990.0, 1980.0, 0.0, 80.0, 3.35, 450.0, watts=700.0), Plan(tensor=2))
FAST = Part(replace(GPU.machine, name="fast", family="groq", memory_tb_per_s=80.0), Plan(tensor=2))
LINK = Link(50.0, 10.0)
SHAPE = load_shape("llama-3.1-8b")
WORK = Workload(8.0, 2000.0, 200.0, "fp8")


def test_prompts_apart_leave_tokens_undisturbed():
    alone = estimate(SHAPE, FAST.machine, replace(WORK, recipe="steady"), FAST.plan)
    assert prefill_apart(SHAPE, GPU, FAST, LINK, WORK, calibration()).tpot_ms < alone.tpot_ms


def test_a_first_token_waits_for_prompt_and_transfer():
    slow, quick = (prefill_apart(SHAPE, GPU, FAST, Link(rate, 10.0), WORK, calibration()) for rate in (1.0, 100.0))
    kv_bytes = SHAPE.kv_values(2000)
    assert slow.ttft_ms - quick.ttft_ms == pytest.approx(kv_bytes / 1e9 * (1 - 0.01) * 1e3)


def test_a_starved_decode_side_says_so():
    made = prefill_apart(SHAPE, GPU, FAST, LINK, replace(WORK, concurrency=200.0, output_tokens=8.0), calibration())
    assert made.binds == "prefill"
    assert made.shares["waiting for prompts"] > 0


def test_attention_apart_takes_at_least_twice_its_longer_side():
    made = attention_apart(SHAPE, GPU, FAST, LINK, WORK, calibration())
    longer = max(made.shares["attention side"], made.shares["feed-forward side"])
    assert made.tpot_ms >= 2e3 * longer
    assert made.binds in made.shares


def test_what_does_not_fit_has_no_figures():
    small = Part(replace(GPU.machine, memory_gb=1.0), Plan())
    assert np.isnan(attention_apart(SHAPE, GPU, small, LINK, WORK, calibration()).tpot_ms)
    assert np.isnan(prefill_apart(SHAPE, GPU, small, LINK, WORK, calibration()).tpot_ms)
