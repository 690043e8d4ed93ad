"""TTFT and TPOT of a chip of the template: chunks of a prompt, then tokens, one request at a time; others wait."""

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.chip.machine import Value
from tapeout.chip.tiles import Tiles
from tapeout.estimate.formats import FORMATS, Format, number_format
from tapeout.estimate.recipes import recipe
from tapeout.estimate.serving import Serving
from tapeout.estimate.tiled import Chain
from tapeout.estimate.tiled_parts import Cycles, Share, share, up
from tapeout.estimate.tiled_room import room
from tapeout.estimate.workload import Workload
from tapeout.graph.shapes import ModelShape

STORED = "int8"
"""What a float checkpoint becomes on such a chip where nobody names a format."""
TABLES = "int8"
"""Embedding and head, whatever the layers' format: docs/numerics.md."""
TEMPLATE = tuple(name for name, row in FORMATS.items() if row.note.startswith("ours") or row.float4)
"""Formats that a matrix unit of the template can be made for; the chip's own list says which it has. FP4 has a lane of 5 bits here."""
HOST_CROSSINGS = 2
"""Of the time to first token: the prompt in, the token out."""


def tiled_format(weights: str) -> Format:
    """The row of a format that the template's matrix unit takes. Raises `BadInput`."""
    form = number_format(STORED if weights == "stored" else weights)
    if form.name not in TEMPLATE:
        raise BadInput("--weights", f"{weights!r} is no format of a chip of ours", ", ".join(TEMPLATE))
    return form


def dealt(shape: ModelShape, tiles: Tiles, weights: str) -> Share:
    """A model in a format on the busiest tile. Raises `BadInput`."""
    return share(shape, tiles, tiled_format(weights).weight_bytes, number_format(TABLES).weight_bytes)


def serve_tiled(shape: ModelShape, tiles: Tiles, work: Workload) -> Serving:
    """One request at a time: the program has one KV cache. Raises `BadInput` on what such a chip does not do."""
    if np.any(np.asarray(work.density) != 1.0):
        raise BadInput(
            "--density", f"{work.density:g} on a chip of ours", "its matrix units skip nothing: leave it at 1"
        )
    part = dealt(shape, tiles, work.weights)
    prompt, output = np.asarray(work.prompt_tokens, float), np.asarray(work.output_tokens, float)
    found = room(part, tiles, prompt + output)
    runs = np.maximum(found.tokens, 1.0)
    single, several = Chain(part, tiles, 1.0, found.outside), Chain(part, tiles, runs, found.outside)
    layer = single.layer()
    token = layer.run(mean_further(work, tiles.block_keys))
    decode = token.cycles + single.logits(token.ahead)
    chunks = up(prompt, runs)
    lone = np.where((runs > 1) & (prompt - (chunks - 1) * runs == 1), 1.0, 0.0)
    chunk = several.layer().run(_mean_further_of_chunks(chunks, runs, tiles.block_keys))
    last = layer.run(np.maximum(up(prompt - 1.0, tiles.block_keys) - 1.0, 0.0))
    head = single.logits(np.where(lone > 0, last.ahead, chunk.ahead))
    prefill = chunk.cycles * (chunks - lone) + last.cycles * lone + head
    everywhere = np.zeros(np.shape(work.concurrency))
    tpot, ttft = decode.total / tiles.hertz + everywhere, prefill.total / tiles.hertz + HOST_CROSSINGS * tiles.host_s
    fits = np.where(found.tokens > 0, 1.0, 0.0)
    waiting = np.maximum(work.concurrency - 1.0, 0.0) * output * tpot
    ttft = ttft + waiting + recipe(work.recipe).steps * tpot
    host = HOST_CROSSINGS * np.asarray(tiles.host_s)
    return Serving(
        ttft, tpot, _seconds(prefill, tiles.hertz, host), _seconds(decode, tiles.hertz, 0.0), np.zeros_like(tpot), np.ones_like(tpot), fits
    )  # fmt: skip


def mean_further(work: Workload, block: Value) -> Value:
    """Context blocks behind the first that a decoded token meets, in the mean. The first token comes with the prompt."""
    prompt, steps = np.asarray(work.prompt_tokens, float), np.maximum(np.asarray(work.output_tokens, float) - 1.0, 1.0)
    return (_further(prompt + steps, block) - _further(prompt, block)) / steps


def _further(position: Value, block: Value) -> Value:
    """Blocks behind the first, summed over all positions below this one: of floor((p-1)/block)."""
    count = np.maximum(position - 1.0, 0.0)
    whole = np.floor(count / block)
    return block * whole * (whole - 1.0) / 2 + whole * (count - whole * block)


def _mean_further_of_chunks(chunks: Value, tokens: Value, block: Value) -> Value:
    """Blocks behind the first that a chunk meets, in the mean: chunk i begins at position i*tokens."""
    wide = tokens >= block
    small = _further(chunks, np.where(wide, 1.0, block / tokens))
    large = tokens / block * chunks * (chunks - 1.0) / 2 - (chunks - 1.0)
    return np.where(wide, large, small) / chunks


def _seconds(cycles: Cycles, hertz: Value, host: Value) -> dict[str, Value]:
    """By the estimator's causes."""
    return {
        "compute": cycles.compute / hertz, "weights": cycles.weights / hertz, "kv_cache": cycles.kv_cache / hertz,
        "attention_compute": cycles.attention / hertz, "elementwise": cycles.elementwise / hertz, "collectives": cycles.links / hertz,
        "layers": cycles.pipes / hertz, "host": host,
    }  # fmt: skip
