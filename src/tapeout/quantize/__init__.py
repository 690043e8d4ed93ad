"""Model -> Model with other weights, one file per method."""

import sys
from types import ModuleType

from tapeout.graph.types import Model
from tapeout.quantize.round_to_nearest import quantize as quantize


class _Room(ModuleType):
    """The room itself can be called: `tapeout.quantize` is a verb of the public face, and importing the room puts the room there."""

    def __call__(self, model: Model, format_name: str) -> Model:
        return quantize(model, format_name)


sys.modules[__name__].__class__ = _Room
