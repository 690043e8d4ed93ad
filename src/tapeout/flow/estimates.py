"""`tapeout estimate`: a model on a chip or system, in closed form, with the range that doubtful and assumed figures of the chip span."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.base.spec import fingerprint
from tapeout.chip.catalogue import one_chip
from tapeout.chip.datasheet import Datasheet
from tapeout.chip.lowering import SIDES, Side, Store
from tapeout.chip.machine import Machine
from tapeout.chip.presets import load
from tapeout.chip.spec import ChipSpec
from tapeout.estimate.calibration import Calibration, calibration
from tapeout.estimate.estimate import Estimate, best_plan, bound, estimate, shares
from tapeout.estimate.plans import check_plan
from tapeout.estimate.recipes import RECIPES
from tapeout.estimate.workload import Plan, Workload
from tapeout.flow.machines import check_hardwired, family_of, machine_on, most_tensor, own_chips, places
from tapeout.flow.models import find_shape, stored_weights
from tapeout.flow.prepare import STORED
from tapeout.flow.summary import Summary
from tapeout.flow.templates import check_template, priced, too_large
from tapeout.graph.shapes import ModelShape
from tapeout.report.diff import compare
from tapeout.report.figure import Figure, Origin, Report, Table
from tapeout.silicon.dollars import usd_per_hour, usd_per_million_tokens

IN_SILICON = "rom_3_6"
"""What a hardwired chip's own weights are, where nobody says: its KV cache follows."""
FIGURES = {
    "ttft_ms": "ms", "tpot_ms": "ms", "tokens_per_s_per_user": "tokens/s", "tokens_per_s_total": "tokens/s", "joules_per_token": "J", "watts": "W",
    "usd_per_million_tokens": "USD",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EstimateRequest:
    """What `tapeout estimate` was asked. chips 0: all of a system, one of a chip. tensor 0: the plan with the most tokens per second."""

    model: str
    chip: str
    chips: int = 0
    tensor: int = 0
    batch: int = 1
    prompt_tokens: int = 512
    output_tokens: int = 128
    weights: str = "stored"
    recipe: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    density: float = 1.0
    sparse_block: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A model on machines: the likeliest figures, and with every doubtful figure of the chip at its worst and at its best."""

    shape: ModelShape
    chip: ChipSpec | Datasheet
    store: Store
    work: Workload
    sides: Mapping[Side, Estimate]
    usd: Mapping[Side, float | None]

    @property
    def estimate(self) -> Estimate:
        """With every figure at its likeliest value."""
        return self.sides["value"]

    def figures(self) -> tuple[Figure, ...]:
        """Every figure, with its range where it has one."""
        found = []
        for name, unit in FIGURES.items():
            values = {side: self._value(name, side) for side in SIDES}
            if values["value"] is None:
                continue
            known = [value for value in values.values() if value is not None]
            low, high = min(known), max(known)
            spread = (low, high) if high - low > 1e-9 * abs(high) else (None, None)
            found.append(Figure(name, values["value"], unit, Origin.MODELLED, *spread))
        return tuple(found)

    def _value(self, name: str, side: Side) -> float | None:
        value = self.usd[side] if name == "usd_per_million_tokens" else float(getattr(self.sides[side], name))
        return value if value is not None and np.isfinite(value) and value > 0 else None


def answer(request: EstimateRequest, numbers: Calibration | None = None) -> Answer:
    """Estimate what was asked. Raises `BadInput`: unknown names, a model that does not fit, a plan that does not divide."""
    _check(request)
    shape, chip = find_shape(request.model), load(request.chip)
    if request.changes:
        chip = chip.with_fields(dict(request.changes), request.chip)
    if isinstance(chip, ChipSpec) and request.weights == STORED:
        request = replace(request, weights=stored_weights(request.model))
    return answer_for(shape, chip, request, numbers)


def answer_for(
    shape: ModelShape, chip: ChipSpec | Datasheet, request: EstimateRequest, numbers: Calibration | None = None
) -> Answer:
    """The same of a shape and a chip that are loaded."""
    numbers = numbers or calibration()
    count = float(request.chips or own_chips(chip))
    if isinstance(chip, ChipSpec):
        check_template(shape, chip, request)
    work = Workload(
        float(request.batch), float(request.prompt_tokens), float(request.output_tokens), request.weights, None,
        request.recipe or usual_recipe(family_of(chip), request.batch), density=request.density, block=float(request.sparse_block),
    )  # fmt: skip
    for store in places(chip):
        machine = machine_on(chip, store)
        check_hardwired(shape, machine)
        if machine.hardwired and work.weights == "stored":
            work = replace(work, weights=IN_SILICON)
        plan = _plan(shape, machine, work, count, request, numbers, chip)
        if plan is None:
            continue
        likeliest = estimate(shape, machine, work, plan, numbers)
        if np.isfinite(likeliest.tpot_ms):
            sides: dict[Side, Estimate] = {
                side: _on_side(side, shape, chip, store, work, plan, numbers) for side in SIDES
            }
            usd: dict[Side, float | None] = {side: usd_of(machine, made, side, numbers) for side, made in sides.items()}
            return Answer(shape, chip, store, work, sides, usd)
    if isinstance(chip, ChipSpec):
        raise too_large(shape, chip, request)
    raise does_not_fit(shape, chip, count, request.weights)


def _check(request: EstimateRequest) -> None:
    for name in ("batch", "prompt_tokens", "output_tokens"):
        if getattr(request, name) < 1:
            raise BadInput(f"--{name.replace('_', '-')}", f"{getattr(request, name)}", "ask for 1 or more")
    for name in ("chips", "tensor"):
        if getattr(request, name) < 0:
            raise BadInput(f"--{name}", f"{getattr(request, name)}", "ask for 1 or more")


def _on_side(
    side: Side, shape: ModelShape, chip: ChipSpec | Datasheet, store: Store, work: Workload, plan: Plan, numbers: Calibration
) -> Estimate:  # fmt: skip
    """The estimate with every doubtful figure at one end."""
    made = estimate(shape, machine_on(chip, store, side), work, plan, on_side(numbers, side))
    return priced(made, shape, chip, work, side) if isinstance(chip, ChipSpec) else made


def on_side(numbers: Calibration, side: Side) -> Calibration:
    """Assumed layer times at the end of their range that a side stands for."""
    return numbers if side == "value" else numbers.with_layers(slow=side == "low")


def usual_recipe(family: str, batch: float) -> str:
    """How such a chip is asked where nobody says: one request inside the engine, GPUs through a server, others with requests let in as they come."""
    if batch <= 1:
        return "engine"
    return "steady" if family.startswith("gpu") else "arrivals"


def _plan(
    shape: ModelShape, machine: Machine, work: Workload, count: float, request: EstimateRequest, numbers: Calibration, chip: ChipSpec | Datasheet
) -> Plan | None:  # fmt: skip
    if isinstance(chip, ChipSpec):
        return Plan(data=count)
    if request.tensor:
        stages = max(1.0, count // request.tensor)
        check_plan(shape, Plan(float(request.tensor), stages), count)
    return best_plan(
        shape, machine, work, count, numbers, request.tensor or None, max(most_tensor(chip), request.tensor)
    )


def does_not_fit(shape: ModelShape, chip: ChipSpec | Datasheet, count: float, weights: str) -> BadInput:
    """The refusal: by how many gigabytes, and on how many chips it would."""
    from tapeout.flow.fits import capacity_gb, fits

    fit = fits(shape, chip, weights)
    name = chip.name if isinstance(chip, ChipSpec) else chip.id
    short = fit.gigabytes - count * capacity_gb(chip)
    would = f"{fit.chips:,} or more would hold it (--chips), or fewer bits (--weights)" if fit.chips else fit.why
    if short <= 0:
        return BadInput(
            f"{shape.name} on {name}",
            f"no plan for {count:g} chips divides its {shape.heads} heads and {shape.layers} layers",
            "try another --chips",
        )
    return BadInput(
        f"{shape.name} on {name}",
        f"needs {fit.gigabytes:,.1f} GB, {short:,.1f} GB more than {count:g} of it have",
        would,
    )


def usd_of(machine: Machine, made: Estimate, side: Side, numbers: Calibration) -> float | None:
    """For a million output tokens: capital, operations, power and cooling at their likeliest, dearest for the worst chip, cheapest for the
    best; None where nobody published a price."""
    if not machine.usd:
        return None
    parts = usd_per_hour(float(machine.usd) * made.plan.chips, float(made.watts) / numbers.fixed.server_watts)
    corner = {"value": "value", "low": "high", "high": "low"}[side]
    hour = sum(getattr(part, corner) for part in parts)
    return float(usd_per_million_tokens(hour, float(made.tokens_per_s_total)).value)


def estimate_report(request: EstimateRequest) -> Summary:
    """The whole command. Raises `BadInput`."""
    made = answer(request)
    figures = made.figures()
    one = made.estimate
    name = request.chip
    binding = {"prefill": bound(one.prefill), "decode": bound(one.decode)}
    reply = {
        "model": made.shape.name, "chip": name, "figures": {figure.name: figure.to_json() for figure in figures},
        "plan": {part: getattr(one.plan, part) for part in ("tensor", "pipeline", "data", "expert")}, "chips": one.plan.chips, "bound": binding,
        "batch": float(one.batch), "largest_batch": float(one.largest_batch) if np.isfinite(one.largest_batch) else None, "weights_in": made.store,
        "recipe": made.work.recipe, "time": {"prefill": shares(one.prefill), "decode": shares(one.decode)},
        "fingerprint": fingerprint([made.shape.fingerprint(), made.chip.fingerprint(), repr(made.work), str(one.plan)]),
    }  # fmt: skip
    if request.changes:
        before = answer(replace(request, changes={})).figures()
        reply["changes"] = {row.name: row.change for row in compare(before, figures) if row.change is not None}
    return Summary(reply, _report(made, figures, binding, reply))


def _report(made: Answer, figures: tuple[Figure, ...], binding: Mapping[str, str], reply: dict) -> Report:
    times = [
        Table(
            f"time of {phase}, by cause",
            ("cause", "share"),
            tuple(sorted(((c, s) for c, s in reply["time"][phase].items() if s > 0.001), key=lambda r: -r[1])),
        )
        for phase in ("prefill", "decode")
    ]
    changed = tuple((name, f"{100 * change:+.1f} %") for name, change in reply.get("changes", {}).items())
    if changed:
        times.append(Table("against the unmodified chip", ("figure", "change"), changed))
    notes = (
        f"plan: {made.estimate.plan}; weights in {made.store}; requests: {RECIPES[reply['recipe']].about}",
        f"decode is bound by {binding['decode']}, prefill by {binding['prefill']}",
        f"batch {reply['batch']:g} of at most {reply['largest_batch'] or float('inf'):g} per replica",
        *doubts(made.chip),
    )
    return Report(f"{made.shape.name} on {reply['chip']}", figures, tuple(times), notes, reply["fingerprint"])


def doubts(chip: ChipSpec | Datasheet) -> tuple[str, ...]:
    """What the range comes from."""
    if isinstance(chip, ChipSpec):
        return ()
    guesses = [
        f"{fact.name} {fact.value:g} ({fact.low:g} to {fact.high:g})"
        for fact in one_chip(chip).facts()
        if fact.origin == "assumed"
    ]
    return (f"assumed, nobody published it: {'; '.join(guesses)}",) if guesses else ()
