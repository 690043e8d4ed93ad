"""What the estimator says to a result of others: the same machine, plan, workload and recipe, and the figures that were published."""

from dataclasses import dataclass

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import datasheet
from tapeout.chip.lowering import Side, Store
from tapeout.estimate.calibration import Calibration
from tapeout.estimate.estimate import Estimate, best_plan, estimate
from tapeout.estimate.workload import Plan, Workload
from tapeout.flow.machines import machine_on, most_tensor, places
from tapeout.flow.results import Result
from tapeout.graph.shapes import load_shape


@dataclass(frozen=True, slots=True)
class Prediction:
    """`figures` has a value for whatever a row may publish."""

    figures: dict[str, float]
    estimate: Estimate
    store: Store


def predict(result: Result, numbers: Calibration | None = None, side: Side = "value") -> Prediction:
    """Raises `BadInput` where chip, model or format is unknown, or the model does not fit."""
    sheet, shape = datasheet(result.chip), load_shape(result.model)
    work = Workload(
        result.concurrency, result.prompt_tokens, result.output_tokens, result.weights, result.kv_bytes, result.recipe, result.slot_tokens
    )  # fmt: skip
    stated = _stated_plan(result)
    for store in places(sheet):
        machine = machine_on(sheet, store, side)
        plan = stated or best_plan(shape, machine, work, result.chips, numbers, most_tensor=most_tensor(sheet))
        if plan is None:
            continue
        made = estimate(shape, machine, work, plan, numbers)
        if np.all(np.isfinite(made.tpot_ms)):
            return Prediction(_figures(result, made), made, store)
    chips = f"{result.chips:g} {'chip' if result.chips == 1 else 'chips'}"
    raise BadInput(f"{shape.name} on {sheet.id}", f"does not fit on {chips} in {result.weights}")


def _stated_plan(result: Result) -> Plan | None:
    if not (result.tensor or result.pipeline or result.data):
        return None
    tensor, pipeline = result.tensor or 1.0, result.pipeline or 1.0
    return Plan(tensor, pipeline, result.data or max(1.0, result.chips / (tensor * pipeline)), result.expert)


def _figures(result: Result, made: Estimate) -> dict[str, float]:
    ttft, tpot = float(made.ttft_ms) + result.network_ms, float(made.tpot_ms)
    request_ms = ttft + result.output_tokens * tpot
    figures = {
        "ttft_ms": ttft, "tpot_ms": tpot, "tokens_per_s_per_user": 1e3 / tpot, "tokens_per_s_total": float(made.tokens_per_s_total),
        "joules_per_token": float(made.joules_per_token), "request_ms": request_ms,
    }  # fmt: skip
    if result.kind == "end_to_end":
        figures["tokens_per_s_per_user"] = 1e3 * result.output_tokens / request_ms
    if result.kind == "static_batch_end_to_end":
        figures["tokens_per_s_total"] = float(made.batch) * 1e3 * result.output_tokens / request_ms
    return figures
