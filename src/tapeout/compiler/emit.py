"""From the schedule to the program: arrays, images, entries. Adds no decisions."""

import numpy as np
from numpy.typing import NDArray

from tapeout.chip.spec import WeightStore
from tapeout.compiler.memory_map import position_rows
from tapeout.compiler.plan import Schedule
from tapeout.compiler.schedule import Scheduled, ScheduledLoop
from tapeout.compiler.shards import Span, rows_of
from tapeout.compiler.weights import Store, embedding_rows, fill_pieces, matrix
from tapeout.graph.types import Model, Turn
from tapeout.isa.opcodes import RECORD, MicroOp, to_records
from tapeout.isa.program import DESCRIPTOR, Entry, Image, LogitSlice, Loop, Program, Segment
from tapeout.numerics.tables import rope_increments


def emit(schedule: Schedule, model: Model) -> Program:
    """The program of a schedule, with the weights of `model` packed into its images."""
    arrays = _Arrays()
    bodies = [(tokens, tuple(arrays.loop(loop) for loop in loops)) for tokens, loops in schedule.bodies]
    logits = tuple(arrays.loop(loop) for loop in schedule.logits)
    store = _fill(schedule, model)
    places, decoder = schedule.map, schedule.decoder
    return Program(
        chip=schedule.chip,
        model=model.graph.name,
        weights=model.stored,
        model_fingerprint=model.fingerprint(),
        vocabulary=decoder.vocabulary,
        context=places.sizes.context,
        block_keys=schedule.chip.tile.attention.block_keys,
        bases=places.bases,
        entries=tuple(_entries(bodies, logits)),
        ops=to_records(arrays.ops) if arrays.ops else np.zeros(0, RECORD),
        descriptors=np.array(arrays.descriptors, DESCRIPTOR),
        sram=tuple(places.sram.values()),
        external=tuple(places.external.values()),
        images=tuple(Image(tile, address, data) for tile, address, data in _images(schedule, store)),
        external_image=store.external,
        external_bytes=places.external_bytes,
        logits=tuple(_logits(schedule)),
        result_address=places.at("result"),
        notes=model.notes,
    )


def _entries(bodies: list[tuple[int, tuple[Loop, ...]]], logits: tuple[Loop, ...]) -> list[Entry]:
    entries = []
    for tokens, loops in bodies:
        name = "token" if tokens == 1 else "chunk"
        entries += [Entry(name, tokens, loops), Entry(f"{name}_head", tokens, loops + logits)]
    return [*entries, Entry("head", 1, logits)]


class _Arrays:
    """The program's micro-ops and descriptors as they grow."""

    def __init__(self) -> None:
        self.ops: list[MicroOp] = []
        self.descriptors: list[tuple[int, ...]] = []

    def loop(self, loop: ScheduledLoop) -> Loop:
        """Append the loop's segments."""
        return Loop(loop.name, loop.count, tuple(self._segment(stage) for stage in loop.stages))

    def _segment(self, stage: Scheduled) -> Segment:
        first, first_descriptor = len(self.ops), len(self.descriptors)
        self.ops += stage.ops
        for feed, op in stage.feeds:
            self.descriptors.append(
                (feed.kind, feed.base, feed.token, feed.mask, feed.size, feed.row_bytes, feed.address, first + op, 0)
            )
        return Segment(
            stage.name, stage.cycles, first, len(stage.ops), first_descriptor, len(stage.feeds), stage.repeat
        )


def _logits(schedule: Schedule) -> list[LogitSlice]:
    vocabulary = schedule.decoder.vocabulary
    slices = []
    for tile, span in enumerate(schedule.shards.vocabulary):
        rows = min(32 * span.end, vocabulary) - 32 * span.first
        if rows > 0:
            slices.append(LogitSlice(tile, schedule.map.at("logits"), rows, 32 * span.first))
    return slices


# --- the images -------------------------------------------------------------------------------------


def _fill(schedule: Schedule, model: Model) -> Store:
    """Pack every weight into the memory where it lives."""
    places, tiles = schedule.map, schedule.shards.tiles
    streamed = schedule.chip.weight_store is WeightStore.EXTERNAL
    top = max((region.end for region in places.sram.values()), default=0)
    store = Store([np.zeros(top, np.uint8) for _ in range(tiles)], np.zeros(places.image_bytes, np.uint8), streamed)
    where = places.external if streamed else places.sram
    unit = schedule.chip.tile.matrix
    weights = dict(model.weights)
    _fill_embedding(schedule, store, weights)
    _fill_positions(schedule, store, weights)
    _fill_vectors(store, where["first_norm"].start, schedule.decoder.layers[0].attn_norm, weights, tiles)
    for run, block, region in zip(schedule.runs, schedule.blocks, _regions(schedule), strict=True):
        for layer in range(run.first, run.first + run.count):
            base = where[region].start + (layer - run.first) * block.size
            for (role, tile), pieces in block.pieces.items():
                weight = matrix(weights, schedule.decoder.layers[layer].matrices[role])
                fill_pieces(store, weight, rows_of(schedule.decoder, schedule.shards, role, tile), pieces, base, unit)
            for name, norm in _layer_norms(schedule, layer).items():
                _fill_vectors(store, base + block.norms[name], norm, weights, tiles)
            for (role, tile), (address, span) in block.biases.items():
                bias = weights[schedule.decoder.layers[layer].biases[role]]
                store.put(tile, base + address, _share(bias, span))
    for (role, tile), pieces in schedule.head.pieces.items():
        span = rows_of(schedule.decoder, schedule.shards, role, tile)
        fill_pieces(store, matrix(weights, schedule.decoder.head), span, pieces, where["head"].start, unit)
    increments = np.concatenate([_increments(turn, schedule.decoder.head_dim) for turn in schedule.decoder.turns])
    for memory in store.sram:
        memory[places.at("increments") : places.at("increments") + increments.size] = increments
    return store


def _regions(schedule: Schedule) -> list[str]:
    return [f"weights{r}" for r in range(len(schedule.runs))]


def _increments(turn: Turn | None, head_dim: int) -> NDArray[np.uint8]:
    """The turns per position; zeros where nothing is rotated."""
    if turn is None:
        return np.zeros(2 * head_dim, np.uint8)
    return rope_increments(*turn).astype("<u4").view(np.uint8)


def _layer_norms(schedule: Schedule, layer: int) -> dict[str, tuple[str, ...]]:
    """The names of what stands in a layer's vectors; `next_norm` is the one behind it."""
    layers = schedule.decoder.layers
    behind = layers[layer + 1].attn_norm if layer + 1 < len(layers) else schedule.decoder.norm
    own = {name: (weight,) for name, weight in layers[layer].norms.items()}
    return {"ffn_norm": layers[layer].ffn_norm, "next_norm": behind, **own}


def _share(bias: object, span: Span) -> NDArray[np.uint8]:
    """A tile's rows of a bias; zeros beyond its end."""
    assert isinstance(bias, np.ndarray), "biases are float vectors"
    part = bias[span.first : span.end].astype("<f4")
    return np.pad(part, (0, span.count - part.size)).view(np.uint8)


def _fill_vectors(store: Store, address: int, names: tuple[str, ...], weights: dict, tiles: int) -> None:
    """Float vectors one behind the other, in every tile."""
    data = np.concatenate([weights[name].astype("<f4") for name in names]).view(np.uint8)
    for tile in range(1 if store.streamed else tiles):
        store.put(tile, address, data)


def _fill_embedding(schedule: Schedule, store: Store, weights: dict) -> None:
    table = matrix(weights, schedule.decoder.embed)
    if store.streamed:
        groups = sum(span.count for span in schedule.shards.width)
        store.put(0, schedule.map.external["embedding"].start, embedding_rows(table, Span(0, groups)))
        return
    for tile, span in enumerate(schedule.shards.width):
        if span.count:
            store.put(tile, schedule.map.at("embedding"), embedding_rows(table, span))


def _fill_positions(schedule: Schedule, store: Store, weights: dict) -> None:
    """The table of learned positions: rows of the context, and zeros behind them for the tokens that fill up a chunk."""
    if not schedule.decoder.positions:
        return
    table, size = matrix(weights, schedule.decoder.positions), schedule.map.sizes
    whole = Span(0, sum(span.count for span in schedule.shards.width))
    where = schedule.map.external if store.streamed else schedule.map.sram
    for tile, span in enumerate((whole,) if store.streamed else schedule.shards.width):
        if span.count:
            rows = embedding_rows(table, span)[: size.context]
            padded = np.zeros((position_rows(size), size.position_row), np.uint8)
            padded[: len(rows), : rows.shape[1]] = rows
            store.put(tile, where["positions"].start, padded)


def _images(schedule: Schedule, store: Store) -> list[tuple[int, int, NDArray[np.uint8]]]:
    """Runs of constant regions of every tile."""
    constant = [region for region in schedule.map.sram.values() if region.constant and region.size]
    return [
        (tile, region.start, memory[region.start : region.end])
        for tile, memory in enumerate(store.sram)
        for region in constant
    ]
