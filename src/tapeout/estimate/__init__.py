"""Shapes, a machine and a workload to figures, in closed form; one design or a million alike."""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """The room itself can be called: `tapeout.estimate` is a verb of the public face, and importing the room puts the room there."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from tapeout.estimate.estimate import estimate

        return estimate(*arguments, **named)


sys.modules[__name__].__class__ = _Room
