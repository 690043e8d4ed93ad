"""Results of others as workloads of ours: published rows, measured serving points, and the CSV of the aiconfigurator project.

Each becomes a `Result`: what ran on what, under which recipe, which figures were seen, and what had to be assumed.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tapeout.base.errors import BadInput
from tapeout.base.reading import Loader, parse_yaml, read_text, shown
from tapeout.base.spec import Spec

MOST_BYTES = 64 << 20
"""Of a file of results."""
NUMBERS = (
    "chips", "concurrency", "prompt_tokens", "output_tokens", "tensor", "pipeline", "data", "expert", "slot_tokens", "network_ms",
)  # fmt: skip
"""Fields of a `Result` that are numbers or nothing; `concurrency` may be infinite."""
RECIPES = {
    "decode_rate": "engine", "end_to_end": "engine", "server_latency_bounded": "arrivals", "offline_throughput": "steady", "server": "arrivals",
    "static_batch_end_to_end": "static", "first_token_latency": "engine",
}  # fmt: skip
"""A published kind -> how it was taken."""
SCORED = {
    "decode_rate": ("tokens_per_s_per_user", "ttft_ms"),
    "end_to_end": ("tokens_per_s_per_user", "ttft_ms"),
    "server_latency_bounded": ("tokens_per_s_total", "tpot_ms", "ttft_ms"),
    "server": ("tokens_per_s_total", "tpot_ms", "ttft_ms"),
    "offline_throughput": ("tokens_per_s_total",),
    "static_batch_end_to_end": ("tokens_per_s_total",),
    "first_token_latency": ("ttft_ms",),
    "serving": ("ttft_ms", "tpot_ms", "request_ms"),
}
"""What is compared of a row of each kind; its other figures say the same again."""
FORMATS = (
    (r"nvfp4|fp4 weights", "nvfp4"),
    (r"mxfp4", "mxfp4"),
    (r"bfp8 attention / bfp4|bfp4 ff", "bfp4"),
    (r"bfp8|mxint8", "bfp8"),
    (r"3-bit", "rom_3_6"),
    (r"q4", "q4nx"),
    (r"int8", "int8"),
    (r"fp8_block", "fp8_block"),
    (r"fp8|8-bit", "fp8"),
    (r"fp16|bf16|16-bit|bfloat16", "bf16"),
)
"""What a source calls its precision -> our format; the first that is found in it."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """A number that the source does not give."""

    field: str
    value: float
    low: float
    high: float
    why: str

    def __str__(self) -> str:
        return f"{self.field} {self.value:g} ({self.low:g} to {self.high:g}): {self.why}"


@dataclass(frozen=True, slots=True)
class Result:
    """One row. `concurrency` infinite: as many as fit. `sweep`: what a row shares with its neighbours, which are never split between fit and test."""

    id: str
    chip: str
    model: str
    kind: str
    recipe: str
    weights: str
    chips: float
    concurrency: float
    prompt_tokens: float
    output_tokens: float
    figures: Mapping[str, float]
    tensor: float | None = None
    pipeline: float | None = None
    data: float | None = None
    expert: float = 1
    kv_bytes: float | None = None
    slot_tokens: float | None = None
    network_ms: float = 0.0
    complete: bool = True
    unscored: str = ""
    """Why it cannot be scored, where it cannot."""
    assumptions: tuple[Assumption, ...] = ()
    seed_row: int | None = None
    source: str = ""
    sweep: tuple[Any, ...] = field(default=())


def load_results(path: Path | None = None) -> tuple[Result, ...]:
    """Our own table where `path` is None, else a file in any of the three forms. Raises `BadInput`."""
    if path is None:
        text = (resources.files("tapeout") / "data" / "results" / "published.yaml").read_text(encoding="utf-8")
        return tuple(_published(row) for row in yaml.load(text, Loader=Loader))
    text = read_text(path, MOST_BYTES)
    if path.suffix == ".csv":
        try:
            table = list(csv.DictReader(text.splitlines()))
        except csv.Error as error:
            raise BadInput(str(path), f"is not CSV ({error})") from error
        if not table:
            raise BadInput(str(path), "holds no rows")
        return tuple(_rows(path, table, _configurator))
    rows = parse_yaml(text, str(path))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(str(path), "holds no list of rows", "see docs/accuracy.md for the forms that are read")
    return tuple(_rows(path, rows, lambda row: _serving(row) if "usable" in row else _published(row)))


def _rows(path: Path, rows: list[dict[str, Any]], make: Callable[[dict[str, Any]], Result]) -> Iterator[Result]:
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        try:
            made = make(row)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise BadInput(where, f"cannot be read: {error!r}") from error
        yield _sound(made, where)


def _sound(result: Result, where: str) -> Result:
    """The same. Raises `BadInput` where a name is none, or a number is none."""
    for name in ("id", "chip", "model", "kind", "source"):
        if not isinstance(getattr(result, name), str):
            raise BadInput(where, f"{name} is {shown(getattr(result, name))}, not text")
    numbers = {name: getattr(result, name) for name in NUMBERS} | dict(result.figures)
    for name, value in numbers.items():
        fine = value is None or math.isfinite(value) or (name == "concurrency" and value > 0)
        if not fine:
            raise BadInput(where, f"{name} is {value}, not a finite number")
    return result


def _format(text: str | None, default: str = "fp8") -> str:
    plain = (text or default).lower()
    return next((name for pattern, name in FORMATS if re.search(pattern, plain)), default)


# --- published rows ---


class Guess(Spec):
    """A row of data/results/assumptions.yaml."""

    where: str
    field: str
    value: float
    low: float
    high: float
    why: str


@cache
def _guesses() -> tuple[Guess, ...]:
    text = (resources.files("tapeout") / "data" / "results" / "assumptions.yaml").read_text(encoding="utf-8")
    return tuple(Guess.from_data(row, "assumptions") for row in yaml.load(text, Loader=Loader))


def _published(row: dict[str, Any]) -> Result:
    kind, made = row["kind"], []

    def number(name: str, needed: bool = True) -> float | None:
        if row.get(name) is not None:
            return float(row[name])
        if not needed:
            return None
        guess = next((g for g in _guesses() if g.field == name and fnmatchcase(row["id"], g.where)), None)
        if guess is None:
            return None
        made.append(Assumption(name, guess.value, guess.low, guess.high, guess.why))
        return guess.value

    slot, network = number("slot_tokens"), number("network_ms")
    offline = kind == "offline_throughput"
    chips = number("chips")
    plan = _plan(row.get("parallelism"), row["id"], chips)
    concurrency = number("concurrency", needed=not offline)
    prompt = number("prompt_tokens", needed=kind != "first_token_latency") or 1.0
    output = number("output_tokens", needed=kind not in ("decode_rate", "first_token_latency")) or 1.0
    figures = _figures(row, kind)
    unscored = "" if chips and row.get("chip") else f"{'chips' if row.get('chip') else 'the hardware'} not stated"
    return Result(
        id=row["id"], chip=row.get("chip") or "", model=row["model"], kind=kind, recipe=RECIPES[kind], weights=_format(row.get("precision")),
        chips=chips or 0, concurrency=concurrency or float("inf"), prompt_tokens=prompt, output_tokens=output, figures=figures,
        slot_tokens=slot,
        network_ms=network or 0.0,
        complete=bool(row["complete"]), unscored=unscored or ("" if figures else "no figure of its kind"), assumptions=tuple(made),
        seed_row=row.get("seed_row"), source=row.get("url") or row.get("source") or "", **plan,
    )  # fmt: skip


def _figures(row: dict[str, Any], kind: str) -> dict[str, float]:
    found = {name: float(row[name]) for name in SCORED[kind] if row.get(name)}
    if (
        row.get("power_w")
        and row.get("tokens_per_s_total")
        and kind in ("offline_throughput", "server_latency_bounded")
    ):
        found["joules_per_token"] = float(row["power_w"]) / float(row["tokens_per_s_total"])
    return found


def _plan(text: str | None, where: str, chips: float | None) -> dict[str, float]:
    """`TP8`, `4 replicas x TP2`, `TP2 x PP2`; over cores: over all chips. Of two alternatives the last is that of offline rows."""
    if not text:
        return {}
    if "cores" in text and chips:
        return {"tensor": chips}
    chosen = text.split(" / ")[-1 if where.endswith("_offline") else 0]
    patterns = {"tensor": r"TP(\d+)", "pipeline": r"PP(\d+)", "data": r"(\d+) replicas|DP(\d+)"}
    found = {name: re.search(pattern, chosen) for name, pattern in patterns.items()}
    return {name: float(next(filter(None, match.groups()))) for name, match in found.items() if match}


# --- measured serving points ---


def _serving(row: dict[str, Any]) -> Result:
    weights = _format(row["weights"])
    return _point(
        row["id"], row["chip"], row["model"], weights, row["framework"], row.get("framework_version") or "", float(row["chips"]),
        float(row["tensor_parallel"]), float(row.get("expert_parallel") or 1), row,
        "" if row["usable"] else row["why_not"],
    )  # fmt: skip


def _configurator(row: dict[str, str]) -> Result:
    """A row of aiconfigurator's silicon_sample.csv."""
    named = {"h100_sxm", "h200_sxm", "b200_sxm", "gb200"}
    tensor, pipeline = float(row["tp_size"] or 1), float(row["pp_size"] or 1)
    why = "" if row["mode"] == "agg" else f"prefill and decode on chips of their own ({row['mode']})"
    why = why or ("" if row["system"] in named else f"no datasheet of {row['system']}")
    why = why or ("" if row["attention_dp_size"] in ("", "0", "1") else "attention in data parallel: not modelled")
    values = {
        "concurrency": row["batch_size"] or 0,
        "prompt_tokens": row["isl"],
        "output_tokens": row["osl"],
        "ttft_ms": row["silicon_ttft_ms"] or 0,
        "tpot_ms": row["silicon_tpot_ms"] or 0,
    }
    return _point(
        row["id"], f"nvidia_{row['system']}", row["model_path"].split("/")[-1],
        _format(row["gemm_quant_mode"] or row["precision"], default="bf16"), row["backend"],
        row["backend_version"], tensor * pipeline, tensor, float(row["moe_ep_size"] or 1), values, why,
    )  # fmt: skip


def _point(
    name: str, chip: str, model: str, weights: str, engine: str, version: str, chips: float, tensor: float, expert: float,
    values: Mapping[str, Any], why: str,
) -> Result:  # fmt: skip
    recipe = "one_wave" if engine == "sglang" and version.startswith("0.5.1") else "steady"
    prompt, output, concurrency = (float(values[key]) for key in ("prompt_tokens", "output_tokens", "concurrency"))
    figures = {key: float(values[key]) for key in ("ttft_ms", "tpot_ms") if float(values[key])}
    if len(figures) == 2:
        figures["request_ms"] = figures["ttft_ms"] + output * figures["tpot_ms"]
    return Result(
        id=name, chip=chip, model=model, kind="serving", recipe=recipe,
        weights=weights, chips=chips, concurrency=concurrency, prompt_tokens=prompt, output_tokens=output,
        figures=figures, tensor=tensor, data=1, pipeline=chips / tensor, expert=expert,
        kv_bytes=1.0 if engine == "trtllm" and weights in ("nvfp4", "mxfp4") else None, unscored=why,
        source="aiconfigurator, silicon_sample.csv", sweep=(chip, model, weights, prompt, output),
    )  # fmt: skip
