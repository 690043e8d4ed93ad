"""Where prefill and decode of a sweep stand under the roofs of a chip: FLOP per byte read, and TFLOP/s of one chip."""

from dataclasses import replace

import numpy as np

from tapeout.chip.machine import Machine, Value
from tapeout.estimate.calibration import Calibration
from tapeout.estimate.estimate import estimate
from tapeout.estimate.formats import number_format
from tapeout.estimate.forward import active_experts, kv_bytes_per_sequence, total
from tapeout.estimate.rates import Rates, lower
from tapeout.estimate.workload import Workload
from tapeout.flow.sweeps import Curve, Sweep
from tapeout.graph.shapes import ModelShape
from tapeout.report.plots import Phase, Roofline

PROMPTS: Curve = np.unique(np.round(np.geomspace(16, 8192, 28)))
STEP = 16
"""Of the batches of a sweep, every so many are marked, and the last."""


def roofline(shape: ModelShape, sweep: Sweep, work: Workload, numbers: Calibration) -> Roofline | str:
    """Both phases by the plan of the most tokens per second; or why this chip has no roof."""
    if sweep.store == "rom":
        return f"{sweep.on}: no roofline, its weights are in the silicon and are not read"
    machine, plan = sweep.machine, sweep.plans[sweep.best]
    work = replace(work, weights=sweep.weights)
    rates = lower(shape, machine, plan, work.weights, work.kv_bytes, numbers)
    widest = max(rates.layer_weights, key=lambda group: group.weights)
    phases = (_prefill(shape, sweep, work, rates, numbers), _decode(shape, sweep, work, rates, numbers))
    return Roofline(
        name=f"{sweep.on} ({plan})",
        peak_tflops=_peak(machine, _format(shape, widest.name, work.weights)),
        tb_per_s=float(machine.memory_tb_per_s),
        reached_tflops=float(widest.flops_per_s) / plan.tensor / 1e12,
        reached_tb_per_s=float(widest.bytes_per_s) / plan.tensor / 1e12,
        phases=phases,
    )


def _format(shape: ModelShape, group: str, weights: str) -> str:
    """Of a group of matrices: experts that were released in few bits stay in them."""
    few = weights == "stored" or number_format(weights).bits < 8
    return shape.expert_format or weights if group == "experts" and few else weights


def _peak(machine: Machine, weights: str) -> float:
    """Dense peak of the multipliers that a format runs on."""
    bits = number_format(weights).bits
    first = {4: (machine.tflops_4, machine.tflops_8), 8: (machine.tflops_8,), 16: (machine.tflops_16,)}[bits]
    every = (*first, machine.tflops_16, machine.tflops_8)
    return next(float(rate) for rate in every if float(rate) > 0)


def _read_bytes(rates: Rates, tokens: Curve) -> Curve:
    """Of all weights, those that a pass with so many tokens reads, once."""
    groups = [group for group in (*rates.layer_weights, rates.head) if group]
    return np.asarray(
        sum(g.bytes * active_experts(g.experts, g.used, tokens, rates.expert_spread) / g.experts for g in groups)
    )


def _prefill(shape: ModelShape, sweep: Sweep, work: Workload, rates: Rates, numbers: Calibration) -> Phase:
    """One prompt at a time, of growing length; every stage of a pipeline has one."""
    plan = sweep.plans[sweep.best]
    prompts = PROMPTS[PROMPTS <= shape.context]
    made = estimate(
        shape, sweep.machine, replace(work, concurrency=1.0, prompt_tokens=prompts), replace(plan, data=1), numbers
    )
    head = 2.0 * sum(matrix.macs for matrix in shape.matrices() if matrix.kind == "head")
    flops = prompts * np.array([shape.flops_per_token(int(prompt) // 2) - head for prompt in prompts]) + head
    moved = _read_bytes(rates, prompts) + kv_bytes_per_sequence(rates, prompts)
    rate = flops / (total(made.prefill) * plan.tensor) / 1e12
    return Phase(
        "prefill, by prompt length",
        _list(flops / moved),
        _list(rate),
        [f"prompt of {prompt:,.0f}" for prompt in prompts],
    )


def _decode(shape: ModelShape, sweep: Sweep, work: Workload, rates: Rates, numbers: Calibration) -> Phase:
    """A decode step without the prefills between, by batch."""
    plan = sweep.plans[sweep.best]
    batches = np.unique(np.append(sweep.batches[sweep.batches >= plan.data][::STEP], sweep.batches[-1]))
    made = estimate(shape, sweep.machine, replace(work, concurrency=batches), plan, numbers)
    step = total({cause: seconds for cause, seconds in made.decode.items() if cause != "interference"})
    context = float(np.max(work.prompt_tokens)) + float(np.max(work.output_tokens)) / 2
    running = np.maximum(made.batch / plan.data / plan.pipeline, 1.0)
    each = shape.flops_per_token(int(context))
    moved = _read_bytes(rates, running) + running * kv_bytes_per_sequence(rates, context)
    rate = each * made.batch / step / plan.chips / 1e12
    labels = [f"batch {batch:,.0f}" for batch in batches]
    return Phase("decode, by batch", _list(each * running / moved), _list(rate), labels)


def _list(values: Value) -> list[float]:
    return [float(value) for value in np.atleast_1d(values)]
