"""Model -> Model with other weights, one file per method."""

import sys
from types import ModuleType
from typing import Any

from tapeout.graph.types import Model
from tapeout.quantize.methods import quantize as quantize


class _Room(ModuleType):
    """The room itself can be called: `tapeout.quantize` is a verb of the public face, and importing the room puts the room there."""

    def __call__(self, model: Model, name: str, **options: Any) -> Model:
        return quantize(model, name, **options)


sys.modules[__name__].__class__ = _Room
