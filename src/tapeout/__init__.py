"""tapeout turns a language model into the chip that runs it.

The public face: the verbs of the command line. Heavy rooms are imported when a verb is first used.
"""

from importlib import import_module
from typing import Any

_FACE = {
    "load_model": "tapeout.importers.load",
    "load_chip": "tapeout.chip.presets",
    "quantize": "tapeout.quantize.methods",
    "compile": "tapeout.compiler.pipeline",
    "run": "tapeout.flow.run",
    "Request": "tapeout.flow.run",
    "estimate": "tapeout.estimate.estimate",
    "validate": "tapeout.flow.validate",
    "emit_verilog": "tapeout.flow.emit_verilog",
    "cosim": "tapeout.flow.cosim",
    "CosimRequest": "tapeout.flow.cosim",
    "BadInput": "tapeout.base.errors",
}

__all__ = list(_FACE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'tapeout' has no attribute {name!r}")
    return getattr(import_module(_FACE[name]), name)
