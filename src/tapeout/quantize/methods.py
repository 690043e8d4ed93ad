"""How weights come into a format: one row per method. `int4+gptq` is a format and a method; a format alone is rounded to the nearest.

Every method takes a `Model` and the name of a format, and windows of a calibration text where it asks for one. Embedding and head
are rounded to the nearest by all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tapeout.base.errors import BadInput
from tapeout.graph.types import Model
from tapeout.quantize import round_to_nearest
from tapeout.quantize.gptq import gptq

Windows = Sequence[Sequence[int]]
Note = Callable[[str], None]

WINDOW = 512
TOKENS = 4096
"""Of a calibration text that are read, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row. quantize: (model, format, calibration windows, where progress goes) -> model."""

    name: str
    needs_calibration: bool
    quantize: Callable[[Model, str, Windows, Note], Model]


def _nearest(model: Model, format_name: str, calibration: Windows, note: Note) -> Model:
    return round_to_nearest.quantize(model, format_name)


METHODS = {row.name: row for row in (Method("nearest", False, _nearest), Method("gptq", True, gptq))}
NEAREST = METHODS["nearest"]


def split(name: str) -> tuple[str, Method]:
    """(format, method) of what `--weights` takes; the format is checked where it is used. Raises `BadInput`."""
    form, plus, method = name.partition("+")
    if plus and (method not in METHODS or form == round_to_nearest.STORED):
        what = f"{method!r} is no method" if method not in METHODS else "stored weights are kept as they are"
        raise BadInput("--weights", what, f"write FORMAT or FORMAT+METHOD, METHOD one of {', '.join(METHODS)}")
    return form, METHODS[method] if plus else NEAREST


def windows_of(model: Model, text: str, tokens: int = TOKENS) -> list[list[int]]:
    """The first tokens of a calibration text, in windows. Raises `BadInput`."""
    if model.tokenizer is None:
        raise BadInput(f"model {model.graph.name}", "has no tokenizer", "give a folder or file that carries one")
    if tokens < 1:
        raise BadInput("--calibration-tokens", f"{tokens}", "give 1 or more")
    ids, size = model.tokenizer.encode(text)[:tokens], min(WINDOW, model.graph.context)
    if not ids:
        raise BadInput("--calibration", "has no tokens", "give a text")
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def quantize(
    model: Model, name: str, calibration: str | None = None, tokens: int = TOKENS, note: Note = lambda text: None
) -> Model:
    """The model in a format, by a method. calibration: a text, of which `tokens` are read. Raises `BadInput`."""
    form, method = split(name)
    if method.needs_calibration and calibration is None:
        raise BadInput("--weights", f"{name} needs a calibration text", "run, compile and eval take --calibration FILE")
    windows = windows_of(model, calibration or "", tokens) if method.needs_calibration else ()
    return method.quantize(model, form, windows, note)
