"""Which models fit a chip: on how many chips, in which format, and what a chip of ours could not run, with the reason.

About memory only: weights and the KV cache of one sequence. How fast, and how many sequences, `estimate` says.
"""

from dataclasses import asdict, dataclass
from math import ceil

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import one_chip
from tapeout.chip.datasheet import Datasheet
from tapeout.chip.lowering import MEMORY, stores
from tapeout.chip.presets import load
from tapeout.chip.spec import ChipSpec, WeightStore
from tapeout.estimate.formats import number_format
from tapeout.flow.models import CONTEXT, find_shape, stored_bytes
from tapeout.flow.summary import Summary
from tapeout.graph.shapes import ModelShape, load_shape, shape_names
from tapeout.importers.catalogue import catalogue
from tapeout.report.figure import Report, Table

PUBLISHED_FORMATS = ("bf16", "fp8", "nvfp4")
"""Asked of a chip that was published: 16, 8 and 4 bits, whatever its multipliers take."""


@dataclass(frozen=True, slots=True)
class Fit:
    """chips: how many hold the model; None where none can, and `why` says so."""

    weights: str
    gigabytes: float
    chips: int | None
    why: str = ""


def fits(shape: ModelShape, chip: ChipSpec | Datasheet, weights: str) -> Fit:
    """How many chips hold the weights in a format and the KV cache of one sequence. Raises `BadInput` where no memory was published."""
    context = min(CONTEXT, shape.context)
    size = stored_bytes(shape, weights) + shape.kv_values(context) * number_format(weights).kv_bytes
    if isinstance(chip, ChipSpec):
        return _on_ours(shape, chip, weights, size)
    single = one_chip(chip)
    if single.weight_storage and "rom" in stores(single):
        return _in_silicon(shape, single, weights, size)
    chips = ceil(_chips_taken(shape, single, size))
    if chip.is_system and chip.chips and chips > chip.chips:
        return Fit(weights, size / 1e9, None, f"needs {chips:,} chips; the system has {chip.chips:,}")
    if chips > 1 and not (single.value("c2c_gb_per_s_bidir") or single.host_interface):
        return Fit(weights, size / 1e9, None, f"needs {chips:,} chips, and no way to join them was published")
    return Fit(weights, size / 1e9, chips)


def capacity_gb(chip: ChipSpec | Datasheet) -> float:
    """Of one chip: external memory where it has any, else SRAM."""
    if isinstance(chip, ChipSpec):
        outside = chip.external if chip.weight_store is WeightStore.EXTERNAL else None
        return (outside.capacity_gib * 2**30 if outside else chip.grid.tiles * chip.tile.sram.kib * 1024) / 1e9
    single = one_chip(chip)
    name, scale, _ = MEMORY["external" if "external" in stores(single) else "sram"]
    return scale * (single.value(name) or 0.0)


def _chips_taken(shape: ModelShape, sheet: Datasheet, size: float) -> float:
    """By external memory where a chip has any, else by its SRAM, else by its cells for weights."""
    places = stores(sheet)
    if not places:
        size_name, _, rate_name = MEMORY["external"]
        hint = f"set {size_name} and {rate_name} of a chip of your own (tapeout chips {sheet.id} --yaml)"
        raise BadInput(f"{sheet.id}.memory", "was never published", hint)
    if places == ("rom",):
        return shape.parameters / 1e6 / (sheet.value("weights_on_chip_m") or 1)
    name, scale, _ = MEMORY["external" if "external" in places else "sram"]
    return size / 1e9 / (scale * (sheet.value(name) or 0))


def _in_silicon(shape: ModelShape, sheet: Datasheet, weights: str, size: float) -> Fit:
    """A chip whose weights are in its masks runs the one model that it was made for."""
    if sheet.id in shape.hardwired:
        return Fit(weights, size / 1e9, int(sheet.value("chips") or 1), "in the silicon, in the chip's own format")
    made_for = [name for name in shape_names() if sheet.id in load_shape(name).hardwired]
    return Fit(weights, size / 1e9, None, f"hardwired for {', '.join(made_for) or 'another model'}")


def _on_ours(shape: ModelShape, chip: ChipSpec, weights: str, size: float) -> Fit:
    """A chip of ours is compiled for one at a time."""
    if lacks := unsupported(shape):
        return Fit(weights, size / 1e9, None, f"no op for {', '.join(lacks)}")
    outside = chip.external if chip.weight_store is WeightStore.EXTERNAL else None
    room = outside.capacity_gib * 2**30 if outside else chip.grid.tiles * chip.tile.sram.kib * 1024
    if size > room:
        return Fit(weights, size / 1e9, None, f"needs {size / 1e6:,.1f} MB of {room / 1e6:,.1f}")
    return Fit(weights, size / 1e9, 1)


def unsupported(shape: ModelShape) -> tuple[str, ...]:
    """What of a shape our graph has no op for."""
    features = {
        "experts": bool(shape.experts),
        "latent attention": shape.mla is not None,
        "biases": shape.qkv_bias or shape.out_bias,
        "normed queries and keys": shape.qk_norm,
        "attention sinks": shape.sinks,
        "layer norm": shape.layer_norm,
        "parallel blocks": shape.parallel_block,
        "ungated feed-forward": not shape.gated,
        shape.activation.upper(): shape.activation != "silu",
        "sliding windows": bool(shape.window),
    }
    return tuple(name for name, used in features.items() if used)


def fits_report(chip_name: str, model: str = "") -> Summary:
    """Every model, or one, on a chip. Raises `BadInput`."""
    chip = load(chip_name)
    formats = chip.tile.matrix.formats if isinstance(chip, ChipSpec) else PUBLISHED_FORMATS
    found = {shape.name: [fits(shape, chip, weights) for weights in formats] for shape in _shapes(model)}
    rows = [{"model": name, **asdict(fit)} for name, tried in found.items() for fit in tried]
    held, refused = [], []
    for name, tried in found.items():
        if any(fit.chips for fit in tried):
            held.append((name, *(fit.chips or "-" for fit in tried)))
        else:
            refused.append((name, tried[-1].why))
    tables = (
        Table("chips that hold a model, by format of its weights", ("model", *formats), tuple(held)),
        Table("what does not run", ("model", "why"), tuple(refused)),
    )
    notes = (f"memory only: weights, and the KV cache of one sequence of at most {CONTEXT:,} tokens",)
    title = chip.name if isinstance(chip, ChipSpec) else chip.id
    answer = {"chip": title, "rows": rows, "notes": list(notes)}
    return Summary(answer, Report(title, (), tables, notes, chip.fingerprint()))


def _shapes(model: str) -> tuple[ModelShape, ...]:
    """The one asked for, or every checkpoint and shape there is."""
    if model:
        return (find_shape(model),)
    embedded = [find_shape(name) for name, entry in catalogue().items() if entry.embedded]
    return (*embedded, *map(load_shape, shape_names()))
