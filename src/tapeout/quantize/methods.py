"""How weights come into a format: one row per method. `int4+gptq` is a format and a method, `int4+smooth+gptq` a format and two.

Every method is a step from a `Model` to a `Model`; it is told the format, and gets windows of a calibration text where it asks for
one. The last step encodes; where none of those named does, round to nearest comes last. Embedding and head are rounded to the
nearest by all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tapeout.base.errors import BadInput
from tapeout.graph.types import Model
from tapeout.numerics.formats import FORMATS, WEIGHTS
from tapeout.quantize import round_to_nearest
from tapeout.quantize.gptq import EVEN, gptq
from tapeout.quantize.smooth import smooth

Windows = Sequence[Sequence[int]]
Note = Callable[[str], None]
Step = Callable[[Model, str, Windows, Note], Model]
"""(model, format, calibration windows, where progress goes) -> model."""

WINDOW = 512
TOKENS = 16384
"""Of a calibration text that are read, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row. encodes: what it returns is in the format; else floats that the next step encodes."""

    name: str
    step: Step
    encodes: bool
    needs_calibration: bool = False
    formats: tuple[str, ...] = WEIGHTS


def _nearest(model: Model, format_name: str, calibration: Windows, note: Note) -> Model:
    return round_to_nearest.quantize(model, format_name)


METHODS = {
    row.name: row
    for row in (
        Method("nearest", _nearest, True),
        Method("gptq", gptq, True, True, EVEN),
        Method("smooth", smooth, False, True, tuple(FORMATS)),
    )
}
NEAREST = METHODS["nearest"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `--weights` names: a format and the steps to it."""

    format: str
    steps: tuple[Method, ...]

    @property
    def is_nearest(self) -> bool:
        """Whether every weight is just rounded."""
        return self.steps == (NEAREST,)

    @property
    def needs_calibration(self) -> bool:
        """Whether a step reads a text."""
        return any(step.needs_calibration for step in self.steps)

    @property
    def methods(self) -> str:
        """The steps' names, as `--weights` has them."""
        return "+".join(step.name for step in self.steps)


def recipe_of(name: str) -> Recipe:
    """What `--weights` takes, taken apart; whether the format is known is checked where it is used. Raises `BadInput`."""
    form, *names = name.split("+")
    for each in names:
        if each not in METHODS:
            raise BadInput("--weights", f"{each!r} is no method", f"write FORMAT or FORMAT+METHOD, METHOD {_methods()}")
    steps = tuple(METHODS[each] for each in names)
    if steps and form == round_to_nearest.STORED:
        raise BadInput("--weights", "stored weights are kept as they are", "name a format before the method")
    if len(set(steps)) < len(steps) or any(step.encodes for step in steps[:-1]):
        encoding = " and ".join(row.name for row in METHODS.values() if row.encodes)
        raise BadInput("--weights", f"{name} cannot be done in this order", f"each once, {encoding} last")
    for step in steps:
        if form in WEIGHTS and form not in step.formats:
            raise BadInput("--weights", f"{step.name} does not make {form}", f"it makes {', '.join(step.formats)}")
    return Recipe(form, steps if steps and steps[-1].encodes else (*steps, NEAREST))


def _methods() -> str:
    return f"one of {', '.join(METHODS)}"


def check_weights(name: str, others: Sequence[str], calibrated: bool) -> Recipe:
    """The recipe of a name whose format is known (`others` are known besides) and whose text is there. Raises `BadInput`."""
    recipe = recipe_of(name)
    known = (*others, *WEIGHTS)
    if recipe.format not in (WEIGHTS if "+" in name else known):
        raise BadInput("--weights", f"{recipe.format!r} is no format", f"choose from {', '.join(known)}")
    if recipe.needs_calibration and not calibrated:
        raise BadInput("--weights", f"{name} needs a calibration text", "run, compile and eval take --calibration FILE")
    return recipe


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
    """The model in a format, by its methods. calibration: a text, of which `tokens` are read. Raises `BadInput`."""
    recipe = check_weights(name, (round_to_nearest.STORED,), calibration is not None)
    windows = windows_of(model, calibration or "", tokens) if recipe.needs_calibration else ()
    for step in recipe.steps:
        model = step.step(model, recipe.format, windows, note)
    return model
