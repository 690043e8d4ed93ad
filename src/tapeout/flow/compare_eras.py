"""`tapeout compare eras`: one model on a GPU, a TPU, a transformer ASIC and hardwired silicon: how fast, how many joules, and what else each runs."""

from dataclasses import dataclass
from typing import Any

from tapeout.base.spec import fingerprint
from tapeout.chip.datasheet import Datasheet
from tapeout.chip.presets import load
from tapeout.chip.spec import ChipSpec
from tapeout.estimate.calibration import Calibration, calibration
from tapeout.flow.compare import Compared, CompareRequest, cells, compared, named, rows_of
from tapeout.flow.estimates import doubts
from tapeout.flow.fits import fits
from tapeout.flow.summary import Summary
from tapeout.flow.sweeps import Deployment
from tapeout.graph.shapes import load_shape, shape_names
from tapeout.report.figure import Report, Table, number

MODEL = "llama-3.1-8b"
SPEED = ("tokens_per_s_per_user", "tokens_per_s_total")
PROMPT_TOKENS, OUTPUT_TOKENS = 512, 128
SPEED_COLUMNS = ("era", "chip", "batch", "tokens/s per user", "tokens/s")
COST_COLUMNS = ("era", "chip", "batch", "J/token", "range")
ELSE_COLUMNS = ("era", "chip", "weights", "models on these", "on any number")


@dataclass(frozen=True, slots=True)
class Era:
    """A kind of machine, and one of it: which chip, how many, why so many, weights in which format."""

    name: str
    chip: str
    count: int
    weights: str
    why: str = "the fewest that hold the model"


ERAS = (
    Era("GPU", "nvidia_h100_sxm", 1, "fp8"),
    Era("TPU", "google_tpu_v6e", 1, "fp8"),
    Era("TPU", "google_tpu7x_ironwood", 1, "fp8"),
    Era("transformer ASIC", "groq_lpu_v1", 72, "fp8", "a multiple of 8 that holds 8-bit weights and KV cache in SRAM, as published results are read"),
    Era("transformer ASIC", "etched_sohu", 1, "fp8"),
    Era("hardwired", "taalas_hc1", 1, "rom_3_6", "the model is in its silicon"),
)  # fmt: skip


def eras_report(numbers: Calibration | None = None) -> Summary:
    """The whole command."""
    numbers, shape = numbers or calibration(), load_shape(MODEL)
    rows: list[dict[str, Any]] = []
    limits: list[str] = []
    for era in ERAS:
        chip = load(era.chip)
        request = CompareRequest(MODEL, (era.chip,), era.count, PROMPT_TOKENS, OUTPUT_TOKENS, era.weights)
        made = compared(shape, Deployment(era.chip, chip, era.count, era.why), request, numbers)
        here, anyhow = what_else(chip, era.count, era.weights)
        runs = {"models": len(shape_names()), "models_here": here, "models_on_any_number": anyhow}
        rows += [{"era": era.name, **row, **runs} for row in rows_of(shape, made)]
        limits += _limits(made)
    answer = {
        "model": MODEL,
        "rows": rows,
        "fingerprint": fingerprint([repr(ERAS), shape.fingerprint(), numbers.fingerprint()]),
    }
    title = f"{MODEL} on one chip or one group of each era, {PROMPT_TOKENS} tokens in and {OUTPUT_TOKENS} out"
    speed = tuple((row["era"], *cells(row, SPEED)) for row in rows)
    tables = (
        Table("speed at batch 1, and at the batch with the most tokens/s that fits", SPEED_COLUMNS, speed),
        Table("energy, and what doubtful and assumed figures make of it", COST_COLUMNS, tuple(map(_joules, rows))),
        Table("what else each can run", ELSE_COLUMNS, tuple(dict.fromkeys(map(_else, rows)))),
    )
    notes = (
        f"models: of {len(shape_names())} that are known as shapes, how many the memory of the same chips holds, and of any number of them; "
        "weights and the KV cache of one sequence",
        *limits,
    )
    return Summary(answer, Report(title, (), tables, notes, str(answer["fingerprint"])))


def what_else(chip: ChipSpec | Datasheet, count: int, weights: str) -> tuple[list[str], list[str]]:
    """Names of the models that so many of a chip hold, and of those that any number does."""
    found = {name: fits(load_shape(name), chip, weights).chips for name in shape_names()}
    return [name for name, chips in found.items() if chips and chips <= count], [
        name for name, chips in found.items() if chips
    ]


def _limits(made: Compared) -> tuple[str, ...]:
    """What a reader must know of one chip."""
    lines = (made.sweep.on.why if made.sweep.on.count > 1 else "", made.sweep.limit, *doubts(made.sweep.on.chip))
    return tuple(f"{made.sweep.on}: {line}" for line in lines if line)


def _joules(row: dict[str, Any]) -> tuple[Any, ...]:
    figure = row["figures"]["joules_per_token"]
    span = f"{number(figure['low'])} to {number(figure['high'])}" if "low" in figure else ""
    return (row["era"], *cells(row, ("joules_per_token",)), span)


def _else(row: dict[str, Any]) -> tuple[Any, ...]:
    counts = (len(row["models_here"]), len(row["models_on_any_number"]))
    return (row["era"], named(row), row["weights"], *counts)
