"""The models there are: list them, show one, fetch one."""

from collections.abc import Callable
from pathlib import Path

from tapeout.flow.summary import Summary
from tapeout.importers.fetch import fetch
from tapeout.importers.catalogue import names as catalogue_names
from tapeout.importers.load import load_model
from tapeout.report.figure import Figure, Origin, Report, Table


def fetch_model(name: str, note: Callable[[str], None]) -> tuple[Path, str]:
    """Download and check a model of the catalogue. Raises `BadInput`."""
    return fetch(name, note)


def list_models() -> Summary:
    """The catalogue."""
    names = tuple(catalogue_names())
    rows = tuple((name, "here" if _here(name) else "tapeout fetch " + name) for name in names)
    table = Table("models", ("name", "state"), rows)
    return Summary({"rows": [{"name": name, "state": state} for name, state in rows]}, Report("models", (), (table,), (), ""))


def _here(name: str) -> bool:
    from tapeout.base.errors import BadInput

    try:
        load_model(name)
    except BadInput:
        return False
    return True


def model_report(name: str) -> Summary:
    """One model: its parameters, bytes and widths. Raises `BadInput`."""
    model = load_model(name)
    graph = model.graph
    size = sum(weight.stored_bytes for weight in graph.weights)
    shown = (
        Figure("parameters", graph.parameters, "", Origin.MEASURED),
        Figure("weight_bytes", size, "B", Origin.MEASURED, note=f"stored as {model.stored}"),
        Figure("layers", graph.layers, "", Origin.MEASURED),
        Figure("context", graph.context, "tokens", Origin.MEASURED),
        Figure("vocabulary", graph.vocabulary, "", Origin.MEASURED),
    )
    answer = {"model": graph.name, "stored": model.stored, "figures": {f.name: f.to_json() for f in shown}, "notes": list(model.notes)}
    return Summary(answer, Report(graph.name, shown, (), model.notes, model.fingerprint()))
