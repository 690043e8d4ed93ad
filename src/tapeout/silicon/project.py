"""From a decision to a chip: what it costs once, how many months it takes, and how many must be made before it beats a fleet of GPUs.

The first chip of a small team at a node: masks, design by the IBS series scaled to a regular array, part of a second mask set. Amounts in USD.
"""

import numpy as np

from tapeout.silicon.cost import Cost, Number
from tapeout.silicon.dollars import CORNERS, HOURS_PER_YEAR, usd_per_hour
from tapeout.silicon.technology import constants, die_node

MILLION = 1e6


def nre(node: str) -> tuple[Cost, ...]:
    """USD by component before the first good chip. Raises `BadInput` on a node without prices.

    Design is split by shares; the range of a part is that of the whole.
    """
    row, table = die_node(node), constants("project")
    shares = {name: table[name] for name in ("software", "verification", "ip")}
    rest = 1 - sum(share.value for share in shares.values())
    design = [getattr(row.design, at) * getattr(table["regular_share"], at) * MILLION for at in CORNERS]
    turns = [
        getattr(row.masks, at) * getattr(table["respins"], at) * getattr(table["respin_share"], at) * MILLION
        for at in CORNERS
    ]
    source = f"{row.design.source}; {table['regular_share'].source}"
    return (
        _row("mask set", [getattr(row.masks, at) * MILLION for at in CORNERS], row.masks.source),
        _row("masks of further turns", turns, f"{table['respins'].source}; {table['respin_share'].source}"),
        _row("architecture, RTL, physical design", [usd * rest for usd in design], source),
        *(
            _row(name, [usd * share.value for usd in design], f"{share.source}; {source}")
            for name, share in shares.items()
        ),
    )


def months(node: str) -> tuple[Cost, ...]:
    """Months by phase from specification to qualified silicon, one after the other, the first turn good."""
    row, table = die_node(node), constants("project")
    phases = {name: table[name] for name in ("architecture", "physical")}
    return tuple(
        Cost(name.replace("_", "-"), phase.value, phase.low, phase.high, "months", phase.source)
        for name, phase in {**phases, "fabrication": row.fabrication, "bring_up": table["bring_up"]}.items()
    )


def lifetime_usd(capital_usd: Number | Cost, watts: Number | Cost, years: Number, **rates: Number) -> Cost:
    """USD over the years that an accelerator is used: capital, operations, electricity; `rates` as `usd_per_hour` takes them."""
    rows = usd_per_hour(capital_usd, watts, years=years, utilisation=1.0, **rates)
    value, low, high = (sum(getattr(row, at) for row in rows) * years * HOURS_PER_YEAR for at in CORNERS)
    return Cost(
        "lifetime", value, low, high, "USD", "capital, operations and electricity of the years, in use all hours"
    )


def break_even_units(
    nre_usd: Number, unit_usd: Number, unit_tokens_per_s: Number, gpu_usd: Number, gpu_tokens_per_s: Number
) -> Number:
    """Chips of ours after which they and the NRE together cost less than GPUs of the same tokens per second; infinite where a chip never saves.

    Both costs over the same life: `lifetime_usd` of either, or prices alone. Both speeds at the same model, lengths and users per chip.
    """
    saved = np.asarray(gpu_usd * (unit_tokens_per_s / gpu_tokens_per_s) - unit_usd, dtype=float)
    return np.where(saved > 0, nre_usd / np.where(saved > 0, saved, 1.0), np.inf)[()]


def break_even(nre_usd: Cost, unit_usd: Cost, unit_tokens_per_s: Cost, gpu_usd: Cost, gpu_tokens_per_s: Cost) -> Cost:
    """`break_even_units` with its range: everything in our favour, and everything against us."""
    corners = (
        break_even_units(
            getattr(nre_usd, ours), getattr(unit_usd, ours), getattr(unit_tokens_per_s, theirs), getattr(gpu_usd, theirs),
            getattr(gpu_tokens_per_s, ours),
        )
        for ours, theirs in (("value", "value"), ("low", "high"), ("high", "low"))
    )  # fmt: skip
    return Cost(
        "break-even", *corners, "chips", "NRE over what a chip saves against GPUs of the same tokens per second"
    )


def _row(component: str, corners: list[float], basis: str) -> Cost:
    return Cost(component, *corners, "USD", basis)
