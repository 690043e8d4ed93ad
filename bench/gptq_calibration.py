"""How far GPTQ's calibration carries: one layer's output errors beside round to nearest, on the calibration text and on another.

    python bench/gptq_calibration.py smollm2-135m-instruct --calibration valid.txt --text test.txt --detokenise wikitext

A figure below 1 is a gain; the inputs are float's. Where calibration gains and the other text does not, there were too few tokens.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapeout.flow.texts import read_text
from tapeout.graph.types import Linear, Matrix, Model
from tapeout.importers.load import load_model
from tapeout.numerics.formats import FORMATS
from tapeout.quantize.gptq import gptq_matrix
from tapeout.quantize.methods import windows_of
from tapeout.quantize.round_to_nearest import encode
from tapeout.quantize.walk import Walk

TOKENS = (2048, 4096, 8192, 16384)
DAMPINGS = (0.01, 0.1)
OTHER = 2048
"""Tokens of the other text."""
F64 = NDArray[np.float64]


def moments(model: Model, text: str, tokens: int, layer: int, first: int = 0) -> dict[str, list[F64]]:
    """Sum of x x^T of every window, of what the matrices of a layer read; without the first tokens of a window."""
    walk, found = Walk(model, windows_of(model, text, tokens)), {}
    for op in walk.ops:
        if op.layer > layer:
            break
        if isinstance(op, Linear) and op.layer == layer:
            parts = [x[first:] for x in walk.values(op.x)]
            found[op.weight] = [(part.T @ part).astype(np.float64) for part in parts]
        walk.run(op)
    return found


def lost(weights: NDArray, made: Matrix, hessian: F64) -> float:
    """Squared error of the outputs."""
    missed = made.to_float(np.float64) - weights
    return float(np.einsum("ij,ij->", missed @ hessian, missed))


def main() -> None:
    """A line per matrix, number of tokens and damping."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--detokenise", default="")
    parser.add_argument("--layer", type=int, default=6)
    parser.add_argument("--weights", default="int4")
    parser.add_argument("--without-first", type=int, default=0, help="tokens of each window that are left out")
    parser.add_argument("--matrix", default="", help="only this one, such as down")
    options = parser.parse_args()
    model, form = load_model(options.model), FORMATS[options.weights]
    calibration, text = (read_text(path, options.detokenise) for path in (options.calibration, options.text))
    parts = moments(model, calibration, max(TOKENS), options.layer, options.without_first)
    others = moments(model, text, OTHER, options.layer)
    for name, windows in parts.items():
        if not name.endswith(options.matrix):
            continue
        weight, other = model.weights[name], sum(others[name], np.zeros(()))
        floats = weight.to_float() if isinstance(weight, Matrix) else weight
        rounded = encode(name, floats, form)
        for tokens in TOKENS:
            hessian = sum(windows[: tokens // 512], np.zeros(()))
            for damping in DAMPINGS:
                made = gptq_matrix(name, floats, hessian, form, damping)
                here, there = (lost(floats, made, each) / lost(floats, rounded, each) for each in (hessian, other))
                print(
                    f"{name} {tokens} tokens, damping {damping}: {here:.3f} on them, {there:.3f} on other text",
                    flush=True,
                )


if __name__ == "__main__":
    main()
