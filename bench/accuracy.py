"""What the arithmetic contract costs: perplexity and KL against float on the same weights. Usage: accuracy.py [TEXT] [--tokens N].

One window: the first N tokens of the text, each predicted from all before it; `tapeout eval` does the same in many. Float is
`FloatEngine` on the model's own dequantized weights, so nothing but the contract's arithmetic is told; targets: KL <= 0.005
nat, perplexity within 1 %.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from line import print_line
from tapeout.flow.losses import score
from tapeout.flow.texts import cut_windows, read_text
from tapeout.graph.fast import FastEngine
from tapeout.graph.float_mode import FloatEngine
from tapeout.importers.load import load_model

TEXT = Path(__file__).parents[2] / "shared" / "data" / "text" / "wikitext2_test_raw_tokenised.txt"


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?", type=Path, default=TEXT)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--tokens", type=int, default=2048)
    options = parser.parse_args()
    model = load_model(options.model)
    assert model.tokenizer is not None, "a text needs a tokenizer"
    ids = model.tokenizer.encode(read_text(options.text, "wikitext"))[: options.tokens]
    start = time.perf_counter()
    engines = {"contract": FastEngine(model, len(ids), threads=2)}
    window = cut_windows(len(ids), len(ids), len(ids))
    exact, found = score(FloatEngine(model, len(ids)), engines, ids, window, model.graph.vocabulary)
    kl = found["contract"].kl
    perplexity = np.exp(found["contract"].loss.mean()), np.exp(exact.mean())
    print_line(
        "accuracy",
        model=options.model,
        tokens=len(ids),
        predicted=len(kl),
        perplexity_contract=float(perplexity[0]),
        perplexity_float=float(perplexity[1]),
        ratio=float(perplexity[0] / perplexity[1]),
        excess_percent=float(100 * (perplexity[0] / perplexity[1] - 1)),
        excess_limit_percent=1.0,
        kl_nat=float(kl.mean()),
        kl_standard_error=float(kl.std(ddof=1) / np.sqrt(len(kl))),
        kl_limit=0.005,
        seconds=time.perf_counter() - start,
    )


if __name__ == "__main__":
    main()
