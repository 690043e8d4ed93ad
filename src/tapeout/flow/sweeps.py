"""One model on so many of one chip at every batch that fits: one array call per plan, the fastest plan at each batch.

The figures equal those of `tapeout estimate` at the same batch, chips and recipe.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import one_chip
from tapeout.chip.datasheet import Datasheet
from tapeout.chip.lowering import Store
from tapeout.chip.machine import Machine
from tapeout.chip.spec import ChipSpec
from tapeout.estimate.calibration import Calibration
from tapeout.estimate.estimate import Estimate, estimate
from tapeout.estimate.plans import plans
from tapeout.estimate.workload import Plan, Workload
from tapeout.flow.estimates import IN_SILICON, does_not_fit
from tapeout.flow.fits import fits
from tapeout.flow.machines import check_hardwired, machine_on, most_tensor, own_chips, places
from tapeout.graph.shapes import ModelShape
from tapeout.silicon.area import area_mm2
from tapeout.silicon.dollars import SECONDS_PER_HOUR, usd_per_hour

Curve = NDArray[np.float64]
BATCHES: Curve = np.unique(np.round(np.append(np.geomspace(1, 65536, 512), 2.0 ** np.arange(17)))).astype(np.float64)
"""Requests open at once: every number at first, then 2 % apart, and all powers of two."""
MORE_CHIPS = 64
"""Where a plan for the fewest chips that hold the model does not divide its heads and layers, so many more are tried."""
SWEPT = ("ttft_ms", "tpot_ms", "tokens_per_s_per_user", "tokens_per_s_total", "watts", "joules_per_token")


@dataclass(frozen=True, slots=True)
class Deployment:
    """So many of a chip, and why so many."""

    name: str
    chip: ChipSpec | Datasheet
    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.name} x{self.count}" if self.count > 1 else self.name


@dataclass(frozen=True, slots=True)
class Sweep:
    """Arrays over the batches that fit, from the smallest that gives every replica a request; `plans` has the fastest at each.

    Dollars and mm² are None where nobody published price or area.
    """

    on: Deployment
    machine: Machine
    store: Store
    weights: str
    batches: Curve
    plans: tuple[Plan, ...]
    figures: dict[str, Curve]
    tokens_per_usd: Curve | None
    tokens_per_joule: Curve | None
    tokens_per_s_per_mm2: Curve | None
    limit: str = ""
    """What ends the sweep, where it is not the memory that the weights are in."""

    @property
    def best(self) -> int:
        """Where the most tokens per second are."""
        return int(np.argmax(self.figures["tokens_per_s_total"]))


def deploy(shape: ModelShape, name: str, chip: ChipSpec | Datasheet, asked: int, work: Workload) -> Deployment:
    """As many as asked; else all of a system; else the fewest that hold the model by a plan that divides it. Raises `BadInput`."""
    if asked:
        return Deployment(name, chip, asked, "as asked")
    if isinstance(chip, Datasheet) and chip.is_system:
        return Deployment(name, chip, int(own_chips(chip)), "all of the system")
    fit = fits(shape, chip, shape.expert_format or "bf16" if work.weights == "stored" else work.weights)
    if fit.chips is None:
        raise BadInput(f"{shape.name} on {name}", fit.why)
    own = int(own_chips(chip))
    if "rom" in places(chip):
        return Deployment(name, chip, own, "the model is in its silicon")
    for count in range(own * fit.chips, own * fit.chips + MORE_CHIPS, own):
        if any(_candidates(shape, chip, count, replace(work, concurrency=1.0), store) for store in places(chip)):
            return Deployment(name, chip, count, "the fewest that hold the model")
    raise BadInput(
        f"{shape.name} on {name}",
        f"needs {fit.gigabytes:,.1f} GB, which {fit.chips:,} hold; no plan for so many or a few more divides its heads and layers with room to spare",
        "try another --chip-count",
    )


def sweep(shape: ModelShape, on: Deployment, work: Workload, numbers: Calibration) -> Sweep:
    """Every batch of `BATCHES` that fits, on the quickest memory that holds the model. Raises `BadInput`."""
    for store in places(on.chip):
        check_hardwired(shape, machine_on(on.chip, store))
        if store == "rom" and work.weights == "stored":
            work = replace(work, weights=IN_SILICON)
        made = _candidates(shape, on.chip, on.count, replace(work, concurrency=BATCHES), store, numbers)
        if store == "rom":
            made = [one for one in made if one.plan.tensor * one.plan.pipeline >= own_chips(on.chip)]
        if made:
            return _fastest(shape, on, work, store, made, numbers)
    raise does_not_fit(shape, on.chip, float(on.count), work.weights)


def _candidates(
    shape: ModelShape, chip: ChipSpec | Datasheet, count: int, work: Workload, store: Store, numbers: Calibration | None = None
) -> list[Estimate]:  # fmt: skip
    """An array call per plan that fits."""
    machine = machine_on(chip, store)
    every = plans(shape, float(count), float(np.max(work.concurrency)), None, most_tensor(chip))
    made = (estimate(shape, machine, work, plan, numbers) for plan in every)
    return [one for one in made if np.isfinite(np.asarray(one.tpot_ms)).all()]


def _fastest(
    shape: ModelShape, on: Deployment, work: Workload, store: Store, made: list[Estimate], numbers: Calibration
) -> Sweep:
    """The plan with the most tokens per second at each batch, among those that keep every request in memory and give every replica one."""
    machine = machine_on(on.chip, store)
    rates = np.stack([_where_it_fits(one, numbers.fixed.most_sequences) for one in made])
    chosen, kept = np.argmax(rates, axis=0), np.isfinite(rates.max(axis=0))
    figures = {
        name: np.stack([np.broadcast_to(getattr(one, name), BATCHES.shape) for one in made])[chosen, np.arange(len(BATCHES))][kept]
        for name in SWEPT
    }  # fmt: skip
    total = figures["tokens_per_s_total"]
    area = silicon_mm2(on.chip)
    return Sweep(
        on, machine, store, work.weights, BATCHES[kept], tuple(made[at].plan for at in chosen[kept]), figures,
        tokens_per_usd=_per_usd(machine, on.count, figures, numbers), tokens_per_joule=total / figures["watts"] if machine.watts else None,
        tokens_per_s_per_mm2=total / (area * on.count) if area else None, limit=_in_sram(on.chip, BATCHES[kept][-1]) if store == "rom" else "",
    )  # fmt: skip


def _where_it_fits(one: Estimate, most_sequences: float) -> Curve:
    """Tokens per second, minus infinity where requests would wait for memory or a replica would stand idle."""
    room = np.minimum(np.floor(np.asarray(one.largest_batch)), most_sequences) * one.plan.data
    return np.where((room >= BATCHES) & (one.plan.data <= BATCHES), one.tokens_per_s_total, -np.inf)


def _in_sram(chip: ChipSpec | Datasheet, most: float) -> str:
    """A chip with its weights in masks keeps keys and values in SRAM."""
    assert isinstance(chip, Datasheet)
    fact = one_chip(chip).fact("sram_mb")
    return f"keys and values in {fact.value:g} MB of SRAM ({fact.origin.value}): {most:,.0f} at once" if fact else ""


def _per_usd(machine: Machine, count: int, figures: dict[str, Curve], numbers: Calibration) -> Curve | None:
    """Tokens for a dollar of capital, operations and power, at their likeliest; None where nobody published a price."""
    if not machine.usd:
        return None
    hour = sum(part.value for part in usd_per_hour(machine.usd * count, figures["watts"] / numbers.fixed.server_watts))
    return np.asarray(figures["tokens_per_s_total"] * SECONDS_PER_HOUR / hour)


def silicon_mm2(chip: ChipSpec | Datasheet) -> float | None:
    """Logic dies of one chip; None where nobody published them."""
    if isinstance(chip, ChipSpec):
        return float(sum(cost.value for cost in area_mm2(chip)))
    return one_chip(chip).value("die_mm2")
