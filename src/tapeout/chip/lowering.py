"""A `Datasheet` or a `ChipSpec` to a `Machine`: which figures an estimate stands on."""

from typing import Literal, get_args

from tapeout.base.errors import BadInput
from tapeout.chip.datasheet import Datasheet
from tapeout.chip.machine import Machine
from tapeout.chip.spec import ChipSpec, WeightStore
from tapeout.chip.tiles import tiles_of

Side = Literal["value", "low", "high"]
"""Of every figure with a range: what is most likely, the worst for the chip, the best."""
SIDES: tuple[Side, ...] = get_args(Side)
Store = Literal["sram", "external", "rom"]

SIXTEEN = ("bf16_tflops", "fp16_tflops")
EIGHT = ("bfp8_tflops", "fp8_tflops", "int8_tops")
FOUR = ("fp4_tflops", "int4_tops")
"""The first that is known counts: a block-floating chip's FP8 figure is of a lower fidelity than its models run at."""
WATTS = ("tdp_w", "board_tdp_w", "typical_w")
USD = ("board_price_usd", "price_usd")
MEMORY: dict[Store, tuple[str, float, str]] = {
    "sram": ("sram_mb", 1e-3, "sram_tb_per_s"),
    "external": ("offchip_gb", 1.0, "offchip_tb_per_s"),
}


def stores(sheet: Datasheet) -> tuple[Store, ...]:
    """Where the weights of a whole model may live on this kind of chip, the quickest first."""
    if sheet.value("weights_on_chip_m"):
        return ("rom",)
    return tuple(store for store, (size, _, rate) in MEMORY.items() if sheet.value(size) and sheet.value(rate))


def machine_of(sheet: Datasheet, store: Store, side: Side = "value") -> Machine:
    """One chip as flat rates; of a board with several, one of them. Raises `BadInput` that names what an estimate needs and the datasheet lacks."""
    sheet.require()
    if store == "rom":
        size, rate = (_figure(sheet, ("sram_mb",), side) or 0.0) * 1e-3, None
    else:
        name, scale, per_s = MEMORY[store]
        size, rate = _figure(sheet, (name,), side), _figure(sheet, (per_s,), side)
        size = size * scale if size else size
        if not size or not rate:
            raise BadInput(sheet.id, f"has no {store} memory with a published size and rate", f"set {name} and {per_s}")
    asics = sheet.value("asics_per_board") or 1.0
    idle = float("inf") if store == "rom" else 0.0
    return Machine(
        name=sheet.id,
        family=sheet.family,
        tflops_16=(_figure(sheet, SIXTEEN, side) or idle) / asics,
        tflops_8=(_figure(sheet, EIGHT, side) or idle) / asics,
        tflops_4=(_figure(sheet, FOUR, side) or idle) / asics,
        memory_gb=(size or float("inf")) / asics,
        memory_tb_per_s=(rate or float("inf")) / asics,
        link_gb_per_s=(_figure(sheet, ("c2c_gb_per_s_bidir",), side) or 0.0) / 2,
        watts=(_figure(sheet, WATTS, "high" if side == "low" else "low" if side == "high" else side) or 0.0) / asics,
        usd=(_figure(sheet, USD, side) or 0.0) / asics,
        rom_weights=(sheet.high("weights_on_chip_m") or float("inf")) * 1e6 if store == "rom" else float("inf"),
        hardwired=sheet.id if store == "rom" else "",
    )


def machine_of_spec(chip: ChipSpec) -> Machine:
    """A chip that can be built, whole: all its tiles work on every matrix. Weights in SRAM are read as fast as they are multiplied with."""
    tiles, hertz = chip.grid.tiles, chip.clock_mhz * 1e6
    sram_gb = tiles * chip.tile.sram.kib * 1024 / 1e9
    outside = chip.external if chip.weight_store is WeightStore.EXTERNAL else None
    return Machine(
        name=chip.name,
        family="template",
        tflops_16=0.0,
        tflops_8=2 * chip.macs_per_cycle * hertz / 1e12,
        tflops_4=0.0,
        memory_gb=outside.capacity_gib * 2**30 / 1e9 if outside else sram_gb,
        memory_tb_per_s=outside.gb_per_s / 1e3 if outside else 2 * chip.macs_per_cycle * hertz / 1e12,
        link_gb_per_s=chip.link.bytes_per_cycle * hertz / 1e9,
        rows=float(chip.tile.matrix.rows * tiles),
        tiles=tiles_of(chip),
    )


def _figure(sheet: Datasheet, names: tuple[str, ...], side: Side) -> float | None:
    for name in names:
        fact = sheet.fact(name)
        if fact and fact.value:
            return float(getattr(fact, side))
    return None
