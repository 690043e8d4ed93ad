"""What the arithmetic contract costs: perplexity and KL against float on the same weights. Usage: accuracy.py [TEXT] [--tokens N].

One window: the first N tokens of the text, each predicted from all before it. Float is `FloatEngine` on the model's own
dequantized weights, so nothing but the contract's arithmetic is told; targets: KL <= 0.005 nat, perplexity within 1 %.
"""

import argparse
import re
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from line import print_line
from tapeout.graph.fast import FastEngine
from tapeout.graph.float_mode import FloatEngine
from tapeout.importers.load import load_model

TEXT = Path(__file__).parents[2] / "shared" / "data" / "text" / "wikitext2_test_raw_tokenised.txt"
SLICE = 128
"""Tokens per step: bounds the memory of the logits."""

JOINS = (
    (r" @([-,.])@ ", r"\1"),  # signs that the tokeniser cut words and numbers at
    (r" (n't|'(?:s|re|ve|ll|d|m|t))\b", r"\1"),  # English endings: it 's, did n't
    (r'" ([^"\n]*?) "', r'"\1"'),  # double quotes, by pairs within a line
    (r"(?<=s) '(?= )", "'"),  # the possessive of a plural
    (r" ' ([^'\n]*?) '(?= )", r" '\1'"),  # single quotes, by pairs
    (r"([(\[{]) ", r"\1"),  # brackets open at what follows
    (r" ([)\]}])", r"\1"),  # and close at what precedes
    (r" ([.,:;!?%])(?=[ \n\"')\]]|$)", r"\1"),  # these stand at the word before
    (r"([$£€#]) (?=\d)", r"\1"),  # and these at the number after
    (r"(?<=\d) – (?=\d)", "–"),  # ranges
    (r"(?<==) (?==)", ""),  # headings: = = A = = becomes == A ==
)
"""(pattern, replacement), applied in this order: WikiText's word-separating spaces are taken out again."""


def detokenise(text: str) -> str:
    """Text as people write it from WikiText's tokenised form; `<unk>` stays, and lines lose the blanks around them."""
    for pattern, replacement in JOINS:
        text = re.sub(pattern, replacement, text)
    return "\n".join(line.strip() for line in text.split("\n"))


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities of rows of logits."""
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=1, keepdims=True))


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?", type=Path, default=TEXT)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--tokens", type=int, default=2048)
    options = parser.parse_args()
    model = load_model(options.model)
    assert model.tokenizer is not None, "a text needs a tokenizer"
    ids = model.tokenizer.encode(detokenise(options.text.read_text(encoding="utf-8")))[: options.tokens]
    start = time.perf_counter()
    engines = FastEngine(model, len(ids), threads=2), FloatEngine(model, len(ids))
    losses, divergences = [], []
    for first in range(0, len(ids) - 1, SLICE):  # one window: a step reads what earlier steps hold
        fed, following = ids[first : first + SLICE], ids[first + 1 : first + 1 + SLICE]
        contract, exact = (log_softmax(e.step(fed, first, every=True)[: len(following)]) for e in engines)
        at = np.arange(len(following)), following
        losses.append(np.stack((-contract[at], -exact[at])))
        divergences.append((np.exp(exact) * (exact - contract)).sum(axis=1))
    loss, kl = np.concatenate(losses, axis=1), np.concatenate(divergences)
    perplexity = np.exp(loss.mean(axis=1))
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
