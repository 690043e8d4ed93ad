# ruff: noqa: E501 - the sentences are the page's own lines
"""Write docs/quantization.md and docs/quantization.svg from `tapeout eval`: what weight formats, methods and KV caches lose on two texts, and what a chip takes.

    python tools/quantization_page.py TEXTS --keep FOLDER [--windows 16] [--window 1024]

TEXTS is a folder that holds the files named below. What each question gave is kept as JSON in FOLDER: a run that was stopped goes on with the next one.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tapeout.base.files import atomic_write
from tapeout.flow.evaluate import ALL, EvalRequest, evaluate
from tapeout.flow.prepare import NO_CALIBRATION, Calibration, prepare_chip
from tapeout.numerics.formats import FORMATS, KV_FORMATS
from tapeout.report.quality_plot import Dot, quality_plot

DOCS = Path(__file__).parents[1] / "docs"
MODEL, CHIP = "smollm2-135m-instruct", "edge"
CHANGES = {"tile.stream_kib": "256", "tile.matrix.formats": f"[{', '.join(FORMATS)}]"}
"""So that the chip takes every format: four row blocks of int8 do not fit its 128 KiB."""
TEXTS = {
    "WikiText-2 (test split)": ("wikitext2_test_raw_tokenised.txt", "wikitext"),
    "Shakespeare's plays": ("tinyshakespeare.txt", ""),
}
"""What a text is called here, its file, and how it is detokenised."""
CALIBRATION = ("wikitext2_valid_raw_tokenised.txt", "wikitext")
"""What methods read."""
METHODS = ("int4+smooth", "int4+smooth+gptq", "int3+gptq", "nvfp4+smooth")
LOSES = ((0.01, "nothing that a reader would notice"), (0.1, "a little"), (1.0, "much"), (float("inf"), "the model"))
"""Upper ends of the KL in nats per token, and what a format that stays below loses."""
Rows = Sequence[Mapping[str, Any]]
Reply = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One `tapeout eval`."""

    text: str
    weights: tuple[str, ...]
    kv: str
    windows: int
    window: int


def answered(question: Question, folder: Path, keep: Path) -> Reply:
    """From the kept file where it is there for the same question."""
    name, detokenise = TEXTS[question.text]
    asked = asdict(question) | {"weights": list(question.weights)}
    kept = keep / f"{Path(name).stem}-{len(question.weights)}-{question.kv}.json"
    if kept.exists() and (found := json.loads(kept.read_text()))["asked"] == asked:
        return found["reply"]
    chip = keep / f"{CHIP}.yaml"
    chip.write_text(prepare_chip(CHIP, CHANGES).to_yaml())
    calibrated = any("+" in weights for weights in question.weights)
    text, how = CALIBRATION
    request = EvalRequest(
        MODEL, folder / name, question.weights, question.window, tokens=question.windows * (question.window - 1), detokenise=detokenise,
        chip=str(chip), kv=question.kv, calibration=Calibration(folder / text, detokenise=how) if calibrated else NO_CALIBRATION,
    )  # fmt: skip
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
    columns = ("weights", "bits per weight", "perplexity", "bits per byte", "loss, nats per token", "KL to float, nats per token")  # fmt: skip
    return table(columns, cells)


def methods(replies: Mapping[str, Reply]) -> list[str]:
    """What methods save, and on which text."""
    cells = [
        (f"`{row['weights']}`", text, f"{row['perplexity']:.2f}", between(row, "gain_nats", "+"), between(row, "gain_kl_nats", "+"), verdict(row))
        for name in METHODS for text, reply in replies.items() for row in reply["rows"] if row["weights"] == name
    ]  # fmt: skip
    return [
        "## What methods save against rounding to the nearest", "",
        "Calibrated on 16,384 tokens of WikiText-2's validation split ([quantizers.md](quantizers.md)); positive is saved. A method counts as better or worse where the interval of its KL lies on one side of zero.", "",
        *table(("weights", "text", "perplexity", "loss saved, nats per token", "KL saved, nats per token", "by KL"), cells),
    ]  # fmt: skip


def verdict(row: Mapping[str, Any]) -> str:
    """Better, worse, or neither."""
    if row["gain_kl_nats_low"] > 0:
        return "better"
    return "worse" if row["gain_kl_nats_high"] < 0 else "no difference shown"


def caches(replies: Mapping[str, Mapping[str, Reply]]) -> list[str]:
    """What fewer bits of K and V cost; replies: KV format -> text -> reply, weights in int8."""
    cells = [
        (f"`{name}`", text, f"{row['perplexity']:.2f}", between(row, "loss_nats", "+"), between(row, "kl_nats"))
        for name, of_text in replies.items() for text, reply in of_text.items() for row in reply["rows"] if row["weights"] == "int8"
    ]  # fmt: skip
    return [
        "## What a KV cache of fewer bits costs", "",
        "Weights in int8, so that the cache's loss stands alone. A head's K or V of a token has one scale ([numerics.md](numerics.md), section 8).", "",
        *table(("KV cache", "text", "perplexity", "loss, nats per token", "KL to float, nats per token"), cells),
    ]  # fmt: skip


def chip_part(rows: Rows, left_out: Sequence[Mapping[str, str]], window: int) -> list[str]:
    """What the chip takes; the same for every text."""
    cells = [
        (
            f"`{row['weights']}`", f"{row['bits_per_weight']:.2f}", f"{row['tokens_per_s']:,.0f}", f"{1000 * row['joules_per_token']:.2f}",
            f"{1000 * row['area_mm2'] / row['tokens_per_s']:.1f}", f"{row['weights_sram_mm2']:.0f}",
        )
        for row in sorted(rows, key=lambda row: row["bits_per_weight"]) if "joules_per_token" in row
    ]  # fmt: skip
    refused = [f"`{one['weights']}`: {one['why']}." for one in left_out]
    area = next(row["area_mm2"] for row in rows if "area_mm2" in row)
    return [
        f"## What `{CHIP}` takes for it", "",
        f"With a stream buffer of {CHANGES['tile.stream_kib']} KiB per tile and every format, so that one chip of {area:.1f} mm² takes them all. Decode with {window // 2} tokens held, by the schedule of a compiled program, which memory binds; joules and mm² are modelled ([silicon.md](silicon.md)). The last column is what the weights would take as SRAM of the same node: a chip that streams nothing.", "",
        *table(("weights", "bits per weight", "tokens/s", "mJ per token", "mm² per 1,000 tokens/s", "mm² of SRAM for the weights"), cells), *refused, *([""] if refused else []),
    ]  # fmt: skip


def worst(replies: Mapping[str, Reply]) -> dict[str, float]:
    """Per format, the upper end of its KL on the text that it does worst on."""
    found: dict[str, float] = {}
    for reply in replies.values():
        for row in reply["rows"]:
            found[row["weights"]] = max(found.get(row["weights"], 0.0), row["kl_nats_high"])
    return found


def sentence(replies: Mapping[str, Reply]) -> list[str]:
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


def page(formats: Mapping[str, Reply], by_methods: Mapping[str, Reply], by_cache: Mapping[str, Mapping[str, Reply]]) -> str:  # fmt: skip
    """The whole page."""
    first = next(iter(formats.values()))
    parts = [part for text, reply in formats.items() for part in (f"## {text}", "", *quality(reply["rows"]))]
    ends = [end for end, _ in LOSES]
    return "\n".join([
        "# What a weight format costs: quality, energy, silicon", "",
        f"SmolLM2-135M-Instruct through the bit-exact engine: the losses that the chip has. {first['windows']} windows of {first['window']} tokens of each text; intervals are 95 %",
        "by a bootstrap, paired with float ([eval.md](eval.md)). The checkpoint is the published 4-bit file (`int4m`), and float is that file dequantized: every other format",
        "rounds what was rounded once already; those whose grid is like the file's (`q4_k`) look better here than on weights never rounded. The names are those of the table in [numerics.md](numerics.md). `python tools/quantization_page.py` writes this page.", "",
        *sentence(formats), "",
        f"(By the upper end of the KL on the text that a format does worst on: below {ends[0]}, {ends[1]}, {ends[2]:g} nats per token, or above.)", "",
        "![quality against energy](quantization.svg)", "",
        *parts, *methods(by_methods), *caches(by_cache), *chip_part(first["rows"], first["left_out"], first["window"]),
    ])  # fmt: skip


def plot(replies: Mapping[str, Reply]) -> str:
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
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--window", type=int, default=1024)
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)

    def of_all_texts(weights: tuple[str, ...], kv: str = "int8") -> dict[str, Reply]:
        asked = {text: Question(text, weights, kv, options.windows, options.window) for text in TEXTS}
        return {text: answered(question, options.texts, options.keep) for text, question in asked.items()}

    formats = of_all_texts((ALL,))
    caches_ = {name: of_all_texts(("int8",), name) if name != "int8" else formats for name in KV_FORMATS}
    made = page(formats, of_all_texts(METHODS), caches_), plot(formats)
    for name, text in zip(("quantization.md", "quantization.svg"), made, strict=True):
        with atomic_write(DOCS / name, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
