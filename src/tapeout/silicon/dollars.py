"""What a good die, its package, board and share of a server cost to make, an hour of its use, and a million tokens.

Every amount may be an array over designs. Rows carry low and high: every constant at its cheap and its dear end at once, so the range is
wide by construction. A quantity with its own range is given as a `Cost` (say `total(area(...))`). Prices are a maker's, without margin; a
seller's price goes in as capital.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.silicon.cost import Cost, Number, total
from tapeout.silicon.technology import Constant, constants, die_node
from tapeout.silicon.yields import dies_per_wafer, negative_binomial, with_harvest

Package = Literal["flip_chip", "cowos_s", "cowos_l"]
Corner = Literal["value", "low", "high"]

CORNERS: tuple[Corner, ...] = ("value", "low", "high")
OPPOSITE: dict[Corner, Corner] = {"value": "value", "low": "high", "high": "low"}
MEMORIES = ("hbm2e", "hbm3", "hbm3e", "lpddr5x", "gddr6", "gddr7", "ddr5")
HOURS_PER_YEAR = 8766
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Harvest:
    """A die that is sold with `needed` of its `cores` whole, which take `share` of its area."""

    cores: int
    needed: int
    share: float


def good_die(die_mm2: Number | Cost, node: str, harvest: Harvest | None = None) -> Cost:
    """USD for one good, probed die. Infinite where no whole die fits a wafer. Raises `BadInput` on an unknown node."""
    row = die_node(node)

    def usd(corner: Corner) -> Number:
        area = _at(die_mm2, corner)
        count = dies_per_wafer(area, *(_constant(name, corner) for name in ("wafer_diameter", "wafer_edge", "scribe")))
        good = count * die_yield(area, getattr(row.defects, corner), _constant("clustering", corner), harvest)
        with np.errstate(divide="ignore"):
            return (
                getattr(row.wafer, corner) * (1 + _constant("wafer_test", corner)) / np.asarray(good, dtype=float)[()]
            )

    return _row("silicon", usd, "USD", f"wafer: {row.wafer.source}; defects: {row.defects.source}; negative binomial")


def die_yield(area_mm2: Number, defects: Number, alpha: float, harvest: Harvest | None = None) -> Number:
    """Share of good dies, by negative binomial; with `harvest` also those that have enough good cores."""
    if harvest is None:
        return negative_binomial(area_mm2, defects, alpha)
    core = area_mm2 * harvest.share / harvest.cores
    return with_harvest(core, harvest.cores, harvest.needed, defects, area_mm2 * (1 - harvest.share), alpha)


def unit_cost(
    die_mm2: Number | Cost,
    node: str,
    *,
    dies: int = 1,
    harvest: Harvest | None = None,
    memory: str = "",
    memory_gb: Number = 0.0,
    package: Package = "flip_chip",
    watts: Number | Cost = 0.0,
) -> tuple[Cost, ...]:
    """USD by component for one accelerator in a server: silicon, memory, package, final test, packages lost, board, share of the server.

    `watts` is the accelerator's own; without them board and server are left out. Raises `BadInput` on an unknown node or memory.
    """
    if memory and memory not in MEMORIES:
        raise BadInput("memory", f"{memory!r} has no price", f"use one of {', '.join(MEMORIES)}")
    rows = [
        _scaled("silicon", good_die(die_mm2, node, harvest), dies),
        *([_priced("memory", memory, memory_gb)] if memory else []),
        _priced("package", package, 1.0),
        _priced("final test", f"{package}_test", 1.0),
    ]
    made, loss = total(rows), constants("dollars")[f"{package}_loss"]
    rows.append(
        _row(
            "packages lost",
            lambda at: getattr(made, at) * getattr(loss, at) / (1 - getattr(loss, at)),
            "USD",
            loss.source,
        )
    )
    return tuple(rows) if _none(watts) else (*rows, *_housing(watts))


def _housing(watts: Number | Cost) -> tuple[Cost, Cost]:
    table = constants("dollars")
    return (
        _row("board", lambda at: _constant("board", at) + _constant("board_watt", at) * _at(watts, at), "USD",
             f"{table['board'].source}; {table['board_watt'].source}"),
        _priced("server share", "server_watt", watts),
    )  # fmt: skip


def usd_per_hour(
    capital_usd: Number | Cost,
    watts: Number | Cost,
    *,
    years: Number | None = None,
    utilisation: Number | None = None,
    usd_per_kwh: Number | None = None,
    pue: Number | None = None,
    operations: Number | None = None,
) -> tuple[Cost, ...]:
    """USD by component for an hour of use: capital, operations, electricity, all hours paid by those in use.

    `watts` is the accelerator's own while used; its server's share and the idle hours are added. What is not given comes from the table,
    with its range.
    """
    table = constants("dollars")
    given = {
        "years": years,
        "utilisation": utilisation,
        "electricity": usd_per_kwh,
        "pue": pue,
        "operations": operations,
    }

    def at(name: str, corner: Corner) -> Number:
        return _constant(name, corner) if given.get(name) is None else given[name]

    def hours(corner: Corner) -> Number:
        return HOURS_PER_YEAR * at("utilisation", OPPOSITE[corner])

    def electricity(corner: Corner) -> Number:
        used = at("utilisation", OPPOSITE[corner])
        busy = 1 + at("idle_power", corner) * (1 - used) / used
        kilowatts = _at(watts, corner) * (1 + at("server_power", corner)) / 1000
        return kilowatts * busy * at("pue", corner) * at("electricity", corner)

    def capital(corner: Corner) -> Number:
        return _at(capital_usd, corner) / at("years", OPPOSITE[corner]) / hours(corner)

    def running(corner: Corner) -> Number:
        return _at(capital_usd, corner) * at("operations", corner) / hours(corner)

    return (
        _row("capital", capital, "USD/h", f"{table['years'].source}; {table['utilisation'].source}"),
        _row("operations", running, "USD/h", table["operations"].source),
        _row(
            "electricity",
            electricity,
            "USD/h",
            f"{table['electricity'].source}; {table['pue'].source}; {table['server_power'].source}",
        ),
    )


def usd_per_million_tokens(per_hour: Number | Cost, tokens_per_s: Number | Cost) -> Cost:
    """USD for a million tokens at so many tokens per second while in use."""

    def usd(corner: Corner) -> Number:
        return _at(per_hour, corner) / (_at(tokens_per_s, OPPOSITE[corner]) * SECONDS_PER_HOUR) * 1e6

    return _row("million tokens", usd, "USD", "cost of an hour over tokens in an hour")


def _at(amount: Number | Cost, corner: Corner) -> Number:
    return getattr(amount, corner) if isinstance(amount, Cost) else amount


def _none(watts: Number | Cost) -> bool:
    return not np.any(_at(watts, "high"))


def _constant(name: str, corner: Corner) -> float:
    return getattr(constants("dollars")[name], corner)


def _priced(component: str, name: str, amount: Number | Cost) -> Cost:
    price: Constant = constants("dollars")[name]
    return _row(component, lambda at: getattr(price, at) * _at(amount, at), "USD", price.source)


def _scaled(component: str, cost: Cost, factor: float) -> Cost:
    return _row(component, lambda at: getattr(cost, at) * factor, cost.unit, cost.basis)


def _row(component: str, amount: Callable[[Corner], Number], unit: str, basis: str) -> Cost:
    value, low, high = (amount(corner) for corner in CORNERS)
    return Cost(component, value, low, high, unit, basis)
