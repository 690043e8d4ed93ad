"""The compiler as a column of passes."""

from tapeout.base.errors import BadInput
from tapeout.chip.spec import ChipSpec
from tapeout.compiler.decoder import Decoder, read_decoder
from tapeout.compiler.emit import emit
from tapeout.compiler.lower import Lowering
from tapeout.compiler.memory_map import make_map
from tapeout.compiler.plan import Schedule
from tapeout.compiler.schedule import schedule_loops
from tapeout.compiler.shards import shard
from tapeout.compiler.weights import plan_head, plan_layer
from tapeout.graph.check import check_quantized
from tapeout.graph.types import Model
from tapeout.isa.footprint import region_finder
from tapeout.isa.program import Program

DEFAULT_CONTEXT = 2048
"""Positions planned for where the user names no number and the model allows as many."""


def plan(model: Model, chip: ChipSpec, context: int | None = None, chunk: int | None = None) -> Schedule:
    """Decide everything. `context`: positions to plan for; `chunk`: tokens per prefill chunk (the largest that fits).

    Raises `BadInput` where the model is not understood or does not fit.
    """
    decoder = read_decoder(model.graph)
    context = _context(model, context)
    _formats(decoder, chip)
    shards = shard(decoder, chip.grid.tiles)
    runs = decoder.runs()
    blocks = tuple(plan_layer(decoder, shards, run, chip) for run in runs)
    head = plan_head(decoder, shards, chip)
    places = make_map(decoder, shards, runs, blocks, head, chip, context, chunk)
    region_of = region_finder(places.sram.values())

    def lowered(tokens: int) -> Lowering:
        return Lowering(decoder, shards, runs, blocks, head, places, chip, tokens)

    sizes = sorted({places.sizes.tokens, 1}, reverse=True)
    bodies = tuple((tokens, schedule_loops(lowered(tokens).body(), chip, region_of)) for tokens in sizes)
    logits = schedule_loops(lowered(1).logits(), chip, region_of)
    return Schedule(chip, decoder, shards, runs, blocks, head, places, bodies, logits)


def compile(model: Model, chip: ChipSpec, context: int | None = None, chunk: int | None = None) -> Program:  # noqa: A001
    """A quantized model as the chip's program. Raises `BadInput`; see `plan`."""
    check_quantized(model)
    schedule = plan(model, chip, context, chunk)
    return emit(schedule, model)


def _context(model: Model, context: int | None) -> int:
    if context is None:
        return min(model.graph.context, DEFAULT_CONTEXT)
    if not 1 <= context <= model.graph.context:
        raise BadInput("context", f"{context} positions", f"{model.graph.name} takes 1 to {model.graph.context}")
    return context


def _formats(decoder: Decoder, chip: ChipSpec) -> None:
    taken = chip.tile.matrix.formats
    lacking = [weight for weight in decoder.graph.weights if len(weight.shape) == 2 and weight.format not in taken]
    if lacking:
        wanted = ",".join(dict.fromkeys((*taken, *(weight.format for weight in lacking))))
        raise BadInput(
            f"weight {lacking[0].name}",
            f"{lacking[0].format} is no format of chip {chip.name}'s matrix unit",
            f"it takes {', '.join(taken)}; --set tile.matrix.formats=[{wanted}] makes one that does",
        )
