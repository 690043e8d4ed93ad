"""`tapeout eval`: what a weight format costs a model on a text, in nats per token beside float; and what a chip takes for it."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tapeout.base.errors import BadInput
from tapeout.base.spec import fingerprint
from tapeout.chip.spec import ChipSpec
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.eval_report import CHIP_FIGURES, eval_report, write_page
from tapeout.flow.losses import BLOCK, F64, LEVEL, RESAMPLES, Losses, interval, score
from tapeout.flow.measure import figures, measure
from tapeout.flow.prepare import FLOAT_DEFAULT, KV_DEFAULT, NO_CALIBRATION, STORED, Calibration, prepare_chip
from tapeout.flow.run import DEFAULT_CHIP
from tapeout.flow.summary import Summary
from tapeout.flow.texts import WIKITEXT_SIGN, CutText, cut_windows, read_text, spans, text_bytes
from tapeout.graph.types import Model
from tapeout.importers.load import load_model
from tapeout.numerics.formats import WEIGHTS
from tapeout.quantize.kv_cache import check_kv, kv_cache
from tapeout.quantize.methods import check_weights, quantize, recipe_of
from tapeout.quantize.round_to_nearest import divides
from tapeout.report.figure import number
from tapeout.report.plots import needs_plotly
from tapeout.silicon.area import sram_mm2

ALL = "all"
WINDOW = 512
TOKENS = 4096
TOLD = 20
"""Lines of progress, at most."""


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """What was asked. `weights`: formats, or "all". `window` 0: 512, or the model's context where that is shorter; `stride` 0: the window;
    `tokens`: at most so many are scored, 0: all of the text.
    """

    model: str
    text: Path
    weights: tuple[str, ...] = (STORED,)
    window: int = 0
    stride: int = 0
    tokens: int = TOKENS
    detokenise: str = ""
    chip: str = ""
    html: Path | None = None
    seed: int = 0
    kv: str = KV_DEFAULT
    calibration: Calibration = NO_CALIBRATION


def evaluate(request: EvalRequest, note: Callable[[str], None]) -> Summary:
    """The whole command. Raises `BadInput`."""
    names = check(request)
    chip = prepare_chip(request.chip or DEFAULT_CHIP) if request.chip or request.html else None
    note(f"loading {request.model}")
    model = kv_cache(load_model(request.model), request.kv)
    if ALL in request.weights:
        names = tuple(name for name in names if divides(model.graph, name))
    text = read_text(request.text, request.detokenise)
    if not request.detokenise and WIKITEXT_SIGN.search(text):
        note("the text looks like WikiText's tokenised form: --detokenise wikitext undoes it")
    window = request.window or min(WINDOW, model.graph.context)
    cut = cut_text(model, request, text, window)
    calibration = request.calibration.read()
    models = formatted(model, names, calibration, request.calibration.tokens, note)
    costs, refusals = on_chip(models, chip, window, note) if chip else ({}, {})
    base, losses = _score(model, models, cut, window, note)
    rows = [
        _row(models[name], base, losses[name], cut, costs.get(name), request.seed) | _gain(name, losses, request.seed)
        for name in models
    ]
    reply = _reply(request, model, cut, text, window, rows, chip, refusals)
    reference = f"the file's own weights ({model.stored}) dequantized" if model.stored in WEIGHTS else "the checkpoint"
    said = dict.fromkeys(line for each in models.values() for line in each.notes)
    report = eval_report(reply, reference, (*_left_over(cut, window), *_same_text(calibration, text), *said))
    if request.html:
        write_page(request.html, report, reply)
        note(f"wrote {request.html}")
    return Summary(reply, report)


def check(request: EvalRequest) -> tuple[str, ...]:
    """The formats asked for; what can be refused before any work is. Raises `BadInput`."""
    names = tuple(name.strip() for name in request.weights if name.strip())
    for name in names:
        check_weights(name, (ALL, STORED), request.calibration.text is not None)
    if not names:
        raise BadInput("--weights", "no format given", f"choose from {ALL}, {STORED}, {', '.join(WEIGHTS)}")
    check_kv(request.kv)
    if request.seed < 0:
        raise BadInput("--seed", f"{request.seed}", "give 0 or more")
    if request.html:
        needs_plotly()
        if request.html.is_dir():
            raise BadInput(str(request.html), "is a folder", "name a file, for example eval.html")
        if not request.html.parent.is_dir():
            raise BadInput(str(request.html), f"the folder {request.html.parent} does not exist", "make it first")
    return WEIGHTS if ALL in names else names


def cut_text(model: Model, request: EvalRequest, text: str, window: int) -> CutText:
    """Encode a text once, from its begin, and cut it. Raises `BadInput`: no tokenizer, or windows that cannot be."""
    if model.tokenizer is None:
        raise BadInput(f"model {model.graph.name}", "has no tokenizer", "give a folder or file that carries one")
    if window > model.graph.context:
        raise BadInput("--window", f"{window}", f"{model.graph.name} takes at most {model.graph.context} positions")
    ids = model.tokenizer.encode(text)
    try:
        windows = cut_windows(len(ids), window, request.stride or window, request.tokens)
    except BadInput as error:
        raise BadInput(str(request.text), error.problem, error.hint) if error.where == "--text" else error from error
    return CutText(tuple(ids), windows, sum(text_bytes(model.tokenizer, ids, *span) for span in spans(windows)))


def formatted(
    model: Model, names: Sequence[str], calibration: str | None = None, tokens: int = 0, note: Callable[[str], None] = lambda text: None
) -> dict[str, Model]:  # fmt: skip
    """The model in each format, by its name, and by round to nearest too where a method is named. calibration: a text, of which `tokens` are read.

    "stored" is the file's own format, int8 for a float checkpoint.
    """
    own = model.stored if model.stored in WEIGHTS else FLOAT_DEFAULT
    wanted: dict[str, None] = {}
    for name in (own if name == STORED else name for name in names):
        recipe = recipe_of(name)
        wanted |= {recipe.format: None} if recipe.is_nearest else {recipe.format: None, name: None}
    return {
        name: quantize(model, STORED)
        if name == model.stored
        else replace(quantize(model, name, calibration, tokens, note), stored=name)
        for name in wanted
    }


def on_chip(
    models: Mapping[str, Model], chip: ChipSpec, window: int, note: Callable[[str], None]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Decode on a chip with half a window held, by format; and why a format cannot be. Raises `BadInput` where none can."""
    costs: dict[str, dict[str, float]] = {}
    refusals: dict[str, str] = {}
    for name, model in models.items():
        note(f"compiling {model.graph.name} ({name}) for {chip.name}")
        try:
            program = compile_model(model, chip, window)
        except BadInput as error:
            refusals[name] = str(error)
            continue
        shown = {figure.name: figure.value for figure in figures(measure(program, model.graph, window // 2, 2))}
        costs[name] = {key: shown[key] for key in CHIP_FIGURES}
        costs[name]["weights_sram_mm2"] = sram_mm2(sum(weight.stored_bytes for weight in model.graph.weights), chip)
    if not costs:
        raise BadInput(f"chip {chip.name}", f"runs none of the formats: {next(iter(refusals.values()))}")
    return costs, refusals


def _score(
    model: Model, models: Mapping[str, Model], cut: CutText, window: int, note: Callable[[str], None]
) -> tuple[F64, dict[str, Losses]]:
    """Float and every format through all windows."""
    from tapeout.graph.fast import FastEngine
    from tapeout.graph.float_mode import FloatEngine

    count = len(cut.windows)
    step = -(-count // TOLD)

    def told(done: int, losses: Mapping[str, float]) -> None:
        if done % step == 0 or done == count:
            so_far = ", ".join(f"{name} {number(math.exp(loss))}" for name, loss in losses.items())
            note(f"window {done} of {count}; perplexity so far: {so_far}")

    note(
        f"scoring {cut.scored:,} of {len(cut.ids):,} tokens in {count} windows of {window}: float, {', '.join(models)}"
    )
    engines = {name: FastEngine(each, window, threads=2) for name, each in models.items()}
    return score(FloatEngine(model, window), engines, cut.ids, cut.windows, model.graph.vocabulary, told)


def _row(
    model: Model, base: F64, losses: Losses, cut: CutText, cost: Mapping[str, float] | None, seed: int
) -> dict[str, Any]:
    """One format; without what the chip says where it does not run it."""
    excess = losses.loss - base
    loss, kl = interval(excess, seed), interval(losses.kl, seed)
    row: dict[str, Any] = {
        "weights": model.stored,
        "bits_per_weight": bits_per_weight(model),
        "perplexity": math.exp(losses.loss.mean()),
        "perplexity_float": math.exp(base.mean()),
        "loss_nats": float(excess.mean()),
        "loss_nats_low": loss[0],
        "loss_nats_high": loss[1],
        "kl_nats": float(losses.kl.mean()),
        "kl_nats_low": kl[0],
        "kl_nats_high": kl[1],
        "bits_per_byte": bits_per_byte(losses.loss, cut),
        "tokens": int(losses.loss.size),
        "host_tokens_per_s": losses.tokens_per_s,
    }
    return row | dict(cost or {})


def _gain(name: str, losses: Mapping[str, Losses], seed: int) -> dict[str, float]:
    """What a method saves against round to nearest in the same format, token by token: positive is better."""
    recipe = recipe_of(name)
    if recipe.is_nearest:
        return {}
    nearest, made = losses[recipe.format], losses[name]
    found: dict[str, float] = {}
    for key, saved in (("gain_nats", nearest.loss - made.loss), ("gain_kl_nats", nearest.kl - made.kl)):
        low, high = interval(saved, seed)
        found |= {key: float(saved.mean()), f"{key}_low": low, f"{key}_high": high}
    return found


def _same_text(calibration: str | None, text: str) -> list[str]:
    """What is said where a method was calibrated on what it is judged by."""
    return ["the calibration text is the text itself: the gains do not carry over to other text"] * (
        calibration == text
    )


def bits_per_weight(model: Model) -> float:
    """Bits of codes, scales and minima per weight, over all matrices: embedding and head counted."""
    matrices = [weight for weight in model.graph.weights if len(weight.shape) == 2]
    return 8 * sum(weight.stored_bytes for weight in matrices) / sum(weight.parameters for weight in matrices)


def bits_per_byte(loss: F64, cut: CutText) -> float | None:
    """All nats in bits, over the bytes of the text that they were lost on; None where it has none (nothing but special tokens)."""
    return float(loss.sum() / math.log(2) / cut.scored_bytes) if cut.scored_bytes else None


def _reply(
    request: EvalRequest, model: Model, cut: CutText, text: str, window: int, rows: list[dict[str, Any]], chip: ChipSpec | None,
    refusals: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    reply: dict[str, Any] = {
        "model": model.graph.name,
        "text": str(request.text),
        "detokenise": request.detokenise,
        "window": window,
        "stride": request.stride or window,
        "kv": request.kv,
        "windows": len(cut.windows),
        "tokens": cut.scored,
        "text_tokens": len(cut.ids),
        "bytes": cut.scored_bytes,
        "interval": interval_terms(request.seed),
        "rows": rows,
    }  # fmt: skip
    if chip:
        reply |= {"chip": chip.name, "left_out": [{"weights": name, "why": why} for name, why in refusals.items()]}
    if request.html:
        reply["html"] = str(request.html)
    digest = hashlib.sha256(text.encode()).hexdigest()
    settings = [window, request.stride, cut.scored, request.seed, request.kv, chip.fingerprint() if chip else ""]
    return reply | {
        "fingerprint": fingerprint([model.fingerprint(), [row["weights"] for row in rows], digest, settings])
    }


def interval_terms(seed: int) -> dict[str, Any]:
    """How the intervals came about."""
    method = "bootstrap over blocks of tokens"
    return {"method": method, "block_tokens": BLOCK, "resamples": RESAMPLES, "level": LEVEL, "seed": seed}


def _left_over(cut: CutText, window: int) -> list[str]:
    """What is said where another window would have fitted."""
    rest = len(cut.ids) - cut.windows[-1].end
    return [f"{rest:,} tokens of the text were left: --tokens 0 scores them all"] if rest >= window else []
