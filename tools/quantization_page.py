# ruff: noqa: E501 - the sentences are the page's own lines
"""Write docs/quantization.md and docs/quantization.svg from `tapeout eval`: what every weight format loses on two texts, and what a chip takes for it.

    python tools/quantization_page.py TEXTS --keep FOLDER [--windows 16] [--window 1024]

TEXTS is a folder that holds the files named below. What each text gave is kept as JSON in FOLDER: a run that was stopped goes on with the next text.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tapeout.base.files import atomic_write
from tapeout.flow.evaluate import ALL, EvalRequest, evaluate
from tapeout.flow.prepare import prepare_chip
from tapeout.report.quality_plot import Dot, quality_plot

DOCS = Path(__file__).parents[1] / "docs"
MODEL, CHIP = "smollm2-135m-instruct", "edge"
CHANGES = {"tile.stream_kib": "256"}
"""So that the chip takes every format: four row blocks of int8 do not fit its 128 KiB."""
TEXTS = {
    "WikiText-2 (test split)": ("wikitext2_test_raw_tokenised.txt", "wikitext"),
    "Shakespeare's plays": ("tinyshakespeare.txt", ""),
}
"""What a text is called here, its file, and how it is detokenised."""
LOSES = ((0.01, "nothing that a reader would notice"), (0.1, "a little"), (1.0, "much"), (float("inf"), "the model"))
"""Upper ends of the KL in nats per token, and what a format that stays below loses."""
Rows = Sequence[Mapping[str, Any]]


def scored(folder: Path, keep: Path, text: str, weights: Sequence[str], windows: int, window: int) -> dict[str, Any]:
    """One text, from the kept file where it is for the same question."""
    name, detokenise = TEXTS[text]
    asked = {"weights": list(weights), "windows": windows, "window": window}
    kept = keep / f"{Path(name).stem}.json"
    if kept.exists() and (found := json.loads(kept.read_text()))["asked"] == asked:
        return found["reply"]
    chip = keep / f"{CHIP}.yaml"
    chip.write_text(prepare_chip(CHIP, CHANGES).to_yaml())
    request = EvalRequest(
        MODEL,
        folder / name,
        tuple(weights),
        window,
        tokens=windows * (window - 1),
        detokenise=detokenise,
        chip=str(chip),
    )
    reply = evaluate(request, lambda line: print(line, file=sys.stderr, flush=True)).json
    with atomic_write(kept, "w") as file:
        json.dump({"asked": asked, "reply": reply}, file)
    return reply


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Markdown."""
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
        "",
    ]


def between(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    """A figure with its interval."""
    return f"{row[name]:{sign}.4f} ({row[f'{name}_low']:{sign}.4f} to {row[f'{name}_high']:{sign}.4f})"


def quality(rows: Rows) -> list[str]:
    """What one text says, the least loss first."""
    cells = [
        (
            f"`{row['weights']}`", f"{row['bits_per_weight']:.2f}", f"{row['perplexity']:.2f}", f"{row['bits_per_byte']:.3f}", between(row, "loss_nats", "+"),
            between(row, "kl_nats"),
        )
        for row in sorted(rows, key=lambda row: row["kl_nats"])
    ]  # fmt: skip
    return table(
        (
            "weights",
            "bits per weight",
            "perplexity",
            "bits per byte",
            "loss, nats per token",
            "KL to float, nats per token",
        ),
        cells,
    )


def chip_part(rows: Rows, left_out: Sequence[Mapping[str, str]], window: int) -> list[str]:
    """What the chip takes; the same for every text."""
    cells = [
        (f"`{row['weights']}`", f"{row['bits_per_weight']:.2f}", f"{row['tokens_per_s']:,.0f}", f"{1000 * row['joules_per_token']:.2f}", f"{row['area_mm2']:.1f}")
        for row in sorted(rows, key=lambda row: row["bits_per_weight"]) if "joules_per_token" in row
    ]  # fmt: skip
    refused = [f"`{one['weights']}`: {one['why']}." for one in left_out]
    return [
        f"## What `{CHIP}` takes for it", "",
        f"`--set {' '.join(f'{field}={value}' for field, value in CHANGES.items())}`, so that every format fits. Decode with {window // 2} tokens held, by the schedule of a compiled program; joules are modelled ([silicon.md](silicon.md)).", "",
        *table(("weights", "bits per weight", "tokens/s", "mJ per token", "mm²"), cells), *refused, *([""] if refused else []),
    ]  # fmt: skip


def worst(replies: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Per format, the upper end of its KL on the text that it does worst on."""
    found: dict[str, float] = {}
    for reply in replies.values():
        for row in reply["rows"]:
            found[row["weights"]] = max(found.get(row["weights"], 0.0), row["kl_nats_high"])
    return found


def sentence(replies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a reader takes away: who loses how much, and the cheapest of each kind."""
    joules = {
        row["weights"]: row["joules_per_token"]
        for reply in replies.values()
        for row in reply["rows"]
        if "joules_per_token" in row
    }
    kinds: dict[str, list[str]] = {}
    for name, high in sorted(worst(replies).items(), key=lambda item: item[1]):
        kinds.setdefault(next(word for end, word in LOSES if high < end), []).append(name)
    lines = []
    for word, names in kinds.items():
        priced = [name for name in names if name in joules]
        cheapest = min(priced, key=lambda name: joules[name]) if priced else None
        end = (
            ""
            if cheapest is None
            else f"; the least energy of these takes `{cheapest}`, {joules[cheapest] / joules['int8']:.2f} of int8's"
        )
        lines.append(
            f"- {', '.join(f'`{name}`' for name in names)}: lose{'s' if len(names) == 1 else ''} **{word}**{end}."
        )
    return lines


def page(replies: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page."""
    first = next(iter(replies.values()))
    parts = [part for text, reply in replies.items() for part in (f"## {text}", "", *quality(reply["rows"]))]
    ends = [end for end, _ in LOSES]
    return "\n".join([
        "# What a weight format costs: quality, energy, silicon", "",
        f"SmolLM2-135M-Instruct through the bit-exact engine: the losses that the chip has. {first['windows']} windows of {first['window']} tokens of each text; intervals are 95 %",
        "by a bootstrap, paired with float ([eval.md](eval.md)). The checkpoint is the published 4-bit file (`int4m`), and float is that file dequantized: every other format",
        "rounds what was rounded once already. The names are those of the table in [numerics.md](numerics.md). `python tools/quantization_page.py` writes this page.", "",
        *sentence(replies), "",
        f"(By the upper end of the KL on the text that a format does worst on: below {ends[0]}, {ends[1]}, {ends[2]:g} nats per token, or above.)", "",
        "![quality against energy](quantization.svg)", "",
        *parts, *chip_part(first["rows"], first["left_out"], first["window"]),
    ])  # fmt: skip


def plot(replies: Mapping[str, Mapping[str, Any]]) -> str:
    """KL against millijoules."""
    panels = {
        text: [
            Dot(row["weights"], 1000 * row["joules_per_token"], row["kl_nats"], row["kl_nats_low"], row["kl_nats_high"])
            for row in reply["rows"] if "joules_per_token" in row
        ]
        for text, reply in replies.items()
    }  # fmt: skip
    return quality_plot(
        panels, f"millijoules per token on {CHIP}", "SmolLM2-135M: what is lost against what a token takes"
    )


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--weights", default=ALL)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--window", type=int, default=1024)
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    weights = options.weights.split(",")
    replies = {
        text: scored(options.texts, options.keep, text, weights, options.windows, options.window) for text in TEXTS
    }
    for name, text in (("quantization.md", page(replies)), ("quantization.svg", plot(replies))):
        with atomic_write(DOCS / name, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
