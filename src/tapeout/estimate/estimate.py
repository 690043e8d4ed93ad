"""The estimator: one model, one kind of machine, one plan, one workload; a number in each, or arrays of designs in any."""

from dataclasses import dataclass, replace

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.chip.machine import Machine, Value
from tapeout.estimate.calibration import Calibration, calibration
from tapeout.estimate.energy import watts
from tapeout.estimate.forward import CAUSES, total
from tapeout.estimate.plans import fastest, plans
from tapeout.estimate.rates import lower
from tapeout.estimate.serving import Serving, serve
from tapeout.estimate.sparsity import thin
from tapeout.estimate.tiled_serving import serve_tiled
from tapeout.estimate.workload import Plan, Workload
from tapeout.graph.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class Estimate:
    """What `estimate` answers; every figure a number or an array. NaN where the model does not fit."""

    plan: Plan
    ttft_ms: Value
    tpot_ms: Value
    tokens_per_s_per_user: Value
    tokens_per_s_total: Value
    watts: Value
    joules_per_token: Value
    batch: Value
    """Requests that decode at once, of all replicas."""
    largest_batch: Value
    """Of one replica."""
    prefill: dict[str, Value]
    decode: dict[str, Value]


def estimate(
    shape: ModelShape, machine: Machine, work: Workload, plan: Plan, numbers: Calibration | None = None
) -> Estimate:
    """Closed form, no loop over designs. Raises `BadInput` on an unknown format, family or recipe."""
    numbers = numbers or calibration()
    if machine.family not in numbers.families:
        raise BadInput(
            machine.name, f"nothing is known of the family {machine.family!r}", f"one of {', '.join(numbers.families)}"
        )
    share = replace(work, concurrency=np.maximum(work.concurrency / plan.data, 1.0))
    if machine.tiles:
        return _figures(machine, plan, share, serve_tiled(shape, machine.tiles, share), numbers)
    rates = lower(shape, machine, plan, work.weights, work.kv_bytes, numbers)
    rates = thin(rates, machine.rows, work.density, work.block)
    served = serve(rates, machine, share, numbers)
    return _figures(machine, plan, share, served, numbers)


def _figures(machine: Machine, plan: Plan, share: Workload, served: Serving, numbers: Calibration) -> Estimate:
    fits = np.where(np.asarray(served.largest_batch) >= 1.0, 1.0, np.nan)
    tpot = served.tpot_s * fits
    parts = served.decode | {"compute": served.decode["compute"] + served.interference_s}
    total_rate = plan.data * served.batch / tpot
    drawn = watts(machine.watts, plan.chips, parts, numbers.fixed, bool(machine.hardwired)) * fits
    return Estimate(
        plan=plan, ttft_ms=served.ttft_s * fits * 1e3, tpot_ms=tpot * 1e3, tokens_per_s_per_user=1.0 / tpot, tokens_per_s_total=total_rate,
        watts=drawn, joules_per_token=drawn / total_rate, batch=plan.data * served.batch, largest_batch=served.largest_batch,
        prefill=served.prefill, decode=served.decode | {"interference": served.interference_s},
    )  # fmt: skip


def best_plan(
    shape: ModelShape,
    machine: Machine,
    work: Workload,
    chips: float,
    numbers: Calibration | None = None,
    tensor: float | None = None,
    most_tensor: float = 8,
) -> Plan | None:
    """Among the plans that fit, the one with the most tokens per second at this concurrency; None where none fits."""
    candidates = plans(shape, chips, float(np.max(work.concurrency)), tensor, most_tensor)
    return fastest(candidates, lambda plan: float(estimate(shape, machine, work, plan, numbers).tokens_per_s_total))


def bound(parts: dict[str, Value]) -> str:
    """The cause that takes most of the time."""
    return max(parts, key=lambda cause: float(np.mean(parts[cause])))


def shares(parts: dict[str, Value]) -> dict[str, float]:
    """Every cause's share of the time."""
    whole = float(total(parts))
    return {cause: float(parts[cause]) / whole for cause in (*CAUSES, "interference") if cause in parts}
