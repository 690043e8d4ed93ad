"""Programs as files: compile one, show one, draw one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tapeout.base.errors import BadInput
from tapeout.base.files import atomic_write
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.measure import Measures, costliest_wait, figures, measure, time_rows, unit_rows
from tapeout.flow.prepare import KV_DEFAULT, NO_CALIBRATION, Calibration, prepare_chip, prepare_model
from tapeout.flow.summary import Summary
from tapeout.graph.types import Graph
from tapeout.isa.check import check_program
from tapeout.isa.program import Program, load, save
from tapeout.isa.text import program_lines
from tapeout.isa.timing import latency
from tapeout.isa.trace import schedule_trace, to_perfetto
from tapeout.quantize.methods import recipe_of
from tapeout.report.figure import Figure, Origin, Report, Table
from tapeout.report.floorplan import floorplan_svg
from tapeout.report.timeline import timeline_svg
from tapeout.silicon.area import area_mm2

SHOWN_CONTEXT = 64


def compile_to_file(
    model_name: str, chip_name: str, changes: Mapping[str, str], weights: str, kv: str, context: int | None, output: Path,
    note: Callable[[str], None], calibration: Calibration = NO_CALIBRATION,
) -> Summary:  # fmt: skip
    """Compile and write; the file says which model it was made from, so that it can be run later. Raises `BadInput`."""
    _check_output(output)
    chip = prepare_chip(chip_name, changes)
    note(f"loading {model_name}")
    model = prepare_model(model_name, weights, kv, calibration, note)
    note(f"compiling {model.graph.name} ({model.stored}) for {chip.name}")
    program = compile_model(model, chip, context)
    source = str(Path(model_name).resolve()) if Path(model_name).exists() else model_name
    program = replace(program, extra={"source": source, "kv": kv})
    save(program, output)
    return _summary(program, model.graph, SHOWN_CONTEXT)


def show_program(
    file: Path, position: int, perfetto: Path | None, floorplan: Path | None, timeline: Path | None, note: Callable[[str], None]
) -> Summary:  # fmt: skip
    """Summarise a program file, and draw what is asked for. Raises `BadInput`."""
    for path in (perfetto, floorplan, timeline):
        if path:
            _check_output(path)
    program = load(file)
    check_program(program)
    form, kv = recipe_of(program.weights).format, program.extra.get("kv", KV_DEFAULT)
    model = prepare_model(program.extra.get("source", ""), form, kv)
    if not 0 <= position < program.context:
        raise BadInput("--position", f"{position}", f"the program holds positions 0 to {program.context - 1}")
    entry = program.entry("token_head")
    if perfetto:
        to_perfetto(program, schedule_trace(program, entry, position), perfetto)
        note(f"wrote {perfetto}: open it at ui.perfetto.dev")
    if floorplan:
        _write(
            floorplan,
            floorplan_svg(program.chip.name, program.chip.grid.columns, program.chip.grid.rows, area_mm2(program.chip)),
        )
        note(f"wrote {floorplan}")
    if timeline:
        _write(
            timeline,
            timeline_svg(f"{program.model} on {program.chip.name}, one layer of decode", _layer_events(program)),
        )
        note(f"wrote {timeline}")
    return _summary(program, model.graph, position)


def _check_output(path: Path) -> None:
    """Refuse a file that cannot be written before any work is done for it. Raises `BadInput`."""
    if not path.parent.is_dir():
        raise BadInput(str(path), f"the folder {path.parent} does not exist", "make it first")
    if path.is_dir():
        raise BadInput(str(path), "is a folder", "name a file in it")


def _write(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)


def _layer_events(program: Program) -> list[tuple[str, int, int, int, str]]:
    """(unit, tile, start, end, label) of one turn of the first loop of layers: what a timeline shows."""
    loop = next(loop for loop in program.entry("token").loops if loop.name.startswith("layers"))
    events, start = [], 0
    for segment in loop.segments:
        for op in program.segment_ops(segment):
            end = start + op.issue + latency(op, program.chip)
            events.append((op.unit.name.lower(), op.tile, start + op.issue, end, op.op.name.lower()))
        start += segment.cycles
    return events


def program_text(file: Path) -> Iterator[str]:
    """Every micro-op and descriptor of a program file, as text."""
    return program_lines(load(file))


def _summary(program: Program, graph: Graph, position: int) -> Summary:
    position = min(position, program.context - 1)
    measures = measure(program, graph, position, 2 if position < program.context - 1 else 1)
    shown = (*_program_figures(program, measures), *figures(measures))
    waits = [{"cause": cause, "share": share} for cause, share in time_rows(measures)]
    answer = {
        "model": program.model,
        "chip": program.chip.name,
        "weights": program.weights,
        "kv": program.extra.get("kv", KV_DEFAULT),
        "context": program.context,
        "figures": {figure.name: figure.to_json() for figure in shown},
        "waits": waits,
        "fingerprint": program.fingerprint(),
    }
    return Summary(answer, _report(program, measures, shown))


def _program_figures(program: Program, measures: Measures) -> tuple[Figure, ...]:
    def made(name: str, value: float, unit: str, note: str = "") -> Figure:
        return Figure(name, value, unit, Origin.MODELLED, note=note)

    sram = max((region.end for region in program.sram), default=0)
    return (
        made("bound", measures.bound.least, "cycles", f"by {measures.bound.scarcest}"),
        made("micro_ops", program.ops.size, "", f"{program.descriptors.size} descriptors"),
        made("prefill_chunk", program.chunk, "tokens"),
        made("sram_kib_used", sram / 1024, "KiB", f"of {program.chip.tile.sram.kib} per tile"),
        made("external_mib_used", program.external_bytes / 2**20, "MiB"),
    )


def _report(program: Program, measures: Measures, shown: tuple[Figure, ...]) -> Report:
    regions = tuple((region.name, f"{region.start:#x}", f"{region.size:,}") for region in program.sram if region.size)
    tables = (
        Table("time of a decode step by cause", ("cause", "share"), tuple(time_rows(measures))),
        Table("units busy, mean over tiles", ("unit", "share"), tuple(unit_rows(measures))),
        Table("SRAM of every tile", ("region", "start", "bytes"), regions),
    )
    notes = (
        f"decode is bound by {measures.bound.scarcest}: at least {measures.bound.least:,.0f} cycles at context {measures.context}",
        f"the wait that costs most: {costliest_wait(measures)}",
        *program.notes,
    )
    return Report(
        f"program: {program.model} ({program.weights}) on {program.chip.name}",
        shown,
        tables,
        notes,
        program.fingerprint(),
    )
