"""Print the tables of docs/silicon.md, or write them there: python tools/silicon_tables.py --write."""

import sys
from pathlib import Path

import numpy as np

from tapeout.silicon.cost import Cost, total
from tapeout.silicon.dies import DieError, Door, arithmetic_mm2, die_errors, known_dies, median_error
from tapeout.silicon.dollars import Harvest, good_die, unit_cost, usd_per_hour, usd_per_million_tokens
from tapeout.silicon.project import break_even, lifetime_usd, months, nre

EXPLAINED = 0.1
PAGE = Path(__file__).parent.parent / "docs" / "silicon.md"


def summary() -> str:
    """Median errors by door and kind of die."""
    lines = ["| door | dies | median error | mean error | published area inside our range |", "|---|---|---|---|---|"]
    for door, kinds in (("transistors", ("gpu", "array", "rom")), ("parts", ("gpu", "array"))):
        rows = die_errors(door)
        groups = {"all": rows, **{kind: tuple(row for row in rows if row.die.kind == kind) for kind in kinds}}
        lines += [_summary_line(f"{door}, {name}", group) for name, group in groups.items()]
    return "\n".join(lines)


def _summary_line(name: str, rows: tuple[DieError, ...]) -> str:
    mean = np.mean([abs(row.error) for row in rows])
    return f"| {name} | {len(rows)} | {median_error(rows):.1%} | {mean:.1%} | {sum(row.inside for row in rows)} |"


def errors(door: Door) -> str:
    """One door's dies, worst first, errors above a tenth explained."""
    lines = ["| die | node | published mm² | ours | low to high | error | why |", "|---|---|---|---|---|---|---|"]
    for row in die_errors(door):
        lines.append(
            f"| {row.die.name} | {row.die.node} | {row.published:,.0f} | {row.ours:,.0f} | {row.low:,.0f} to {row.high:,.0f} "
            f"| {row.error:+.1%}{'' if row.inside else ', outside'} | {row.die.why if abs(row.error) > EXPLAINED else '-'} |"
        )
    return "\n".join(lines)


def arithmetic() -> str:
    """What share of a die its tensor MACs take by themselves."""
    shares = sorted((arithmetic_mm2(die) / die.mm2, die.name) for die in known_dies() if arithmetic_mm2(die))
    (low, least), (high, most) = shares[0], shares[-1]
    return f"from {low:.1%} ({least}) to {high:.1%} ({most}), median {np.median([share for share, _ in shares]):.1%}."


def costs() -> str:
    """Our cost of three published accelerators beside the analysts' figures."""
    h100 = unit_cost(814, "4N", harvest=Harvest(144, 132, 0.75), memory="hbm3", memory_gb=80, package="cowos_s")
    b200 = unit_cost(800, "4N", dies=2, harvest=Harvest(80, 74, 0.75), memory="hbm3e", memory_gb=192, package="cowos_l")
    xcd, iod = good_die(115, "N5", Harvest(40, 38, 0.75)), good_die(370, "N6")
    silicon = [8 * getattr(xcd, at) + 4 * getattr(iod, at) for at in ("value", "low", "high")]
    lines = ["| what | published USD | ours | low to high |", "|---|---|---|---|"]
    lines += [
        _cost_line("H100 die", 300, h100[0]), _cost_line("H100, package and HBM", 3320, total(h100)),
        _cost_line("B200, two dies", 900, b200[0]), _cost_line("B200, package and HBM", 6400, total(b200)),
        _cost_line("MI300X, 8 + 4 dies", 600, Cost("", *silicon, "USD", "")),
    ]  # fmt: skip
    return "\n".join(lines)


def _cost_line(name: str, published: float, ours: Cost) -> str:
    return f"| {name} | {published:,} | {ours.value:,.0f} | {ours.low:,.0f} to {ours.high:,.0f} |"


def example() -> str:
    """A supposed chip: what one costs, an hour of it, a million tokens, the project, and the chips after which it pays."""
    unit = unit_cost(300, "N6", memory="lpddr5x", memory_gb=32, watts=60)
    hour = usd_per_hour(total(unit), 60)
    speed = 5104 / 2
    life = {
        name: lifetime_usd(capital, watts, 4)
        for name, capital, watts in (("ours", total(unit), 60), ("gpu", 32900, 700))
    }
    pays = break_even(total(nre("N6")), life["ours"], _exactly(speed), life["gpu"], _exactly(5104))
    lines = ["| row | USD | low | high |", "|---|---|---|---|"]
    lines += [_amount_line(row) for row in (*unit, total(unit, "**one chip in its server**"))]
    lines += [_amount_line(row, 4) for row in (*hour, total(hour, "**an hour of use**"))]
    lines.append(_amount_line(usd_per_million_tokens(total(hour), speed), 4, "**a million tokens**"))
    lines += [_amount_line(row) for row in (*nre("N6"), total(nre("N6"), "**NRE**"))]
    span = total(months("N6"))
    lines.append(f"| months to silicon | {span.value:.0f} | {span.low:.0f} | {span.high:.0f} |")
    lines.append(_amount_line(pays, 0, "**chips to break even**"))
    return "\n".join(lines)


def _exactly(amount: float) -> Cost:
    return Cost("", amount, amount, amount, "", "")


def _amount_line(row: Cost, digits: int = 0, name: str = "") -> str:
    shown = ("never" if np.isinf(amount) else f"{amount:,.{digits}f}" for amount in (row.value, row.low, row.high))
    return f"| {name or row.component} | {' | '.join(shown)} |"


TABLES = {
    "summary": summary, "transistors": lambda: errors("transistors"), "parts": lambda: errors("parts"), "arithmetic": arithmetic,
    "costs": costs, "example": example,
}  # fmt: skip


def page(text: str) -> str:
    """The page with its tables made new."""
    for name, table in TABLES.items():
        head, rest = text.split(f"<!-- {name} -->\n")
        text = f"{head}<!-- {name} -->\n{table()}\n<!-- end {name} -->" + rest.split(f"<!-- end {name} -->")[1]
    return text


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(PAGE.read_text()))
    else:
        print("\n\n".join(table() for table in TABLES.values()))
