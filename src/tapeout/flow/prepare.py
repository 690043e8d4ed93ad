"""From what the user names to what the rooms take: models by name or path, weights by format, chips with changed fields."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from tapeout.base.errors import BadInput
from tapeout.chip.presets import load_chip
from tapeout.chip.spec import ChipSpec
from tapeout.flow.texts import read_text
from tapeout.graph.types import Model
from tapeout.importers.load import load_model
from tapeout.numerics.formats import WEIGHTS
from tapeout.quantize.kv_cache import check_kv, kv_cache
from tapeout.quantize.methods import TOKENS, check_weights, quantize

EMBEDDED = "fable"
"""The model that ships with the package."""
FLOAT_DEFAULT = "int8"
"""What a float checkpoint is quantized to where the user asks for the stored format."""
STORED = "stored"
KV_DEFAULT = "int8"
"""How K and V are held where nobody says."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A text that a method of quantization reads, and how much of it."""

    text: Path | None = None
    tokens: int = TOKENS
    detokenise: str = ""

    def read(self) -> str | None:
        """The text, where there is one. Raises `BadInput`."""
        return None if self.text is None else read_text(self.text, self.detokenise)


NO_CALIBRATION = Calibration()


def prepare_model(
    name: str | Path, weights: str = STORED, kv: str = KV_DEFAULT, calibration: Calibration = NO_CALIBRATION,
    note: Callable[[str], None] = lambda text: None,
) -> Model:  # fmt: skip
    """Load a model and bring it into formats that the chip runs: its weights, and its KV cache. Raises `BadInput`.

    "stored" keeps the matrices of a quantized file as they are. What stands in floats is rounded, all of a float file to int8, and
    the model's notes say so.
    """
    check_weights(weights, (STORED,), calibration.text is not None)
    check_kv(kv)
    model = kv_cache(load_model(name), kv)
    if weights == STORED and model.stored in WEIGHTS:
        return quantize(model, STORED)
    wanted = FLOAT_DEFAULT if weights == STORED else weights
    return replace(quantize(model, wanted, calibration.read(), calibration.tokens, note), stored=wanted)


def prepare_chip(name: str | Path, changes: Mapping[str, str] | None = None) -> ChipSpec:
    """A preset or a file, with `--set` fields changed. Raises `BadInput`."""
    chip = load_chip(name)
    return chip.with_fields(dict(changes), chip.name) if changes else chip


def parse_changes(texts: list[str]) -> dict[str, str]:
    """`FIELD=VALUE` texts as a mapping. Raises `BadInput`."""
    changes = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field or not value:
            raise BadInput("--set", f"{text!r} is not FIELD=VALUE", "for example --set external.gb_per_s=136")
        changes[field.strip()] = _readable(text, value.strip())
    return changes


def _readable(text: str, value: str) -> str:
    """The value of a `FIELD=VALUE`, which is YAML as in a chip's file. Raises `BadInput`."""
    try:
        yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput("--set", f"the value of {text!r} cannot be read", "write it as in a chip's YAML file") from error
    return value
