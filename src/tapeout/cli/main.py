"""`tapeout`: every command takes --json and then prints one JSON object on standard output; all else goes to standard error.

A user's mistake is one line on standard error and exit code 2.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tapeout.base.errors import BadInput, Overflow

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Turn a language model into the chip that runs it: bits, cycles, joules, square millimetres.",
)  # fmt: skip

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Chip = Annotated[str, typer.Option("--chip", help="A preset (tapeout chips) or a YAML file.")]
Weights = Annotated[str, typer.Option("--weights", help="stored, int8, int4, nvfp4, ...; int4+gptq by a method.")]
CalibrationText = Annotated[Path | None, typer.Option("--calibration", help="A text for methods that ask for one.")]
CalibrationTokens = Annotated[int, typer.Option(help="How much of it is read.")]
KvCache = Annotated[str, typer.Option("--kv", help="The KV cache in int8, k8v4 (V in 4 bits) or int4.")]
Changes = Annotated[list[str], typer.Option("--set", help="FIELD=VALUE, for example external.gb_per_s=136.")]
NO_CHANGES: list[str] = []
INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def note(text: str) -> None:
    """A line for a person."""
    print(text, file=sys.stderr, flush=True)


def emit_json(answer: dict[str, Any]) -> None:
    """The one JSON object."""
    print(json.dumps(answer, ensure_ascii=False, allow_nan=False))


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="A catalogue name, a file, a folder or a compiled program.")] = "fable",
    chip: Chip = "edge",
    changes: Changes = NO_CHANGES,
    prompt: Annotated[str, typer.Option(help="Text to go on from; a question where the model chats.")] = "",
    tokens: Annotated[int, typer.Option(help="Tokens to make; a text that ends, ends earlier.")] = 64,
    weights: Weights = "stored",
    engine: Annotated[
        str, typer.Option(help="program: the micro-ops, cycle by cycle; graph: quick; reference: slow.")
    ] = "program",
    raw: Annotated[bool, typer.Option("--raw", help="Do not put the prompt through the chat template.")] = False,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    kv: KvCache = "int8",
    calibration: CalibrationText = None,
    calibration_tokens: CalibrationTokens = 16384,
    as_json: Json = False,
) -> None:
    """Compile a model for a chip, run it bit for bit, and report."""
    from tapeout.flow.prepare import Calibration, parse_changes
    from tapeout.flow.run import Listener, Request
    from tapeout.flow.run import run as run_request

    request = Request(
        model, chip, parse_changes(changes), prompt, tokens, weights, engine, raw, seed, temperature, kv,
        Calibration(calibration, calibration_tokens),
    )  # fmt: skip
    show: Callable[[str], None] = (lambda text: None) if as_json else (lambda text: print(text, end="", flush=True))
    result = run_request(request, Listener(note, show))
    if as_json:
        emit_json(result.json)
    else:
        from tapeout.report.render import render

        print("\n")
        render(result.report)


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="A model of the catalogue.")], as_json: Json = False) -> None:
    """Download a model of the catalogue into the cache, and check it."""
    from tapeout.flow.models import fetch_model

    path, digest = fetch_model(name, note)
    if as_json:
        emit_json({"path": str(path), "sha256": digest})
    else:
        print(f"{path}\nsha256 {digest}")


@app.command(name="compile")
def compile_command(
    model: Annotated[str, typer.Argument(help="A catalogue name, a file or a folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The program file to write.")],
    chip: Chip = "edge",
    changes: Changes = NO_CHANGES,
    weights: Weights = "stored",
    kv: KvCache = "int8",
    context: Annotated[int, typer.Option(help="Positions to plan for; 0: the model's, at most 2,048.")] = 0,
    calibration: CalibrationText = None,
    calibration_tokens: CalibrationTokens = 16384,
    as_json: Json = False,
) -> None:
    """Compile a model to a program file."""
    from tapeout.flow.compiled import compile_to_file
    from tapeout.flow.prepare import Calibration, parse_changes

    text = Calibration(calibration, calibration_tokens)
    summary = compile_to_file(model, chip, parse_changes(changes), weights, kv, context or None, output, note, text)
    _finish(summary, as_json)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A compiled program.")],
    perfetto: Annotated[Path | None, typer.Option(help="Write a decode step as a trace for ui.perfetto.dev.")] = None,
    floorplan: Annotated[Path | None, typer.Option(help="Write the chip's floorplan as SVG.")] = None,
    timeline: Annotated[Path | None, typer.Option(help="Write a decode step's timeline as SVG.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Print every micro-op.")] = False,
    position: Annotated[int, typer.Option(help="Tokens already in the KV cache.")] = 64,
    as_json: Json = False,
) -> None:
    """Show a compiled program: waits, micro-ops, timeline, floorplan."""
    from tapeout.flow.compiled import show_program

    summary = show_program(file, position, perfetto, floorplan, timeline, note)
    if text and not as_json:
        from tapeout.flow.compiled import program_text

        for line in program_text(file):
            print(line)
    _finish(summary, as_json)


@app.command()
def chips(
    name: Annotated[str, typer.Argument(help="A preset, a chip of the catalogue, or a YAML file.")] = "",
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print it as YAML, to start a chip of one's own.")] = False,
    hierarchy: Annotated[Path | None, typer.Option(help="Write its memory hierarchy as SVG.")] = None,
    as_json: Json = False,
) -> None:
    """List the chips, with their sources, or show one."""
    from tapeout.flow.chips import chip_report, chip_yaml, list_chips

    if as_yaml and not as_json:
        print(chip_yaml(name), end="")
        return
    _finish(chip_report(name, hierarchy, note) if name else list_chips(), as_json)


@app.command()
def models(
    name: Annotated[str, typer.Argument(help="A model.")] = "",
    chip: Annotated[str, typer.Option("--chip", help="Show what fits this chip, and on how many of it.")] = "",
    as_json: Json = False,
) -> None:
    """List the models: checkpoints that run, shapes that are estimated. Or show one, or what fits a chip."""
    if chip:
        from tapeout.flow.fits import fits_report

        _finish(fits_report(chip, name), as_json)
        return
    from tapeout.flow.models import list_models, model_report

    _finish(model_report(name) if name else list_models(), as_json)


@app.command(name="eval")
def eval_command(
    model: Annotated[str, typer.Argument(help="A catalogue name, a file or a folder.")],
    text: Annotated[Path, typer.Option(help="A UTF-8 text file.")],
    weights: Annotated[str, typer.Option(help="Formats with commas between, or all.")] = "stored",
    window: Annotated[int, typer.Option(help="Tokens per window; 0: 512, or the model's context where shorter.")] = 0,
    stride: Annotated[int, typer.Option(help="Tokens from window to window; 0: the window.")] = 0,
    tokens: Annotated[
        int, typer.Option(help="At most so many are scored, in whole windows; 0: the whole text.")
    ] = 4096,
    detokenise: Annotated[str, typer.Option(help="wikitext: undo WikiText's tokenised form.")] = "",
    chip: Annotated[str, typer.Option("--chip", help="Also say what decoding takes on a preset or YAML file.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write a plot of KL against energy and area; one file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    kv: KvCache = "int8",
    calibration: CalibrationText = None,
    calibration_tokens: CalibrationTokens = 16384,
    as_json: Json = False,
) -> None:
    """Say what weight formats cost a model on a text: perplexity, KL to float, bits per byte, with intervals."""
    from tapeout.flow.evaluate import EvalRequest, evaluate
    from tapeout.flow.prepare import Calibration

    request = EvalRequest(
        model, text, tuple(weights.split(",")), window, stride, tokens, detokenise, chip, html, seed, kv,
        Calibration(calibration, calibration_tokens, detokenise),
    )  # fmt: skip
    _finish(evaluate(request, note), as_json)


@app.command()
def estimate(
    model: Annotated[str, typer.Argument(help="A model (tapeout models), or a file or folder.")],
    chip: Annotated[str, typer.Option("--chip", help="A chip or system (tapeout chips), or a YAML file.")],
    chips: Annotated[int, typer.Option(help="How many; all of a system where not given.")] = 0,
    tensor: Annotated[int, typer.Option(help="Chips that share every matrix; the fastest plan where not given.")] = 0,
    batch: Annotated[int, typer.Option(help="Requests that are open at once.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(help="Of every request.")] = 512,
    output_tokens: Annotated[int, typer.Option(help="Of every request.")] = 128,
    weights: Annotated[
        str, typer.Option(help="bf16, fp8, int8, int4, nvfp4, mxfp4, ...; stored: as released.")
    ] = "stored",
    recipe: Annotated[str, typer.Option(help="steady, arrivals, one_wave, static or engine: how requests come.")] = "",
    density: Annotated[float, typer.Option(help="Share of the layers' weights that pruning left.")] = 1.0,
    sparse_block: Annotated[int, typer.Option(help="Weights are pruned in squares of so many; 1: one by one.")] = 1,
    prefill_chip: Annotated[str, typer.Option(help="Another chip that takes the prompts.")] = "",
    attention_chip: Annotated[str, typer.Option(help="Another chip that takes attention and holds the KV cache.")] = "",
    second_chips: Annotated[int, typer.Option(help="How many of the other chip.")] = 0,
    join_gb_per_s: Annotated[float, typer.Option(help="Between the two kinds, one direction.")] = 50.0,
    join_latency_us: Annotated[float, typer.Option(help="Between the two kinds.")] = 10.0,
    changes: Changes = NO_CHANGES,
    as_json: Json = False,
) -> None:
    """Say how fast a model would be on a chip or system, what binds it, what it costs; with the range of what nobody published."""
    from tapeout.flow.estimates import EstimateRequest, estimate_report
    from tapeout.flow.prepare import parse_changes

    request = EstimateRequest(
        model, chip, chips, tensor, batch, prompt_tokens, output_tokens, weights, recipe, parse_changes(changes), density, sparse_block
    )  # fmt: skip
    if prefill_chip or attention_chip:
        if density != 1:
            raise BadInput("--density", "pruned weights are estimated on one kind of chip", "leave out one of the two")
        from tapeout.flow.hybrids import Second, hybrid_report

        if prefill_chip and attention_chip:
            raise BadInput(
                "--attention-chip", "two kinds of chip can be joined, not three", "give one of the two options"
            )
        role = "prefill" if prefill_chip else "attention"
        second = Second(role, prefill_chip or attention_chip, second_chips, join_gb_per_s, join_latency_us)
        _finish(hybrid_report(request, second), as_json)
        return
    _finish(estimate_report(request), as_json)


@app.command()
def validate(
    results: Annotated[
        Path | None,
        typer.Option(help="Rows like ours, measured serving points, or aiconfigurator's CSV; ours where not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how wrong the estimator is: every published result beside ours, by family, figure and kind."""
    from tapeout.flow.validate import validate as run_validation

    _finish(run_validation(results), as_json)


@app.command()
def check(
    chip: Annotated[str, typer.Argument(help="A chip or system (tapeout chips), or a YAML file.")],
    model: Annotated[str, typer.Argument(help="A model for every line; what the file says where not given.")] = "",
    spec: Annotated[str, typer.Option(help="A file of lines (docs/check.md), or wishlist.")] = "wishlist",
    chips: Annotated[int, typer.Option(help="How many; all of a system where not given.")] = 0,
    changes: Changes = NO_CHANGES,
    as_json: Json = False,
) -> None:
    """Judge a chip line by line: met, missed by how much, unknown. Exit code 1 where a line is missed."""
    from tapeout.flow.check import CheckRequest
    from tapeout.flow.check import check as check_chip
    from tapeout.flow.prepare import parse_changes

    summary = check_chip(CheckRequest(chip, model, spec, chips, parse_changes(changes)))
    _finish(summary, as_json)
    if summary.json["missed"]:
        sys.exit(1)


@app.command()
def compare(
    model: Annotated[str, typer.Argument(help="A model; or article, or eras: tables that stand on their own.")],
    chips: Annotated[str, typer.Option(help="Names with commas between; h100*8 means eight.")] = "",
    chip_count: Annotated[int, typer.Option(help="Of chips without *N; fewest that hold it, or a system.")] = 0,
    prompt_tokens: Annotated[int, typer.Option(help="Of every request.")] = 512,
    output_tokens: Annotated[int, typer.Option(help="Of every request.")] = 128,
    weights: Annotated[str, typer.Option(help="bf16, fp8, int8, int4, nvfp4, ...; stored: as released.")] = "stored",
    recipe: Annotated[str, typer.Option(help="steady, arrivals, one_wave, static or engine: how requests come.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write a page with batch sweeps and rooflines; one file.")] = None,
    as_json: Json = False,
) -> None:
    """Put one model on several chips side by side; or show the table of the article, or one model through the eras of hardware."""
    from tapeout.flow.compare import CompareRequest, compare_report

    if model in ("article", "eras"):
        if chips or html:
            option = "--chips" if chips else "--html"
            raise BadInput(option, f"{model} is a table of its own", "give a model to choose chips for")
        from tapeout.flow.compare_article import article_report
        from tapeout.flow.compare_eras import eras_report

        _finish(article_report() if model == "article" else eras_report(), as_json)
        return

    names = tuple(name.strip() for name in chips.split(",") if name.strip())
    request = CompareRequest(model, names, chip_count, prompt_tokens, output_tokens, weights, recipe, html)
    _finish(compare_report(request, note), as_json)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="What a command printed with --json.")],
    after: Annotated[Path, typer.Argument(help="The same, later or of another chip.")],
    as_json: Json = False,
) -> None:
    """Show every figure that changed between two JSON outputs of any command."""
    from tapeout.flow.differ import diff_report

    _finish(diff_report(before, after), as_json)


@app.command()
def rtl(
    chip: Annotated[str, typer.Argument(help="A preset (tapeout chips) or a YAML file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write; it is made.")],
    changes: Changes = NO_CHANGES,
    resources: Annotated[
        bool, typer.Option("--resources", help="Also say what it takes of an FPGA (minutes).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the chip as Verilog: a file per module, a file list, and a map of what the host can load."""
    from tapeout.flow.cosim import needs_rtl

    needs_rtl()
    from tapeout.flow.emit_verilog import emit_verilog
    from tapeout.flow.prepare import parse_changes, prepare_chip

    _finish(emit_verilog(prepare_chip(chip, parse_changes(changes)), output, note, resources), as_json)


@app.command()
def cosim(
    model: Annotated[str, typer.Argument(help="A catalogue name, a file or a folder.")] = "fable",
    chip: Annotated[str, typer.Option("--chip", help="A preset (tapeout chips) or a YAML file.")] = "tiny",
    changes: Changes = NO_CHANGES,
    prompt: Annotated[str, typer.Option(help="Text to go on from; a question where the model chats.")] = "",
    tokens: Annotated[int, typer.Option(help="Tokens to make; a text that ends, ends earlier.")] = 8,
    weights: Weights = "stored",
    kv: KvCache = "int8",
    raw: Annotated[bool, typer.Option("--raw", help="Do not put the prompt through the chat template.")] = False,
    waves: Annotated[Path | None, typer.Option(help="Write waveforms of a window of cycles (FST).")] = None,
    waves_from: Annotated[int, typer.Option(help="First cycle of the window, counted from the first step.")] = 0,
    waves_cycles: Annotated[int, typer.Option(help="Cycles in the window.")] = 2000,
    as_json: Json = False,
) -> None:
    """Run a model in the chip's RTL beside the simulator, and compare every bit and every cycle. Exit code 1 on a difference."""
    from tapeout.flow.cosim import CosimRequest
    from tapeout.flow.cosim import cosim as cosim_request
    from tapeout.flow.prepare import parse_changes
    from tapeout.flow.run import Listener

    request = CosimRequest(
        model, chip, parse_changes(changes), prompt, tokens, weights, raw, waves, waves_from, waves_cycles, kv
    )
    show: Callable[[str], None] = (lambda text: None) if as_json else (lambda text: print(text, end="", flush=True))
    summary = cosim_request(request, Listener(note, show))
    if not as_json:
        print("\n")
    _finish(summary, as_json)
    if not summary.json["equal"]:
        sys.exit(1)


def _finish(summary: Any, as_json: bool) -> None:
    """Print a summary: its JSON, or its report."""
    if as_json:
        emit_json(summary.json)
        return
    from tapeout.report.render import render

    render(summary.report)


def main() -> None:
    """The console script."""
    try:
        if app(standalone_mode=False) == INTERRUPTED:  # newer typer turns KeyboardInterrupt into its own exit
            raise KeyboardInterrupt
    except BadInput as error:
        note(f"tapeout: {error}")
        sys.exit(2)
    except Overflow as error:
        note(f"tapeout: {error}")
        sys.exit(2)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        note("tapeout: interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        message: str = error.format_message()  # type: ignore[attr-defined]
        note(message if message.startswith("Usage:") else f"tapeout: {message}")
        sys.exit(2)


if __name__ == "__main__":
    main()
