"""`tapeout estimate --prefill-chip` and `--attention-chip`: two kinds of hardware in one system."""

from dataclasses import dataclass, replace

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.base.spec import fingerprint
from tapeout.chip.datasheet import Datasheet
from tapeout.chip.presets import load
from tapeout.chip.spec import ChipSpec
from tapeout.estimate.calibration import calibration
from tapeout.estimate.estimate import best_plan
from tapeout.estimate.hybrid import Hybrid, Link, Part, attention_apart, prefill_apart
from tapeout.estimate.workload import Plan, Workload
from tapeout.flow.estimates import EstimateRequest
from tapeout.flow.machines import machine_on, most_tensor, own_chips, places
from tapeout.flow.models import find_shape
from tapeout.flow.summary import Summary
from tapeout.graph.shapes import ModelShape
from tapeout.report.figure import Figure, Origin, Report, Table

UNITS = {
    "ttft_ms": "ms", "tpot_ms": "ms", "tokens_per_s_per_user": "tokens/s", "tokens_per_s_total": "tokens/s", "joules_per_token": "J", "watts": "W",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Second:
    """The other kind: `role` is prefill or attention; chips 0 means all of a system, one of a chip. Between them runs a link."""

    role: str
    chip: str
    chips: int = 0
    gb_per_s: float = 50.0
    latency_us: float = 10.0


def hybrid_report(request: EstimateRequest, second: Second) -> Summary:
    """The whole command. Raises `BadInput`: unknown names, what does not fit, a link without a rate."""
    if second.gb_per_s <= 0 or second.latency_us < 0:
        raise BadInput(
            "--join",
            f"{second.gb_per_s:g} GB/s after {second.latency_us:g} us",
            "a link has a rate, and no negative latency",
        )
    shape, numbers = find_shape(request.model), calibration()
    work = Workload(float(request.batch), float(request.prompt_tokens), float(request.output_tokens), request.weights)
    made, parts = _made(shape, request, second, work)
    if not np.isfinite(made.tpot_ms):
        raise BadInput(
            f"{shape.name} on {request.chip} and {second.chip}",
            f"does not fit in {request.weights}",
            "more chips, or fewer bits (--weights)",
        )
    figures = tuple(
        Figure(name, float(getattr(made, name)), unit, Origin.MODELLED)
        for name, unit in UNITS.items()
        if float(getattr(made, name)) > 0
    )
    plan = {
        role: {"chip": part.machine.name, **{name: getattr(part.plan, name) for name in ("tensor", "pipeline", "data")}}
        for role, part in parts.items()
    }
    reply = {
        "model": shape.name, "chip": request.chip, "second_chip": second.chip, "figures": {figure.name: figure.to_json() for figure in figures},
        "plan": plan, "bound": {"decode": made.binds}, "batch": float(made.batch),
        "time": {name: float(value) for name, value in made.shares.items()},
        "fingerprint": fingerprint([shape.fingerprint(), repr(request), repr(second), numbers.fingerprint()]),
    }  # fmt: skip
    table = Table(
        "seconds of a token", ("what", "ms"), tuple((name, 1e3 * float(value)) for name, value in made.shares.items())
    )
    notes = (
        *(f"{role}: {part.plan} of {part.machine.name}" for role, part in parts.items()),
        f"the rate is bound by: {made.binds}",
    )
    return Summary(
        reply,
        Report(
            f"{shape.name} on {request.chip} with {second.chip}", figures, (table,), notes, str(reply["fingerprint"])
        ),
    )


def _made(
    shape: ModelShape, request: EstimateRequest, second: Second, work: Workload
) -> tuple[Hybrid, dict[str, Part]]:
    link, numbers = Link(second.gb_per_s, second.latency_us), calibration()
    if second.role == "prefill":
        prefill = _whole(shape, second.chip, second.chips, replace(work, concurrency=1.0))
        decode = _whole(shape, request.chip, request.chips, work, request.tensor)
        return prefill_apart(shape, prefill, decode, link, work, numbers), {"prefill": prefill, "decode": decode}
    attention, other = _side(shape, second.chip, second.chips), _side(shape, request.chip, request.chips)
    return attention_apart(shape, attention, other, link, work, numbers), {
        "attention": attention,
        "feed-forward": other,
    }


def _count(chip: ChipSpec | Datasheet, chips: int) -> float:
    return float(chips or own_chips(chip))


def _whole(shape: ModelShape, name: str, chips: int, work: Workload, tensor: int = 0) -> Part:
    """Machines that hold the whole model, by their fastest plan."""
    chip = load(name)
    count = _count(chip, chips)
    for store in places(chip):
        machine = machine_on(chip, store)
        plan = best_plan(shape, machine, work, count, None, tensor or None, max(most_tensor(chip), tensor))
        if plan is not None:
            return Part(machine, plan)
    raise BadInput(
        f"{shape.name} on {name}",
        f"does not fit on {count:g} of it in {work.weights}",
        "more chips, or fewer bits (--weights)",
    )


def _side(shape: ModelShape, name: str, chips: int) -> Part:
    """Machines that hold a part of every layer: as tensor-parallel as they are wired closely, the rest in a pipeline of at most a stage a layer."""
    chip = load(name)
    count = _count(chip, chips)
    stages = min(float(shape.layers), np.ceil(count / most_tensor(chip)))
    return Part(machine_on(chip, places(chip)[0]), Plan(tensor=count / stages, pipeline=stages))
