# ruff: noqa: E501 - the sentences are the page's own lines
"""Write docs/accuracy.md and docs/accuracy.svg: our errors, the bad rows first.

    python tools/accuracy_page.py SERVING.yaml [CSV]

SERVING.yaml holds the measured serving points, CSV the aiconfigurator project's; neither is shipped, their scores stand on the page.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tapeout.base.files import atomic_write
from tapeout.estimate.calibration import Calibration, calibration
from tapeout.flow.results import Result, load_results
from tapeout.flow.score import Score, by_family, score, summary
from tapeout.flow.validate import CALIBRATED_ROWS, RATES, SILICON, over_families
from tapeout.report.error_plot import error_plot

ROOT = Path(__file__).parents[1]
DATA = ROOT / "src" / "tapeout" / "data" / "estimate"
WORST = 20
WHY = {
    "cerebras_llama31_70b_aa": "what a layer of 28 us waits for on a wafer was never published; our 6 us is an assumption, and the same wafers later said 2,100 tokens/s",
    "trtllm_061_a100_sxm_llama_70b_bs240_tp4_128_2048": "an engine of 2023 that read K and V once per query head: eight times ours",
    "trtllm_061_h100_sxm_llama_70b_bs480_tp4_128_2048": "the same",
    "tt_2xp150_llama31_8b_b64": "two cards of one host: half the rate per user of one card, which is the host's dispatch",
    "seed1_dgx_h100_llama2_70b_b1": "an engine of 2023",
    "sambanova_llama31_8b": "one dataflow graph for all layers: no time per layer; we take 3 us",
    "mlperf51_xe8640_4xh100_vllm_llama3_1_8b_server": "the engine holds prompts back to batch them; we let them in at the next step",
}
"""Why a row is far off, where we know."""


def percent(value: float) -> str:
    return f"{100 * value:.1f} %" if abs(value) < 0.1 else f"{100 * value:.0f} %"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
        "",
    ]


def line(row: dict[str, float]) -> tuple[Any, ...]:
    return int(row["rows"]), *(percent(row[key]) for key in ("median_abs_error", "mean_abs_error", "p90_abs_error"))


def only_datasheets(numbers: Calibration) -> Calibration:
    """Every peak reached, and nothing waited for."""
    data = numbers.model_dump()
    for family in data["families"].values():
        family |= {"memory_efficiency": 1.0, "compute_efficiency": 1.0, "layer_us": 0.0, "step_us": 0.0, "hop_us": None}
    data["shared"] |= {
        "narrow_efficiency": 1.0,
        "step_us": 0.0,
        "sequence_us": 0.0,
        "hop_us": 0.0,
        "emulation": 1.0,
        "queue_prefills": 0.0,
        "first_token_steps": 0.0,
    }
    return Calibration.model_validate(data)


def without(numbers: Calibration, family: str) -> Calibration:
    """A family's numbers forgotten: NVIDIA's in their place, and for NVIDIA the ones that were never fitted."""
    data = numbers.model_dump()
    sourced = calibration("sourced").model_dump()
    data["families"][family] = (
        sourced["families"]["gpu_nvidia"] if family == "gpu_nvidia" else data["families"]["gpu_nvidia"]
    )
    if family == "gpu_nvidia":
        data["shared"] = sourced["shared"]
    return Calibration.model_validate(data)


def rates_of(results: Sequence[Result], family: str, numbers: Calibration) -> str:
    scores = [
        one for one in score(results, numbers)[0] if one.row.complete and one.family == family and one.figure in RATES
    ]
    return percent(summary([one.error for one in scores])["mean_abs_error"]) if scores else "-"


def families_part(results: Sequence[Result], scores: Sequence[Score], numbers: Calibration) -> list[str]:
    rows = []
    for family, figures in by_family(scores).items():
        count = len({one.row.id for one in scores if one.family == family})
        state = (
            "calibrated or assumed, not validated"
            if count < CALIBRATED_ROWS
            else "nothing fitted on it"
            if family in SILICON
            else "see below"
        )
        for figure, row in figures.items():
            rows.append((f"`{family}`", f"`{figure}`", *line(row), state))
    left = [
        (
            f"`{family}`",
            rates_of(results, family, numbers),
            rates_of(results, family, without(numbers, family)),
            rates_of(results, family, only_datasheets(numbers)),
        )
        for family in by_family(scores)
    ]
    return [
        "## Published results, by family", "",
        *table(("family", "figure", "rows", "median", "mean", "90 %", "state"), rows),
        "Medians over families of each family's median: " + ", ".join(f"`{figure}` {percent(value)}" for figure, value in over_families(scores).items()) + ".", "",
        "Mean absolute error of rates (tokens per second), with a family's own numbers, with the family left out (NVIDIA's numbers in their place;",
        "for NVIDIA those of no fit), and from datasheets alone (every peak reached, nothing waited for):", "",
        *table(("family", "as shipped", "family left out", "datasheet alone"), left),
    ]  # fmt: skip


def worst_part(scores: Sequence[Score]) -> list[str]:
    worst = sorted(scores, key=lambda one: -abs(np.log(one.predicted / one.published)))[:WORST]
    rows = [
        (
            f"`{one.row.id}`",
            f"`{one.figure}`",
            f"{one.published:,.4g}",
            f"{one.predicted:,.4g}",
            f"{100 * one.error:+.0f} %",
            WHY.get(one.row.id, ""),
        )
        for one in worst
    ]
    return ["## The bad rows first", "", *table(("row", "figure", "published", "ours", "error", "why"), rows)]


def serving_part(path: Path) -> list[str]:
    scores, skipped = score(load_results(path))
    out = yaml.safe_load((DATA / "left_out.yaml").read_text())
    said = {
        "fitted_on_all": "fitted on all of them",
        "sweeps_left_out": "whole sweeps left out, five folds",
        "sourced": "nothing fitted: sourced overheads only",
    }
    rows = [
        (
            text,
            *line(out[key]["tpot_ms"])[1:],
            *line(out[key]["ttft_ms"])[1:],
            percent(out[key]["request_ms"]["median_abs_error"]),
        )
        for key, text in said.items()
    ]
    for key in ("chips_left_out", "models_left_out"):
        rows += [
            (
                f"`{name}` left out of the fit",
                *line(part["tpot_ms"])[1:],
                *line(part["ttft_ms"])[1:],
                percent(part["request_ms"]["median_abs_error"]),
            )
            for name, part in out[key].items()
            if name != "all"
        ]
    groups: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for one in scores:
        key = (one.row.chip, one.row.model, one.row.weights)
        groups.setdefault(key, {}).setdefault(one.figure, []).append(one.error)
    by_group = [
        (*(f"`{k}`" for k in key), *line(summary(found["tpot_ms"])), *line(summary(found["ttft_ms"]))[1:])
        for key, found in sorted(groups.items())
    ]
    return [
        "## Measured serving points on GPUs", "",
        f"{len({one.row.id for one in scores})} points of H100, H200 and B200 at fixed concurrency (aiconfigurator's measured sample, Apache-2.0; not shipped), {len(skipped)} more are",
        "unusable by their own remark. A sweep is chip, model, weights and lengths; none is ever split between fit and test. The sourced numbers are what such",
        "things usually take; who wrote them down had seen these points.", "",
        *table(("", "TPOT median", "mean", "90 %", "TTFT median", "mean", "90 %", "whole request, median"), rows),
        *table(("chip", "model", "weights", "points", "TPOT median", "mean", "90 %", "TTFT median", "mean", "90 %"), by_group),
    ]  # fmt: skip


def csv_part(path: Path) -> list[str]:
    scores, skipped = score(load_results(path))
    figures = {name: [one.error for one in scores if one.figure == name] for name in ("tpot_ms", "ttft_ms")}
    unseen = {
        name: [one.error for one in scores if one.figure == name and "deepseek" in one.row.model.lower()]
        for name in figures
    }
    rows = [("all that could be scored", *line(summary(figures["tpot_ms"])), *line(summary(figures["ttft_ms"]))[1:])]
    rows += [
        (
            "DeepSeek-V3 and R1 alone: no row of theirs was fitted on",
            *line(summary(unseen["tpot_ms"])),
            *line(summary(unseen["ttft_ms"]))[1:],
        )
    ]
    return [
        f"The whole of that sample as its CSV has it, unusable points and unrecorded chip counts included; {len(skipped)} rows have prefill and decode apart,",
        "a chip or model that we have no sheet of, or attention in data parallel:", "",
        *table(("rows", "points", "TPOT median", "mean", "90 %", "TTFT median", "mean", "90 %"), rows),
    ]  # fmt: skip


def parameters_part(numbers: Calibration) -> list[str]:
    families = [
        (
            f"`{name}`",
            f.memory_efficiency,
            f.compute_efficiency,
            f"{f.layer_us:g}" + (f" ({f.layer_us_range[0]:g} to {f.layer_us_range[1]:g})" if f.layer_us_range else ""),
            "-" if f.hop_us is None else f.hop_us,
            "-" if f.step_us is None else f.step_us,
            f.rows,
            f.source,
        )
        for name, f in numbers.families.items()
    ]
    shared = [(f"`{name}`", value, MEANING[name]) for name, value in numbers.shared.model_dump().items()]
    others = sum(2 if "and layer_us" in f.source else 1 for f in numbers.families.values() if "published" in f.rows)
    fixed = [
        (f"`{name}`", value, numbers.fixed.sources.get(name, ""))
        for name, value in numbers.fixed.model_dump().items()
        if name != "sources"
    ]
    return [
        "## Every number that is not a datasheet's", "",
        f"{3 + len(shared) + others} numbers are fitted: NVIDIA's three and the {len(shared)} shared ones on the serving points, {others} more on published rows of other families.",
        "One number that absorbs several effects is that, not a fact about hardware: `layer_us` is kernels, launches and what lies between them.", "",
        *table(("family", "memory efficiency", "compute efficiency", "layer us", "hop us", "step us", "fitted on", "source"), families),
        "Eight shared ones, fitted with NVIDIA's three on the serving points:", "",
        *table(("number", "value", "what it stands for"), shared),
        "Constants that were never fitted:", "",
        *table(("constant", "value", "source"), fixed),
    ]  # fmt: skip


MEANING = {
    "narrow_efficiency": "share that 8- and 4-bit products reach of what 16-bit ones reach of their peak: power, shapes, scales",
    "step_us": "engine and host per decode step: scheduling, launching, sampling",
    "sequence_us": "the same per sequence",
    "hop_us": "latency of a collective, times the square root of the chips in it",
    "emulation": "what is left of memory and 16-bit rates on 4-bit weights without 4-bit units: widening kernels",
    "expert_spread": "tokens of a batch choose alike; also the kernels' uneven work",
    "queue_prefills": "prompts waited for, times the square root of the concurrency: waves, batching of prompts",
    "first_token_steps": "decode steps before the first token is seen: joining, streaming interval, one request always waiting",
}


def plot(scores: Sequence[Score]) -> str:
    ratios: dict[str, list[float]] = {}
    for one in sorted(scores, key=lambda one: one.family):
        ratios.setdefault(one.family, []).append(one.predicted / one.published)
    return error_plot(ratios, "Every figure of every complete published row")


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("serving", type=Path)
    parser.add_argument("csv", type=Path, nargs="?")
    options = parser.parse_args()
    results, numbers = load_results(), calibration()
    scores, skipped = score(results, numbers)
    complete = [one for one in scores if one.row.complete]
    whole = {row.id for row in results if row.complete}
    out = [(f"`{row.id}`", "complete" if row.complete else "incomplete", why) for row, why in skipped]
    kinds = {name: summary([one.error for one in complete if one.figure in RATES and (one.family == "gpu_nvidia") is (name == "GPUs of NVIDIA") and (one.family in SILICON) is (name == "specialised silicon")]) for name in ("GPUs of NVIDIA", "specialised silicon", "other GPUs, TPUs and accelerators")}  # fmt: skip
    every = summary([one.error for one in scores if one.figure in RATES])
    lines = [
        "# How wrong we are", "",
        "`tapeout validate` prints this page's first half again; `python tools/accuracy_page.py` writes the page. Errors are |ours / published - 1|.", "",
        "![predicted over published](accuracy.svg)", "",
        *table(("rates (tokens per second)", "figures", "median", "mean", "90 %"), [(name, *line(row)) for name, row in kinds.items()]),
        f"{len({one.row.id for one in complete})} of {len(whole)} complete rows are scored. With the incomplete rows, whose missing numbers are named assumptions: median {percent(every['median_abs_error'])}, mean {percent(every['mean_abs_error'])} over {every['rows']} rates.", "",
        *worst_part(complete),
        *families_part(results, complete, numbers),
        "Not scored:", "", *table(("row", "", "why"), out),
        *serving_part(options.serving),
        *(csv_part(options.csv) if options.csv else []),
        *parameters_part(numbers),
        "## What is missing", "",
        "- Time to first token is a serving recipe more than a chip: streaming intervals, waves and batched prompts differ by engine, version and client. We know two by name (`estimate/recipes.py`).",
        "- What a layer waits for inside a wafer, a dataflow chip or a hardwired one was not published; `layer_us` of those families is an assumption, and the figures of one row validate nothing.",
        "- Speculative decoding, prefix caches, attention in data parallel and chunked prefill as such are not modelled.",
        "", "## Files that `validate --results` reads", "",
        "- A YAML list of rows like `data/results/published.yaml`: `id, chip, chips, model, precision, parallelism, concurrency, prompt_tokens, output_tokens, kind, complete` and the figures.",
        "- A YAML list of measured points: `id, chip, model, framework, weights, chips, tensor_parallel, concurrency, prompt_tokens, output_tokens, ttft_ms, tpot_ms, usable`.",
        "- `silicon_sample.csv` of the aiconfigurator project.",
        "",
    ]  # fmt: skip
    for name, text in (("accuracy.md", "\n".join(lines)), ("accuracy.svg", plot(complete))):
        with atomic_write(ROOT / "docs" / name, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
