"""What `tapeout eval` found, for people: two tables, how it was measured, and a page with plots. Reads the command's JSON, computes nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapeout.base.files import atomic_write
from tapeout.report.eval_plot import Point, eval_page
from tapeout.report.figure import Figure, Origin, Report, Table, number

CHIP_FIGURES = ("tokens_per_s", "joules_per_token", "area_mm2")
"""What a row says of the chip; of `tapeout run`'s figures."""


def eval_report(reply: Mapping[str, Any], reference: str, notes: Sequence[str]) -> Report:
    """reference: what float means here; notes: what importers and quantizers said."""
    rows: list[dict[str, Any]] = reply["rows"]
    shown = (
        Figure("perplexity_float", rows[0]["perplexity_float"], "", Origin.MEASURED, note=f"{reference}, in binary32"),
        Figure("tokens", reply["tokens"], "", Origin.MEASURED, note=f"scored, of {reply['text_tokens']:,} of the text"),
    )
    tables = [_quality(rows, f"{reply['interval']['level']:.0%} interval")]
    gains = [row for row in rows if "gain_kl_nats" in row]
    if gains:
        tables.append(_gains(gains, f"{reply['interval']['level']:.0%} interval"))
    if "chip" in reply:
        cost = tuple((row["weights"], *(row.get(key, "-") for key in CHIP_FIGURES)) for row in rows)
        title = f"decode on {reply['chip']}, {reply['window'] // 2} tokens held"
        tables.append(Table(title, ("weights", "tokens/s", "J/token", "mm²"), cost))
    title = f"{reply['model']} on {Path(reply['text']).name}"
    return Report(title, shown, tuple(tables), (*_how(reply), *notes), reply["fingerprint"])


def write_page(path: Path, report: Report, reply: Mapping[str, Any]) -> None:
    """The report and its plots as one file of HTML. Only where there is a chip. Raises `BadInput`."""
    points = [
        Point(
            row["weights"], row["kl_nats"], row["kl_nats_low"], row["kl_nats_high"], row["loss_nats"],
            row["joules_per_token"], row["area_mm2"] / row["tokens_per_s"],
        )
        for row in reply["rows"] if "joules_per_token" in row
    ]  # fmt: skip
    page = eval_page(f"{report.title}, on {reply['chip']}", points, report.tables, report.notes)
    with atomic_write(path) as file:
        file.write(page.encode())


def _quality(rows: Sequence[Mapping[str, Any]], interval: str) -> Table:
    """Fits 80 columns."""
    cells = tuple(
        (
            row["weights"], f"{row['bits_per_weight']:.2f}", row["perplexity"], "-" if row["bits_per_byte"] is None else row["bits_per_byte"],
            f"{row['loss_nats']:+.4f}", f"{row['loss_nats_low']:+.4f} to {row['loss_nats_high']:+.4f}", f"{row['kl_nats']:.4f}",
        )
        for row in rows
    )  # fmt: skip
    columns = ("weights", "bits/w", "perplexity", "bits/byte", "loss", interval, "KL")
    return Table("quality; loss and KL in nats per token, against float", columns, cells)


def _gains(rows: Sequence[Mapping[str, Any]], interval: str) -> Table:
    """What methods save."""

    def cells(row: Mapping[str, Any], key: str) -> tuple[str, str]:
        return f"{row[key]:+.4f}", f"{row[f'{key}_low']:+.4f} to {row[f'{key}_high']:+.4f}"

    found = tuple((row["weights"], *cells(row, "gain_nats"), *cells(row, "gain_kl_nats")) for row in rows)
    title = "saved against round to nearest in the same format, nats per token; paired"
    return Table(title, ("weights", "loss", interval, "KL", interval), found)


def _how(reply: Mapping[str, Any]) -> tuple[str, ...]:
    """How it was measured."""
    window, stride, drawn = reply["window"], reply["stride"], reply["interval"]
    rule = "all tokens but the first of each window"
    if stride < window:
        rule = f"the last {stride} tokens of each window, and all but the first of the first window"
    host = ", ".join(f"{row['weights']} {number(row['host_tokens_per_s'])}" for row in reply["rows"])
    return (
        f"windows: {reply['windows']} of {window} tokens, one every {stride}; scored are {rule}; KV cache in {reply['kv']}",
        f"intervals: {drawn['method']} ({drawn['block_tokens']}), paired with float, {drawn['resamples']} resamples, seed {drawn['seed']}",
        f"tokens/s of this machine, by the bit-exact graph engine: {host}",
        *(f"{refused['weights']} not on {reply['chip']}: {refused['why']}" for refused in reply.get("left_out", ())),
    )
