"""The main job: a model compiled for a chip, run bit for bit, and reported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tapeout.base.engine import Engine
from tapeout.base.errors import BadInput
from tapeout.chip.spec import ChipSpec
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.generate import Generation, generate
from tapeout.flow.measure import (
    COST_COLUMNS,
    Measures,
    cost_rows,
    costliest_wait,
    figures,
    measure,
    time_rows,
    unit_rows,
)
from tapeout.flow.prepare import (
    EMBEDDED,
    KV_DEFAULT,
    NO_CALIBRATION,
    STORED,
    Calibration,
    prepare_chip,
    prepare_model,
)
from tapeout.flow.summary import Summary
from tapeout.graph.types import Model
from tapeout.isa.program import Program, is_program, load
from tapeout.quantize.kv_cache import check_kv
from tapeout.quantize.methods import check_weights, recipe_of
from tapeout.report.diff import compare
from tapeout.report.figure import Figure, Origin, Report, Table

ENGINES = ("program", "graph", "reference")
DEFAULT_CHIP = "edge"
DEFAULT_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Request:
    """What `tapeout run` was asked."""

    model: str = EMBEDDED
    chip: str = DEFAULT_CHIP
    changes: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    tokens: int = DEFAULT_TOKENS
    weights: str = STORED
    engine: str = "program"
    raw: bool = False
    seed: int = 0
    temperature: float = 0.0
    kv: str = KV_DEFAULT
    calibration: Calibration = NO_CALIBRATION


@dataclass(frozen=True, slots=True)
class Listener:
    """Where progress goes: a note for a person, and each token's text as it is computed."""

    note: Callable[[str], None] = lambda text: None
    text: Callable[[str], None] = lambda text: None


def run(request: Request, listener: Listener | None = None) -> Summary:
    """Load, quantize, compile, generate, measure. Raises `BadInput`."""
    listener = listener or Listener()
    _check(request)
    program, model, chip = _loaded(request, listener)
    ids = encode_prompt(model, request.prompt, request.raw)
    context = needed_context(model, len(ids), request.tokens)
    if program is None:
        listener.note(f"compiling {model.graph.name} ({model.stored}) for {chip.name}, context {context}")
        program = compile_model(model, chip, context)
    listener.note(_engine_note(request.engine))
    engine = make_engine(request.engine, model, program)
    if request.engine == "graph":
        listener.note(f"its path on this machine: {getattr(engine, 'path')}")  # noqa: B009 (only this engine has one)
    _tell_long_prompts(engine, program.chunk, listener)
    printer = TokenPrinter(model, listener.text)
    ends = model.tokenizer.end_ids if model.tokenizer else frozenset()
    made = generate(engine, ids, request.tokens, ends, request.temperature, request.seed, printer.add)
    printer.finish()
    measures = measure(program, model.graph, len(ids), len(made.token_ids))
    if request.engine == "program":
        check_cycles(engine, measures)
    shown = (*figures(measures), host_figure(made))
    changes = _changes(request, model, context, made, shown, listener.note) if request.changes else None
    return Summary(
        _json(request, model, chip, program, made, shown, changes, printer.text),
        make_report(measures, shown, model, request.engine, changes),
    )


def _check(request: Request) -> None:
    if request.engine not in ENGINES:
        raise BadInput("--engine", f"{request.engine!r} is no engine", f"choose from {', '.join(ENGINES)}")
    if request.tokens < 1:
        raise BadInput("--tokens", f"{request.tokens}", "ask for 1 or more")
    if not 0 <= request.temperature < float("inf"):
        raise BadInput("--temperature", f"{request.temperature}", "give 0, which is greedy, or more; 0.5 to 1 is usual")
    if request.seed < 0:
        raise BadInput("--seed", f"{request.seed}", "give 0 or more")
    check_weights(request.weights, (STORED,), request.calibration.text is not None)
    check_kv(request.kv)


def _loaded(request: Request, listener: Listener) -> tuple[Program | None, Model, ChipSpec]:
    """The model and the chip; and the program where a compiled one was given."""
    path = Path(request.model)
    if not is_program(path):
        chip = prepare_chip(request.chip, request.changes)
        listener.note(f"loading {request.model}")
        made = prepare_model(request.model, request.weights, request.kv, request.calibration, listener.note)
        return None, made, chip
    program = load(path)
    asked = request.changes or request.weights != STORED or request.kv != KV_DEFAULT
    if asked or request.chip not in (DEFAULT_CHIP, program.chip.name):
        raise BadInput(
            str(path),
            f"is compiled already, for {program.chip.name}: --chip, --set, --weights and --kv come too late",
            "give them to tapeout compile",
        )
    source = program.extra.get("source", "")
    listener.note(f"loading {path}, compiled for {program.chip.name}, and {source}")
    recipe = recipe_of(program.weights)
    if recipe.needs_calibration and request.engine != "program":
        raise BadInput(
            "--engine", f"{path} alone holds its weights, which {recipe.methods} made", "leave --engine at program"
        )
    model = replace(prepare_model(source, recipe.format, program.extra.get("kv", KV_DEFAULT)), stored=program.weights)
    if model.fingerprint() != program.model_fingerprint:
        raise BadInput(str(path), f"was compiled from another model than {source} is now", "compile it again")
    return program, model, program.chip


def encode_prompt(model: Model, prompt: str, raw: bool) -> list[int]:
    """Token ids of a prompt, through the model's chat template where it has one and `raw` is not set."""
    if any("\ud800" <= sign <= "\udfff" for sign in prompt):
        raise BadInput("--prompt", "is not UTF-8 text")
    if model.tokenizer is None:
        raise BadInput(f"model {model.graph.name}", "has no tokenizer", "give a folder or file that carries one")
    if prompt and model.tokenizer.has_chat and not raw:
        return model.tokenizer.encode(model.tokenizer.chat(prompt), begin=False)
    return model.tokenizer.encode(prompt)


def needed_context(model: Model, prompt: int, tokens: int) -> int:
    """Positions that a prompt and its answer take. Raises `BadInput` where the model has fewer."""
    if prompt + tokens > model.graph.context:
        raise BadInput(
            "--tokens",
            f"{prompt} of the prompt and {tokens} more exceed the {model.graph.context} positions of {model.graph.name}",
        )
    return prompt + tokens


def _engine_note(engine: str) -> str:
    return {
        "program": "running the micro-op program, cycle by cycle",
        "graph": "running the graph engine: the same bits, quicker; no micro-op is executed, cycles are the schedule's",
        "reference": "running the reference: the same bits, slowly; no micro-op is executed, cycles are the schedule's",
    }[engine]


def make_engine(name: str, model: Model, program: Program) -> Engine:
    """An executor of the model. The rooms of engines are heavy and imported here."""
    if name == "program":
        from tapeout.sim.engine import ProgramEngine

        return ProgramEngine(program)
    if name == "graph":
        from tapeout.graph.fast import FastEngine

        return FastEngine(model, program.context, threads=2)
    from tapeout.graph.reference import ReferenceEngine

    return ReferenceEngine(model, program.context)


def _tell_long_prompts(engine: Engine, chunk: int, listener: Listener) -> None:
    """A prompt of several chunks takes a while in the simulator: say how far it is."""

    def told(done: int, total: int) -> None:
        if total > chunk:
            listener.note(f"prompt: {done} of {total} tokens")

    if hasattr(engine, "on_progress"):
        engine.on_progress = told  # type: ignore[attr-defined]


class TokenPrinter:
    """Prints text as tokens come: what a decoded prefix does not yet settle (half a character) waits for the next token."""

    def __init__(self, model: Model, out: Callable[[str], None]):
        self._decode, self._out = model.tokenizer.decode if model.tokenizer else None, out
        self._ids: list[int] = []
        self._shown = 0

    @property
    def text(self) -> str:
        """All text so far."""
        return self._decode(self._ids) if self._decode else ""

    def add(self, token: int) -> None:
        """One more token."""
        self._ids.append(token)
        text = self.text
        if not text.endswith("\ufffd"):
            self._show(text)

    def finish(self) -> None:
        """Print what is left, also where it ends in half a character: no token comes behind it."""
        self._show(self.text)

    def _show(self, text: str) -> None:
        self._out(text[self._shown :])
        self._shown = len(text)


def check_cycles(engine: Engine, measures: Measures) -> None:
    """The simulator's cycles and the schedule's are one and the same; anything else is our error."""
    counted = getattr(engine, "totals").wall  # noqa: B009 (only the program engine counts cycles)
    made = measures.tokens - 1
    promised = sum(step.wall for step in (*measures.prefill, *measures.decode[:made]))
    assert counted == promised, f"the simulator took {counted} cycles, the schedule promised {promised}"


def host_figure(made: Generation) -> Figure:
    """How fast this machine computed the bits, after the first token (with the prompt where there was only one)."""
    count = len(made.token_ids) - 1
    rate = count / made.host_decode_seconds if count and made.host_decode_seconds else 1 / max(made.host_seconds, 1e-9)
    return Figure("host_tokens_per_s", rate, "tokens/s", Origin.MEASURED, note="this machine computing the bits")


def _changes(
    request: Request, model: Model, context: int, made: Generation, shown: tuple[Figure, ...], note: Callable[[str], None]
) -> dict[str, float]:  # fmt: skip
    """Each modelled figure's change against the chip without --set; none, and a note, where only the changed chip runs the model."""
    try:
        program = compile_model(model, prepare_chip(request.chip), context)
    except BadInput as error:
        note(f"no figure's change is told, {request.chip} without --set does not run it: {error}")
        return {}
    before = measure(program, model.graph, len(made.prompt_ids), len(made.token_ids))
    return {row.name: row.change for row in compare(figures(before), shown) if row.change is not None}


def _json(
    request: Request, model: Model, chip: ChipSpec, program: Program, made: Generation, shown: tuple[Figure, ...],
    changes: dict[str, float] | None, text: str,
) -> dict[str, Any]:  # fmt: skip
    answer: dict[str, Any] = {
        "model": model.graph.name,
        "chip": chip.name,
        "weights": model.stored,
        "kv": program.extra.get("kv", request.kv),
        "engine": request.engine,
        "prompt_token_ids": list(made.prompt_ids),
        "token_ids": list(made.token_ids),
        "text": text,
        "logits_sha256": made.logits_sha256,
        "figures": {figure.name: figure.to_json() for figure in shown},
        "fingerprint": program.fingerprint(),
    }
    if changes is not None:
        answer["changes"] = changes
    return answer


def make_report(
    measures: Measures, shown: tuple[Figure, ...], model: Model, engine: str, changes: dict[str, float] | None
) -> Report:  # fmt: skip
    """The report for people."""
    chip, bound = measures.program.chip, measures.bound
    tables = [
        Table("time of the last token by cause", ("cause", "share"), tuple(time_rows(measures))),
        Table("units busy, mean over tiles", ("unit", "share"), tuple(unit_rows(measures))),
        Table("energy per token by component", COST_COLUMNS, cost_rows(measures.energy, 1e-6, "uJ")),
        Table("area by component", COST_COLUMNS, cost_rows(measures.area, 1.0, "mm2")),
    ]  # fmt: skip
    notes = [
        f"decode is bound by {bound.scarcest}: at least {bound.least:,.0f} cycles per token at context {measures.context}",
        f"the wait that costs most: {costliest_wait(measures)}",
        *model.notes,
    ]
    if engine != "program":
        notes.insert(0, f"computed by the {engine} engine: the chip's bits, but no micro-op was executed")
    if changes is not None:
        notes += [f"{name}: {change:+.1%} against the unmodified chip" for name, change in changes.items()]
    return Report(
        f"{model.graph.name} ({model.stored}) on {chip.name}",
        shown,
        tuple(tables),
        tuple(notes),
        measures.program.fingerprint(),
    )
