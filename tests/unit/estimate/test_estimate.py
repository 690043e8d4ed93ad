"""The estimator obeys what any machine obeys, one design and a million are one path, and mistakes are named."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.base.errors import BadInput
from tapeout.chip.machine import Machine
from tapeout.estimate.designs import estimate_designs
from tapeout.estimate.estimate import best_plan, estimate
from tapeout.estimate.formats import number_format
from tapeout.estimate.forward import active_experts
from tapeout.estimate.plans import check_plan, plans
from tapeout.estimate.tiled_counts import MACS, TERMS
from tapeout.estimate.tiled_serving import TEMPLATE
from tapeout.estimate.workload import Plan, Workload
from tapeout.graph.shapes import load_shape, shape_names
from tapeout.isa.counts import LANE_MACS
from tapeout.numerics.formats import FORMATS as NUMERIC

SHAPES = st.sampled_from([name for name in shape_names()])
FORMATS = st.sampled_from(["bf16", "fp8", "int4", "nvfp4", "mxfp4"])
GPU = Machine("gpu", "gpu_nvidia", 990.0, 1980.0, 0.0, 80.0, 3.35, 450.0, watts=700.0, usd=30_000.0)
BIG = replace(GPU, memory_gb=20_000.0)
SHAPE = load_shape("llama-3.1-8b")
FIGURES = ("ttft_ms", "tpot_ms", "tokens_per_s_total", "joules_per_token", "batch")


def tpot(machine: Machine, work: Workload, name: str = "llama-3.1-8b", plan: Plan | None = None) -> float:
    return float(estimate(load_shape(name), machine, work, plan or Plan()).tpot_ms)


@given(SHAPES, FORMATS, st.integers(1, 256), st.integers(1, 8192))
@settings(deadline=None, max_examples=60)
def test_more_requests_never_make_a_token_quicker(name, weights, batch, prompt):
    few, many = (tpot(BIG, Workload(float(b), float(prompt), 128.0, weights), name) for b in (batch, batch + 1))
    assert many >= few * (1 - 1e-12)


@given(SHAPES, FORMATS, st.sampled_from(["memory_tb_per_s", "tflops_16", "tflops_8", "link_gb_per_s"]))
@settings(deadline=None, max_examples=60)
def test_a_faster_part_never_makes_anything_slower(name, weights, part):
    work, plan = Workload(16.0, 1000.0, 200.0, weights), Plan(tensor=2)
    faster = replace(BIG, **{part: 2 * getattr(BIG, part)})
    before, after = (estimate(load_shape(name), machine, work, plan) for machine in (BIG, faster))
    assert after.tpot_ms <= before.tpot_ms * (1 + 1e-12)
    assert after.ttft_ms <= before.ttft_ms * (1 + 1e-12)


@given(
    st.lists(
        st.tuples(st.floats(0.5, 10), st.floats(50, 500), st.integers(1, 200), st.integers(1, 4000)),
        min_size=1,
        max_size=9,
    ),
    SHAPES,
)
@settings(deadline=None, max_examples=40)
def test_an_array_of_designs_gives_what_each_design_gives(designs, name):
    rate, link, batch, prompt = (np.array(column, float) for column in zip(*designs, strict=True))
    many = estimate(
        load_shape(name),
        replace(BIG, memory_tb_per_s=rate, link_gb_per_s=link),
        Workload(batch, prompt, 100.0, "fp8"),
        Plan(tensor=2),
    )
    for k in range(len(designs)):
        machine = replace(BIG, memory_tb_per_s=rate[k], link_gb_per_s=link[k])
        one = estimate(load_shape(name), machine, Workload(batch[k], prompt[k], 100.0, "fp8"), Plan(tensor=2))
        for figure in FIGURES:
            assert np.broadcast_to(getattr(many, figure), rate.shape)[k] == getattr(one, figure), figure


def test_a_token_takes_at_least_the_time_of_reading_every_weight():
    made = tpot(GPU, Workload(1.0, 16.0, 16.0, "bf16"))
    assert made > load_shape("llama-3.1-8b").active_parameters * 2 / 3.35e12 * 1e3


def test_every_cause_is_named_and_together_they_are_the_step():
    made = estimate(load_shape("mixtral-8x7b"), BIG, Workload(32.0, 1000.0, 200.0, "fp8"), Plan(tensor=2))
    assert 1e3 * sum(made.decode.values()) == pytest.approx(float(made.tpot_ms))


def test_a_model_that_does_not_fit_has_no_figures():
    assert np.isnan(estimate(load_shape("llama-3.1-70b"), GPU, Workload(), Plan()).tpot_ms)
    assert best_plan(load_shape("llama-3.1-70b"), GPU, Workload(), 1.0) is None


def test_a_full_kv_cache_makes_requests_wait_and_not_decode():
    made = estimate(
        load_shape("llama-3.1-8b"), replace(GPU, memory_gb=20.0), Workload(500.0, 4000.0, 500.0, "bf16"), Plan()
    )
    assert made.batch == pytest.approx(float(made.largest_batch))
    assert made.ttft_ms > 50 * made.tpot_ms


@given(st.integers(2, 256), st.integers(1, 8), st.floats(0.1, 1))
def test_a_batch_wakes_between_its_share_and_all_experts(experts, used, spread):
    used = min(used, experts)
    awake = active_experts(experts, used, np.array([1.0, 2.0, 64.0, 1e6]), spread)
    assert awake[0] == pytest.approx(used)
    assert np.all(np.diff(awake) >= -1e-9)
    assert awake[-1] <= experts * (1 + 1e-12)


@given(SHAPES, st.integers(1, 600))
@settings(deadline=None)
def test_every_plan_divides_heads_layers_and_chips(name, chips):
    for plan in plans(load_shape(name), chips, 1e9):
        check_plan(load_shape(name), plan, chips)


@pytest.mark.parametrize(
    ("plan", "chips", "names"),
    [
        (Plan(tensor=3), 3, "32 heads do not divide by 3"),
        (Plan(tensor=2), 3, "not 3"),
        (Plan(pipeline=33), 33, "33 stages for 32 layers"),
    ],
)
def test_a_plan_that_does_not_divide_says_which_number(plan, chips, names):
    with pytest.raises(BadInput, match=names):
        check_plan(load_shape("llama-3.1-8b"), plan, chips)


def test_a_chip_of_ours_keeps_what_the_table_of_formats_says():
    assert set(TEMPLATE) == set(NUMERIC)
    for name, form in NUMERIC.items():
        assert number_format(name).weight_bytes == form.chip_bits_per_weight / 8, name
        assert TERMS.get(name, 1) == 32 // form.block * (2 if form.has_minimum else 1), name
        assert MACS.get(name, "macs_int8") == LANE_MACS[form.lane_bits], name


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(BadInput, match="nvfp4"):
        tpot(GPU, Workload(1.0, 1.0, 1.0, "int2"))


def test_a_run_of_designs_is_cut_where_arrays_are():
    machine = replace(GPU, memory_gb=np.arange(1.0, 9.0))
    cut = machine.chunk(slice(2, 4))
    assert list(cut.memory_gb) == [3.0, 4.0]
    assert all(getattr(cut, f.name) == getattr(GPU, f.name) for f in fields(GPU) if f.name != "memory_gb")


def test_designs_in_chunks_give_what_one_call_gives():
    count = 1000
    machine, work = (
        replace(BIG, memory_tb_per_s=np.linspace(1.0, 9.0, count)),
        Workload(np.arange(1.0, count + 1), 500.0, 100.0, "fp8"),
    )
    whole, cut = (
        estimate(SHAPE, machine, work, Plan()),
        estimate_designs(SHAPE, machine, work, Plan(), at_once=37, threads=2),
    )
    for figure in FIGURES:
        assert np.array_equal(getattr(cut, figure), np.broadcast_to(getattr(whole, figure), count)), figure


def test_designs_of_different_number_are_refused():
    with pytest.raises(BadInput, match="3 and 4"):
        estimate_designs(SHAPE, replace(BIG, memory_tb_per_s=np.ones(3)), Workload(np.ones(4)), Plan())
