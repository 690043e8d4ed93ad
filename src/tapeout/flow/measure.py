"""A program's figures: cycles from the schedule, the bound from graph and chip, joules and area from `silicon`."""

from dataclasses import dataclass

from tapeout.compiler.bound import Bound, decode_bound
from tapeout.graph.types import Graph
from tapeout.isa.counts import entry_counts
from tapeout.isa.predict import StepTime, predict_steps, steps_for
from tapeout.isa.profile import MULTIPLYING, busy_cycles, profile
from tapeout.isa.program import Program
from tapeout.report.figure import Figure, Origin, number
from tapeout.silicon.area import area_mm2
from tapeout.silicon.cost import Cost
from tapeout.silicon.energy import energy_pj


@dataclass(frozen=True, slots=True)
class Measures:
    """The chip running a prompt of `prompt` tokens and saying `tokens` more, of which the first comes with the prompt's last step."""

    program: Program
    prompt: int
    tokens: int
    prefill: tuple[StepTime, ...]
    decode: tuple[StepTime, ...]
    bound: Bound
    energy: tuple[Cost, ...]
    """One decode step, the last."""
    area: tuple[Cost, ...]

    @property
    def context(self) -> int:
        """Positions before the last decode step."""
        return self.prompt + max(self.tokens - 2, 0)

    @property
    def last(self) -> StepTime:
        """The last decode step (where only one token was made: the one that would follow)."""
        return self.decode[-1]

    @property
    def seconds_per_cycle(self) -> float:
        """One cycle of the chip's clock."""
        return 1e-6 / self.program.chip.clock_mhz

    @property
    def utilisation(self) -> float:
        """The bound's share of the cycles that the last token took."""
        return self.bound.least / self.last.wall


def measure(program: Program, graph: Graph, prompt: int, tokens: int) -> Measures:
    """Time, energy and area of `prompt` + `tokens` tokens on the program's chip."""
    prefill = predict_steps(program, ((entry, position) for entry, position, _ in steps_for(program, prompt, 0)))
    decode_entry = program.entry("token_head")
    first = min(prompt, program.context - 1)
    positions = range(first, max(prompt + tokens - 1, first + 1))
    decode = predict_steps(program, ((decode_entry, position) for position in positions))
    last = positions[-1]
    external_kv = any(region.name == "kv" for region in program.external)
    seconds = decode[-1].wall * 1e-6 / program.chip.clock_mhz
    counts = entry_counts(program, decode_entry, last)
    counts["host_bytes"] += 8
    return Measures(
        program, prompt, tokens, prefill, decode, decode_bound(graph, program.chip, last, external_kv),
        energy_pj(counts, program.chip, seconds), area_mm2(program.chip),
    )  # fmt: skip


def figures(measures: Measures) -> tuple[Figure, ...]:
    """The figures of DESIGN's `run`, all modelled: cycles are exact for the chip described, clock and wires are not silicon."""
    chip, cycle = measures.program.chip, measures.seconds_per_cycle
    walls = [step.wall for step in measures.decode]
    tpot = sum(walls) / len(walls) * cycle
    ttft = sum(step.wall for step in measures.prefill) * cycle + 2 * chip.host.latency_us * 1e-6
    joules = _total(measures.energy, 1e-12)
    area = _total(measures.area, 1.0)

    def made(name: str, value: float, unit: str, note: str = "", spread: tuple[float, float] | None = None) -> Figure:
        low, high = spread or (None, None)
        return Figure(name, value, unit, Origin.MODELLED, low, high, note)

    watts = joules[0] / tpot
    return (
        made("tokens_per_s", 1 / tpot, "tokens/s", "decode, mean over the generated tokens"),
        made("ttft_ms", ttft * 1e3, "ms", f"prompt of {measures.prompt} tokens, host latency counted"),
        made("tpot_ms", tpot * 1e3, "ms"),
        made("cycles_per_token", measures.last.wall, "cycles", f"last token, context {measures.context}"),
        made(
            "utilisation",
            measures.utilisation,
            "",
            f"of the bound by {measures.bound.scarcest}, context {measures.context}",
        ),
        made("joules_per_token", joules[0], "J", f"context {measures.context}", (joules[1], joules[2])),
        made("watts", watts, "W", "while decoding", (joules[1] / tpot, joules[2] / tpot)),
        made("area_mm2", area[0], "mm2", f"{chip.node}", (area[1], area[2])),
    )


def _total(costs: tuple[Cost, ...], scale: float) -> tuple[float, float, float]:
    return (
        scale * sum(cost.value for cost in costs),
        scale * sum(cost.low for cost in costs),
        scale * sum(cost.high for cost in costs),
    )


def cost_rows(costs: tuple[Cost, ...], scale: float, unit: str) -> tuple[tuple[str, str, str, float], ...]:
    """(component, value, range, share of the whole), largest first; values times `scale`, in `unit`."""
    whole = sum(cost.value for cost in costs)
    return tuple(
        (
            cost.component,
            f"{number(cost.value * scale)} {unit}",
            f"{number(cost.low * scale)} to {number(cost.high * scale)}",
            cost.value / whole,
        )
        for cost in sorted(costs, key=lambda cost: -cost.value)
    )


COST_COLUMNS = ("component", "value", "range", "share")


def time_rows(measures: Measures) -> list[tuple[str, float]]:
    """(cause, share) of the last token's cycles, largest first; they add up to 1."""
    program, entry = measures.program, measures.program.entry("token_head")
    causes = profile(program, entry, measures.context)
    causes["waiting for external memory"] += measures.last.held
    whole = sum(causes.values())
    return sorted(((cause, cycles / whole) for cause, cycles in causes.items() if cycles), key=lambda row: -row[1])


def unit_rows(measures: Measures) -> list[tuple[str, float]]:
    """(unit, share of the last token's cycles in which it is busy), mean over tiles; overlaps counted for each."""
    program = measures.program
    busy = busy_cycles(program, program.entry("token_head"), measures.context)
    return [(unit.name.lower(), cycles / measures.last.wall) for unit, cycles in busy.items()]


def costliest_wait(measures: Measures) -> str:
    """The wait that costs most, in words: what the matrix units wait for, or the stream."""
    waits = [(cause, share) for cause, share in time_rows(measures) if cause != MULTIPLYING]
    if not waits:
        return "nothing: the matrix units are never idle"
    cause, share = waits[0]
    if cause.startswith("waiting"):
        op = max(measures.last.held_by_op, key=lambda index: measures.last.held_by_op[index])
        what = "the end of the step" if op < 0 else " ".join(str(measures.program.op(op)).split()[1:3])
        return f"external memory, {share:.1%} of the cycles (longest before {what})"
    return f"{cause}, {share:.1%} of the cycles"
