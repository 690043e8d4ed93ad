"""What a decoded token costs a chip of the template in countable things, in closed form; `silicon` turns them into joules.

The same counts as isa/counts.py makes from a program, added up from widths. Left out: micro-ops fetched, and vectors read and written inside of
SRAM beyond those of the norms, the cache and the scores.
"""

import numpy as np

from tapeout.chip.machine import Value
from tapeout.chip.tiles import Tiles
from tapeout.estimate.tiled import Chain
from tapeout.estimate.tiled_parts import GROUP, PACKET, align, up
from tapeout.estimate.tiled_room import room
from tapeout.estimate.tiled_serving import dealt, mean_further, tiled_format
from tapeout.estimate.workload import Workload
from tapeout.graph.shapes import ModelShape

MACS = {
    "int4": "macs_int4", "int4m": "macs_int4", "int4g64": "macs_int4", "int4mg64": "macs_int4", "int3": "macs_int4", "q4_k": "macs_int4",
    "ternary": "macs_ternary", "binary": "macs_ternary",
}  # fmt: skip
"""As isa/counts.py has them; all others are counted as int8."""
TERMS = {"int4m": 2, "int4mg64": 2, "q4_k": 2, "q5_k": 2, "nvfp4": 2, "q6_k": 2}
"""Terms per 32 columns of a row: 2 with minima, or with a scale per 16; 1 of all others."""
NORM, ROPE, QUANT, SWIGLU, LOOK_UP, SOFTMAX = 8, 8, 3, 8, 2, 4
"""Binary32 operations per element, as isa/counts.py has them (the last: per score, in each of two passes)."""


def decode_counts(shape: ModelShape, tiles: Tiles, work: Workload) -> dict[str, Value]:
    """Counts of one decoded token at the mean context, by the names that `silicon.energy` prices. Raises `BadInput` on a format."""
    part, form = dealt(shape, tiles, work.weights), tiled_format(work.weights)
    found = room(part, tiles, np.asarray(work.prompt_tokens) + work.output_tokens)
    chain = Chain(part, tiles, 1.0, found.outside)
    keys = tiles.block_keys * (1 + mean_further(work, tiles.block_keys)) + 1
    width, heads = align(shape.width, GROUP), shape.heads * shape.head_width
    kv, layers, norms = shape.kv_heads * shape.head_width, shape.layers, 2 * shape.layers + 1
    layer_macs = layers * (width * (heads + 2 * kv) + heads * width + 3 * width * align(shape.hidden, GROUP))
    head_macs = width * align(shape.vocabulary, GROUP)
    weight_bytes = layer_macs * part.layer_bytes + head_macs * part.head_bytes
    row = width * part.head_bytes
    cached = layers * shape.kv_heads * keys * (2 * shape.head_width + 6)
    shared = 4 * shape.width * norms + row
    streamed, kept = float(tiles.streamed), np.where(found.outside, cached, 0.0)
    moved = streamed * (weight_bytes + tiles.count * shared) + kept
    sent = 2 * 4 * width + (up(heads, GROUP) + up(shape.hidden, GROUP)) * PACKET
    score_bytes = 4 * layers * shape.heads * keys
    vectors = norms * tiles.count * 4 * shape.width
    counts: dict[str, Value] = {
        "group_terms": (layer_macs * TERMS.get(form.name, 1) + head_macs) / GROUP,
        "operand_bytes": (layer_macs + head_macs) / GROUP * PACKET / tiles.rows,
        "attention_macs": 2 * layers * heads * keys,
        "vector_flops": tiles.count * NORM * norms * shape.width + LOOK_UP * width + shape.vocabulary
        + layers * (ROPE * (heads + kv) + QUANT * (heads + kv) + SWIGLU * shape.hidden + 2 * SOFTMAX * shape.heads * keys),
        "divides": 2 * norms * tiles.count + layers * heads,
        "link_byte_hops": layers * sent * (tiles.count - 1),
        "sram_read_bytes": weight_bytes + shared * tiles.count + cached + 2 * vectors + score_bytes,
        "sram_write_bytes": moved + vectors + layers * sent * tiles.count + score_bytes,
        "stream_bytes": moved,
        "external_read_bytes": streamed * (weight_bytes + shared) + kept,
        "external_write_bytes": np.where(found.outside, layers * chain.records(1.0), 0.0),
        "host_bytes": 8.0,
    }  # fmt: skip
    name = MACS.get(form.name, "macs_int8")
    counts[name] = counts.get(name, 0.0) + layer_macs
    counts["macs_int8"] = counts.get("macs_int8", 0.0) + head_macs
    return counts
