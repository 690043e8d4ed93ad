"""Bits per byte of the embedded models on 500 held-out stories, each read alone, by the bit-exact graph engine.

python tools/embedded_model/exact_bits.py
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from corpus import story

from tapeout.flow.losses import log_softmax
from tapeout.graph.fast import FastEngine
from tapeout.graph.types import Model
from tapeout.importers.load import load_model
from tapeout.quantize import quantize

HELD_OUT_SEED = 1_000_000_000


def bits_per_byte(model: Model, stories: list[str]) -> float:
    """As the card of `fable` counts: the end of each story included."""
    assert model.tokenizer is not None
    engine, nats = FastEngine(model, model.graph.context), 0.0
    (end,) = model.tokenizer.end_ids
    for text in stories:
        ids = [*model.tokenizer.encode(text), end]
        found = log_softmax(engine.step(ids[:-1], 0, every=True))
        nats -= found[np.arange(len(ids) - 1), ids[1:]].sum()
    return nats / math.log(2) / sum(len(text.encode()) for text in stories)


def figures(fable: str | Path = "fable", twin: str | Path = "fable-ternary") -> Iterator[tuple[str, str]]:
    """(name, bits per byte) of each model and format of the twin's card, by the name that `card_ternary.md` has."""
    stories = [story(HELD_OUT_SEED + i)[0] for i in range(500)]
    rows = {"fable_int8": (fable, "int8"), "fable_int4": (fable, "int4"), "fable_ternary": (fable, "ternary")}
    for name, (model, form) in (rows | {"twin_stored": (twin, "stored")}).items():
        yield name, f"{bits_per_byte(quantize(load_model(model), form), stories):.4f}"


def main() -> None:
    """One line per model and format."""
    for name, value in figures():
        print(f"{name}: {value}", flush=True)


if __name__ == "__main__":
    main()
